"""The command tree, and the one place that turns the end of a command into an exit status."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any, Callable, Optional, get_args, get_type_hints

import typer

from agent import __version__
from agent.core.errors import AgentError, unexpected
from agent.render.output import CommandOutput, UnreadError, UnwrittenError, print_error, print_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _show_version(wanted: bool) -> None:
    if wanted:
        print_text(f"hsm-agent {__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        Optional[bool],
        typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and exit"),
    ] = None,
) -> None:
    pass


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit status; an exception that escapes it becomes one line here."""
    # without a handler, Python writes log records to standard error
    logging.getLogger("agent").addHandler(logging.NullHandler())
    result = CommandOutput(sys.stdout) if sys.stdout is not None else None
    try:
        with contextlib.redirect_stdout(result):
            words = _as_meant(argv)
            ended = command_tree(words)(
                args=words,
                prog_name="hsm-agent",
                standalone_mode=False,
            )
    except AgentError as error:
        return _end(error, argv, result)
    except KeyboardInterrupt:
        early = AgentError("interrupted", "interrupted before there was a run", saw="Ctrl-C")
        return _end(early, argv, result)
    except (UnreadError, BrokenPipeError):  # the reader of standard output is gone, and needs no message
        return 0
    except Exception as crash:  # noqa: BLE001 -- a defect is logged; a complaint of the parser is printed
        # click's, or typer's own copy of it: they have no class in common
        known = _usage(crash) if hasattr(crash, "format_message") else _crashed(crash, argv)
        return _end(known, argv, result)
    return ended if isinstance(ended, int) else 0


def _as_meant(argv: Sequence[str]) -> list[str]:
    """Return the command line without the spellings of other programs: a group alone, `version` and `-V`."""
    words = list(argv)
    if words in ([], ["fleet"], ["config"]):
        return [*words, "--help"]
    return ["--version"] if words in (["version"], ["-V"]) else words


def _end(error: AgentError, argv: Sequence[str], result: CommandOutput | None) -> int:
    """Print the error to standard error; with `--output json` and no result yet, the document is printed too."""
    command = " ".join(argv[: 2 if argv[:1] and argv[0] in ("fleet", "config") else 1])
    error.hint = error.hint.replace("COMMAND", command)
    _print_failure(error)
    if result is not None and not result.spoken and _wants_json(argv):
        from agent.render.json_report import to_error_document  # noqa: PLC0415 -- most starts end well

        try:
            print_text(to_error_document(error))
        except UnwrittenError as unwritten:
            _print_failure(unwritten)
    return error.code.exit_status


def _wants_json(argv: Sequence[str]) -> bool:
    """Tell whether `--output` is json, also on a command line that cannot be parsed; the last one counts.

    A misspelt option (`--outpu json`, `--output JSON`, `-o=json`, `--json`) counts too: a program that reads the answer
    wants JSON.
    """
    said = ""
    words = argv[: list(argv).index("--")] if "--" in argv else argv
    for word, after in zip(words, (*words[1:], "")):
        name, equals, value = word.partition("=")
        if name == "--json" or (len(name) > len("-o") and _is_output(name)):
            said = "json" if name == "--json" else value if equals else after
        elif found := _SHORT_OUTPUT.match(word):
            said = found[1] or after
    return said.strip().lower() == "json"


# `-o` alone or behind flags, with its value in the same word
_SHORT_OUTPUT = re.compile(r"-[qh]*o=?(.*)", re.DOTALL)


def _is_output(name: str) -> bool:
    from difflib import SequenceMatcher  # noqa: PLC0415 -- most starts end well

    return SequenceMatcher(None, name[:20].lower(), "--output").ratio() > _ALIKE


# `--out` and `--ouptut` are similar enough, `--only` and `--timeout` are not
_ALIKE = 0.75


def _crashed(crash: Exception, argv: Sequence[str]) -> AgentError:
    error = unexpected(crash)
    if error.code.name == "internal":
        _log(crash, argv)
    return error


def _log(crash: Exception, argv: Sequence[str]) -> None:
    from agent import log  # noqa: PLC0415 -- after a failed import, only loaded modules may work
    from agent.hosts.local import local_host  # noqa: PLC0415

    machine = local_host()
    log.open_log(machine, may_write=machine.is_root())
    logging.getLogger("agent").error("hsm-agent %s", " ".join(argv[:1]), exc_info=crash)


