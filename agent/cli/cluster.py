"""`hsm-agent cluster`: what AWS says of a cluster, and whether this host fits it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from agent.cli.interrupts import stopped_by_signals
from agent.cli.options import Output, is_json
from agent.cli.terminal import print_result, style
from agent.core.errors import AgentError
from agent.hosts.local import local_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import Host


def cluster(
    cluster_id: Annotated[
        Optional[str],
        typer.Argument(metavar="[ID]", help="default: this host's cluster, or the only one of the region"),
    ] = None,
    region: Annotated[
        Optional[str],
        typer.Option(
            metavar="REGION",
            help="where the cluster is; default: that of AWS's variables or of this instance",
        ),
    ] = None,
    profile: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="the profile of ~/.aws/config that asks")
    ] = None,
    ca_cert: Annotated[
        Optional[str],
        typer.Option(metavar="SOURCE", help="prove this CA; default: the customerCA.crt of this host"),
    ] = None,
    html: Annotated[
        Optional[str], typer.Option(metavar="FILE", help="also write one self-contained page with a picture")
    ] = None,
    output: Output = "text",
) -> None:
    """Show what AWS says of a cluster: its HSMs, who reaches them, whether this host fits it, and risks."""
    from agent.cli.cluster_query import ask_cluster  # noqa: PLC0415 -- help pays for none of it
    from agent.render.cluster.document import to_document, to_tree  # noqa: PLC0415

    as_json = is_json(output)
    if html is not None and not Path(html).absolute().parent.is_dir():
        folder = Path(html).absolute().parent
        raise AgentError(
            "usage", "the page cannot be written", saw=f"there is no directory {folder}", want="a directory",
            hint="make it first, or name another file",
        )  # fmt: skip
    machine = local_host(stopped_by_signals(threading.Event()))
    asks = sys.stdin is not None and sys.stdin.isatty()
    tree = to_tree(ask_cluster(machine, os.environ, cluster_id, region, profile, ca_cert, has_terminal=asks))
    if as_json:
        print_result(to_document(tree))
    else:
        from agent.render.cluster.screen import screen  # noqa: PLC0415

        print_result(screen(tree, **style()))
    if html is not None:
        _write_page(machine, html, tree)
    raise typer.Exit(tree["exit_status"])


def _write_page(machine: Host, path: str, tree: Mapping[str, Any]) -> None:
    """Write the page of `--html`. Raises AgentError: the result itself is printed by then."""
    from agent.render.cluster.html import page  # noqa: PLC0415
    from agent.sinks.file import put  # noqa: PLC0415

    mask = os.umask(0o077)
    os.umask(mask)
    put(machine, str(Path(path).absolute()), page(tree), mode=0o666 & ~mask)
