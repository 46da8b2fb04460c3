"""The client's files at one moment: the copy of each, and its content in the terms of its step."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.ca import find_certificates, written
from agent.cloudhsm.client_config import parse_client_config
from agent.cloudhsm.paths import ClientPaths, client_paths
from agent.cloudhsm.pem import contains_private_key
from agent.cloudhsm.protection import closed
from agent.cloudhsm.sdk3.client_config import servers_and_faults
from agent.core.errors import AgentError
from agent.core.links import resolve_link

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.core.host import HostView


@dataclass(frozen=True)
class SavedFile:
    """One file at that moment: its bytes, mode and owner (uid, gid).

    For a link, `link` is its target as written, the rest describes the target file; `data` is None if it is missing.
    """

    path: str
    data: bytes | None
    mode: int
    owner: tuple[int, int]
    link: str | None = None

    @property
    def rights(self) -> str:
        return f"mode {self.mode:04o}, owner {self.owner[0]}:{self.owner[1]}"


def take(view: HostView) -> list[SavedFile]:
    layout = client_paths(view.system)
    paths = layout.all_settings(view)
    ca = as_it_is(view, layout.ca)
    if ca is not None and contains_private_key(ca.data or b""):
        raise AgentError(
            "ca-is-private-key",
            "the CA on this host holds a private key, which is never copied",
            saw=f"a private key in {layout.ca}",
            want="certificates alone",
            hint=f"take the key out of {layout.ca} and keep it off this host, then run this again",
        )
    kept = [ca, *(as_it_is(view, path) for path in paths)]
    return [each for each in kept if each is not None]


def as_it_is(view: HostView, path: str) -> SavedFile | None:
    """Return a file, or None; the step that needs it refuses a folder or a FIFO of that name, not this function.

    A mode that lets other users write is never restored.
    """
    stat = view.stat(path)
    if stat is None or stat.kind not in ("file", "link"):
        return None
    link = view.readlink(path)
    if link is not None:
        stat = view.stat(resolve_link(view, path))
    data = view.read(path)
    if stat is None or data is None:
        return None if link is None else SavedFile(path, None, 0, (-1, -1), link)
    # a file that is marked read-only on Windows cannot be written like this, and the mark protects from no one
    mode = stat.mode | 0o200 if stat.uid < 0 else stat.mode
    return SavedFile(path, data, closed(mode), (stat.uid, stat.gid), link)


def contents(files: Iterable[SavedFile]) -> list[tuple[str, bytes | None, str | None]]:
    return [(kept.path, kept.data, kept.link) for kept in files]


def is_client_file(layout: ClientPaths, path: str) -> bool:
    if path in (layout.ca, *layout.sdk3.configs):
        return True
    below = any(path.startswith(home + layout.system.separator) for home in layout.homes)
    return below and layout.component(path) is not None


def line_id(layout: ClientPaths, path: str) -> str:
    """Return the step a file belongs to: `certificate` or `configure:<component>`."""
    if path == layout.ca:
        return "certificate"
    return f"configure:{layout.component(path) or 'cli'}"


def described(layout: ClientPaths, kept: SavedFile) -> str:
    """Describe a file's content as the steps do: the CA's fingerprint, the configured addresses."""
    if kept.data is None:
        return f"a link to {kept.link}, where nothing is"
    if kept.path == layout.ca:
        found = find_certificates(kept.data).fingerprints
        if found:
            return written(found)
    else:
        with contextlib.suppress(ValueError):
            return " ".join(servers_in(layout, kept.path, kept.data)) or "not configured"
    return f"sha256:{hashlib.sha256(kept.data).hexdigest()}"


def is_sound(layout: ClientPaths, kept: SavedFile) -> bool:
    """Tell whether the client can read a file. The step that installs a CA checks the CA."""
    if kept.path == layout.ca:
        return True
    try:
        return kept.data is not None and not _parsed(layout, kept.path, kept.data)[1]
    except ValueError:
        return False


def servers_in(layout: ClientPaths, path: str, data: bytes) -> tuple[str, ...]:
    return _parsed(layout, path, data)[0]


def _parsed(layout: ClientPaths, path: str, data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the HSMs that a file names, none if it was never configured, and its faults."""
    found = servers_and_faults(layout.sdk3, path, data)
    if found is not None:
        return found
    settings = parse_client_config(data)
    servers = tuple(each.hostname for each in settings.servers)
    return () if settings.placeholder else servers, settings.faults