def _usage(error: Any) -> AgentError:
    """Return a complaint of the command line's parser as an error of the agent."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "hsm-agent"
    said = str(error.format_message()).rstrip(".")
    if "--dry-run" in said:
        return AgentError(
            "usage", said, hint="`hsm-agent plan` with the same options shows it, and changes nothing"
        )
    return AgentError("usage", said, hint=f"`{path} --help` lists what it takes")


def command_tree(argv: Sequence[str]) -> typer.Typer:
    """Make only the requested branch of the command tree: a start pays for what it loads."""
    tree = typer.Typer(
        name="hsm-agent",
        help="Bring this host to a proven working state with an AWS CloudHSM cluster.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # boxes shorten the options' names on a narrow terminal, and cannot be copied
        context_settings=_SETTINGS,
    )
    tree.callback()(_with_hints(_root))
    if list(argv) == ["--version"]:
        return tree
    wanted = argv[0] if argv else ""
    commands = _cluster() if wanted == "cluster" else _of_host(wanted)
    if not commands:
        from agent.cli import fleet  # noqa: PLC0415

        tree.add_typer(_fleet(fleet.COMMANDS), name="fleet")
        tree.add_typer(_config(), name="config")
    if not commands and wanted != "fleet":
        from agent.cli.demo import demo  # noqa: PLC0415 -- 45 ms
        from agent.cli.help import help_  # noqa: PLC0415
        from agent.cli.iam_policy import iam_policy  # noqa: PLC0415
        from agent.cli.ssm_document import ssm_document  # noqa: PLC0415
        from agent.cli.support import support  # noqa: PLC0415
        from agent.cli.user_data import user_data  # noqa: PLC0415

        commands = {
            **_of_host(),
            "help": help_,
            "user-data": user_data,
            "iam-policy": iam_policy,
            "support": support,
        }
        commands.update({**_cluster(), "demo": demo, "ssm-document": ssm_document})
    for name, command in commands.items():
        tree.command(name)(_with_hints(command))
    return tree


def _of_host(name: str | None = None) -> dict[str, Callable[..., None]]:
    """Return the commands for this host, or the one of this name; none where it is another's."""
    from agent.cli.host import COMMANDS  # noqa: PLC0415 -- `cluster` needs nothing of what a run loads: 90 ms

    return {each: command for each, command in COMMANDS.items() if name in (None, each)}


def _cluster() -> dict[str, Callable[..., None]]:
    from agent.cli.cluster import cluster  # noqa: PLC0415

    return {"cluster": cluster}


def _config() -> typer.Typer:
    from agent.cli.config import show  # noqa: PLC0415

    branch = typer.Typer(
        help="The configuration that counts on this host.", no_args_is_help=True, rich_markup_mode=None
    )
    branch.command("show")(_with_hints(show))
    branch.callback()(_nothing)
    return branch


def _nothing() -> None:
    """Keep `show` a word of the command line: typer leaves it out where a branch has only one command."""


def _fleet(commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    branch = typer.Typer(
        help="The same on many hosts, over SSH or AWS Systems Manager.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, command in commands.items():
        branch.command(name)(_with_hints(command))
    return branch


def _with_hints(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function its annotations as values: on Python 3.9 typer parses their texts, and loses the details."""
    if hasattr(function, "__signature__"):  # made by `with_options`, from values
        return function
    hints = get_type_hints(function, include_extras=True)
    own = signature(function)
    parameters = [each.replace(annotation=_bare(hints[each.name])) for each in own.parameters.values()]
    function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def _bare(hint: Any) -> Any:
    """Return the annotation itself: up to Python 3.10 a default of None wraps it in one more Optional."""
    return next((each for each in get_args(hint) if hasattr(each, "__metadata__")), hint)


def _print_failure(error: AgentError) -> None:
    said = [f"error: {error.sentence} (exit {error.code.exit_status}, {error.code.name})"]
    for label, text in (("saw:  ", error.saw), ("want: ", error.want), ("hint: ", error.hint)):
        if text:
            said.append(label + text.replace("\n", "\n" + " " * len(label)))
    print_error("\n".join(said) + "\n")
