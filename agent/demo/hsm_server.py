"""One HSM of the stand-in cluster: a TLS server on 2223, 2224 and 2225, with modes switched at run time.

It speaks TLS with the cluster certificate, sends one JSON line about itself and closes. It is no HSM protocol,
and it has one layer of TLS where CloudHSM has two (cloudhsm-facts.md 5.2).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import ssl
import sys
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.demo import server_process
from agent.demo.pki import KeyPair

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PORTS = (2223, 2224, 2225)
HANDSHAKE_SECONDS = 20.0
HOLD_SECONDS = 600.0
MOST_CONNECTIONS = 512
# the most that is read from a client that continues to send after a failed handshake, 1 MB
_MOST_READS = 16
MODES = {
    "normal": "TLS, and an activated cluster",
    "unactivated": "TLS, and a cluster that is initialised but not activated",
    "mtls": "TLS that demands a client certificate",
    "other-ca": "TLS with a certificate of another CA",
    "silent": "accepts, and never answers",
    "plain": "accepts, and answers what is not TLS",
    "closing": "accepts, and closes at once",
}


@dataclass(frozen=True)
class HsmServer:
    """The properties of one stand-in HSM. `state` is the small file that holds its mode; absent means normal."""

    address: str
    identity: KeyPair
    other: KeyPair
    client_ca: Path
    state: Path
    ports: tuple[int, ...] = PORTS
    serial: str = ""
    hsm_type: str = "hsm1.medium"
    users: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    log: Path | None = None

    def arguments(self) -> list[str]:
        """Return the command line of `python -m agent.demo.hsm_server` for this HSM."""
        named = {
            "--listen": self.address,
            "--ports": ",".join(str(port) for port in self.ports),
            "--cert": str(self.identity.cert),
            "--key": str(self.identity.key),
            "--other-cert": str(self.other.cert),
            "--other-key": str(self.other.key),
            "--client-ca": str(self.client_ca),
            "--state": str(self.state),
            "--serial": self.serial,
            "--hsm-type": self.hsm_type,
            "--users": ",".join(self.users),
            "--peers": ",".join(self.peers),
            "--log": "" if self.log is None else str(self.log),
        }
        return [f"{flag}={value}" for flag, value in named.items() if value]

    def says(self, mode: str) -> dict[str, object]:
        """Return its description of itself: the fields of the documented `hsm-info` and `user list` samples."""
        admin = "unactivated-admin" if mode == "unactivated" else "admin"
        roles = [("admin", admin), ("app_user", "internal(APPLIANCE_USER)")]
        roles += [(name, "crypto-user") for name in self.users]
        return {
            "hsm-type": self.hsm_type,
            "hsm-info": {
                "vendor": "Marvell Semiconductors, Inc.",
                "model": "NITROX-III CNN35XX-NFBE",
                "serial-number": self.serial or f"5.3G1941-ICM{zlib.crc32(self.address.encode()) % 10**6:06}",
                "hardware-version-major": "5",
                "hardware-version-minor": "3",
                "firmware-version-major": "2",
                "firmware-version-minor": "6",
                "firmware-build-number": "16",
                "firmware-id": "CNN35XX-NFBE-FW-2.06-16",
                "fips-state": "2 [FIPS mode with single factor authentication]",
            },
            "users": [{"username": name, "role": role, "locked": "false", "mfa": []} for name, role in roles],
            "peers": list(self.peers or (self.address,)),
        }


def set_mode(state: Path, mode: str) -> None:
    """Switch a running HSM; the next connection sees it."""
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode}, known: {' '.join(MODES)}")
    part = state.with_name(state.name + ".part")
    part.write_text(mode)
    part.replace(state)


@contextlib.contextmanager
def running(hsm: HsmServer, *, prefix: Sequence[str] = ()) -> Iterator[server_process.ServerProcess]:
    """Run this HSM as a process of its own while the block lasts, behind `prefix` (nsenter)."""
    with server_process.running("agent.demo.hsm_server", hsm.arguments(), prefix=prefix) as started:
        yield started


class _HsmProcess:
    def __init__(self, hsm: HsmServer) -> None:
        self._hsm = hsm
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._log_lock = threading.Lock()
        self._contexts = {
            "normal": _context(hsm.identity),
            "other-ca": _context(hsm.other),
            "mtls": _context(hsm.identity, demand=hsm.client_ca),
        }

    def serve(self, *, until_eof: bool) -> None:
        """Accept until asked to stop. Each connection has a thread; at most MOST_CONNECTIONS of them."""
        selector = selectors.DefaultSelector()
        endings = list(server_process.ending(until_eof=until_eof))
        for each in endings:
            selector.register(each, selectors.EVENT_READ)  # type: ignore[arg-type]
        listeners = []
        for port in self._hsm.ports:
            listener = _listen(self._hsm.address, port)
            selector.register(listener, selectors.EVENT_READ, listener)
            listeners.append(listener)
        server_process.say_ready(self._hsm.address, [listener.getsockname()[1] for listener in listeners])
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    return
                with contextlib.suppress(OSError):
                    connection, peer = key.data.accept()
                    self._hand_over(connection, peer[0], key.data.getsockname()[1])

    def _hand_over(self, connection: socket.socket, peer: str, port: int) -> None:
        if not self._slots.acquire(blocking=False):
            connection.close()
            return
        threading.Thread(target=self._guarded, args=(connection, peer, port), daemon=True).start()

    def _guarded(self, connection: socket.socket, peer: str, port: int) -> None:
        try:
            mode, said = self._mode(), "answered"
            try:
                with connection:
                    self._answer(connection, mode)
            except OSError as error:
                said = f"{type(error).__name__}: {error}"
            self._note({"port": port, "peer": peer, "mode": mode, "said": said})
        finally:
            self._slots.release()

    def _answer(self, connection: socket.socket, mode: str) -> None:
        if mode == "closing":
            return
        if mode in ("silent", "plain"):
            connection.settimeout(HOLD_SECONDS)
            if mode == "plain":
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
            return
        connection.settimeout(HANDSHAKE_SECONDS)
        context = self._contexts.get(mode, self._contexts["normal"])
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as tls:
            try:
                tls.do_handshake()
            except ssl.SSLError:
                _drain(tls)
                raise
            tls.sendall(json.dumps(self._hsm.says(mode)).encode() + b"\n")
            while tls.recv(65536):
                pass

    def _mode(self) -> str:
        try:
            mode = self._hsm.state.read_text().strip() or "normal"
        except FileNotFoundError:
            return "normal"
        if mode in MODES:
            return mode
        sys.stderr.write(f"{self._hsm.state}: unknown mode {mode!r}, known: {' '.join(MODES)}\n")
        return "closing"

    def _note(self, entry: dict[str, object]) -> None:
        if self._hsm.log is not None:
            with self._log_lock, self._hsm.log.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def _context(identity: KeyPair, *, demand: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=1")  # the client must complain about a weak key, not this server
    context.load_cert_chain(identity.cert, identity.key)
    if demand is not None:
        context.load_verify_locations(demand)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _drain(tls: ssl.SSLSocket) -> None:
    """Let the client read the alert first: closing a socket with unread bytes sends a reset, and on a reset
    Windows drops what its client has not read yet.
    """
    socket.socket.shutdown(tls, socket.SHUT_WR)
    for _ in range(_MOST_READS):
        if not socket.socket.recv(tls, 65536):
            return


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=256)


def main(arguments: Sequence[str]) -> None:
    """Run one HSM until SIGTERM, SIGINT or, if asked for, the end of standard input."""
    parser = argparse.ArgumentParser(prog="python -m agent.demo.hsm_server", description=__doc__)
    parser.add_argument("--listen", required=True, metavar="ADDRESS")
    parser.add_argument("--ports", default=",".join(map(str, PORTS)), help="0 takes a free port")
    parser.add_argument("--cert", required=True, type=Path, help="the cluster certificate")
    parser.add_argument("--key", required=True, type=Path)
    parser.add_argument("--other-cert", required=True, type=Path, help="for the mode other-ca")
    parser.add_argument("--other-key", required=True, type=Path)
    parser.add_argument("--client-ca", required=True, type=Path, help="trust anchor for the mode mtls")
    parser.add_argument(
        "--state", required=True, type=Path, help=f"file that holds one of: {' '.join(MODES)}"
    )
    parser.add_argument("--serial", default="")
    parser.add_argument("--hsm-type", default="hsm1.medium")
    parser.add_argument("--users", default="", help="crypto users beside admin and app_user, with commas")
    parser.add_argument("--peers", default="", help="addresses of all HSMs of the cluster, with commas")
    parser.add_argument("--log", type=Path, help="one JSON line for each connection is added to this file")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    given = parser.parse_args(arguments)
    hsm = HsmServer(
        address=given.listen,
        identity=KeyPair(given.cert, given.key),
        other=KeyPair(given.other_cert, given.other_key),
        client_ca=given.client_ca,
        state=given.state,
        ports=tuple(int(port) for port in given.ports.split(",")),
        serial=given.serial,
        hsm_type=given.hsm_type,
        users=tuple(filter(None, given.users.split(","))),
        peers=tuple(filter(None, given.peers.split(","))),
        log=given.log,
    )
    _HsmProcess(hsm).serve(until_eof=given.until_eof)


if __name__ == "__main__":
    main(sys.argv[1:])
