"""The client's files as they are at one moment: what is kept of each, and what each says in the words of its step."""

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
from agent.core.links import goal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.core.host import HostView


@dataclass(frozen=True)
class SavedFile:
    """One file as it was: its bytes, mode and owner (uid, gid).

    Of a link `link` is what it says, and the rest is of the file that it leads to; `data` is None where it led nowhere.
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
    here = client_paths(view.system)
    paths = here.all_settings(view)
    ca = as_it_is(view, here.ca)
    if ca is not None and contains_private_key(ca.data or b""):
        raise AgentError(
            "ca-is-private-key",
            "the CA on this host holds a private key, which is never copied",
            saw=f"a private key in {here.ca}",
            want="certificates alone",
            hint=f"take the key out of {here.ca} and keep it off this host, then run this again",
        )
    kept = [ca, *(as_it_is(view, path) for path in paths)]
    return [each for each in kept if each is not None]


def as_it_is(view: HostView, path: str) -> SavedFile | None:
    """Return a file, None for none; a folder or a FIFO of that name is refused by the step that needs it, not here.

    A mode that lets others write is never put back.
    """
    stat = view.stat(path)
    if stat is None or stat.kind not in ("file", "link"):
        return None
    link = view.readlink(path)
    if link is not None:
        stat = view.stat(goal(view, path))
    data = view.read(path)
    if stat is None or data is None:
        return None if link is None else SavedFile(path, None, 0, (-1, -1), link)
    # on Windows a file that is marked read-only cannot be written so, and the mark protects from nobody
    mode = stat.mode | 0o200 if stat.uid < 0 else stat.mode
    return SavedFile(path, data, closed(mode), (stat.uid, stat.gid), link)


def contents(files: Iterable[SavedFile]) -> list[tuple[str, bytes | None, str | None]]:
    return [(kept.path, kept.data, kept.link) for kept in files]


def is_the_clients(here: ClientPaths, path: str) -> bool:
    if path in (here.ca, *here.sdk3.configs):
        return True
    below = any(path.startswith(home + here.system.separator) for home in here.homes)
    return below and here.component(path) is not None


def line_id(here: ClientPaths, path: str) -> str:
    """Return the step a file belongs to: `certificate` or `configure:<component>`."""
    if path == here.ca:
        return "certificate"
    return f"configure:{here.component(path) or 'cli'}"


def described(here: ClientPaths, kept: SavedFile) -> str:
    """Say what a file holds as the steps say it: the CA's fingerprint, the configured addresses."""
    if kept.data is None:
        return f"a link to {kept.link}, where nothing is"
    if kept.path == here.ca:
        found = find_certificates(kept.data).fingerprints
        if found:
            return written(found)
    else:
        with contextlib.suppress(ValueError):
            return " ".join(servers_in(here, kept.path, kept.data)) or "not configured"
    return f"sha256:{hashlib.sha256(kept.data).hexdigest()}"


def is_sound(here: ClientPaths, kept: SavedFile) -> bool:
    """Tell whether the client can read a file. A CA is judged by the step that places it."""
    if kept.path == here.ca:
        return True
    try:
        return kept.data is not None and not _parsed(here, kept.path, kept.data)[1]
    except ValueError:
        return False


def servers_in(here: ClientPaths, path: str, data: bytes) -> tuple[str, ...]:
    return _parsed(here, path, data)[0]


def _parsed(here: ClientPaths, path: str, data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the HSMs that a file names, none when it was never configured, and its faults."""
    found = servers_and_faults(here.sdk3, path, data)
    if found is not None:
        return found
    settings = parse_client_config(data)
    servers = tuple(each.hostname for each in settings.servers)
    return () if settings.placeholder else servers, settings.faults
