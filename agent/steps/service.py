"""SDK 3: its one configure tool around its daemon, and the daemon itself (configure-sdk-3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.cloudhsm.layout import CLIENT3_SETTINGS, CLUSTER_CACHE, CMU_SETTINGS, CONFIGURE3, SERVICE3
from agent.cloudhsm.settings import parse_settings3
from agent.core.errors import AgentError
from agent.core.words import Finding

if TYPE_CHECKING:
    from agent.core.host import Host, HostView
    from agent.core.limits import Limits


@dataclass(frozen=True)
class Configure3:
    """The daemon's and the management utility's configuration: one address each, the daemon learns the others."""

    servers: tuple[str, ...]
    ca: str
    limits: Limits = field(repr=False)

    @property
    def id(self) -> str:
        return "configure:cli"

    @property
    def unproven(self) -> str:
        return "configure-not-applied"

    def check(self, view: HostView) -> Finding:
        want = self.servers[0]
        data = view.read(CLIENT3_SETTINGS)
        if data is None:
            return Finding(met=False, saw="no configuration file", want=want)
        try:
            settings = parse_settings3(data)
        except ValueError as error:
            return Finding(met=False, saw=f"damaged: {error}", want=want, hint=f"look at {CLIENT3_SETTINGS}")
        if settings.placeholder:
            return Finding(met=False, saw="not configured", want=want)
        # any wanted HSM will do: a running daemon knows the whole cluster
        met = settings.hostname in self.servers and settings.ca_file in (None, self.ca)
        cmu = view.read(CMU_SETTINGS) or b""
        if met and not any(server.encode() in cmu for server in self.servers):
            return Finding(False, f"{settings.hostname}; management utility not configured", want)
        saw = settings.hostname or "no server"
        return Finding(met, saw, saw if met else want)

    def apply(self, host: Host) -> None:
        """Stop the daemon (the tool has no effect while it runs), configure, start it, configure the utility."""
        address = self.servers[0]
        host.do(("systemctl", "stop", SERVICE3), timeout=self.limits.tool)
        # the addresses of the cluster this host was with before would be tried first (ki-all-2)
        host.remove(CLUSTER_CACHE)
        try:
            _run(host, (CONFIGURE3, "-a", address), self.limits)
        finally:
            # also after a failure: a host whose daemon ran must not be left without it
            host.do(("systemctl", "start", SERVICE3), timeout=self.limits.tool)
        _run(host, (CONFIGURE3, "--cmu", address), self.limits)


@dataclass(frozen=True)
class Service:
    """The SDK 3 daemon runs, and is started at boot."""

    limits: Limits = field(repr=False)

    @property
    def id(self) -> str:
        return "service"

    @property
    def unproven(self) -> str:
        return "service-failed"

    def check(self, view: HostView) -> Finding:
        active = (
            view.ask(("systemctl", "is-active", SERVICE3), timeout=self.limits.tool).out.strip() or "unknown"
        )
        enabled = (
            view.ask(("systemctl", "is-enabled", SERVICE3), timeout=self.limits.tool).out.strip() or "unknown"
        )
        return Finding((active, enabled) == ("active", "enabled"), f"{active}, {enabled}", "active, enabled")

    def apply(self, host: Host) -> None:
        host.do(("systemctl", "enable", "--now", SERVICE3), timeout=self.limits.tool)


def _run(host: Host, argv: tuple[str, ...], limits: Limits) -> None:
    done = host.do(argv, timeout=limits.tool)
    if not done.ok:
        raise AgentError(
            "configure-failed",
            f"`{' '.join(argv)}` " + ("did not end" if done.timed_out else f"exited {done.status}"),
            saw=done.tail(4) or f"exit {done.status}",
            want="exit 0",
            hint=f"run `{' '.join(argv)}` by hand; reinstalling the package restores the tool",
        )
