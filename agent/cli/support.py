"""`hsm-agent support`: write the bundle for somebody who helps, and list what is in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Optional

import typer

from agent.cli.options import Output, is_json
from agent.cli.terminal import print_result, width
from agent.core.errors import AgentError
from agent.hosts.local import local_host
from agent.render.text import wrapped
from agent.support_bundle import BundlePart, archive, bundle_parts, index

# Windows would write two bytes for each newline
_BINARY = getattr(os, "O_BINARY", 0)

File = Annotated[
    Optional[str],
    typer.Argument(metavar="[FILE]", help="a new file; default: hsm-agent-support-HOST-TIME.tar.gz here"),
]


def support(file: File = None, output: Output = "text") -> None:
    """Write a bundle for somebody who helps, without secrets, and list what is in it.

    It has facts, the last report, configuration and the ends of logs. As root it has more. Nothing is changed or sent.
    """
    as_json = is_json(output)
    machine = local_host()
    made = machine.now()
    host = re.sub(r"[^\w.-]", "_", machine.name)
    folder = f"hsm-agent-support-{host}-{made:%Y%m%dT%H%M%SZ}"
    parts = tuple(bundle_parts(machine, os.environ))
    path = file or f"{folder}.tar.gz"
    data = archive(parts, folder, made)
    _write(path, data)
    where = str(Path(path).absolute())
    tree = {"schema_version": 1, "file": where, "bytes": len(data), "files": index(parts)}
    print_result(json.dumps(tree, indent=2) + "\n" if as_json else _screen(parts, where, len(data)))


def _write(path: str, data: bytes) -> None:
    """Write a file that is not there yet, for its owner alone: a link that somebody laid here is not followed."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
    except (OSError, ValueError) as error:
        raise AgentError(
            "write-failed", "the bundle cannot be written", saw=f"{path}: {getattr(error, 'strerror', None) or error}",
            want="a new file in a directory that you may write to", hint="name another file: `hsm-agent support FILE`",
        ) from error  # fmt: skip


def _screen(parts: tuple[BundlePart, ...], path: str, size: int) -> str:
    column = max(len(each.name) for each in parts) + 2
    wide = width()
    lines = []
    for each in parts:
        text = (
            f"not there: {each.fault}"
            if each.fault
            else f"{len(each.text.encode()):>8,} bytes  {each.source}"
        )
        lines += wrapped(each.name.ljust(column), text, wide)
    lines += [
        "",
        *wrapped("", f"{path}: {size:,} bytes", wide),
        *wrapped(
            "", "Secrets are hidden where something marks them as secrets. Read it before you send it.", wide
        ),
    ]
    return "\n".join(lines) + "\n"
