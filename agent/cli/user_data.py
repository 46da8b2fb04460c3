"""`hsm-agent user-data`: print what an EC2 instance is launched with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from agent.cli.options import Config, with_options
from agent.cli.sources import read_desired
from agent.core.errors import AgentError
from agent.hosts.here import this_machine
from agent.options import OPTIONS
from agent.user_data import FORMATS, NOT_BROUGHT, source_of
from agent.user_data import user_data as made_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.desired import Said

Form = Annotated[
    str, typer.Option("--format", metavar="|".join(FORMATS), help="what reads it: cloud-init or EC2Launch")
]
Agent = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="where the host gets hsm-agent: package (the image has it, or knows a repository that does, which no "
        "distribution's own does), a URL or s3://BUCKET/KEY of a .deb, .rpm, .tar.gz or .msi, or a small file of this "
        "machine, which travels inline",
    ),
]
AgentSha256 = Annotated[Optional[str], typer.Option(metavar="HASH", help="the SHA-256 of what the URL holds")]


def _user_data(
    *,
    given: Mapping[str, Any],
    form: Form = "shell",
    agent: Agent = "package",
    agent_sha256: AgentSha256 = None,
    config: Config = None,
) -> None:
    """Print EC2 user-data that performs configure at first boot.

    The options are those of configure. A CA that is a file here travels along; other paths are the host's own. When it
    must be compressed to fit (16 kB), it is binary: redirect it into a file.
    """
    if form not in FORMATS:
        raise AgentError("usage", f"--format takes {', '.join(FORMATS)}", saw=form, want="one of them")
    machine = this_machine()
    said: list[Said] = []
    desired = read_desired(machine, given, config, said)
    source = source_of(machine, agent, agent_sha256, form)
    data = made_of(machine, desired, source, form)
    if source.kind == "package":
        sys.stderr.write(f"note: {NOT_BROUGHT}\n")
    if not data.isascii() and sys.stdout.isatty():
        raise AgentError(
            "usage",
            "this user-data is compressed, which is nothing for a terminal",
            saw="a terminal",
            want="a file",
            hint="hsm-agent user-data … >user-data.gz, then for the AWS CLI: --user-data fileb://user-data.gz",
        )
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


user_data = with_options(_user_data, given=OPTIONS)
