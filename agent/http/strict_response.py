"""http.client's response, except that it skips interim answers and refuses incomplete ones."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import BinaryIO

# 101 answers a request to switch protocols, which is never sent; 100, 102 and 103 come before the final answer.
_INTERIM = (100, *range(102, 200))
_MOST_INTERIM = 20


class ContradictionError(http.client.HTTPException):
    """An answer has two lengths."""


class TruncatedError(http.client.HTTPException):
    """An answer ends before its headers do."""


class _HeaderLines:
    """The file that an answer is read from, line by line; it remembers the last line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def close(self) -> None:
        self._file.close()


class StrictResponse(http.client.HTTPResponse):
    """An answer; http.client takes 103 for the final answer, and reads as many 100 as come, all in one call.

    It also accepts a connection that ends in the middle of the headers: a server that died may have sent `200 OK`.
    Two lengths are refused here: urllib3 checks them when no code closes the connection any more.
    """

    def begin(self) -> None:
        file = self.fp
        lines: Any = _HeaderLines(file)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:  # not closed meanwhile
                self.fp = file
        if not lines.last:
            raise TruncatedError
        lengths = ",".join(self.headers.get_all("Content-Length", ())).split(",")
        if len({each.strip() for each in lengths}) > 1:
            raise ContradictionError

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM):
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if line[1] not in _INTERIM:
                return line
            http.client.parse_headers(self.fp)
        raise http.client.BadStatusLine("one interim answer after the other")
