r"""Windows Firewall by its registry keys, which are not translated: does it allow connections to the HSMs?

The location and format of profiles and rules: [MS-GPFAS] (Group Policy: Firewall and Advanced Security Data Structure).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Union

from agent.core.codes import CODES
from agent.core.registry import RegistryKey
from agent.windows.registry import read_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView

_Address = Union[IPv4Address, IPv6Address]

# SDK 5 connects to 2223; AWS's security group opens all three.
PORTS = range(2223, 2226)
# The agent finds and removes its own rule by this name.
RULE = "hsm-agent: CloudHSM client"

_OWN = r"HKLM\SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy"
_POLICY = r"HKLM\SOFTWARE\Policies\Microsoft\WindowsFirewall"
_RULES = "FirewallRules"
# Profile -> its key in the firewall's own part, and in that of the group policy.
_PROFILES = {
    "Domain": ("DomainProfile", ("DomainProfile",)),
    "Private": ("StandardProfile", ("PrivateProfile", "StandardProfile")),
    "Public": ("PublicProfile", ("PublicProfile",)),
}
_TCP, _ANY = "6", "256"
_BY_RULE = "the rule"
# The fields of a rule that do not restrict it to some programs, services, users, addresses or interfaces.
_PLAIN = {
    "Action", "Active", "Dir", "Protocol", "Profile", "RPort", "RPort2_10", "Name", "Desc", "EmbedCtxt", "Edge",
    "Defer", "TTK", "Platform", "Platform2",
}  # fmt: skip


# The programs that may connect to an HSM: the vendor's, the agent's, and the Python that may run the agent.
_VENDOR = "\\amazon\\cloudhsm\\"
_PROGRAMS = ("hsm-agent.exe", "python.exe", "pythonw.exe")


@dataclass(frozen=True)
class Rule:
    """One rule for outgoing traffic. Empty `profiles` and `ports` mean all; a `narrow` rule covers only some programs.

    `foreign`: it covers a program, a service or an app that certainly does not connect to an HSM.
    `remotes` are the addresses that it covers, first and last, None for any.
    """

    name: str
    allows: bool
    active: bool
    profiles: tuple[str, ...]
    ports: tuple[range, ...]
    tcp: bool
    narrow: bool
    foreign: bool = False
    remotes: tuple[tuple[_Address, _Address], ...] | None = None

    def may_let_us_out(self, address: str) -> bool:
        """Tell whether this may be the rule that allows a connection to the address; a foreign rule never is."""
        if not self.allows or self.foreign:
            return False
        try:
            wanted = ip_address(address)
        except ValueError:
            return True
        return self.remotes is None or any(
            first.version == wanted.version and int(first) <= int(wanted) <= int(last)
            for first, last in self.remotes
        )

    def is_for(self, port: int, profile: str) -> bool:
        """Tell whether it may cover TCP to this port, whatever else narrows it."""
        return (
            self.active
            and self.tcp
            and (not self.profiles or profile in self.profiles)
            and (not self.ports or any(port in each for each in self.ports))
        )

    @property
    def allows_hsm_ports(self) -> bool:
        """Whether it allows every program to connect to an HSM, in each profile."""
        wide = self.allows and not self.narrow
        return wide and all(self.is_for(port, profile) for port in PORTS for profile in _PROFILES)


@dataclass(frozen=True)
class OutboundBlocks:
    """Why this host's firewall blocks outgoing connections: profile -> cause, for the profiles that certainly block."""

    causes: Mapping[str, str]
    hint: str

    @property
    def is_everywhere(self) -> bool:
        """Whether every profile blocks: the registry does not state which of them the network has."""
        return set(self.causes) == set(_PROFILES)

    def __str__(self) -> str:
        causes = dict.fromkeys(self.causes.values())
        parts = (
            f"{cause} ({', '.join(name for name, why in self.causes.items() if why == cause)})"
            for cause in causes
        )
        return next(iter(causes)) if self.is_everywhere and len(causes) == 1 else "; ".join(parts)


