"""Messages of the protocol."""

from __future__ import annotations

from agent.remote.protocol import (
    ArchiveRef,
    HostRequest,
)

REQUEST = HostRequest(
    ArchiveRef("f00", keep=True), "configure", False, {"sdk": 5}, None, "RUN/web-1/2", True, False, 90.5, "w0"
)
