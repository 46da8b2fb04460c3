"""Many hosts in one process: an SSH server on loopback addresses that tells what one real far end once said.

    python -m tests.fakes.crowd FOLDER FIRST COUNT PORT LATENCY

FOLDER has `host_key`, `user.pub` (the one key that is let in) and `conversation.jsonl`, one record of the far end a
line, which a real host sent. Every host of 127.x.y.z from number FIRST on says it, waiting LATENCY seconds before its
banner and before each record. When all listen it prints `ready`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import selectors
import socket
import sys
import threading
from pathlib import Path

import paramiko
from paramiko import common

# sshd's own backlog
_BACKLOG = 128
_PATIENCE = 60.0
# the request whose conversation was recorded; each host says its own instead
RECORDED = "recorded/for/1"


def address(number: int) -> str:
    """Return the loopback address of a host: 127.1.0.1 for the first."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


class _Server(paramiko.ServerInterface):
    """Lets one key in, and gives out sessions that run one command each."""

    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key
        self.asked = threading.Event()

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return common.AUTH_SUCCESSFUL if key == self._key else common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED if kind == "session" else common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.asked.set()
        return True


class Crowd:
    """What all hosts share."""

    def __init__(self, folder: Path, latency: float) -> None:
        self._host_key = paramiko.Ed25519Key.from_private_key_file(str(folder / "host_key"))
        kind, blob, *_ = (folder / "user.pub").read_text().split()
        assert kind == "ssh-ed25519", kind
        self._user_key = paramiko.Ed25519Key(data=base64.b64decode(blob))
        self._lines = (folder / "conversation.jsonl").read_bytes().splitlines()
        self._latency = latency
        self._never = threading.Event()

    def serve(self, sock: socket.socket) -> None:
        """Hold one conversation, and leave whatever goes wrong to the other side."""
        self._wait()
        transport = paramiko.Transport(sock)
        try:
            transport.add_server_key(self._host_key)
            server = _Server(self._user_key)
            transport.start_server(server=server)
            channel = transport.accept(_PATIENCE)
            if channel is not None and server.asked.wait(_PATIENCE):
                channel.settimeout(_PATIENCE)
                self._converse(channel)
        except (OSError, EOFError, paramiko.SSHException):
            pass
        finally:
            transport.close()

    def _converse(self, channel: paramiko.Channel) -> None:
        with channel.makefile("rb") as incoming:
            incoming.read(int(incoming.readline()))  # the landing program
            request = json.loads(incoming.readline())
            assert request["command"] == "configure"
            # a report of another request than its own is not believed
            asked = json.dumps(request.get("request", RECORDED)).encode()
            for line in self._lines:
                self._wait()
                said = line.replace(json.dumps(RECORDED).encode(), asked)
                channel.sendall(b"\x1e" + request.get("word", "").encode() + said + b"\n")
            incoming.read()  # until the other side has no more to say
            channel.send_exit_status(0)
            channel.shutdown_write()
            self._wait()

    def _wait(self) -> None:
        self._never.wait(self._latency)


def main(folder: str, first: str, count: str, port: str, latency: str) -> None:
    crowd = Crowd(Path(folder), float(latency))
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for number in range(int(first), int(first) + int(count)):
            listener = stack.enter_context(
                socket.create_server((address(number), int(port)), backlog=_BACKLOG)
            )
            selector.register(listener, selectors.EVENT_READ)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                sock, _ = key.fileobj.accept()
                threading.Thread(target=crowd.serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
