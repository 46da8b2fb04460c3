"""The known hosts: which host keys are trusted for which name, and how a new one is added on request."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.codes import fix
from agent.core.errors import AgentError
from agent.hosts import files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agent.ssh.config import Hop

# The largest known_hosts file that is read, in bytes.
_SIZE = 64 * 1024 * 1024


@dataclass(frozen=True)
class HostKey:
    """A host's public key: its type as in known_hosts, and its bytes."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` shows it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"


@dataclass(frozen=True)
class KnownHostsEntry:
    """One line of known_hosts. `marker` is empty, @revoked or @cert-authority; `names` the first word, unchanged."""

    marker: str
    names: str
    key: HostKey
    where: str

    def fits(self, name: str) -> bool:
        if self.names.startswith("|1|"):
            return _fits_hash(self.names, name)
        met = False
        for word in self.names.lower().split(","):
            if _fits_pattern(word.lstrip("!"), name):
                if word.startswith("!"):
                    return False
                met = True
        return met


def parse(text: str, path: str) -> tuple[KnownHostsEntry, ...]:
    """Return the entries of a known_hosts file. Invalid lines are skipped, as ssh does.

    Only a line feed ends a line, and only a space or tab a word; no other Unicode separator does, so a comment cannot
    contain an entry.
    """
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        words = [word for word in re.split(r"[ \t]+", line.rstrip("\r")) if word]
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if marker not in ("", "@revoked", "@cert-authority") or len(words) < 3:
            continue
        names, kind, encoded = words[:3]
        try:
            blob = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        # A key begins with its own type; with another it would be trusted as something that it is not.
        if blob[4 : 4 + len(kind)] == kind.encode():
            entries.append(KnownHostsEntry(marker, names, HostKey(kind, blob), f"{path}:{number}"))
    return tuple(entries)


class KnownHostsFile:
    """The entries of one file, indexed by name: a scan for each host would take hosts x lines."""

    def __init__(self, entries: Iterable[KnownHostsEntry]) -> None:
        self._plain: dict[str, list[tuple[int, KnownHostsEntry]]] = {}
        self._others: list[tuple[int, KnownHostsEntry]] = []
        self._size = 0
        for entry in entries:
            self.add(entry)

    def add(self, entry: KnownHostsEntry) -> None:
        self._size += 1
        if any(sign in entry.names for sign in "*?!|"):
            self._others.append((self._size, entry))
        else:
            for name in set(entry.names.lower().split(",")):
                self._plain.setdefault(name, []).append((self._size, entry))

    def lookup(self, names: Collection[str]) -> list[KnownHostsEntry]:
        """Return the entries that match one of the names, in the order of the file."""
        found = [each for each in self._others if any(each[1].fits(name) for name in names)]
        found += (each for name in names for each in self._plain.get(name, ()))
        return list(dict(sorted(found, key=lambda each: each[0])).values())


