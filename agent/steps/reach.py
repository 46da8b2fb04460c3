"""Can an HSM be reached: TCP to its address, then whether anything behind the port speaks TLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.errors import CODES
from agent.core.words import Finding

if TYPE_CHECKING:
    from agent.core.host import HostView


@dataclass(frozen=True)
class Reach:
    """One address and port. Proves route, security group and a living listener; what the client can do, it cannot."""

    address: str
    port: int
    timeout: float
    tls: bool = True

    @property
    def id(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"reach:{host}:{self.port}"

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    @property
    def follows(self) -> None:
        return None

    def check(self, view: HostView) -> Finding:
        reached = view.reach(self.address, self.port, timeout=self.timeout, tls=self.tls)
        if reached.cause is not None:
            return Finding(False, reached.detail, "connected", reached.cause, CODES[reached.cause].fix)
        milliseconds = round((reached.seconds or 0.0) * 1000, 1)
        return Finding(
            True, f"connected in {milliseconds:g} ms", "connected", detail={"connect_ms": milliseconds}
        )
