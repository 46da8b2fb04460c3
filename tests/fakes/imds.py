"""EC2's metadata service: strict version 2 as AWS documents it, and the ways in which it is absent.

`python -m tests.fakes.imds IP PORT INSTANCE-ID ROLE` serves in the lab. It is reached through the SDK's variable
AWS_EC2_METADATA_SERVICE_ENDPOINT, never at its well-known address.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from typing import TYPE_CHECKING

from tests.fakes.http_server import QuietHandler, Server, serving

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

PREFIX = "/latest/meta-data/"
ROLE = f"{PREFIX}iam/security-credentials"
CREDENTIALS = {"AccessKeyId": "ASIAROLE", "SecretAccessKey": "s3cr3t/of+a=role", "Token": "IQoJb3JpZ2lu=="}
MODES = ("v2", "v1-only", "hop-limit", "disabled", "garbage", "slow")


class Exchange(QuietHandler):
    """One request."""

    server: Imds

    def do_PUT(self) -> None:
        self.server.requests.append(self.path)
        lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.server.mode == "hop-limit":  # the answer has too few hops to live, and never arrives
            self.server.over.wait(30)
        elif self.server.mode == "disabled" or self.headers.get("X-Forwarded-For"):
            self.answer(403)
        elif self.path != "/latest/api/token" or self.server.mode == "v1-only":
            self.answer(404)
        elif not lifetime.isdigit() or not 1 <= int(lifetime) <= 21600:
            self.answer(400)
        else:
            token = secrets.token_urlsafe(40)
            self.server.tokens[token] = time.monotonic() + int(lifetime)
            self.answer(200, token)

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        token = self.headers.get("X-aws-ec2-metadata-token", "")
        known = self.server.tokens.get(token, 0) > time.monotonic()
        if self.server.mode == "disabled":
            self.answer(403)
        elif not known and (token or self.server.mode != "v1-only"):
            self.answer(401)
        elif self.path in (f"{ROLE}/", f"{ROLE}/{self.server.role}") and self.server.role:
            credentials = {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "Expiration": "2099-01-01T00:00:00Z",
                **CREDENTIALS,
            }
            self.answer(200, self.server.role if self.path == f"{ROLE}/" else json.dumps(credentials))
        elif self.path.startswith(PREFIX) and self.path[len(PREFIX) :] in self.server.texts:
            self.answer(200, self.server.texts[self.path[len(PREFIX) :]])
        elif self.path != f"{PREFIX}instance-id":
            self.answer(404)
        elif self.server.mode == "slow":
            for _ in range(300):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: y\r\n")
                if self.server.over.wait(0.1):
                    break
        else:
            self.answer(200, "<html>" if self.server.mode == "garbage" else self.server.instance_id)

    def answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


class Imds(Server):
    """`requests` are the paths that were asked for; `texts` is what it says below meta-data besides."""

    def __init__(
        self, instance_id: str, mode: str = "v2", role: str = "", address: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        assert mode in MODES
        super().__init__(Exchange, address=address)
        self.instance_id = instance_id
        self.mode = mode
        self.role = role
        self.tokens: dict[str, float] = {}
        self.requests: list[str] = []
        self.texts: dict[str, str] = {}

    @property
    def url(self) -> str:
        return self.origin


def imds(
    mode: str = "v2", instance_id: str = "i-0abc123def4567890", role: str = ""
) -> AbstractContextManager[Imds]:
    return serving(Imds(instance_id, mode, role))


if __name__ == "__main__":
    Imds(sys.argv[3], role=sys.argv[4], address=(sys.argv[1], int(sys.argv[2]))).serve_forever()
