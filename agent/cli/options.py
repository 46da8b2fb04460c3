"""The shared options of `configure`, `plan` and `verify`, made for typer from the one table in `desired`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Callable, List, Optional

import typer

from agent.core.errors import AgentError
from agent.options import OPTIONS

if TYPE_CHECKING:
    from agent.options import Option

Output = Annotated[
    str, typer.Option("--output", "-o", metavar="text|json", help="what standard output carries")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress on standard error")]
Config = Annotated[
    Optional[str],
    typer.Option("--config", metavar="FILE|-", help="read this instead of /etc/hsm-agent: TOML, or JSON"),
]


def is_json(output: str) -> bool:
    """Tell what --output says. Raises AgentError `usage`."""
    if output not in ("text", "json"):
        raise AgentError("usage", "--output takes text or json", saw=output, want="text or json")
    return output == "json"


def with_desired(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command every shared option; the function takes them as one mapping named `given`.

    typer reads a function's signature, so the signature is what is made here: written out, the same eighteen
    parameters would stand in each command.
    """

    def command(**arguments: Any) -> None:
        given = {option.name: arguments.pop(option.name) for option in OPTIONS}
        function(given=given, **arguments)

    own = [each for each in inspect.signature(function).parameters.values() if each.name != "given"]
    shared = [_parameter(option) for option in OPTIONS]
    hints = {each.name: _evaluated(each.annotation) for each in own}
    parameters = [*shared, *(each.replace(annotation=hints[each.name]) for each in own)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = bool if option.flag else Optional[List[str]] if option.many else Optional[str]
    shown = typer.Option(option.switch, help=option.help, metavar=None if option.flag else option.metavar)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if option.flag else None,
        annotation=Annotated[kind, shown],
    )


def _evaluated(annotation: Any) -> Any:
    # annotations are texts here (PEP 563); the names they may use are the ones above
    return globals()[annotation] if isinstance(annotation, str) else annotation
