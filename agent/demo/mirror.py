"""A package mirror: a folder over HTTP or HTTPS, with faults by path that are switched at run time."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import json
import re
import selectors
import socket
import ssl
import struct
import sys
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from agent.demo import server_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BLOCK = 65536
IDLE_SECONDS = 60.0
HOLD_SECONDS = 600.0
DRIP_SECONDS = 0.05
DRIP_BYTES = 512
FAULTS = {
    "404": "not found",
    "403": "withdrawn: how AWS answers for old versions",
    "500": "a server that is broken",
    "503": "a server that is busy",
    "stall": "half of the bytes, then nothing while the client waits (at most ten minutes)",
    "mute": "takes the request and never answers it (at most ten minutes)",
    "truncate": "half of the bytes, then an orderly end of the connection",
    "reset": "half of the bytes, then a reset of the connection",
    "wrong-bytes": "as many bytes, but other ones",
    "html": "an HTML page with status 200, as a captive portal answers",
    "redirect-to-http": "a redirect to the same path over plain HTTP",
    "redirect-loop": "a redirect to itself",
    "drip": f"{DRIP_BYTES} bytes every {DRIP_SECONDS} s",
    "no-range": "ignores Range and answers 200 with the whole file",
    "no-length": "does not say how long the answer is",
}


@dataclass(frozen=True)
class Mirror:
    """The content and behaviour of a mirror. `switch` is the file that holds its faults; absent means none."""

    folder: Path
    switch: Path
    address: str = "127.0.0.1"
    port: int = 0
    cert: Path | None = None
    key: Path | None = None
    log: Path | None = None

    def arguments(self) -> list[str]:
        """Return the command line of `python -m agent.demo.mirror` for this mirror."""
        named = {
            "--folder": self.folder,
            "--switch": self.switch,
            "--listen": self.address,
            "--port": self.port,
            "--cert": self.cert,
            "--key": self.key,
            "--log": self.log,
        }
        return [f"{flag}={value}" for flag, value in named.items() if value is not None]

    def url(self, port: int) -> str:
        """Return its URL, for the port that it got."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'http' if self.cert is None else 'https'}://{host}:{port}"


def set_faults(switch: Path, faults: Mapping[str, str]) -> None:
    """Switch a running mirror; the next request sees it.

    `faults` maps a pattern of paths (`*.deb`, `/Noble/*`) to a fault of FAULTS, which may end in `*N`: the
    first N requests that match are faulty, later ones are not. The count restarts when faults change.
    """
    for fault in faults.values():
        _parse(fault)
    part = switch.with_name(switch.name + ".part")
    part.write_text(json.dumps(dict(faults)))
    part.replace(switch)


def requests_seen(log: Path) -> list[dict[str, object]]:
    """Return the requests so far: method, path, range, status, fault of each."""
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in log.read_text().splitlines()]
    return []


@contextlib.contextmanager
def running(mirror: Mirror, *, prefix: Sequence[str] = ()) -> Iterator[str]:
    """Run this mirror as a process of its own while the block lasts; yield its URL."""
    with server_process.running("agent.demo.mirror", mirror.arguments(), prefix=prefix) as started:
        yield mirror.url(started.ports[0])


def _parse(fault: str) -> tuple[str, int | None]:
    word, star, times = fault.partition("*")
    if word not in FAULTS or (star and not times.isdigit()):
        raise ValueError(f"unknown fault {fault}, known: {' '.join(FAULTS)}")
    return word, int(times) if star else None


