"""`python -m tests.bench.collected [HOSTS]`: time and memory of `fleet status --from` over many reports in S3.

S3 is a server of a process of its own on the loopback, over TLS: it answers listings of 1,000 and objects, and nothing
else. The command is measured as it is typed, from its start to its end.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from agent.render.json_report import to_tree
from tests.fakes.aws import KEYS
from tests.golden.runs import first_run

PREFIX = "fleet/"
OUTPUTS = {
    "text": (),
    "--output json": ("--output", "json"),
    "--html": ("--html", "page.html"),
    "--junit": ("--junit", "junit.xml"),
}


class Bucket(BaseHTTPRequestHandler):
    """S3 of one bucket: `server.keys` are the names of its objects, which differ in the name of their host alone."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        self._send(self._listing(query) if "list-type" in query else self._object(unquote(parts.path)))

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        begin = int(query.get("continuation-token", ["0"])[0])
        end = begin + 1000
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(self.server.report)}</Size>"
            "<LastModified>2026-11-23T20:15:00.000Z</LastModified></Contents>"
            for key in self.server.keys[begin:end]
        )
        more = end < len(self.server.keys)
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
        said = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{rows}"
        return f"<ListBucketResult>{said}</ListBucketResult>".encode()

    def _object(self, path: str) -> bytes:
        name = path.rpartition("/")[2].removesuffix(".json")
        report: bytes = self.server.report
        return report.replace(b"ip-10-0-1-12", name.encode())

    def log_message(self, *_words: object) -> None: ...


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def serve(hosts: int, certificate: str, key: str, ready: Queue[int]) -> None:
    """Be S3 until ended."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server: Any = Server(("127.0.0.1", 0), Bucket)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.keys = [f"{PREFIX}web-{number:05}.json" for number in range(hosts)]
    server.report = json.dumps(to_tree(first_run()), indent=2).encode()
    ready.put(server.server_port)
    server.serve_forever()


def measured(folder: Path, port: int, output: tuple[str, ...]) -> tuple[float, float, float]:
    """Return seconds, seconds of processor time, and the peak of memory in MB of one command."""
    environ = {
        **os.environ,
        **KEYS,
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}",
        "AWS_CA_BUNDLE": str(folder / "certificate"),
    }
    argv = [sys.executable, "-m", "agent", "fleet", "status", "--from", f"s3://reports/{PREFIX}"]
    argv += ["--silent-after", "3650d", *(str(folder / each) if "." in each else each for each in output)]
    began = time.monotonic()
    with (folder / "stdout").open("wb") as stdout:
        command = subprocess.Popen(argv, env=environ, stdout=stdout)
        _, status, used = os.wait4(command.pid, 0)
    took = time.monotonic() - began
    command.returncode = os.waitstatus_to_exitcode(status)
    assert command.returncode == 0, command.returncode
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main(hosts: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate, key = str(folder / "certificate"), str(folder / "key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        ready: Queue[int] = Queue()
        server = Process(target=serve, args=(hosts, certificate, key, ready), daemon=True)
        server.start()
        port = ready.get(timeout=60)
        try:
            sys.stdout.write(
                "| reports | what | time | processor time | memory at its peak |\n| --- | --- | --- | --- | --- |\n"
            )
            for what, output in OUTPUTS.items():
                took, cpu, memory = measured(folder, port, output)
                sys.stdout.write(f"| {hosts:,} | {what} | {took:.1f} s | {cpu:.1f} s | {memory:.0f} MB |\n")
                sys.stdout.flush()
        finally:
            server.terminate()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
