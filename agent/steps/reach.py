"""Can an HSM be reached: TCP to its address, then whether anything behind the port speaks TLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.codes import CodeName, fix
from agent.core.errors import AgentError
from agent.core.model import Finding
from agent.windows.firewall import outbound_blocks

if TYPE_CHECKING:
    from agent.core.host import ConnectResult, HostView

# What a firewall of this host may be the cause of: a Windows that drops in silence is out of time as well.
_WALLED = ("hsm-firewalled", "hsm-timed-out")


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
    def requires(self) -> tuple[str, ...]:
        return ()

    @property
    def depends_on(self) -> None:
        return None

    def check(self, view: HostView) -> Finding:
        reached = view.connect(self.address, self.port, timeout=self.timeout, tls=self.tls)
        if reached.cause is not None:
            return _unreached(view, reached, reached.cause)
        milliseconds = round((reached.seconds or 0.0) * 1000, 1)
        return Finding(
            True, f"connected in {milliseconds:g} ms", "connected", detail={"connect_ms": milliseconds}
        )


def _unreached(view: HostView, reached: ConnectResult, cause: CodeName) -> Finding:
    """Name the cause, and look at this host's own firewall where it may be that."""
    saw, hint = reached.detail, fix(cause, ADDRESS=reached.address)
    firewall = view.system.firewall
    if firewall is not None and cause in _WALLED:
        try:
            found = outbound_blocks(view, reached.address, reached.port)
        except AgentError as error:
            if error.ends_run:
                raise
            saw = f"{saw}; the rules of {firewall} could not be read: {error.saw}"
        else:
            if found.causes:
                saw = f"{saw}; {firewall}: {found}"
            if found.is_everywhere or (found.causes and cause == "hsm-firewalled"):
                cause, hint = "hsm-firewalled", found.hint
            elif found.causes:
                hint = f"{hint}; or, if this network has such a profile: {found.hint}"
    detail = {"source": reached.source} if reached.source else {}
    return Finding.unmet(saw, "connected", cause, hint, detail=detail)
