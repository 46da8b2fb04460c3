"""One option of `configure`, as an inventory sets it for some of its hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.config.readers import read_option

if TYPE_CHECKING:
    from agent.config.desired import RawOptions
    from agent.config.input_errors import InputErrors
    from agent.config.options import Option

MOST_VALUES = 100


def parse_option(option: Option, value: Any, where: str, input_errors: InputErrors) -> RawOptions:
    """Return the option and its value; nothing when there was an input error."""
    if isinstance(value, (list, dict)) and len(value) > MOST_VALUES:
        input_errors.add(where, f"too many values: at most {MOST_VALUES}")
        return {}
    return read_option(option, value, where, input_errors)
