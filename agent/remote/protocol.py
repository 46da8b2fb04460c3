"""The messages between an operator and a host, and their framing; `agent/fleet/README.md` has the conversation.

Standard library only: this text is sent as a part of the bootstrap program, to hosts that may have no agent yet.
Messages are named tuples, since every host would pay half a millisecond for each dataclass.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Union

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import BinaryIO, Protocol

    class Incoming(Protocol):
        """Bytes from the operator. A read that waits longer than the reader allows raises ConnectionError."""

        def readline(self, most: int, /) -> bytes: ...

        def read(self, most: int, /) -> bytes: ...


# A host's record is this byte (RFC 7464), the word of the request, a JSON object and a line feed. All other lines are a
# login shell's output.
RECORD = b"\x1e"
# How long the operator may be silent while the host waits for it, in seconds; after that the connection counts as lost.
PATIENCE = 60
# Archives on a host, for both bootstrap programs: how many are kept beside the one in use, since a controller of the
# version before may still be running; and how the name of an incomplete one begins.
KEPT = 2
STAGING_PREFIX = ".new-"
_LINE = 1024 * 1024
_PIECE = 64 * 1024


class ArchiveRef(NamedTuple):
    """The archive of the agent that is to run: its SHA-256 in hex, and whether it stays on the host."""

    sha256: str
    keep: bool


class HostRequest(NamedTuple):
    """What a host is asked to do. The fields have the names of the JSON keys.

    `cluster` is the cluster of `desired` as the operator got it from AWS, if it did. `removal`: the plan is of a
    removal. `request` identifies it as RUN/HOST/ATTEMPT. `again`: it was sent before, and the connection broke.
    `resumed`: it was sent by an earlier controller. `seconds` is how long the run may take. `word` is what each record
    of the answer begins with; it is new for each session. `agent` has the packages of the agent, one of which is to be
    installed, as `agent.steps.agent_package` writes them; `removes_agent`: a removal takes that package off as well.
    """

    tree: ArchiveRef
    command: str
    removal: bool
    desired: Mapping[str, Any]
    cluster: Mapping[str, Any] | None
    request: str
    again: bool
    resumed: bool
    seconds: float
    word: str
    agent: Mapping[str, Any] | None = None
    removes_agent: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HostRequest:
        """Read what the operator sent. Raises KeyError for an incomplete one."""
        tree = ArchiveRef(values["tree"]["sha256"], values["tree"]["keep"])
        given = {
            "removal": False,
            "cluster": None,
            "resumed": False,
            "word": "",
            "agent": None,
            "removes_agent": False,
            **values,
        }
        return cls(tree, *(given[name] for name in cls._fields[1:]))

    def line(self) -> bytes:
        return line({**self._asdict(), "tree": self.tree._asdict()})

    def archive_line(self) -> bytes:
        """Return the part that PowerShell needs before it starts the agent, which then reads the whole request."""
        return line({**self.tree._asdict(), "word": self.word})


class Hello(NamedTuple):
    """The host's Python runs our program. `uid` is None on Windows."""

    python: str
    uid: int | None = None

    def record(self) -> dict[str, Any]:
        uid = {} if self.uid is None else {"uid": self.uid}
        return {"event": "hello", "python": self.python, **uid}


class Settled(NamedTuple):
    """The archive is in place on Windows: the agent there starts, and reads the request."""

    def record(self) -> dict[str, Any]:
        return {"event": "settled"}


class At(NamedTuple):
    """A step begins, as a check or (`changing`) as a change."""

    step: str
    changing: bool

    def record(self) -> dict[str, Any]:
        return {"event": "at", "step": self.step, "changing": self.changing}


class WantTree(NamedTuple):
    """The host does not have the archive."""

    def record(self) -> dict[str, Any]:
        return {"event": "want", "what": "tree"}


class WantFile(NamedTuple):
    """The host installs a package. The answer: FileHeader and its bytes, or Refused; before it, any number of WAIT."""

    url: str
    sha256: str | None

    def record(self) -> dict[str, Any]:
        return {"event": "want", "what": "file", "url": self.url, "sha256": self.sha256}


class Failed(NamedTuple):
    """There was no run: an error code, and what was seen."""

    code: str
    saw: str

    def record(self) -> dict[str, Any]:
        return {"event": "failed", "code": self.code, "saw": self.saw}


class ReportMessage(NamedTuple):
    """The host's report, as JSON values."""

    report: Any

    def record(self) -> dict[str, Any]:
        return {"event": "report", "report": self.report}


HostMessage = Union[Hello, Settled, At, WantTree, WantFile, Failed, ReportMessage]


class FileHeader(NamedTuple):
    """The bytes of a package follow: so many, and with this SHA-256 in hex."""

    size: int
    sha256: str

    def line(self) -> bytes:
        return line(self._asdict())


class Refused(NamedTuple):
    """The operator does not send the file, and why: the parts of an AgentError."""

    code: str
    sentence: str
    saw: str
    want: str

    def line(self) -> bytes:
        return line(self._asdict())


def line(values: Mapping[str, Any]) -> bytes:
    """Return a JSON object in one line of ASCII, which can also hold what is not valid text."""
    return json.dumps(values).encode() + b"\n"


# The operator itself still waits for the package.
WAIT = line({"wait": True})


def archive_message(data: bytes) -> bytes:
    """Return the answer to WantTree: the size of the archive, and its bytes."""
    return line({"size": len(data)}) + data


class RecordStream:
    """The host's end: records out; lines and bytes in. Every wait for input is bounded."""

    def __init__(self, incoming: Incoming, outgoing: BinaryIO) -> None:
        self._in = incoming
        self._out = outgoing
        self._word = b""

    def send(self, message: HostMessage) -> None:
        """Send a record. A broken connection does not stop the run: it finishes, and its report stays on the host."""
        try:
            self._out.write(RECORD + self._word + line(message.record()))
            self._out.flush()
        except (OSError, ValueError):
            # what is still buffered would fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())

    def request(self) -> HostRequest:
        """Return the request. From here on each record begins with its word, which no other program can know."""
        request = HostRequest.from_json(self.values())
        self._word = request.word.encode()
        return request

    def archive(self) -> bytes:
        """Return the answer to WantTree. Raises ConnectionError."""
        return b"".join(self.pieces(self.values()["size"]))

    def file_answer(self) -> FileHeader | Refused:
        """Return the answer to WantFile. Raises ConnectionError."""
        values = self.values()
        while "wait" in values:
            values = self.values()
        if "code" in values:
            return Refused(*(values[name] for name in Refused._fields))
        return FileHeader(values["size"], values["sha256"])

    def values(self) -> dict[str, Any]:
        """Return the next line, a JSON object. Raises ConnectionError when the connection is lost."""
        text = self._in.readline(_LINE)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ConnectionError("the link ended" if not text else "no record came over the link")
        return found

    def pieces(self, size: int) -> Generator[bytes, None, None]:
        """Yield `size` bytes as they arrive. What the caller does not take is read and dropped, up to the next line."""
        left = size
        try:
            while left:
                piece = self._in.read(min(_PIECE, left))
                if not piece:
                    raise ConnectionError(f"the link ended {left} bytes before the end of a file")
                left -= len(piece)
                yield piece
        finally:
            while left and sys.exc_info()[0] is not ConnectionError:
                piece = self._in.read(min(_PIECE, left))
                left = left - len(piece) if piece else 0
