"""Which of many instances reach which HSMs, and what stops the others. Pure.

`find_obstacle` takes half a millisecond: too long for each of 300 instances and 28 HSMs. But of an address it only
asks in which of the described ranges it lies, so that ends which agree in that, in subnet and groups share an answer.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.aws.path import PathEnd, find_obstacle

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from agent.aws.network import Network, NetworkInterface
    from agent.aws.path import Obstacle, Span


@dataclass(frozen=True)
class BlockedPath:
    """What stops packets from one interface to these HSMs, by their ids."""

    hsms: tuple[str, ...]
    obstacle: Obstacle


@dataclass(frozen=True)
class _HsmGroup:
    """HSMs that share their answers: one of them, and the ids of all."""

    end: PathEnd
    ids: tuple[str, ...]


class Reachability:
    """The paths to the HSMs of one cluster. `hsms` has the id and the end of each."""

    def __init__(self, network: Network, hsms: Sequence[tuple[str, PathEnd]], region: str) -> None:
        self._network = network
        self._region = region
        self._ranges = list(_ranges_of(network))
        self._hsms = self._grouped(hsms)
        self._answers: dict[Hashable, tuple[_HsmGroup, ...]] = {}

    def blocked(self, interface: NetworkInterface, ephemeral: Span) -> tuple[BlockedPath, ...]:
        """Return each obstacle between an interface and the HSMs once, with the HSMs behind it."""
        interface = replace(interface, addresses=tuple(filter(_is_address, interface.addresses)))
        key = (
            interface.vpc,
            interface.subnet,
            interface.groups,
            ephemeral,
            *map(self._seen, interface.addresses),
        )
        if key not in self._answers:
            self._answers[key] = tuple(self._blocked_groups(interface, ephemeral))
        found = ((each.ids, self._obstacle(interface, each.end, ephemeral)) for each in self._answers[key])
        return tuple(BlockedPath(ids, obstacle) for ids, obstacle in found if obstacle is not None)

    def _blocked_groups(self, interface: NetworkInterface, ephemeral: Span) -> Iterator[_HsmGroup]:
        """Yield the HSMs that are not reached, joined where the same thing stops the packets."""
        stopped: dict[tuple[str, str], _HsmGroup] = {}
        for each in self._hsms:
            obstacle = self._obstacle(interface, each.end, ephemeral)
            if obstacle is not None:
                first = stopped.get((obstacle.code, obstacle.id))
                joined = _HsmGroup(first.end, first.ids + each.ids) if first else each
                stopped[obstacle.code, obstacle.id] = joined
        yield from stopped.values()

    def _obstacle(self, interface: NetworkInterface, hsm: PathEnd, ephemeral: Span) -> Obstacle | None:
        """Return what stops the packets; nothing does between addresses of two families, which no client tries."""
        address = next((each for each in interface.addresses if (":" in each) == (":" in hsm.address)), None)
        if address is None:
            return None
        return find_obstacle(
            self._network, PathEnd(interface, address), hsm, region=self._region, ephemeral=ephemeral
        )

    def _grouped(self, hsms: Sequence[tuple[str, PathEnd]]) -> tuple[_HsmGroup, ...]:
        groups: dict[Hashable, _HsmGroup] = {}
        for hsm_id, end in ((name, end) for name, end in hsms if _is_address(end.address)):
            key = (end.interface.subnet, end.interface.groups, self._seen(end.address))
            first = groups.get(key)
            groups[key] = _HsmGroup(first.end, (*first.ids, hsm_id)) if first else _HsmGroup(end, (hsm_id,))
        return tuple(groups.values())

    def _seen(self, address: str) -> Hashable:
        """Return all that the rules can know of an address: its family, and the ranges that it lies in."""
        held = ipaddress.ip_address(address)
        return (
            held.version,
            frozenset(
                number
                for number, (version, mask, base) in enumerate(self._ranges)
                if version == held.version and int(held) & mask == base
            ),
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _ranges_of(network: Network) -> Iterator[tuple[int, int, int]]:
    """Yield family, mask and base of every range that is described, each once."""
    texts = {
        *(each for group in network.groups or () for rule in (*group.ingress, *group.egress) for each in rule.ranges),
        *(entry.range for acl in network.acls or () for entry in acl.entries),
        *(route.destination for table in network.tables or () for route in table.routes),
    }  # fmt: skip
    for text in sorted(texts):
        try:
            held = ipaddress.ip_network(text, strict=False)
        except ValueError:  # a prefix list's id: no address is known to be in it
            continue
        yield held.version, int(held.netmask), int(held.network_address)
