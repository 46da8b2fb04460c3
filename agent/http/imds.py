"""What EC2's metadata service says of this instance: version 2 only, in the two seconds that a question may take."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView

# the SDK's own names
ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
MODE = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"
DISABLED = "AWS_EC2_METADATA_DISABLED"
LIMIT = 2.0

_PAUSE = 0.2
_ANSWER = 8 * 1024
_VENDOR = "/sys/devices/virtual/dmi/id/sys_vendor"
_XEN = "/sys/hypervisor/uuid"
_ROLE = "iam/security-credentials"


def instance_id(view: HostView, environ: Mapping[str, str]) -> str | None:
    """Return the instance's id, None wherever it cannot be had."""
    found = read_metadata(view, environ, "instance-id")
    return found if found and re.fullmatch(r"i-[0-9a-f]{8,32}", found) else None


def role_credentials(view: HostView, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return AccessKeyId, SecretAccessKey and Token of the instance's role; empty where there is none."""
    role = read_metadata(view, environ, f"{_ROLE}/") or ""
    text = (
        read_metadata(view, environ, f"{_ROLE}/{role}") if re.fullmatch(r"[\w+=,.@-]{1,64}", role) else None
    )
    try:
        tree = json.loads(text or "{}")
        return {name: str(tree[name]) for name in ("AccessKeyId", "SecretAccessKey", "Token")}
    except (ValueError, KeyError, TypeError):
        return {}


def read_metadata(view: HostView, environ: Mapping[str, str], path: str) -> str | None:
    """Return what the service says below meta-data; it is never needed, so nothing is raised.

    A machine that is not EC2's, by what its firmware says, is not asked at all, unless the SDK's variable names an
    endpoint: elsewhere 169.254.169.254 may be somebody else, or a wait for nothing.
    """
    goal = _goal(view, environ)
    if goal is None:
        return None
    ends = view.monotonic() + LIMIT
    with contextlib.suppress(AgentError):  # interrupted: what is left of the run matters more
        while view.monotonic() < ends:
            with contextlib.suppress(
                OSError
            ):  # the service is late, or what answers is too far away to answer
                return _ask(view, goal, ends, path)
            view.sleep(_PAUSE)
    return None


def _goal(view: HostView, environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Return address and port. A name is refused, since looking it up could take longer than all else."""
    named = environ.get(ENDPOINT, "")
    if environ.get(DISABLED, "").lower() == "true" or not (named or _is_ec2(view)):
        return None
    ipv6 = environ.get(MODE, "").lower() == "ipv6"
    try:
        parts = urlsplit(named or ("http://[fd00:ec2::254]" if ipv6 else "http://169.254.169.254"))
        address = ipaddress.ip_address(parts.hostname or "")
        return (str(address), parts.port or 80) if parts.scheme == "http" else None
    except ValueError:
        return None


def _is_ec2(view: HostView) -> bool:
    with contextlib.suppress(AgentError):
        return (view.read(_VENDOR) or b"").strip() == b"Amazon EC2" or (view.read(_XEN) or b"")[:3] == b"ec2"
    return False


def _ask(view: HostView, goal: tuple[str, int], ends: float, path: str) -> str | None:
    """Ask for a token and with it for the path: None when the service refuses, which version 1 alone does too."""
    token = _exchange(view, goal, ends, "PUT /latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60")
    if token is None or not re.fullmatch(r"[!-~]{1,512}", token):
        return None
    return _exchange(view, goal, ends, f"GET /latest/meta-data/{path}", f"X-aws-ec2-metadata-token: {token}")


def _exchange(view: HostView, goal: tuple[str, int], ends: float, request: str, header: str) -> str | None:
    """Return the body of a 200, None for any other answer. Raises OSError.

    By hand, since only so the whole is bounded, not each of its parts; and http.client costs 30 ms at start.
    """
    address = f"[{goal[0]}]" if ":" in goal[0] else goal[0]
    lines = (
        f"{request} HTTP/1.1",
        f"Host: {address}",
        header,
        "Content-Length: 0",
        "Connection: close",
        "",
        "",
    )
    answer = b""
    with socket.create_connection(goal, timeout=_left(view, ends)) as connection:
        connection.sendall("\r\n".join(lines).encode("ascii"))
        while len(answer) < _ANSWER:
            connection.settimeout(_left(view, ends))
            piece = connection.recv(_ANSWER)
            if not piece:
                break
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return body.decode("ascii", "replace").strip() if re.match(rb"HTTP/1\.[01] 200 ", head) else None


def _left(view: HostView, ends: float) -> float:
    left = ends - view.monotonic()
    if left <= 0:
        raise socket.timeout
    return left
