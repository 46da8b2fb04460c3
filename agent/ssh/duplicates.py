"""Two targets of an inventory that are one machine: two runs must not change it at once."""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from agent.core.fleet_model import Target
    from agent.ssh.config import Hop, Route

# How long names are resolved in all, in seconds, and by how many threads. A name without an answer by then is compared
# as it is spelled.
_PATIENCE, _ASKING = 5.0, 32
# How many pairs are named.
_SHOWN = 10


def refuse(targets: Sequence[Target], routes: Mapping[str, Route]) -> None:
    """Raise AgentError `inventory-invalid` where two targets, of any name, are one server."""
    found = _resolved({route.target for route in routes.values() if _is_direct(route)})
    seen: dict[Hashable, Target] = {}
    pairs: list[str] = []
    for target in targets:
        route = routes[target.name]
        first = next((seen[spot] for spot in _spots(route, found) if spot in seen), target)
        if first is not target:
            hop = route.target
            pairs.append(
                f"{target.where}: {target.name} is the same machine as {first.name} at {first.where}: "
                f"{hop.host}, port {hop.port}"
            )
        seen.update((spot, target) for spot in _spots(route, found))
    if pairs:
        more = f"\n{len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
        raise AgentError(
            "inventory-invalid",
            "two names of the inventory are one machine",
            saw="\n".join(pairs[:_SHOWN]) + more,
            want="each machine once",
            hint="leave one of the names out, or exclude it with `--limit '!NAME'`",
        )


def _is_direct(route: Route) -> bool:
    return len(route.hops) == 1 and route.target.proxy_command is None


def _spots(route: Route, found: Mapping[Hop, tuple[str, ...]]) -> Iterable[Hashable]:
    """Return where a route ends: the server's addresses, or behind jump hosts what those are asked to connect to."""
    if _is_direct(route):
        hop = route.target
        return [(address, hop.port) for address in found.get(hop) or (_plain(hop.host),)]
    return [(route.hops[0].proxy_command, *((_plain(hop.host), hop.port) for hop in route.hops))]


def _plain(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().rstrip(".")


def _resolved(hops: Iterable[Hop]) -> dict[Hop, tuple[str, ...]]:
    """Resolve names in parallel. Nothing ends a resolver, so threads that still wait are left behind."""
    waiting: queue.SimpleQueue[Hop] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[Hop, tuple[str, ...]]] = queue.SimpleQueue()
    names = [hop for hop in hops if not _is_address(hop.host)]
    for hop in names:
        waiting.put(hop)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                hop = waiting.get_nowait()
                answers.put((hop, _addresses(hop)))

    for _ in range(min(_ASKING, len(names))):
        threading.Thread(target=work, name="names", daemon=True).start()
    found: dict[Hop, tuple[str, ...]] = {}
    deadline = time.monotonic() + _PATIENCE
    with contextlib.suppress(queue.Empty):
        while len(found) < len(names):
            hop, addresses = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            found[hop] = addresses
    return found


def _addresses(hop: Hop) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(_plain(str(each[4][0])) for each in found)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
