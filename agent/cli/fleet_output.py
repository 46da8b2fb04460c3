"""What a roll-out's command prints and writes: its result, and the files that were asked for."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from agent.cli import collected
from agent.cli.terminal import print_result, style
from agent.core.errors import AgentError, unexpected
from agent.core.system import is_stream
from agent.hosts.local import local_host
from agent.render.output import print_error
from agent.sinks.file import put

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config.input_errors import InputErrors
    from agent.core.host import HostView

_KINDS = {"directory": "a directory", "link": "a link, which is neither followed nor replaced"}


def require_writable(
    machine: HostView, files: Mapping[str, Any], read: Mapping[str, str | None], input_errors: InputErrors
) -> None:
    """Report output files that could not be written hours later, or that the agent itself needs.

    `read` has the input files of the same command line, by option.
    """
    from agent.fleet.journal import runs_dir  # noqa: PLC0415 -- only for a command that writes files

    named = {name: str(Path(path).absolute()) for name, path in files.items() if path}
    if not named:
        return
    records = runs_dir(os.environ).parent.resolve()
    for name, path in named.items():
        try:
            why = _unwritable(machine, path)
        except AgentError as error:
            why = f"{path}: {error.saw}"
        taken = next((option for option, other in read.items() if other and _is_same(path, other)), None)
        if taken is not None:
            why = f"{path} is what {taken} reads"
        elif not is_stream(path) and records in Path(path).resolve().parents:
            why = f"{path} is among the records of runs, {records}"
        if why:
            input_errors.add(f"--{name}", why)
    paths = [path for path in named.values() if not is_stream(path)]
    if len(paths) > 1 and _is_same(*paths):
        input_errors.add(", ".join(f"--{name}" for name in named), f"{paths[0]} cannot hold both")


def _is_same(one: str, other: str) -> bool:
    """Return whether two names are of one file: also through a symbolic or a hard link."""
    with contextlib.suppress(OSError, ValueError):
        return Path(one).samefile(other)
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # a circle of links
        return Path(one).resolve() == Path(other).resolve()
    return False


def _unwritable(machine: HostView, path: str) -> str | None:
    """Return why a file cannot be written, as far as that can be seen in advance."""
    if is_stream(path):  # its directory may belong to another user: no file is made there
        return None
    seen, folder = machine.stat(path), str(Path(path).parent)
    if seen is not None and seen.kind != "file":
        return f"{path} is {_KINDS.get(seen.kind, 'no file')}"
    if machine.stat(f"{folder}/.") is None:
        return f"there is no directory {folder}"
    return None if os.access(folder, os.W_OK) else f"{folder} may not be written to"


def show(
    result: Mapping[str, Any],
    whole: Callable[[], Mapping[str, Any]],
    files: Mapping[str, Any],
    *,
    as_json: bool,
) -> NoReturn:
    """Print the result, write the files that were asked for, and end with its exit status.

    In this order: a file that cannot be written, hours after it was named, must not lose the result. `whole` returns
    the result with the complete reports of hosts.
    """
    if as_json or files["junit"] or files["html"]:
        result = whole()
    if as_json:
        for piece in collected.json_pieces(result):
            print_result(piece)
    else:
        from agent.render.fleet.screen import report  # noqa: PLC0415

        print_result(report(result, **style()))
    unwritten = [
        each for each in (_written(name, path, result) for name, path in files.items() if path) if each
    ]
    if unwritten and not result["exit_status"]:
        raise unwritten[0]
    for error in unwritten:  # the exit status of the result is more important
        print_error(f"warning: {error.sentence}: {error.saw} ({error.code.name})\n")
    raise typer.Exit(result["exit_status"])


def _written(name: str, path: str, result: Mapping[str, Any]) -> AgentError | None:
    """Write one of the files that were asked for, and return why it could not be."""
    try:
        text = _FORMATS[name](result)
        put(local_host(), str(Path(path).absolute()), text, mode=_new_file_mode())
    except AgentError as error:
        return error
    except Exception as crash:  # a defect: it must not lose the other file and the result
        logging.getLogger("agent").exception("--%s failed", name)
        return unexpected(crash, f"--{name} {path} failed")
    return None


def _junit(result: Mapping[str, Any]) -> str:
    from agent.render.fleet.junit import suites  # noqa: PLC0415

    return suites(result)


def _html(result: Mapping[str, Any]) -> str:
    from agent.render.fleet.html import page  # noqa: PLC0415

    return page(result)


_FORMATS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"junit": _junit, "html": _html}


def _new_file_mode() -> int:
    """Return the mode that the umask leaves a new file, as for any program of this user."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask
