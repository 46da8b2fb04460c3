"""`file:PATH`: the report's document as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.paths import path_of_uri
from agent.core.system import is_stream
from agent.hosts.owned import foreign_link, is_ours

if TYPE_CHECKING:
    from agent.core.host import Host
    from agent.sinks.message import DeliveryContext, OutgoingReport


def check(uri: str) -> None:
    """Require an absolute path to a file."""
    path_of(uri)


def path_of(uri: str) -> str:
    """Return the path that `SCHEME:PATH` or `SCHEME:///PATH` names; raise ValueError when there is none."""
    scheme = uri.partition(":")[0]
    try:
        path = path_of_uri(uri)
    except ValueError as error:
        raise ValueError(f"{uri!r} names no file: {error}; {scheme}:/PATH is wanted") from None
    if path[-1] in "/\\":
        raise ValueError(f"{uri!r} names no file: {scheme}:/PATH is wanted")
    return path


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    put(context.machine, path_of(report.uri), report.document)


def put(machine: Host, path: str, text: str, *, mode: int = 0o644) -> None:
    """Write a file that an operator named. An existing file keeps its mode, as far as no other user could write to it.

    A link is refused. Replacing it would remove it; following it would let any user who can create it choose the file
    that is overwritten. Raises AgentError `write-failed` for a link, and what Host.write raises.
    """
    seen = machine.stat(path)
    if seen is not None and seen.kind == "link" and not is_stream(path):
        raise AgentError(
            "write-failed", f"{path} cannot be written", want="a file",
            saw=f"{path}: it is a link, which is neither followed nor replaced",
            hint="name the file that it leads to",
        )  # fmt: skip
    link = None if is_stream(path) else foreign_link(machine, path)
    if link is not None:
        raise AgentError(
            "write-failed", f"{path} cannot be written", want="directories that no other user chose",
            saw=f"{path}: {link}", hint="name the directory that it leads to",
        )  # fmt: skip
    # on Windows, where uid is -1, an access list takes the place of the mode
    if seen is not None and seen.kind == "file" and seen.uid >= 0:
        mode = seen.mode & (0o777 if is_ours(seen) else 0o755)
    machine.write(path, text.encode("utf-8", "backslashreplace"), mode=mode)
