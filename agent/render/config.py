"""The options that count on this host -> the screen and the JSON of `config show`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.core.plain import printable
from agent.render.text import wrapped

if TYPE_CHECKING:
    from agent.config.origins import EffectiveOption, EffectiveOptions

_ORIGINS = {"last-configure": "last configure"}
# what holds for an option that nobody gave, where that is no value of the option
_UNSET = {
    "ca_cert": "the CA that is on this host",
    "client_version": "what is installed, else the catalogue's newest",
    "package_source": "the vendor's own",
    "region": "asked of the instance metadata service",
    "platform": "found on this host",
    "report_ca": "the CAs of this host",
    "timeout": "each wait has its own limit, the run has none",
    **dict.fromkeys(("log_level", "log_file", "log_type", "log_rotation"), "the package's own"),
}


def document(found: EffectiveOptions) -> dict[str, Any]:
    """Return the JSON document: every option with its value, its origin, and where that is."""
    return {
        "schema_version": 1,
        "options": [asdict(each) for each in found.options],
        "warnings": [asdict(each) for each in found.notices],
    }


def screen(found: EffectiveOptions, width: int | None = None) -> str:
    """Return one line for each option: those that were given, then the defaults."""
    given = [each for each in found.options if each.origin != "default"]
    others = [each for each in found.options if each.origin == "default"]
    column = max(len(each.name) for each in found.options) + 2
    lines = []
    for each in given:
        lines += wrapped(_switch(each).ljust(column), f"{_text(each)}  ({_origin(each)})", width)
    if not given:
        lines.append("no option was given")
    lines += ["", "defaults"]
    for each in others:
        lines += wrapped(_switch(each).ljust(column), _text(each), width)
    for notice in found.notices:
        lines += ["", *wrapped("", f"warning: {notice.text} ({notice.code})", width, indent=9)]
    return "\n".join(lines) + "\n"


def _switch(option: EffectiveOption) -> str:
    return option.name.replace("_", "-")


def _text(option: EffectiveOption) -> str:
    value = option.value
    if value is None:
        return _UNSET.get(option.name, "none")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(" ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"


def _origin(option: EffectiveOption) -> str:
    return f"{_ORIGINS.get(option.origin, option.origin)} {option.where}".strip()