class _MirrorServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.lock = threading.Lock()
        self.seen: dict[str, int] = {}
        self.table = ""
        self.stopping = threading.Event()
        if ":" in mirror.address:
            self.address_family = socket.AF_INET6
        super().__init__((mirror.address, mirror.port), _Handler)
        self.tls: ssl.SSLContext | None = None
        if mirror.cert is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(mirror.cert, mirror.key)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own method would resolve the address by DNS
        self.server_name, self.server_port = self.mirror.address, self.server_address[1]

    def fault(self, path: str) -> str:
        """Return the fault for this request, and count it."""
        try:
            table = self.mirror.switch.read_text()
        except FileNotFoundError:
            return ""
        with self.lock:
            if table != self.table:
                self.table = table
                self.seen = {}
            faults: dict[str, str] = json.loads(table)
            for pattern, fault in faults.items():
                if fnmatch.fnmatchcase(path, pattern):
                    word, times = _parse(fault)
                    self.seen[pattern] = self.seen.get(pattern, 0) + 1
                    if times is None or self.seen[pattern] <= times:
                        return word
        return ""

    def note(self, entry: Mapping[str, object]) -> None:
        if self.mirror.log is not None:
            with self.lock, self.mirror.log.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients that break off are normal here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: _MirrorServer

    def setup(self) -> None:
        if self.server.tls is not None:
            self.request.settimeout(IDLE_SECONDS)
            # in this connection's own thread, so that a slow handshake delays no other client
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # before the server's own orderly shutdown, so that a reset is one

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.server.fault(path)
        if fault == "mute":
            self._log(path, 0, fault)
            self._hold()
        elif fault.isdigit():
            self._page(HTTPStatus(int(fault)), path, fault)
        elif fault == "html":
            self._page(HTTPStatus.OK, path, fault)
        elif fault in ("redirect-to-http", "redirect-loop"):
            place = f"http://{self.headers.get('Host')}{path}" if fault == "redirect-to-http" else path
            self._page(HTTPStatus.FOUND, path, fault, location=place)
        else:
            data = self._read(path)
            if data is None:
                self._page(HTTPStatus.NOT_FOUND, path, fault)
            else:
                self._file(path, data, fault)

    def _read(self, path: str) -> bytes | None:
        folder = self.server.mirror.folder.resolve()
        file = (folder / path.lstrip("/")).resolve()
        if folder not in file.parents or not file.is_file():
            return None
        return file.read_bytes()

    def _page(self, status: HTTPStatus, path: str, fault: str, *, location: str = "") -> None:
        body = f"<html><body><h1>{status.value} {status.phrase}</h1></body></html>\n".encode()
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        self._log(path, status.value, fault)

    def _file(self, path: str, data: bytes, fault: str) -> None:
        total, start, status = len(data), 0, HTTPStatus.OK
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and fault != "no-range" and self.headers.get("If-Range", tag) == tag:
            start = int(asked[1])
            end = min(int(asked[2]) + 1, total) if asked[2] else total
            if start >= total:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                self._log(path, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE.value, fault)
                return
            data, status = data[start:end], HTTPStatus.PARTIAL_CONTENT
        if fault == "wrong-bytes":
            data = bytes(255 - byte for byte in data)
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("ETag", tag)
        self.send_header("Accept-Ranges", "none" if fault == "no-range" else "bytes")
        if status is HTTPStatus.PARTIAL_CONTENT:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{total}")
        if fault == "no-length":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self._log(path, status.value, fault)
        if self.command == "GET":
            self._body(data, fault)

    def _body(self, data: bytes, fault: str) -> None:
        if fault in ("stall", "truncate", "reset"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            if fault == "stall":
                self._hold()
            elif fault == "reset":
                # closing with no time to linger sends a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        step = DRIP_BYTES if fault == "drip" else BLOCK
        for at in range(0, len(data), step):
            self.wfile.write(data[at : at + step])
            if fault == "drip" and self.server.stopping.wait(DRIP_SECONDS):
                self.close_connection = True
                break

    def _hold(self) -> None:
        """Wait until the client disconnects."""
        self.close_connection = True
        self.connection.settimeout(HOLD_SECONDS)
        with contextlib.suppress(OSError):
            while self.connection.recv(BLOCK):
                pass

    def _log(self, path: str, status: int, fault: str) -> None:
        asked = self.headers.get("Range")
        entry = {"method": self.command, "path": path, "range": asked, "status": status, "fault": fault}
        self.server.note(entry)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing on standard error; `--log` has it."""


def main(arguments: Sequence[str]) -> None:
    """Serve a folder until SIGTERM, SIGINT or, if asked for, the end of standard input."""
    parser = argparse.ArgumentParser(prog="python -m agent.demo.mirror", description=__doc__)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--switch", required=True, type=Path, help="JSON file: {path pattern: fault}")
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--port", default=0, type=int, help="0 takes a free port")
    parser.add_argument("--cert", type=Path, help="serve HTTPS with this certificate")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--log", type=Path, help="one JSON line for each request is added to this file")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    given = parser.parse_args(arguments)
    mirror = Mirror(given.folder, given.switch, given.listen, given.port, given.cert, given.key, given.log)
    server = _MirrorServer(mirror)
    selector = selectors.DefaultSelector()
    for each in server_process.ending(until_eof=given.until_eof):
        selector.register(each, selectors.EVENT_READ)  # type: ignore[arg-type]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server_process.say_ready(mirror.address, [server.server_address[1]])
    selector.select()
    server.stopping.set()


if __name__ == "__main__":
    main(sys.argv[1:])