def parse_rule(text: str) -> Rule | None:
    """Return a rule for outgoing traffic, such as `v2.31|Action=Allow|Active=TRUE|Dir=Out|Protocol=6|RPort=2223|`."""
    pairs = [each.partition("=") for each in text.split("|")[1:] if each]
    fields: dict[str, list[str]] = {}
    for key, _, value in pairs:
        fields.setdefault(key, []).append(value)
    if fields.get("Dir") != ["Out"] or fields.get("Action") not in (["Allow"], ["Block"], ["ByPass"]):
        return None
    ports = [*fields.get("RPort", ()), *fields.get("RPort2_10", ())]
    return Rule(
        name=fields.get("Name", [""])[0],
        allows=fields["Action"] != ["Block"],
        active=fields.get("Active") == ["TRUE"],
        profiles=tuple(fields.get("Profile", ())),
        ports=tuple(_range(each) for each in ports),
        tcp=fields.get("Protocol", [_ANY])[0] in (_TCP, _ANY),
        narrow=not set(fields) <= _PLAIN,
        foreign=_is_foreign(fields),
        remotes=_remotes([*fields.get("RA4", ()), *fields.get("RA6", ())]),
    )


def _is_foreign(fields: Mapping[str, list[str]]) -> bool:
    if "AppPkgId" in fields or any(each != "*" for each in fields.get("Svc", ())):
        return True  # a store app, or a service, and no HSM client is a service
    app = fields.get("App", [""])[0].lower()
    return bool(app) and _VENDOR not in app and app.rpartition("\\")[2] not in _PROGRAMS


def _remotes(texts: list[str]) -> tuple[tuple[_Address, _Address], ...] | None:
    """Return the addresses; None for any, and for names such as LocalSubnet that may mean any."""
    found = []
    for text in texts:
        first, dash, last = text.partition("-")
        try:
            if dash:
                found.append((ip_address(first), ip_address(last)))
            else:
                network = ip_network(text, strict=False)
                found.append((network[0], network[-1]))
        except ValueError:
            return None
    return tuple(found) or None


def own_rules(view: HostView) -> tuple[Rule, ...]:
    """Return the agent's own rules, even if they were changed. Raises AgentError `unreadable`."""
    return tuple(rule for rule in _rules(view, _OWN) if rule.name == RULE)


def outbound_blocks(view: HostView, address: str, port: int) -> OutboundBlocks:
    """Return why connections to that address and port are certainly blocked. Raises AgentError `unreadable`."""
    own, policy = _rules(view, _OWN), _rules(view, _POLICY)
    causes = {}
    ignored = False
    for profile, (key, policy_keys) in _PROFILES.items():
        forced = {
            name: value
            for each in policy_keys
            for name, value in read_key(view, rf"{_POLICY}\{each}").values.items()
        }
        settings = RegistryKey({**read_key(view, rf"{_OWN}\{key}").values, **forced})
        # [MS-GPFAS] 2.2.2.9: then the rules of this host, such as the agent's, do not apply
        alone = _number(settings, "AllowLocalPolicyMerge", 1) == 0
        rules = [rule for rule in ((*policy,) if alone else (*policy, *own)) if rule.is_for(port, profile)]
        if _number(settings, "EnableFirewall", 1) == 0:
            continue
        blocking = next((rule for rule in rules if not rule.allows and not rule.narrow), None)
        if blocking is not None:  # a blocking rule takes precedence over any that allows
            causes[profile] = f"{_BY_RULE} {blocking.name!r} blocks"
        elif _number(settings, "DefaultOutboundAction", 0) == 1 and not any(
            rule.may_let_us_out(address) for rule in rules
        ):
            causes[profile] = "what goes out is blocked, and no rule allows it"
            ignored = ignored or alone
    return OutboundBlocks(causes, _hint(causes, ignored=ignored))


def _hint(causes: Mapping[str, str], *, ignored: bool) -> str:
    if any(cause.startswith(_BY_RULE) for cause in causes.values()):
        return "take the rule off or out of the way: one that blocks wins over one that allows"
    if ignored:
        return "group policy ignores rules of this host: have TCP 2223-2225 out allowed in the policy"
    return CODES["hsm-firewalled"].fix


def _rules(view: HostView, root: str) -> tuple[Rule, ...]:
    values = read_key(view, rf"{root}\{_RULES}").values.values()
    found = (parse_rule(text) for text in values if isinstance(text, str))
    return tuple(rule for rule in found if rule is not None)


def _range(text: str) -> range:
    """Return the ports; a name (`RPC`) means ports that no HSM uses."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    return range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)


def _number(settings: RegistryKey, name: str, otherwise: int) -> int:
    found = settings.number(name)
    return otherwise if found is None else found
