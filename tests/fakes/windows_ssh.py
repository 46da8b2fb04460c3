"""A Windows host behind its OpenSSH server, for the conversation alone: a shell that answers as cmd or PowerShell does.

What PowerShell would do with our two scripts is done in Python, once they were seen to be ours to the letter; so this
shows what is said to a host and what is made of its answers, and nothing about the scripts themselves. Owners of
folders are noted, since there are none of Windows here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import io
import json
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import paramiko
from paramiko import common

from agent.remote.protocol import KEPT, PATIENCE, RECORD, STAGING_PREFIX
from agent.render.templates import render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

CHECKOUT = Path(__file__).parents[2]
START = render("fleet/start.ps1", patience=PATIENCE)
LANDING = render("fleet/landing.ps1", draft=STAGING_PREFIX, kept=KEPT).encode("ascii")
ADMINISTRATORS, SOMEBODY = "S-1-5-32-544", "S-1-5-21-1004336348-1177238915-682003330-1013"
WORDS = "powershell -NoProfile -NonInteractive -InputFormat None -EncodedCommand"
_PATIENCE = 60.0
_PIECE = 64 * 1024

FarEnd = Callable[["Exec"], int]


@dataclass
class Exec:
    """A command that was begun: its three streams."""

    channel: paramiko.Channel
    incoming: BinaryIO
    word: str = ""

    def out(self, data: bytes) -> None:
        self.channel.sendall(data)

    def err(self, text: str) -> None:
        self.channel.sendall_stderr(text.replace("\n", "\r\n").encode("cp850", "replace"))

    def say(self, event: str, **values: Any) -> None:
        self.out(RECORD + self.word.encode() + json.dumps({"event": event, **values}).encode() + b"\n")

    def line(self) -> dict[str, Any]:
        text = self.incoming.readline()
        if not text.endswith(b"\n"):
            raise _FailedError("link-lost", "the link ended")
        found: dict[str, Any] = json.loads(text)
        return found


class _FailedError(Exception):
    """What the script says at its end: a code, and what was seen."""


@dataclass
class WindowsHost:
    """One host. `shell` is its default shell, `data` its %ProgramData%, `far_end` what its hsm-agent.exe says and does.

    `noise` is what AutoRun of cmd, or a profile of PowerShell, prints before anything. `status` is how cmd ends after a
    line of unknown words. `blocked` are the words of software or of a policy that allows no script. `room` is the free
    space in bytes, `damaged` changes a byte that comes, `cuts` has for each visit after how many bytes of the tree
    the connection breaks.
    """

    shell: str
    data: Path
    far_end: FarEnd
    noise: bytes = b""
    status: int = 1
    administrator: bool = True
    blocked: str = ""
    room: int = 1 << 40
    damaged: bool = False
    cuts: list[int] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    began: list[str] = field(default_factory=list)

    @property
    def trees(self) -> Path:
        return self.data / "hsm-agent" / "trees"

    @property
    def names(self) -> list[str]:
        """What lies among the trees."""
        return sorted(each.name for each in self.trees.iterdir()) if self.trees.exists() else []

    def run(self, command: str, streams: Exec) -> int:
        """Do what the default shell does with a line, and return its exit status."""
        self.began.append(command.partition(" ")[0])
        streams.out(self.noise)
        if command.startswith("echo "):
            streams.out(self._echo(command[5:].split()))
            return 0
        words = command.split(" ")
        if words[0] == "powershell":
            return self._powershell(words, streams)
        return self._unknown(words[0], command, streams)

    def _echo(self, words: list[str]) -> bytes:
        if self.shell == "cmd":  # one line, in which only what stands between % has a meaning
            return " ".join("Windows_NT" if word == "%OS%" else word for word in words).encode() + b"\r\n"
        return b"".join((b"Windows_NT" if word == "$env:OS" else word.encode()) + b"\r\n" for word in words)

    def _unknown(self, word: str, command: str, streams: Exec) -> int:
        if self.shell == "cmd":  # each part that `||` begins is tried
            for part in command.split("||"):
                first = part.replace("=", " ").replace(";", " ").split()[0]
                streams.err(
                    f"'{first}' is not recognized as an internal or external command,\n"
                    "operable program or batch file.\n"
                )
            return self.status
        streams.err(
            f"{word} : The term '{word}' is not recognized as the name of a cmdlet, function, script file, or operable \n"
            "program. Check the spelling of the name, or if a path was included, verify that the path is correct and try \n"
            f"again.\nAt line:1 char:1\n+ {command[:60]} ...\n+ ~~~~\n"
            f"    + CategoryInfo          : ObjectNotFound: ({word}:String) [], CommandNotFoundException\n"
            "    + FullyQualifiedErrorId : CommandNotFoundException\n \n"
        )
        return 1

    # --- what the scripts do

    def _powershell(self, words: list[str], streams: Exec) -> int:
        assert " ".join(words[:-1]) == WORDS
        assert len(" ".join(words)) < 8191
        assert base64.b64decode(words[-1]).decode("utf-16-le") == START
        if self.blocked:
            streams.err(_as_xml(self.blocked))
            return 1
        length = int(streams.incoming.readline())
        assert streams.incoming.read(length) == LANDING
        draft = self.trees / f"{STAGING_PREFIX}{secrets.token_hex(4)}"
        try:
            place = self._settled(streams, draft)
            streams.say("settled")
            assert (place / "hsm-agent.exe").is_file()
            return self.far_end(streams)
        except _FailedError as failed:
            code, saw = failed.args
            streams.say("failed", code=code, saw=saw)
            return 1
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _settled(self, streams: Exec, draft: Path) -> Path:
        wanted = streams.line()
        streams.word = wanted["word"]
        if not self.administrator:
            raise _FailedError("not-root", r"HOST\plain is no administrator, or not elevated")
        sha256: str = wanted["sha256"]
        place = self.trees / sha256
        self._require_own(self.trees.parent)
        self._require_own(self.trees)
        if place.exists():
            self._require_own(place)
            return place
        self._require_own(draft)
        tree = self._received(streams, draft, sha256)
        if not wanted["keep"]:
            return tree
        tree.rename(place)
        self._require_own(place)
        shutil.rmtree(draft)
        others = [each for each in self.trees.iterdir() if each != place]
        drafts = [each for each in others if each.name.startswith(STAGING_PREFIX)]
        older = sorted(set(others) - set(drafts), key=lambda each: each.stat().st_mtime)
        for each in (*drafts, *older[:-KEPT]):
            shutil.rmtree(each)
        return place

    def _require_own(self, folder: Path) -> None:
        if not folder.exists():
            folder.mkdir()
        shown = str(folder.relative_to(self.data)).replace("/", "\\")
        owner = self.owners.get(shown, ADMINISTRATORS)
        if owner != ADMINISTRATORS:
            raise _FailedError("write-failed", rf"C:\ProgramData\{shown} belongs to {owner}")
        if shown in self.faults:
            raise _FailedError("write-failed", rf"C:\ProgramData\{shown} {self.faults[shown]}")

    def _received(self, streams: Exec, draft: Path, sha256: str) -> Path:
        streams.say("want", what="tree")
        left, data = streams.line()["size"], bytearray()
        cut = self.cuts.pop(0) if self.cuts else None
        while left:
            piece = streams.incoming.read(min(_PIECE, left))
            left -= len(piece)
            data += piece
            if cut is not None and len(data) > cut:
                streams.channel.get_transport().close()
            if not piece:
                raise _FailedError("link-lost", "the link ended")
            if len(data) > self.room:
                raise _FailedError("no-space", "There is not enough space on the disk.\r\n")
        if self.damaged:
            data[-1] ^= 1
        seen = hashlib.sha256(data).hexdigest()
        if seen != sha256:
            raise _FailedError("checksum-mismatch", f"sha256:{seen}, wanted sha256:{sha256}")
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            packed.extractall(draft / "t")
        (top,) = (draft / "t").iterdir()
        return top


def _as_xml(text: str) -> str:
    """What Windows PowerShell makes of the errors of an encoded command; of progress it tells, too."""
    lines = [html.escape(each, quote=False) + "_x000D__x000A_" for each in text.splitlines()]
    errors = "".join(f'<S S="Error">{each}</S>' for each in lines)
    progress = (
        '<Obj S="progress" RefId="0"><MS><S N="Activity">Preparing modules for first use.</S></MS></Obj>'
    )
    place = "http://schemas.microsoft.com/powershell/2004/04"
    return f'#< CLIXML\n<Objs Version="1.1.0.1" xmlns="{place}">{progress}{errors}</Objs>'


def agent_of_linux(streams: Exec) -> int:
    """Be hsm-agent.exe with this machine's own Python: the other side of the conversation, and nothing of Windows."""
    argv = [sys.executable, "-m", "agent", "far-end"]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        told, heard = child.stdin, child.stdout

        def carry() -> None:
            with contextlib.suppress(OSError), told:
                for line in iter(streams.incoming.readline, b""):
                    told.write(line)
                    told.flush()

        carrier = threading.Thread(target=carry, daemon=True)
        carrier.start()
        for line in iter(heard.readline, b""):
            streams.out(line.replace(b"\n", b"\r\n"))
        carrier.join(_PATIENCE)
        return child.wait(_PATIENCE)


