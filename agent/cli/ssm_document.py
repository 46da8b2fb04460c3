"""`hsm-agent ssm-document`: print the document of AWS Systems Manager that performs `configure`, or its association."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, List, Optional

import typer

from agent.cli.options import Config, with_options
from agent.cli.terminal import print_result
from agent.cli.user_data import AgentSha256, NoProxy, Proxy  # noqa: TC001 -- typer reads annotations
from agent.config.desired import merged, resolve
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS
from agent.config.sources import read_sources
from agent.core.errors import AgentError
from agent.fleet.run_spec import MOST_PARALLEL
from agent.hosts.local import local_host
from agent.render.output import print_error
from agent.ssm_document import AgentSources, association_of, configure_document, content_of, name_of
from agent.user_data import NOT_BROUGHT, check_fit, first_boot_options, read_agent, with_ca

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMATS = ("document", "association")
_RATE = re.compile(r"rate\(\d{1,4} (minutes?|hours?|days?)\)|cron\([0-9A-Za-z*?/,# -]{5,100}\)")
_TARGET = re.compile(r"(InstanceIds|tag:[^=,]{1,128}|resource-groups:Name)=(.+)")

Form = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="|".join(FORMATS),
        help="the document, or what `aws ssm create-association --cli-input-json` takes",
    ),
]
Agent = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="where Linux gets hsm-agent: package (from the image, or from a repository of yours), or a URL or "
        "s3://BUCKET/KEY of a .deb, .rpm or .tar.gz",
    ),
]
WindowsAgent = Annotated[
    Optional[str],
    typer.Option(metavar="SOURCE", help="a URL or s3://BUCKET/KEY of the .msi; default: the image has it"),
]
WindowsAgentSha256 = Annotated[
    Optional[str], typer.Option(metavar="HASH", help="the SHA-256 of what that URL holds")
]
Target = Annotated[
    Optional[List[str]],
    typer.Option(metavar="KEY=VALUES", help="of the association: tag:Role=hsm, or InstanceIds=i-…,i-…"),
]
Schedule = Annotated[
    str,
    typer.Option(metavar="EXPRESSION", help="of the association: rate(30 minutes) or longer, or cron(…)"),
]


def _ssm_document(
    *,
    given: Mapping[str, Any],
    form: Form = "document",
    agent: Agent = "package",
    agent_sha256: AgentSha256 = None,
    windows_agent: WindowsAgent = None,
    windows_agent_sha256: WindowsAgentSha256 = None,
    target: Target = None,
    schedule: Schedule = "rate(1 day)",
    proxy: Proxy = None,
    no_proxy: NoProxy = None,
    config: Config = None,
) -> None:
    """Print the Systems Manager document that performs configure on Linux and Windows.

    The options are those of configure; they are the default of the document's one parameter. Without --hsm-ip and
    --cluster-id it has none. Its name, which `--format association` uses, is printed on standard error.
    """
    if form not in FORMATS:
        raise AgentError("usage", f"--format takes {', '.join(FORMATS)}", saw=form, want="one of them")
    machine = local_host()
    input_errors = InputErrors()
    said = read_sources(machine, given, config, input_errors)
    wanted = merged(said)
    linux = read_agent(machine, agent, agent_sha256, "shell", input_errors)
    if linux.data:
        input_errors.add("--agent", "a document has no room for a file: a URL or s3://BUCKET/KEY is wanted")
    check_fit(wanted, linux, "shell", input_errors)
    windows = None
    if windows_agent is not None:
        option = "--windows-agent"
        windows = read_agent(machine, windows_agent, windows_agent_sha256, "powershell", input_errors, option)
        check_fit(wanted, windows, "powershell", input_errors)
    elif windows_agent_sha256 is not None:
        input_errors.add("--windows-agent-sha256", "it needs --windows-agent")
    targets = _targets(target or (), input_errors)
    if form == "association" and not targets:
        input_errors.add("--target", "the association needs its hosts: tag:NAME=VALUE or InstanceIds=ID,ID")
    _check_schedule(schedule, input_errors)
    network = first_boot_options(proxy, no_proxy, input_errors)
    desired = resolve(said, input_errors)
    input_errors.raise_any()
    desired, _ = with_ca(machine, desired)
    document = configure_document(desired, AgentSources(linux, windows, network))
    if linux.kind == "package":
        print_error(
            f"note: {NOT_BROUGHT.replace('user-data', 'document').replace('first boot', 'a command')}\n"
        )
    print_error(f"name: {name_of(document)}\n")
    if form == "association":
        print_result(json.dumps(association_of(document, targets, schedule, MOST_PARALLEL), indent=2) + "\n")
    else:
        print_result(content_of(document) + "\n")


def _targets(texts: Sequence[str], input_errors: InputErrors) -> list[tuple[str, list[str]]]:
    found = []
    for text in texts:
        match = _TARGET.fullmatch(text)
        if match is None:
            input_errors.add(
                "--target", f"{text!r} is not tag:NAME=VALUE, InstanceIds=ID or resource-groups:Name=NAME"
            )
        else:
            found.append((match[1], match[2].split(",")))
    return found


def _check_schedule(schedule: str, input_errors: InputErrors) -> None:
    """State Manager takes no interval below 30 minutes."""
    rate = re.fullmatch(r"rate\((\d+) minutes?\)", schedule)
    if not _RATE.fullmatch(schedule) or (rate and int(rate[1]) < 30):
        input_errors.add("--schedule", f"{schedule!r} is neither rate(30 minutes) or longer nor cron(…)")


ssm_document = with_options(_ssm_document, given=OPTIONS)
