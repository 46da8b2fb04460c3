"""`hsm-agent user-data`: print the user-data with which to launch an EC2 instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from agent.cli.options import Config, with_options
from agent.cli.terminal import width
from agent.config.desired import merged, resolve
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS
from agent.config.sources import read_sources
from agent.core.errors import AgentError
from agent.hosts.local import local_host
from agent.render.output import print_bytes, print_error
from agent.user_data import FORMATS, NOT_BROUGHT, check_fit, first_boot_options, read_agent
from agent.user_data import user_data as made_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Form = Annotated[
    str, typer.Option("--format", metavar="|".join(FORMATS), help="what reads it: cloud-init or EC2Launch")
]
Agent = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="where the host gets hsm-agent: package (from the image, or from a repository of yours), a URL or "
        "s3://BUCKET/KEY of a .deb, .rpm, .tar.gz or .msi, or a small file of this machine, which is embedded",
    ),
]
Proxy = Annotated[
    Optional[str],
    typer.Option(
        metavar="URL",
        help="the proxy of the instance, without a password: at first boot, on Linux also for the units",
    ),
]
NoProxy = Annotated[
    Optional[str],
    typer.Option(
        metavar="LIST", help="hosts that are reached without the proxy; the metadata service always is"
    ),
]
AgentSha256 = Annotated[Optional[str], typer.Option(metavar="HASH", help="the SHA-256 of what the URL holds")]


def _user_data(
    *,
    given: Mapping[str, Any],
    form: Form = "shell",
    agent: Agent = "package",
    agent_sha256: AgentSha256 = None,
    proxy: Proxy = None,
    no_proxy: NoProxy = None,
    config: Config = None,
) -> None:
    """Print EC2 user-data that performs configure at first boot.

    The options are those of configure. A CA that is a file here travels along; other paths are the host's own. When it
    must be compressed to fit (16 kB), it is binary: redirect it into a file.
    """
    if form not in FORMATS:
        raise AgentError("usage", f"--format takes {', '.join(FORMATS)}", saw=form, want="one of them")
    machine = local_host()
    input_errors = InputErrors()
    said = read_sources(machine, given, config, input_errors)
    wanted = merged(said)
    source = read_agent(machine, agent, agent_sha256, form, input_errors)
    check_fit(wanted, source, form, input_errors)
    network = first_boot_options(proxy, no_proxy, input_errors)
    data = made_of(machine, resolve(said, input_errors, complete=True), source, form, network)
    if source.kind == "package":
        print_error(f"note: {NOT_BROUGHT}\n")
    if wanted.ca_cert is None:
        print_error("note: there is no --ca-cert: the image must have customerCA.crt in its place\n")
    if not data.isascii() and width() is not None:
        raise AgentError(
            "usage",
            "this user-data is compressed, which is nothing for a terminal",
            saw="a terminal",
            want="a file",
            hint="hsm-agent user-data … >user-data.gz, then for the AWS CLI: --user-data fileb://user-data.gz",
        )
    print_bytes(data)


user_data = with_options(_user_data, given=OPTIONS)
