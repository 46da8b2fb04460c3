"""The commands for this host."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any, Callable, Optional

import typer

from agent import commands, log
from agent.catalogue import load
from agent.cli.interrupts import stopped_by_signals
from agent.cli.options import Config, Output, Quiet, is_json, with_options
from agent.cli.terminal import is_dumb, print_result, style, width
from agent.config.desired import Desired, RawOptions, merged
from agent.config.options import OPTIONS, duration
from agent.config.sources import read_desired
from agent.core.codes import CODES, EXIT_STATUSES
from agent.core.errors import AgentError
from agent.core.notices import WARNINGS
from agent.core.plain import printable
from agent.facts import gather
from agent.hosts.local import local_host
from agent.render import screen
from agent.render.facts_json import facts_document
from agent.render.json_report import to_document, to_tree
from agent.render.progress import choose
from agent.report import new_run
from agent.run import report_invalid_input
from agent.state.last_report import last_report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import Host
    from agent.core.model import Report
    from agent.engine import Listener
    from agent.report import RunInfo


def facts(
    platform: Annotated[
        Optional[str], typer.Option(metavar="ROW", help="look as if this host were that row")
    ] = None,
    output: Output = "text",
) -> None:
    """Say what this host is, which client fits it, what is installed."""
    tree = facts_document(gather(local_host()), load(), platform)
    print_result(json.dumps(tree, indent=2) + "\n" if is_json(output) else screen.facts(tree))
    if tree["refusal"]:
        raise typer.Exit(CODES[tree["refusal"]["code"]].exit_status)


def _plan(
    *, given: Mapping[str, Any], config: Config = None, output: Output = "text", quiet: Quiet = False
) -> None:
    """Show what configure would do, and change nothing."""
    _desired_run("plan", given, config, output, commands.verify, quiet=quiet)


def _configure(
    *, given: Mapping[str, Any], config: Config = None, output: Output = "text", quiet: Quiet = False
) -> None:
    """Install the client, place the CA, configure, prove, report."""
    _desired_run("configure", given, config, output, commands.configure, quiet=quiet)


def _verify(
    *, given: Mapping[str, Any], config: Config = None, output: Output = "text", quiet: Quiet = False
) -> None:
    """Find what differs or fails, with its cause, and change nothing.

    Without options: for what the last configure was asked for.
    """
    _desired_run("verify", given, config, output, commands.verify, quiet=quiet)


def status(
    wait: Annotated[
        bool, typer.Option("--wait", help="wait while a run changes this host, and until there is a report")
    ] = False,
    limit: Annotated[
        Optional[str], typer.Argument(metavar="[DURATION]", help="with --wait: for how long, default 30m")
    ] = None,
    output: Output = "text",
) -> None:
    """Show the last report. Works without root."""
    if limit is not None and not wait:
        raise AgentError("usage", "a duration belongs to --wait", saw=limit, want=f"status --wait {limit}")
    stop = stopped_by_signals(threading.Event())
    machine = local_host(stop)
    seconds = _seconds(limit or "30m", "--wait") if wait else None
    tree = last_report(machine, seconds, lambda words: typer.echo(printable(words), err=True))
    try:
        text = json.dumps(tree, indent=2) + "\n" if is_json(output) else screen.status(tree, **style())
        exit_status = int(tree["exit_status"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AgentError(
            "nothing-recorded",
            "the last report is damaged",
            saw=f"no usable {machine.system.report}",
            want="an earlier run",
        ) from error
    print_result(text)
    raise typer.Exit(exit_status)


def rollback(
    run: Annotated[
        Optional[str], typer.Argument(metavar="[RUN]", help="default: the last that changed them")
    ] = None,
    output: Output = "text",
    quiet: Quiet = False,
) -> None:
    """Put back the CA and the configuration of before a run."""
    _run(
        "rollback",
        output,
        lambda machine, this, listener: commands.rollback(machine, run, this, listener),
        quiet=quiet,
    )


def remove(
    timeout: Annotated[
        Optional[str], typer.Option(metavar="DURATION", help="a limit for the whole run")
    ] = None,
    output: Output = "text",
    quiet: Quiet = False,
) -> None:
    """Take the client packages off; CA and configuration are kept."""
    seconds = None if timeout is None else _seconds(timeout, "--timeout")
    _run(
        "remove",
        output,
        lambda machine, this, listener: commands.remove(machine, this, listener, seconds),
        quiet=quiet,
    )


def explain(
    code: Annotated[Optional[str], typer.Argument(metavar="[CODE]")] = None, output: Output = "text"
) -> None:
    """Explain a code of an error or a warning; without one, list those of errors."""
    from difflib import get_close_matches  # noqa: PLC0415 -- only for a code that was mistyped

    if code is None:
        table = [vars(each) for each in CODES.values()]
        print_result(json.dumps(table, indent=2) + "\n" if is_json(output) else screen.codes(width=width()))
        return
    if code.isascii() and code.isdigit() and int(code[:9]) in EXIT_STATUSES:
        wanted = [each for each in CODES.values() if each.exit_status == int(code[:9])]
        print_result(
            json.dumps([vars(each) for each in wanted], indent=2) + "\n"
            if is_json(output)
            else screen.codes(int(code[:9]), width=width())
        )
        return
    if code in WARNINGS:
        print_result(
            json.dumps(vars(WARNINGS[code]), indent=2) + "\n"
            if is_json(output)
            else screen.explain_warning(WARNINGS[code], width=width())
        )
        return
    if code not in CODES:
        near = get_close_matches(code, [*CODES, *WARNINGS], 3)
        raise AgentError(
            "usage", f"there is no code `{code}`", saw=code, want="a code of the table",
            hint=f"did you mean {', '.join(near)}?" if near else "`hsm-agent explain` lists them all",
        )  # fmt: skip
    print_result(
        json.dumps(vars(CODES[code]), indent=2) + "\n"
        if is_json(output)
        else screen.explain(CODES[code], width=width())
    )


COMMANDS: Mapping[str, Callable[..., None]] = {
    "facts": facts,
    "plan": with_options(_plan, given=OPTIONS),
    "configure": with_options(_configure, given=OPTIONS),
    "verify": with_options(_verify, given=OPTIONS),
    "status": status,
    "rollback": rollback,
    "remove": remove,
    "explain": explain,
}


def _desired_run(
    command: str,
    given: Mapping[str, Any],
    config: str | None,
    output: str,
    function: Callable[[Host, Desired, RunInfo, Listener], Report],
    *,
    quiet: bool,
) -> None:
    def body(machine: Host, run: RunInfo, listener: Listener) -> Report:
        said: list[RawOptions] = []
        try:
            desired = read_desired(machine, given, config, said)
        except AgentError as error:
            return report_invalid_input(machine, run, error, merged(said))
        return function(machine, desired, run, listener)

    _run(command, output, body, quiet=quiet)


def _run(
    command: str, output: str, body: Callable[[Host, RunInfo, Listener], Report], *, quiet: bool
) -> None:
    """Run one command with its progress, its log and its signals, print its report, and exit with its status."""
    as_json = is_json(output)
    stop = stopped_by_signals(threading.Event())
    progress = choose(sys.stderr, quiet=quiet, dumb=is_dumb())
    machine = local_host(stop, progress=progress.downloaded)
    log.open_log(machine, may_write=machine.is_root() and command != "plan")
    run = new_run(machine, command, os.environ)
    try:
        report = body(machine, run, progress)
    finally:
        progress.close()
    log.log_report(report)
    print_result(to_document(report) if as_json else screen.report(to_tree(report), **style()))
    raise typer.Exit(report.exit_status)


def _seconds(text: str, option: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise AgentError("usage", f"{option} is wrong", saw=str(error), want="a duration") from None
