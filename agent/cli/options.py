"""Options that several commands share, made for typer from the tables that say what they are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Callable, List, Optional

import typer

from agent.config.options import Option
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

Output = Annotated[
    str, typer.Option("--output", "-o", metavar="text|json", help="what standard output carries")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress on standard error")]
CONFIG = Option("config", None, "read this instead of /etc/hsm-agent: TOML, or JSON", str, metavar="FILE|-")
# not an option of a host: it belongs to the user who types the command, and is never recorded
PROFILE = Option(
    "profile", None, "the AWS profile that asks AWS from this machine, and its region", str, metavar="NAME"
)
Config = Annotated[Optional[str], typer.Option(CONFIG.switch, metavar=CONFIG.metavar, help=CONFIG.help)]


def is_json(output: str) -> bool:
    """Return whether --output is json. Raises AgentError `usage`."""
    if output not in ("text", "json"):
        raise AgentError("usage", "--output takes text or json", saw=output, want="text or json")
    return output == "json"


def with_options(function: Callable[..., None], **tables: Sequence[Option]) -> Callable[..., None]:
    """Give a command every option of some tables; the function gets those of each as one mapping of that name.

    typer reads a function's signature, so this makes one: written out, each command would repeat the same twenty
    parameters.
    """

    def command(**arguments: Any) -> None:
        taken = {
            name: {option.name: arguments.pop(option.name) for option in table}
            for name, table in tables.items()
        }
        function(**taken, **arguments)

    own = [each for each in inspect.signature(function).parameters.values() if each.name not in tables]
    shared = [_parameter(option) for table in tables.values() for option in table]
    # annotations are texts here (PEP 563), each the name of a value in the function's own module
    names = function.__globals__
    parameters = [*shared, *(each.replace(annotation=names[each.annotation]) for each in own)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = bool if option.flag else Optional[List[str]] if option.many else Optional[str]
    names = (option.switch, option.short) if option.short else (option.switch,)
    shown = typer.Option(*names, help=option.help, metavar=None if option.flag else option.metavar)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if option.flag else None,
        annotation=Annotated[kind, shown],
    )
