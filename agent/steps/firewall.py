"""The firewall rule for connections to the HSMs: `netsh` adds and removes it, the registry shows whether it exists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from agent.core.errors import AgentError
from agent.core.model import Finding, Notice
from agent.windows.firewall import PORTS, RULE, own_rules

if TYPE_CHECKING:
    from agent.core.codes import CodeName
    from agent.core.host import Host, HostView
    from agent.core.timeouts import Timeouts

_SPAN = f"{PORTS[0]}-{PORTS[-1]}"
_NETSH = ("netsh", "advfirewall", "firewall")
_ADD = (
    *_NETSH, "add", "rule", f"name={RULE}", "dir=out", "action=allow", "protocol=TCP", f"remoteport={_SPAN}",
    "profile=any", "enable=yes",
)  # fmt: skip
_DELETE = (*_NETSH, "delete", "rule", f"name={RULE}", "dir=out")


@dataclass(frozen=True)
class FirewallRulePresent:
    """The agent's rule exists, unchanged. Only the probes show that it helps: a rule that blocks wins over it."""

    id: ClassVar[str] = "firewall"
    not_applied_code: ClassVar[CodeName] = "firewall-failed"

    limits: Timeouts = field(repr=False)

    def check(self, view: HostView) -> Finding:
        want = f"a rule that allows TCP {_SPAN} out"
        found = own_rules(view)
        if any(rule.allows_hsm_ports for rule in found):
            return Finding.ok(want, want)
        return Finding.unmet("a rule that was changed" if found else "no rule", want)

    def apply(self, host: Host) -> None:
        if own_rules(host):  # netsh would add another of the same name beside it
            host.run(_DELETE, timeout=self.limits.tool)
        done = host.run(_ADD, timeout=self.limits.tool)
        if not done.ok and not self.check(host).met:
            raise _failed(_ADD, done.tail(3) or f"exit {done.status}")


@dataclass(frozen=True)
class FirewallRuleAbsent:
    """The agent's rule does not exist."""

    id: ClassVar[str] = "firewall"
    not_applied_code: ClassVar[CodeName] = "firewall-failed"

    limits: Timeouts = field(repr=False)

    def check(self, view: HostView) -> Finding:
        """Return whether it is gone. An unreadable list gives a notice: it is no reason to leave the packages here."""
        try:
            found = own_rules(view)
        except AgentError as error:
            if error.ends_run:
                raise
            notice = Notice("firewall-unread", f"whether there is a rule {RULE!r} is not known: {error.saw}")
            return Finding.ok(error.saw, "no rule", notices=(notice,))
        return Finding(met=not found, saw=f"a rule {RULE!r}" if found else "no rule", want="no rule")

    def apply(self, host: Host) -> None:
        done = host.run(_DELETE, timeout=self.limits.tool)
        if not done.ok and not self.check(host).met:
            raise _failed(_DELETE, done.tail(3) or f"exit {done.status}")


def _failed(argv: tuple[str, ...], saw: str) -> AgentError:
    line = " ".join(f'"{word}"' if " " in word else word for word in argv)
    return AgentError(
        "firewall-failed", "netsh refused", saw=saw, want="exit 0", hint=f"run `{line}` by hand and read its output"
    )  # fmt: skip
