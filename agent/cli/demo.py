"""`hsm-agent demo`: the main job against an embedded stand-in cluster, on a copy of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.options import Output, is_json
from agent.cli.requirements import require_linux
from agent.core.errors import AgentError
from agent.demo.play import AWS, FAULTS, play
from agent.hosts.local import local_host

_FAULT = "hsm-refused"


def demo(
    fault: Annotated[
        str, typer.Option(metavar="NAME", help=f"what breaks in the third act: {', '.join(FAULTS)}")
    ] = _FAULT,
    aws: Annotated[
        bool,
        typer.Option(
            "--aws",
            help="play with AWS: a cluster's id, a security group that is missing, an HSM that is replaced",
        ),
    ] = False,
    output: Output = "text",
) -> None:
    """Show the main job for real, on a throw-away copy of this machine.

    Needs root and nothing else. The HSMs, the mirror and the client packages are stand-ins; the package manager and
    everything hsm-agent does are real. This machine itself is left untouched.
    """
    if fault not in FAULTS:
        raise AgentError(
            "usage", f"there is no fault `{fault}`", saw=fault, want=f"one of {', '.join(FAULTS)}"
        )
    if aws and fault != _FAULT:
        raise AgentError(
            "usage", "--aws has acts of its own", saw=f"--aws and --fault {fault}", want="one of them"
        )
    require_linux(local_host(), "demo")
    raise typer.Exit(play(AWS if aws else fault, as_json=is_json(output)))
