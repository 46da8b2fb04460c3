"""The command tree, and the one place that turns how a command ended into an exit status."""

from __future__ import annotations

import logging
import sys
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any, Callable, Optional, get_args, get_type_hints

import typer

from agent import __version__
from agent.core.errors import CODES, AgentError
from agent.render.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hsm-agent {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        Optional[bool],
        typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and exit"),
    ] = None,
) -> None:
    pass


def start(argv: Sequence[str]) -> int:
    """Run one command and return its exit status; whatever escapes a command becomes one line here."""
    try:
        ended = command_tree(argv)(
            args=[*argv, "--help"] if list(argv) in ([], ["fleet"]) else list(argv),
            prog_name="hsm-agent",
            standalone_mode=False,
        )
    except AgentError as error:
        _tell(error)
        return error.code.exit_status
    except BrokenPipeError:
        # whoever read our standard output is gone; flushing it at exit would fail again
        sys.stdout = None
        return 0
    except Exception as crash:
        if hasattr(
            crash, "format_message"
        ):  # click's, or typer's own copy of it: they have no class in common
            _tell(_usage(crash))
            return CODES["usage"].exit_status
        logging.getLogger("agent").exception("hsm-agent %s", " ".join(argv[:1]))
        _tell(AgentError("internal", "the agent failed", saw=f"{type(crash).__name__}: {crash}"))
        return CODES["internal"].exit_status
    return ended if isinstance(ended, int) else 0


def _usage(error: Any) -> AgentError:
    """Return a complaint of the command line's parser as one of ours."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "hsm-agent"
    said = str(error.format_message()).rstrip(".")
    return AgentError("usage", said, hint=f"`{path} --help` lists what it takes")


def command_tree(argv: Sequence[str]) -> typer.Typer:
    """Make the command tree, of it only the branch that is asked for: a start pays for what it loads."""
    tree = typer.Typer(
        name="hsm-agent",
        help="Bring this host to a proven working state with an AWS CloudHSM cluster.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # boxes cut the options' names on a narrow terminal, and cannot be copied from
        context_settings=_SETTINGS,
    )
    tree.callback()(_with_hints(_root))
    if list(argv) == ["--version"]:
        return tree
    from agent.cli import host  # noqa: PLC0415

    wanted = argv[0] if argv else ""
    commands = {wanted: host.COMMANDS[wanted]} if wanted in host.COMMANDS else {}
    if not commands:
        from agent.cli import fleet  # noqa: PLC0415

        tree.add_typer(_fleet(fleet.COMMANDS), name="fleet")
    if not commands and wanted != "fleet":
        from agent.cli.demo import demo  # noqa: PLC0415 -- 45 ms
        from agent.cli.user_data import user_data  # noqa: PLC0415

        commands = {**host.COMMANDS, "user-data": user_data, "demo": demo}
    for name, command in commands.items():
        tree.command(name)(_with_hints(command))
    return tree


def _fleet(commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    branch = typer.Typer(
        help="The same on many hosts, over SSH.", no_args_is_help=True, rich_markup_mode=None
    )
    for name, command in commands.items():
        branch.command(name)(_with_hints(command))
    return branch


def _with_hints(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function its annotations as values: on Python 3.9 typer reads their texts, and loses what they hold."""
    if hasattr(function, "__signature__"):  # made by `with_options`, of values
        return function
    hints = get_type_hints(function, include_extras=True)
    own = signature(function)
    parameters = [each.replace(annotation=_bare(hints[each.name])) for each in own.parameters.values()]
    function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def _bare(hint: Any) -> Any:
    """Return what is annotated: up to Python 3.10 a default of None wraps it in one more Optional."""
    return next((each for each in get_args(hint) if hasattr(each, "__metadata__")), hint)


def _tell(error: AgentError) -> None:
    """Show an error on standard error. Files and paths are quoted in it: nothing of them may move the cursor."""
    lines = [printable(f"error: {error.sentence} (exit {error.code.exit_status}, {error.code.name})")]
    for label, text in (("saw:  ", error.saw), ("want: ", error.want), ("hint: ", error.hint)):
        for number, line in enumerate(text.split("\n") if text else ()):
            lines.append((" " * len(label) if number else label) + printable(line))
    typer.echo("\n".join(lines), err=True)