class KnownHosts:
    """All known_hosts files of a run: each is read once, and shared by all threads."""

    def __init__(self) -> None:
        self._files: dict[str, KnownHostsFile] = {}
        # the entries of these names in these files: each host is looked up twice
        self._found: dict[object, tuple[KnownHostsEntry, ...]] = {}
        self._lock = threading.Lock()

    def kinds(self, hop: Hop) -> tuple[str, ...]:
        """Return the types of the known keys of this host, so that the server is asked for one of them."""
        return tuple(dict.fromkeys(each.key.kind for each in _counting(hop, self._about(hop))))

    def check(self, hop: Hop, key: HostKey, *, trust_new: bool = False) -> str | None:
        """Raise AgentError unless the key is known for this host, or new and trusted on request.

        Returns the fingerprint of a key that is trusted from now on, None when it was known before.
        """
        if self._is_known(hop, key):
            return None
        if not trust_new:
            raise _unknown(hop, key, self._about(hop))
        with self._lock:
            for path in hop.known_hosts:  # another process may have added it
                self._forget(path)
            if self._judge(hop, key, self._about_unlocked(hop)):
                return None
            self._add(hop, key)
        return key.fingerprint

    def _is_known(self, hop: Hop, key: HostKey) -> bool:
        return self._judge(hop, key, self._about(hop))

    def _judge(self, hop: Hop, key: HostKey, about: tuple[KnownHostsEntry, ...]) -> bool:
        """Return whether the key is known. Raises AgentError for a revoked one, and for another than the known one."""
        for each in about:
            if each.marker == "@revoked" and each.key == key:
                raise AgentError(
                    "host-key-changed",
                    f"the key of {hop.known_as} is revoked",
                    saw=f"{key.fingerprint} ({key.kind}), revoked in {each.where}",
                    hint="do not connect: the owner of this key revoked it",
                )
        known = _counting(hop, about)
        if any(each.key == key for each in known):
            return True
        if known and known[0].fits(hop.known_as):
            raise AgentError(
                "host-key-changed",
                f"the key of {hop.known_as} is not the one in known_hosts",
                saw=f"{key.fingerprint} ({key.kind})",
                want=", ".join(f"{each.key.fingerprint} ({each.key.kind}, {each.where})" for each in known),
                hint=f"find out why; if the host is new, remove the old line: `ssh-keygen -R '{hop.known_as}'`",
            )
        return False

    def _about(self, hop: Hop) -> tuple[KnownHostsEntry, ...]:
        with self._lock:
            return self._about_unlocked(hop)

    def _about_unlocked(self, hop: Hop) -> tuple[KnownHostsEntry, ...]:
        """Return the entries for this host, also those of its bare name."""
        names = {hop.known_as} if hop.key_alias else {hop.known_as, hop.host.lower()}
        paths = (*hop.known_hosts, *hop.known_hosts_global)
        key = (frozenset(names), paths)
        if key not in self._found:
            self._found[key] = tuple(each for path in paths for each in self._book(path).lookup(names))
        return self._found[key]

    def _book(self, path: str) -> KnownHostsFile:
        if path not in self._files:
            # /dev/null is a common way to have none
            data = files.read(path, 0, _SIZE) if Path(path).is_file() else None
            self._files[path] = KnownHostsFile(parse((data or b"").decode(errors="surrogateescape"), path))
        return self._files[path]

    def _forget(self, path: str) -> None:
        self._files.pop(path, None)
        self._found.clear()

    def _add(self, hop: Hop, key: HostKey) -> None:
        """Append to the user's first file in one write, so that lines of threads and processes never mix."""
        if not hop.known_hosts:
            return
        path = Path(hop.known_hosts[0])
        name = _hashed(hop.known_as) if hop.hash_known_hosts else hop.known_as
        line = f"{name} {key.kind} {base64.b64encode(key.blob).decode()}\n"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    line = f"\n{line}"
                os.write(fd, line.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise AgentError(
                "write-failed",
                f"{path} cannot be written",
                saw=error.strerror or str(error),
                hint=fix("write-failed", PATH=str(path)),
            ) from None
        self._book(str(path)).add(KnownHostsEntry("", name, key, f"{path} (new)"))
        self._found.clear()


def _counting(hop: Hop, about: Iterable[KnownHostsEntry]) -> list[KnownHostsEntry]:
    """Return the keys that a host may have: those of its name with port, or else of the name alone."""
    plain = [each for each in about if not each.marker]
    return [each for each in plain if each.fits(hop.known_as)] or plain


def _unknown(hop: Hop, key: HostKey, about: tuple[KnownHostsEntry, ...]) -> AgentError:
    authorities = [each.where for each in about if each.marker == "@cert-authority"]
    hint = None
    if authorities:
        hint = (
            f"only `@cert-authority` fits ({authorities[0]}), and host certificates are not understood here: "
            "add the host's own key, or `--trust-new-hosts`"
        )
    return AgentError(
        "host-key-unknown",
        f"the key of {hop.known_as} is not in known_hosts",
        saw=f"{key.fingerprint} ({key.kind})",
        want=f"this key under {hop.known_as} in {' or '.join(hop.known_hosts) or 'a known_hosts file'}",
        hint=hint,
    )


def _fits_pattern(pattern: str, name: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    # not fnmatch: brackets are literal here
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name) is not None


def _fits_hash(hashed: str, name: str) -> bool:
    try:
        _, _, salt, digest = hashed.split("|")
        wanted = base64.b64decode(digest)
        return hmac.compare_digest(hmac.digest(base64.b64decode(salt), name.encode(), "sha1"), wanted)
    except (binascii.Error, ValueError):
        return False


def _hashed(name: str) -> str:
    salt = os.urandom(20)
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
