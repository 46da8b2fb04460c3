"""The command tree, and the one place that turns how a command ended into an exit status."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from agent import __version__
from agent.core.errors import CODES, AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

app = typer.Typer(
    name="hsm-agent",
    help="Bring this host to a proven working state with an AWS CloudHSM cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hsm-agent {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        Optional[bool],
        typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and exit"),
    ] = None,
) -> None:
    pass


def start(argv: Sequence[str]) -> int:
    """Run one command and return its exit status; whatever escapes a command becomes one line here."""
    if list(argv) != ["--version"]:  # which answers before anything else is loaded
        from agent.cli import demo, host  # noqa: F401, PLC0415 -- they register their commands
    try:
        app(args=list(argv), prog_name="hsm-agent")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except AgentError as error:
        _tell(error)
        return error.code.exit_status
    except BrokenPipeError:
        # whoever read our standard output is gone; flushing it at exit would fail again
        sys.stdout = None
        return 0
    except Exception as crash:
        logging.getLogger("agent").exception("hsm-agent %s", " ".join(argv[:1]))
        _tell(AgentError("internal", "the agent failed", saw=f"{type(crash).__name__}: {crash}"))
        return CODES["internal"].exit_status
    return 0


def _tell(error: AgentError) -> None:
    lines = [f"error: {error.sentence} (exit {error.code.exit_status}, {error.code.name})"]
    for label, text in (("saw:  ", error.saw), ("want: ", error.want), ("hint: ", error.hint)):
        if text:
            lines.append(label + text.replace("\n", "\n" + " " * len(label)))
    typer.echo("\n".join(lines), err=True)
