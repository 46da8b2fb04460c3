"""The known hosts: which host keys are trusted for which name, and how a new one is added on request."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.codes import fix
from agent.core.errors import AgentError
from agent.hosts import files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from agent.ssh.config import Hop
    from agent.ssh.host_certificate import HostCertificate

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
class PublishedKeys:
    """The host keys that `source` shows for one EC2 instance; `lack` is why it shows none."""

    source: str
    keys: tuple[HostKey, ...] = ()
    lack: str = ""

    def refusal(self) -> str:
        """Return why a key that is not among them is not taken."""
        shown = ", ".join(f"{each.fingerprint} ({each.kind})" for each in self.keys)
        return f"{self.source} shows {shown}" if shown else f"{self.source}: {self.lack}"


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

    def has_authority(self, hop: Hop) -> bool:
        """Return whether the certificate of an authority would count for this host."""
        return bool(_counting(hop, self._about(hop), "@cert-authority"))

    def check(
        self,
        hop: Hop,
        key: HostKey,
        *,
        trust_new: bool = False,
        certificate: HostCertificate | None = None,
        published: Callable[[], PublishedKeys] | None = None,
    ) -> str | None:
        """Raise AgentError unless the key is known for this host, certified or published for it, or trusted on request.

        A certificate that proves nothing is as none, as with ssh: the key itself may be known. What is published for an
        instance is recorded under its id, and counts more than what is known of its address: that may have been another
        instance's. Returns the fingerprint of a key that is trusted from now on, None when it was known before.
        """
        about = self._about(hop)
        refusal = "the host has no certificate"
        if certificate is not None:
            _refuse_revoked(hop, certificate.authority, about, "authority for the key")
            refusal = _refusal(hop, certificate, about)
            if not refusal:
                _refuse_revoked(hop, key, about)
                return None
        if published is not None and not _is_among(hop, key, about):
            return self._check_published(hop, key, published(), trust_new=trust_new)
        if self._is_known(hop, key):
            return None
        if not trust_new:
            raise _unknown(hop, key, about, refusal)
        return self._record(hop, key, hop.known_as)

    def _check_published(
        self, hop: Hop, key: HostKey, published: PublishedKeys, *, trust_new: bool
    ) -> str | None:
        """Judge a key that is in no file for its host; the reason why it is not published stands in the error."""
        about = self._about(hop)
        _refuse_revoked(hop, key, about)
        is_of_address = not any(each.fits(hop.instance_id or "") for each in about if not each.marker)
        if hop.instance_id and is_of_address and key in published.keys:
            return self._record(hop, key, hop.instance_id)
        try:
            self._judge(hop, key, about)
        except AgentError as error:
            raise _with_reason(error, published) from None
        if not trust_new:
            raise _with_reason(_unknown(hop, key, about, "the host has no certificate"), published)
        return self._record(hop, key, hop.known_as)

    def _record(self, hop: Hop, key: HostKey, name: str) -> str | None:
        """Add a key under a name, and return its fingerprint; None where another process has added it."""
        with self._lock:
            for path in hop.known_hosts:
                self._forget(path)
            about = self._about_unlocked(hop)
            if name == hop.known_as and self._judge(hop, key, about):
                return None
            if not any(each.key == key and each.fits(name) and not each.marker for each in about):
                self._add(hop, key, name)
        return key.fingerprint

    def _is_known(self, hop: Hop, key: HostKey) -> bool:
        return self._judge(hop, key, self._about(hop))

    def _judge(self, hop: Hop, key: HostKey, about: tuple[KnownHostsEntry, ...]) -> bool:
        """Return whether the key is known. Raises AgentError for a revoked one, and for another than the known one."""
        _refuse_revoked(hop, key, about)
        known = _counting(hop, about)
        if any(each.key == key for each in known):
            return True
        if known and any(known[0].fits(name) for name in _own_names(hop)):
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
        names = set(_own_names(hop)) if hop.key_alias else {*_own_names(hop), hop.host.lower()}
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

    def _add(self, hop: Hop, key: HostKey, known_as: str) -> None:
        """Append to the user's first file in one write, so that lines of threads and processes never mix."""
        if not hop.known_hosts:
            return
        path = Path(hop.known_hosts[0])
        name = _hashed(known_as) if hop.hash_known_hosts else known_as
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


def _counting(hop: Hop, about: Iterable[KnownHostsEntry], marker: str = "") -> list[KnownHostsEntry]:
    """Return the keys that a host may have: of its instance id, or else its name with port, or else the name alone."""
    marked = [each for each in about if each.marker == marker]
    for name in _own_names(hop):
        found = [each for each in marked if each.fits(name)]
        if found:
            return found
    return marked


def _with_reason(error: AgentError, published: PublishedKeys) -> AgentError:
    error.saw = f"{error.saw}; {published.refusal()}"
    return error


def _own_names(hop: Hop) -> tuple[str, ...]:
    """Return the names that a host alone has, the surest first."""
    return (hop.instance_id, hop.known_as) if hop.instance_id else (hop.known_as,)


def _is_among(hop: Hop, key: HostKey, about: Iterable[KnownHostsEntry]) -> bool:
    return any(each.key == key for each in _counting(hop, about))


def _refuse_revoked(hop: Hop, key: HostKey, about: Iterable[KnownHostsEntry], what: str = "key") -> None:
    """Raise AgentError for a key that its owner revoked."""
    for each in about:
        if each.marker == "@revoked" and each.key == key:
            raise AgentError(
                "host-key-changed",
                f"the {what} of {hop.known_as} is revoked",
                saw=f"{key.fingerprint} ({key.kind}), revoked in {each.where}",
                hint="do not connect: the owner of this key revoked it",
            )


def _refusal(hop: Hop, certificate: HostCertificate, about: Iterable[KnownHostsEntry]) -> str:
    """Return why a certificate does not prove this host; empty where it does."""
    authority = certificate.authority
    if not any(each.key == authority for each in _counting(hop, about, "@cert-authority")):
        why: str | None = f"{authority.fingerprint} signed it, which is no authority for this host"
    else:
        name = (hop.key_alias or hop.host).lower()
        why = certificate.refusal(name, time.time(), hop.algorithms.authorities)
    return f"its certificate {certificate.key_id[:60]!r} is not taken: {why}" if why else ""


def _unknown(hop: Hop, key: HostKey, about: tuple[KnownHostsEntry, ...], refusal: str) -> AgentError:
    authorities = _counting(hop, about, "@cert-authority")
    saw, hint = f"{key.fingerprint} ({key.kind})", None
    if authorities:
        saw = f"{saw}; {refusal}"
        name = (hop.key_alias or hop.host).lower()
        hint = (
            f"`@cert-authority` in {authorities[0].where} wants a certificate: sign one, `ssh-keygen -s CA -h "
            f"-I {name} -n {name} KEY.pub`, and name it in HostCertificate of sshd_config; or add "
            "the host's own key"
        )
    return AgentError(
        "host-key-unknown",
        f"the key of {hop.known_as} is not in known_hosts",
        saw=saw,
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
