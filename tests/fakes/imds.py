"""EC2's metadata service: strict version 2 as AWS documents it, and the ways in which it is absent.

`python -m tests.fakes.imds IP PORT INSTANCE-ID ROLE` serves in the lab. It is reached through the SDK's variable
AWS_EC2_METADATA_SERVICE_ENDPOINT; at its well-known address only inside a lab host.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from typing import TYPE_CHECKING

from tests.fakes.http_server import QuietHandler, Server, serving

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

PREFIX = "/latest/meta-data/"
CREDENTIALS = {"AccessKeyId": "ASIAROLE", "SecretAccessKey": "s3cr3t/of+a=role", "Token": "IQoJb3JpZ2lu=="}
# `optional` is HttpTokens=optional: version 1 is answered too. In all others but `v1-only` it is refused with 401.
MODES = ("v2", "optional", "v1-only", "hop-limit", "disabled", "garbage", "slow")


def interface_texts(
    mac: str,
    *,
    interface: str,
    vpc: str,
    subnet: str,
    groups: Mapping[str, str],
    ipv4s: Sequence[str],
    ipv6s: Sequence[str] = (),
    number: int = 0,
    blocks: Sequence[str] = (),
) -> dict[str, str]:
    """Return what the service says of one interface; `groups` are names by id. Without an IPv6 address, no `ipv6s`."""
    said = {
        "interface-id": interface,
        "device-number": str(number),
        "owner-id": "123456789012",
        "mac": mac,
        "security-groups": "\n".join(groups.values()),
        "security-group-ids": "\n".join(groups),
        "subnet-id": subnet,
        "vpc-id": vpc,
        "vpc-ipv4-cidr-blocks": "\n".join(blocks),
        "local-ipv4s": "\n".join(ipv4s),
        **({"ipv6s": "\n".join(ipv6s)} if ipv6s else {}),
    }
    return {f"network/interfaces/macs/{mac}/{name}": text for name, text in said.items()}


def place_texts(
    region: str, zone: str, domain: str = "amazonaws.com", partition: str = "aws"
) -> dict[str, str]:
    """Return what the service says of where the instance is."""
    return {
        "placement/region": region,
        "placement/availability-zone": zone,
        "placement/availability-zone-id": f"{region[:2]}c1-az{'abc'.index(zone[-1]) + 1}",
        "services/domain": domain,
        "services/partition": partition,
    }


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
        elif not known and (token or self.server.mode not in ("v1-only", "optional")):
            self.answer(401)
        elif not self.path.startswith(PREFIX):
            self.answer(404)
        elif self.path == f"{PREFIX}instance-id" and self.server.mode in ("slow", "garbage"):
            self.misbehave()
        else:
            text = lookup(self.server.leaves(), self.path[len(PREFIX) :])
            self.answer(404 if text is None else 200, text or "")

    def misbehave(self) -> None:
        if self.server.mode == "garbage":
            self.answer(200, "<html>")
            return
        for _ in range(300):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: y\r\n")
            if self.server.over.wait(0.1):
                break

    def answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def lookup(leaves: Mapping[str, str], path: str) -> str | None:
    """Return a leaf, or the list of a folder, in which folders end with a slash; None for what is not there."""
    wanted = path.rstrip("/")
    if wanted in leaves:
        return leaves[wanted]
    folder = f"{wanted}/" if wanted else ""
    below = [leaf[len(folder) :] for leaf in leaves if leaf.startswith(folder)]
    names = {name + ("/" if rest else "") for name, _, rest in (each.partition("/") for each in below)}
    return "\n".join(sorted(names)) or None


class Imds(Server):
    """`requests` are the paths that were asked for; `texts` is what it says below meta-data besides.

    `live` gives more of that at each question, for what follows a change elsewhere, as groups do. `listener` is a socket
    that listens already, wherever it was made.
    """

    def __init__(
        self,
        instance_id: str,
        mode: str = "v2",
        role: str = "",
        address: tuple[str, int] = ("127.0.0.1", 0),
        listener: socket.socket | None = None,
    ) -> None:
        assert mode in MODES
        super().__init__(Exchange, address=address)
        if listener is not None:
            self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()
            self.server_name, self.server_port = listener.getsockname()
        self.instance_id = instance_id
        self.mode = mode
        self.role = role
        self.tokens: dict[str, float] = {}
        self.requests: list[str] = []
        self.texts: dict[str, str] = {}
        self.live: Callable[[], Mapping[str, str]] = dict
        self.credentials = {**CREDENTIALS, "Expiration": "2099-01-01T00:00:00Z"}

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}"

    def leaves(self) -> dict[str, str]:
        """Return all that it says now, by its path below meta-data."""
        role = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": "2026-11-30T09:00:00Z",
            **self.credentials,
        }
        roles = {f"iam/security-credentials/{self.role}": json.dumps(role)} if self.role else {}
        return {"instance-id": self.instance_id, **roles, **self.texts, **self.live()}


def imds(
    mode: str = "v2",
    instance_id: str = "i-0abc123def4567890",
    role: str = "",
    listener: socket.socket | None = None,
) -> AbstractContextManager[Imds]:
    return serving(Imds(instance_id, mode, role, listener=listener))


if __name__ == "__main__":
    Imds(sys.argv[3], role=sys.argv[4], address=(sys.argv[1], int(sys.argv[2]))).serve_forever()
