"""The interface of this instance that leads to an HSM, as the metadata service has it: AWS need not be asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.aws.network import NetworkInterface
from agent.http.imds import ask_metadata, read_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView

_MACS = "network/interfaces/macs/"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
# EC2's largest instances have fifteen for each network card; one that routes to an HSM is among the first
_MOST = 16
# seconds for all questions; each has its own limit too, and this ends a service that falls silent in between
_LIMIT = 6.0
_ID = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True)
class OwnInterface:
    """An interface of this instance with the names of its security groups."""

    interface: NetworkInterface
    group_names: tuple[str, ...]

    def address_like(self, other: str) -> str | None:
        """Return its first address of the same family as another one, None where it has none."""
        addresses = self.interface.addresses
        return next((each for each in addresses if (":" in each) is (":" in other)), None)


def find_own_interface(view: HostView, environ: Mapping[str, str], source: str) -> OwnInterface | str:
    """Return the interface that has the address `source`, or the only one there is; otherwise why it is not known.

    In a container behind NAT no interface has the address. With several interfaces nobody can tell then which of them
    routes.
    """
    ends = view.monotonic() + _LIMIT
    listed = ask_metadata(view, environ, _MACS, lambda: view.sleep(0))
    if listed.text is None:
        return listed.why
    macs = [
        each for each in (line.strip().rstrip("/") for line in listed.text.split()) if _MAC.fullmatch(each)
    ]
    addresses = {}
    for mac in macs[:_MOST]:
        if view.monotonic() >= ends:
            return f"the metadata service did not answer all questions within {_LIMIT:g} s"
        addresses[mac] = tuple(
            word for name in ("local-ipv4s", "ipv6s") for word in _words(view, environ, mac, name)
        )
        if source in addresses[mac]:
            return _read(view, environ, mac, addresses[mac])
    if len(macs) == 1:
        return _read(view, environ, macs[0], addresses[macs[0]])
    if not macs:
        return "the metadata service lists no network interface"
    return f"none of the {len(macs)} interfaces of this instance has the address {source or 'that packets leave from'}"


def _read(
    view: HostView, environ: Mapping[str, str], mac: str, addresses: tuple[str, ...]
) -> OwnInterface | str:
    answers = {name: _words(view, environ, mac, name) for name in ("interface-id", "vpc-id", "subnet-id")}
    missing = next((name for name, words in answers.items() if not words), None)
    groups = _words(view, environ, mac, "security-group-ids")
    if missing is not None or not groups:
        return f"the metadata service has no {missing or 'security-group-ids'} of {mac}"
    own, vpc, subnet = (words[0] for words in answers.values())
    names = (
        read_metadata(view, environ, f"{_MACS}{mac}/security-groups", lambda: view.sleep(0)) or ""
    ).splitlines()
    return OwnInterface(
        NetworkInterface(own, vpc, subnet, groups, addresses),
        tuple(each.strip() for each in names if each.strip()),
    )


def _words(view: HostView, environ: Mapping[str, str], mac: str, name: str) -> tuple[str, ...]:
    """Return the words of an answer: of ids and addresses alone, since they go into commands."""
    text = read_metadata(view, environ, f"{_MACS}{mac}/{name}", lambda: view.sleep(0)) or ""
    return tuple(each for each in text.split() if _ID.fullmatch(each.replace(".", "-").replace(":", "-")))
