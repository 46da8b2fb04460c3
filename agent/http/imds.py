"""EC2's metadata service of this instance: version 2 only, with a limit of two seconds for a question."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.core.host import HostView

# the SDK's own names
ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
MODE = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"
DISABLED = "AWS_EC2_METADATA_DISABLED"
LIMIT = 2.0

_PAUSE = 0.2
# so often, in seconds, whoever waits may end it
_TURN = 0.25
_ANSWER = 8 * 1024
_VENDOR = "/sys/devices/virtual/dmi/id/sys_vendor"
_XEN = "/sys/hypervisor/uuid"


def instance_id(view: HostView, environ: Mapping[str, str]) -> str | None:
    """Return the instance's id, None wherever it cannot be read."""
    found = read_metadata(view, environ, "instance-id")
    return found if found and re.fullmatch(r"i-[0-9a-f]{8,32}", found) else None


@dataclass(frozen=True)
class MetadataAnswer:
    """An answer of the service: `text`, or None and the reason in `why`. It may contain the role's credentials."""

    text: str | None = field(repr=False)
    why: str = ""


def _go_on() -> None:
    pass


def read_metadata(
    view: HostView, environ: Mapping[str, str], path: str, check_stopped: Callable[[], None] = _go_on
) -> str | None:
    """Return a value below meta-data, None where there is none; raise what `check_stopped` raises."""
    return ask_metadata(view, environ, path, check_stopped).text


def ask_metadata(
    view: HostView, environ: Mapping[str, str], path: str, check_stopped: Callable[[], None] = _go_on
) -> MetadataAnswer:
    """Return the service's answer for a path below meta-data; it is never required, so nothing is raised.

    But whoever needs it passes `check_stopped`, which is called often while the service is waited for, and may raise.

    A machine whose firmware does not name EC2 is not asked, unless the SDK's variable names an endpoint: elsewhere
    169.254.169.254 may be another service, or a wait in vain. No proxy is used.
    """
    endpoint = _endpoint(view, environ)
    if isinstance(endpoint, str):
        return MetadataAnswer(None, endpoint)
    wait = _BoundedWait(view, view.monotonic() + LIMIT, check_stopped)
    while view.monotonic() < wait.ends:
        check_stopped()
        with contextlib.suppress(OSError):  # the service is late, or the other end too far away
            return _request(wait, endpoint, path)
        try:
            view.sleep(_PAUSE)
        except AgentError:  # interrupted: the rest of the run matters more
            break
    check_stopped()
    return MetadataAnswer(None, f"the metadata service did not answer within {LIMIT:g} s")


def has_metadata(view: HostView, environ: Mapping[str, str]) -> bool:
    """Tell whether there may be a metadata service: this machine is an EC2 instance, or an endpoint is named."""
    return not isinstance(_endpoint(view, environ), str)


def _endpoint(view: HostView, environ: Mapping[str, str]) -> tuple[str, int] | str:
    """Return address and port, or why no request is made. A name is refused: its lookup may exceed the time limit."""
    named = environ.get(ENDPOINT, "")
    if environ.get(DISABLED, "").lower() == "true":
        return f"{DISABLED} is true"
    if not named and not _is_ec2(view):
        return "this machine is no EC2 instance, by its firmware"
    ipv6 = environ.get(MODE, "").lower() == "ipv6"
    with contextlib.suppress(ValueError):
        parts = urlsplit(named or ("http://[fd00:ec2::254]" if ipv6 else "http://169.254.169.254"))
        address = ipaddress.ip_address(parts.hostname or "")
        if parts.scheme == "http":
            return str(address), parts.port or 80
    return f"{ENDPOINT} is not http://ADDRESS"


def _is_ec2(view: HostView) -> bool:
    with contextlib.suppress(AgentError):
        return (view.read(_VENDOR) or b"").strip() == b"Amazon EC2" or (view.read(_XEN) or b"")[:3] == b"ec2"
    return False


@dataclass(frozen=True)
class _BoundedWait:
    """How long the service is waited for, on the view's monotonic clock, and what ends it before."""

    view: HostView
    ends: float
    check_stopped: Callable[[], None]

    def next(self) -> float:
        """Return how many seconds to wait before this is asked again. Raises socket.timeout at the end."""
        self.check_stopped()
        left = self.ends - self.view.monotonic()
        if left <= 0:
            raise socket.timeout
        return min(_TURN, left)


def _request(wait: _BoundedWait, endpoint: tuple[str, int], path: str) -> MetadataAnswer:
    """Ask for a token and with it for the path; a service of version 1 alone has no token."""
    status, token = _exchange(
        wait, endpoint, "PUT /latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60"
    )
    if status != 200 or not re.fullmatch(r"[!-~]{1,512}", token):
        return MetadataAnswer(None, f"the metadata service gives no token of version 2 (HTTP {status})")
    request = f"GET /latest/meta-data/{path}"
    status, text = _exchange(wait, endpoint, request, f"X-aws-ec2-metadata-token: {token}")
    if status != 200:
        return MetadataAnswer(None, f"the metadata service has no {path} (HTTP {status})")
    return MetadataAnswer(text)


def _exchange(wait: _BoundedWait, endpoint: tuple[str, int], request: str, header: str) -> tuple[int, str]:
    """Return status and body, status 0 for an invalid answer. Raises OSError.

    Written by hand, since only this limits the whole exchange and not each part; and http.client costs 30 ms at start.
    """
    address = f"[{endpoint[0]}]" if ":" in endpoint[0] else endpoint[0]
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
    with socket.create_connection(endpoint, timeout=wait.next()) as connection:
        connection.sendall("\r\n".join(lines).encode("ascii"))
        while len(answer) < _ANSWER:
            piece = _receive(wait, connection)
            if not piece:
                break
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]{1,9})", head, re.IGNORECASE)
    if length is not None and len(body) < int(length[1]):
        raise OSError("the answer ends too early")  # half an id is another one
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", head)
    return int(status[1]) if status else 0, body.decode("ascii", "replace").strip()


def _receive(wait: _BoundedWait, connection: socket.socket) -> bytes:
    while True:
        connection.settimeout(wait.next())
        with contextlib.suppress(socket.timeout):
            return connection.recv(_ANSWER)
