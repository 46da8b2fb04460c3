"""Where hosts leave their reports: a prefix in S3, or a folder."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from agent.core.aws_names import s3_prefix
from agent.core.errors import AgentError
from agent.http.connection_pool import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.aws.access import AwsAccess
    from agent.aws.client import AwsClient
    from agent.core.host import HostView

# Bytes of one report: an honest one has at most 1 MiB, and is written with indents.
MOST_BYTES = 2 * 1024 * 1024
# Of one call with its tries, in seconds: S3 throttles a prefix that is read fast, and wants pauses.
_SECONDS, _TRIES = 60.0, 6
_ABSENT = ("NoSuchKey",)


@dataclass(frozen=True)
class StoredObject:
    """A file or an object: its name without the place, its size in bytes, and when it was written, in epoch seconds."""

    name: str
    size: int
    written: float


class ReportSource(Protocol):
    """A place with reports; `place` is its name for people. `read` is called in several threads at once."""

    @property
    def place(self) -> str: ...

    def objects(self) -> Iterator[StoredObject]:
        """Yield what lies there, in the order of the names. Raises AgentError."""

    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object, None where it is gone meanwhile. Raises AgentError."""

    def close(self) -> None:
        """Have calls of `read` that are waiting end soon, with AgentError `interrupted`."""


class FolderSource:
    """A folder of this machine, such as one that `aws s3 sync` fills."""

    def __init__(self, view: HostView, path: str) -> None:
        self._view = view
        self.place = path

    def objects(self) -> Iterator[StoredObject]:
        """Yield the regular files. Raises AgentError `nothing-recorded` where there is no such folder."""
        if self._view.stat(f"{self.place}/.") is None:
            raise AgentError(
                "nothing-recorded", "there is no directory with reports", saw=f"no directory {self.place}",
                want="a directory, or s3://BUCKET/PREFIX/", hint="name what the hosts' `--report-to` names",
            )  # fmt: skip
        for name in self._view.list_dir(self.place):
            seen = self._view.stat(f"{self.place}/{name}")
            if seen is not None and seen.kind == "file":
                yield StoredObject(name, seen.size, seen.mtime)

    def read(self, name: str) -> bytes | None:
        return self._view.read(f"{self.place}/{name}", limit=MOST_BYTES)

    def close(self) -> None:
        pass


class BucketSource:
    """A prefix in S3, as the sink `s3://BUCKET/PREFIX/` writes to it; nothing deeper is read, such as `history/`."""

    def __init__(self, access: AwsAccess, uri: str) -> None:
        """Raise AgentError `aws-region-unknown` where nothing names a region."""
        from agent.aws.buckets import BucketClient  # noqa: PLC0415 -- 30 ms

        def patient(client: AwsClient) -> AwsClient:
            return replace(
                client,
                check_stopped=self._check_stopped,
                tries=_TRIES,
                seconds=_SECONDS,
                try_seconds=_SECONDS,
                pool=self._pool,
            )

        self._closed = threading.Event()
        self._pool = ConnectionPool()
        self._location = s3_prefix(uri)
        self._bucket = BucketClient(access, self._location, patient)
        self.place = f"s3://{self._location.bucket}/{self._location.below('')}"

    def objects(self) -> Iterator[StoredObject]:
        prefix = self._location.below("")
        for each in self._bucket.objects(prefix):
            if each.key != prefix:  # the console makes an empty object for a folder
                yield StoredObject(each.key[len(prefix) :], each.size, each.modified)

    def read(self, name: str) -> bytes | None:
        from agent.aws.client import AwsRefusedError  # noqa: PLC0415 -- 30 ms
        from agent.aws.operations import GET_OBJECT  # noqa: PLC0415 -- as above

        try:
            return bytes(self._bucket.call(GET_OBJECT, {"Key": self._location.below(name)})["Body"])
        except AwsRefusedError as error:
            if error.refusal.code in _ABSENT:
                return None
            raise

    def close(self) -> None:
        self._closed.set()
        self._pool.close()

    def _check_stopped(self) -> None:
        if self._closed.is_set():
            raise AgentError("interrupted", "the reports are not read to their end")