class _Server(paramiko.ServerInterface):
    """Lets one key in, and begins each command in a thread of its own."""

    def __init__(self, host: WindowsHost, key: paramiko.PKey, commands: list[threading.Thread]) -> None:
        self._host = host
        self._key = key
        self._commands = commands

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return common.AUTH_SUCCESSFUL if key == self._key else common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED if kind == "session" else common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        thread = threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True)
        self._commands.append(thread)
        thread.start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        channel.settimeout(_PATIENCE)
        # the answer to the request is sent only after it was asked for; what comes next tells that it has arrived
        told = threading.Event()
        channel.in_buffer.set_event(told)
        told.wait(_PATIENCE)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException), channel:
            incoming: Any = channel.makefile("rb")
            channel.send_exit_status(self._host.run(command, Exec(channel, incoming)))
            channel.shutdown_write()


@contextlib.contextmanager
def serving(host: WindowsHost, host_key: Path, user_key: Path) -> Iterator[int]:
    """Let a host be reached on a port of 127.0.0.1 by who has the private key whose public half lies beside it.

    At the end all connections are closed, and what was begun there comes to its end.
    """
    _, blob, *_ = user_key.with_suffix(".pub").read_text().split()
    user = paramiko.Ed25519Key(data=base64.b64decode(blob))
    own = paramiko.Ed25519Key.from_private_key_file(str(host_key))
    transports: list[paramiko.Transport] = []
    commands: list[threading.Thread] = []
    stopped = threading.Event()

    def accept(listener: socket.socket) -> None:
        while not stopped.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(sock)
            transports.append(transport)
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                transport.add_server_key(own)
                transport.start_server(server=_Server(host, user, commands))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            stopped.set()
            listener.shutdown(socket.SHUT_RDWR)
            for transport in transports:
                transport.close()
            for each in (thread, *commands):
                each.join(_PATIENCE)
