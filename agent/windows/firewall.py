r"""Windows Firewall, as its registry has it, which is not translated: does it let connections to the HSMs out?

Where and how it keeps profiles and rules: [MS-GPFAS] (Group Policy: Firewall and Advanced Security Data Structure).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Union

from agent.core.errors import CODES
from agent.core.registry import RegistryKey
from agent.windows.registry import read_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView

_Address = Union[IPv4Address, IPv6Address]

# 2223 is what clients of SDK 5 talk to; AWS's security group opens all three.
PORTS = range(2223, 2226)
# By this name the rule of ours is found again, and removed.
RULE = "hsm-agent: CloudHSM client"

_OWN = r"HKLM\SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy"
_POLICY = r"HKLM\SOFTWARE\Policies\Microsoft\WindowsFirewall"
_RULES = "FirewallRules"
# Profile -> what its key is called in the firewall's own part, and in that of the group policy.
_PROFILES = {
    "Domain": ("DomainProfile", ("DomainProfile",)),
    "Private": ("StandardProfile", ("PrivateProfile", "StandardProfile")),
    "Public": ("PublicProfile", ("PublicProfile",)),
}
_TCP, _ANY = "6", "256"
_BY_RULE = "the rule"
# What a rule may say without being about some programs, services, users, addresses or interfaces only.
_PLAIN = {
    "Action", "Active", "Dir", "Protocol", "Profile", "RPort", "RPort2_10", "Name", "Desc", "EmbedCtxt", "Edge",
    "Defer", "TTK", "Platform", "Platform2",
}  # fmt: skip


# The programs that may connect to an HSM for us: the vendor's, ours, and the Python that may run ours.
_VENDOR = "\\amazon\\cloudhsm\\"
_PROGRAMS = ("hsm-agent.exe", "python.exe", "pythonw.exe")


@dataclass(frozen=True)
class Rule:
    """One rule for what goes out. No `profiles` and no `ports` mean all; a `narrow` one is not about every program.

    `foreign`: it is about a program, a service or an app that is certainly none of those that talk to an HSM.
    `remotes` are the addresses that it is about, first and last, None for any.
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
        """Tell whether it may be what lets us connect to that address: a rule for others or elsewhere is not."""
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
        """Tell whether it may be about TCP to this port; what narrows it is not looked at."""
        return (
            self.active
            and self.tcp
            and (not self.profiles or profile in self.profiles)
            and (not self.ports or any(port in each for each in self.ports))
        )

    @property
    def lets_us_out(self) -> bool:
        """Whether it lets every program connect to an HSM, in each profile."""
        wide = self.allows and not self.narrow
        return wide and all(self.is_for(port, profile) for port in PORTS for profile in _PROFILES)


@dataclass(frozen=True)
class OutboundBlocks:
    """Why this host's firewall lets nobody out: profile -> the cause. Those that do, or may, are left out."""

    causes: Mapping[str, str]
    hint: str

    @property
    def is_everywhere(self) -> bool:
        """Whether that is so whichever profile the network has: which one it has, the registry does not say."""
        return set(self.causes) == set(_PROFILES)

    def __str__(self) -> str:
        causes = dict.fromkeys(self.causes.values())
        told = (
            f"{cause} ({', '.join(name for name, why in self.causes.items() if why == cause)})"
            for cause in causes
        )
        return next(iter(causes)) if self.is_everywhere and len(causes) == 1 else "; ".join(told)


def parse_rule(text: str) -> Rule | None:
    """Return a rule for what goes out, such as `v2.31|Action=Allow|Active=TRUE|Dir=Out|Protocol=6|RPort=2223|`."""
    pairs = [each.partition("=") for each in text.split("|")[1:] if each]
    said: dict[str, list[str]] = {}
    for key, _, value in pairs:
        said.setdefault(key, []).append(value)
    if said.get("Dir") != ["Out"] or said.get("Action") not in (["Allow"], ["Block"], ["ByPass"]):
        return None
    ports = [*said.get("RPort", ()), *said.get("RPort2_10", ())]
    return Rule(
        name=said.get("Name", [""])[0],
        allows=said["Action"] != ["Block"],
        active=said.get("Active") == ["TRUE"],
        profiles=tuple(said.get("Profile", ())),
        ports=tuple(_range(each) for each in ports),
        tcp=said.get("Protocol", [_ANY])[0] in (_TCP, _ANY),
        narrow=not set(said) <= _PLAIN,
        foreign=_is_foreign(said),
        remotes=_remotes([*said.get("RA4", ()), *said.get("RA6", ())]),
    )


def _is_foreign(said: Mapping[str, list[str]]) -> bool:
    if "AppPkgId" in said or any(each != "*" for each in said.get("Svc", ())):
        return True  # an app of the store; a service, of which we are none
    app = said.get("App", [""])[0].lower()
    return bool(app) and _VENDOR not in app and app.rpartition("\\")[2] not in _PROGRAMS


def _remotes(texts: list[str]) -> tuple[tuple[_Address, _Address], ...] | None:
    """Return the addresses that are meant; None for any, and for words such as LocalSubnet that may mean any."""
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
    """Return the rules of ours, whatever has become of them. Raises AgentError `unreadable`."""
    return tuple(rule for rule in _rules(view, _OWN) if rule.name == RULE)


def outbound_blocks(view: HostView, address: str, port: int) -> OutboundBlocks:
    """Check why nobody is let out to a port there. Only what is certain counts. Raises AgentError `unreadable`."""
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
        # [MS-GPFAS] 2.2.2.9: then rules of this host, and so one of ours, mean nothing
        alone = _number(settings, "AllowLocalPolicyMerge", 1) == 0
        rules = [rule for rule in ((*policy,) if alone else (*policy, *own)) if rule.is_for(port, profile)]
        if _number(settings, "EnableFirewall", 1) == 0:
            continue
        blocking = next((rule for rule in rules if not rule.allows and not rule.narrow), None)
        if blocking is not None:  # wins over whatever allows
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
    told = read_key(view, rf"{root}\{_RULES}").values.values()
    found = (parse_rule(text) for text in told if isinstance(text, str))
    return tuple(rule for rule in found if rule is not None)


def _range(text: str) -> range:
    """Return the ports that are meant; those with a name (`RPC`) are none of ours."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    return range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)


def _number(settings: RegistryKey, name: str, otherwise: int) -> int:
    found = settings.number(name)
    return otherwise if found is None else found
