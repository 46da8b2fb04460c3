"""Where the bytes of a download go: a part beside the final name, or memory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from typing import IO, TYPE_CHECKING, Protocol

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import Stat


class FileSystem(Protocol):
    """The file functions of a host; one of the files may be a part of a download. Failures raise OSError."""

    def read(self, path: str, offset: int, limit: int, /) -> bytes | None: ...

    def lstat(self, path: str, /) -> Stat | None: ...

    def replace(self, path: str, data: bytes, mode: int, owner: tuple[int, int] | None, /) -> None: ...

    def remove(self, path: str, /) -> None: ...

    def make_folders(self, folder: str, /) -> None: ...

    def write_error(self, error: OSError, path: str, /) -> AgentError: ...

    def open_to_read(self, path: str, /) -> int: ...

    def open_part(self, path: str, /) -> int: ...

    def publish(self, part: str, path: str, /) -> None: ...

    def local_path(self, rest: str, /) -> str: ...


class DownloadBuffer(Protocol):
    """The destination of the bytes."""

    have: int
    resumed: bool

    def resumable(self) -> tuple[int, str]:
        """Return how many bytes of this file are here, and the validator with which to ask for the rest."""

    def begin(self, start: int, validator: str, /) -> None: ...

    def add(self, data: bytes) -> None: ...

    def end(self) -> None:
        """Make the bytes so far durable, whatever comes next."""

    def forget(self) -> None: ...


class PartialFile:
    """The unfinished file beside the final name, and a note of the file that it is a part of."""

    def __init__(self, url: str, path: str, disk: FileSystem) -> None:
        self.have = 0
        self.resumed = False
        self.name = path + ".part"
        self._url = url
        self._path = path
        self._note = path + ".part.from"
        self._disk = disk
        self._file: IO[bytes] | None = None

    def resumable(self) -> tuple[int, str]:
        with contextlib.suppress(AgentError, OSError, ValueError, KeyError, TypeError):
            origin = json.loads(self._disk.read(self._note, 0, 65536) or b"null")
            part = self._disk.lstat(self.name)
            if part and origin["url"] == self._url_key() and is_validator(origin["validator"]):
                return part.size, origin["validator"]
        return 0, ""

    def begin(self, start: int, validator: str) -> None:
        if is_validator(validator):
            origin = {"url": self._url_key(), "validator": validator}
            self._disk.replace(self._note, json.dumps(origin).encode(), 0o600, None)
        else:
            self._disk.remove(self._note)
        fd = self._disk.open_part(self.name)
        self._file = os.fdopen(fd, "wb")
        os.ftruncate(fd, start)
        os.lseek(fd, start, os.SEEK_SET)
        self.have = start
        self.resumed = start > 0

    def add(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            self.have += len(data)

    def end(self) -> None:
        if self._file is not None:
            with self._file as file:
                self._file = None
                file.flush()
                os.fsync(file.fileno())

    def forget(self) -> None:
        self._disk.remove(self.name)
        self._disk.remove(self._note)
        self.have = 0

    def take_name(self) -> None:
        self._disk.publish(self.name, self._path)
        self._disk.remove(self._note)

    def _url_key(self) -> str:
        """Return a form of the URL that may be stored: the URL itself may contain a password."""
        return hashlib.sha256(self._url.encode()).hexdigest()


class MemoryBuffer:
    """Bytes in memory, for small files."""

    def __init__(self) -> None:
        self.have = 0
        self.resumed = False
        self.data = bytearray()

    def resumable(self) -> tuple[int, str]:
        return 0, ""

    def begin(self, _start: int, _validator: str, /) -> None:
        self.forget()

    def add(self, data: bytes) -> None:
        self.data += data
        self.have += len(data)

    def end(self) -> None:
        """Do nothing: memory needs no settling."""

    def forget(self) -> None:
        self.data.clear()
        self.have = 0


def is_validator(text: object) -> bool:
    """Tell whether this identifies exact bytes and can be sent back: a strong ETag or a date, on one visible line.

    A weak ETag does not identify them (RFC 9110, section 13.1.5). The client would refuse to send a folded value or one
    with a control character, and every later download would fail.
    """
    tag_or_date = r'"[!#-~]{1,200}"|[A-Z][a-z]{2}, [0-9A-Za-z: ]{20,30}'
    return isinstance(text, str) and re.fullmatch(tag_or_date, text) is not None


def hash_of(disk: FileSystem, path: str) -> str:
    """Return the SHA-256 of a regular file, empty when there is none."""
    try:
        fd = disk.open_to_read(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        if error.errno == errno.EINVAL:
            return ""
        raise
    with os.fdopen(fd, "rb") as file:
        digest = hashlib.sha256()
        for data in iter(lambda: file.read(1024 * 1024), b""):
            digest.update(data)
        return digest.hexdigest()
