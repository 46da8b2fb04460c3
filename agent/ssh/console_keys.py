"""The host keys that cloud-init prints on the console of an instance, at its first boot alone.

Only the block of keys counts, whose lines have nothing before them. That of fingerprints goes through syslog: what any
user of the host logs may look the same there.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from agent.ssh.key_blob import is_whole
from agent.ssh.known_hosts import HostKey

_BEGIN = "-----BEGIN SSH HOST KEY KEYS-----"
_END = "-----END SSH HOST KEY KEYS-----"
# A key, and the beginning of one that a line of the kernel cut.
_KEY = re.compile(r"(ssh-[a-z0-9]+|ecdsa-sha2-[a-z0-9]+) ([A-Za-z0-9+/]+={0,2})(?: .*)?")
_ANY_KEY = re.compile(r"(?:ssh|ecdsa)-[a-z0-9-]+(?: .*)?")


@dataclass(frozen=True)
class ConsoleKeys:
    """The keys of the last block of a console's output, and how many lines of it are keys no more.

    `is_there`: it has such a block at all.
    """

    keys: tuple[HostKey, ...] = ()
    cut: int = 0
    is_there: bool = False


def read_console(output: str) -> ConsoleKeys:
    """Return the keys of an output. A key that is cut or mixed with other lines is none.

    Of several blocks the last one counts: the instance has made new keys since the others.
    """
    lines = [line.rstrip() for line in output.split("\n")]
    starts = [number for number, line in enumerate(lines) if line == _BEGIN]
    if not starts:
        return ConsoleKeys()
    block = lines[starts[-1] + 1 :]
    if _END in block:
        block = block[: block.index(_END)]
    keys: dict[HostKey, None] = {}
    cut = 0
    for line in block:
        key = _key(line)
        if key is not None:
            keys[key] = None
        elif _ANY_KEY.fullmatch(line):
            cut += 1
    return ConsoleKeys(tuple(keys), cut, is_there=True)


def _key(line: str) -> HostKey | None:
    found = _KEY.fullmatch(line)
    if found is None:
        return None
    kind, encoded = found[1], found[2]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return HostKey(kind, blob) if is_whole(kind, blob) else None
