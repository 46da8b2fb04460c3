"""Reports on this machine's disk while a command lasts: 10,000 complete ones would fill the memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

# Bytes of all reports together: 10,000 of usual size have 50 MB.
_MOST = 1024 * 1024 * 1024


class ReportSpool:
    """A file without a name that holds reports; the one that was read last stays in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by __exit__
        self._size = 0
        self._last: tuple[int, dict[str, Any]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, report: Mapping[str, Any]) -> FiledReport:
        """Write a report, and return what reads it again. Raises AgentError `no-space`."""
        data = json.dumps(report).encode()
        offset, self._size = self._size, self._size + len(data)
        try:
            if self._size > _MOST:
                raise OSError(f"more than {_MOST:,} bytes")
            self._file.seek(offset)
            self._file.write(data)
        except OSError as error:
            raise AgentError(
                "no-space", "the reports do not fit on this machine's disk", saw=str(error),
                hint="name another place with TMPDIR, or read fewer reports: another prefix",
            ) from error  # fmt: skip
        return FiledReport(self, offset, len(data))

    def read(self, offset: int, size: int) -> dict[str, Any]:
        if self._last is None or self._last[0] != offset:
            self._file.seek(offset)
            self._last = (offset, json.loads(self._file.read(size)))
        return self._last[1]


class FiledReport(Mapping[str, Any]):
    """A report that is read from the disk when it is looked at."""

    def __init__(self, spool: ReportSpool, offset: int, size: int) -> None:
        self._spool = spool
        self._place = (offset, size)

    def __getitem__(self, key: str) -> Any:
        return self._spool.read(*self._place)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spool.read(*self._place))

    def __len__(self) -> int:
        return len(self._spool.read(*self._place))
