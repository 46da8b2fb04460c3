"""Groups in groups: the ancestors of each, their depth, and cycles."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MOST_GROUPS = 1_000


@dataclass(frozen=True)
class GroupTree:
    """For each group its ancestors, and the length of the longest path to it.

    `circle` names groups that contain each other, with the first one again at its end; the rest is empty then.
    """

    above: Mapping[str, frozenset[str]]
    depth: Mapping[str, int]
    circle: tuple[str, ...] = ()


def group_tree(children: Mapping[str, Collection[str]]) -> GroupTree:
    """Return the tree, given the direct children of each group; every group must be a key."""
    parents: dict[str, set[str]] = {name: set() for name in children}
    for name, members in children.items():
        for member in members:
            parents[member].add(name)
    waiting = {name: len(members) for name, members in parents.items()}
    ready = deque(name for name, count in waiting.items() if not count)
    above: dict[str, frozenset[str]] = {}
    depth: dict[str, int] = {}
    while ready:
        name = ready.popleft()
        above[name] = frozenset(parents[name]).union(*(above[parent] for parent in parents[name]))
        depth[name] = 1 + max((depth[parent] for parent in parents[name]), default=-1)
        for member in set(children[name]):
            waiting[member] -= 1
            if not waiting[member]:
                ready.append(member)
    left = [name for name in children if name not in above]
    return GroupTree(above, depth, _circle(left, parents) if left else ())


def _circle(left: list[str], parents: Mapping[str, set[str]]) -> tuple[str, ...]:
    # each has a parent among them, or it would be done: going up ends at a group that was visited before
    among = set(left)
    path = [left[0]]
    while True:
        above = min(parents[path[-1]] & among)
        if above in path:
            circle = list(reversed(path[path.index(above) :]))
            first = circle.index(min(circle))
            return (*circle[first:], *circle[: first + 1])
        path.append(above)
