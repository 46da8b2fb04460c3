"""Who else could change the vendor's files: the owner and mode of each, and of every folder on the way to it.

The packages leave all of it to root. SDK 3 has an account of its own, `hsmuser`, which is taken for root's here: its
package gives it the configuration, and hosts that moved to SDK 5 still have it so. Whom a site lets read its files is
the site's to say: `root:hsm 0640` is as good as 0644. On Windows only what the access list of a file lets others write
is looked at, and folders below ProgramData are passed over: Windows itself lets every user make files there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.links import path_prefixes, resolve_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent.cloudhsm.paths import ClientPaths
    from agent.core.host import Host, HostView, Stat

_OTHERS, _GROUP, _STICKY = 0o002, 0o020, 0o1000
_ACCOUNT = "hsmuser"
_NUMBER = re.compile("[0-9]{1,10}")
_MOST_LISTED = 3
# the owner where the host does not know the number, as in a container: no user of this host
_UNMAPPED = 65534


@dataclass(frozen=True)
class UnprotectedPath:
    """A name that others than root could change. `ours`: it is of the vendor's tree, and closing it proves enough."""

    path: str
    stat: Stat
    words: str
    ours: bool

    def refuse(self) -> AgentError:
        """Return the error for one that is not closed by us."""
        return AgentError(
            "permissions-unsafe",
            f"others than {self.owner} may change {self.path}",
            saw=f"{self.path}: {self.words}",
            want=f"{self.owner}'s, and writable by no other user",
            hint=f"check what is there, then {self.remedy}; to replace a program that others could change, reinstall"
            " its package",
        )

    @property
    def owner(self) -> str:
        return "root" if self.path.startswith("/") else "an administrator"

    @property
    def remedy(self) -> str:
        if self.path.startswith("/"):
            return f"`chown root {self.path}` and `chmod go-w {self.path}`"
        return f'`icacls "{self.path}" /setowner *S-1-5-32-544` and `icacls "{self.path}" /reset`'


@dataclass(frozen=True)
class _Trusted:
    """The numbers of root and of the vendor's own account."""

    users: frozenset[int]
    groups: frozenset[int]


def exposed(
    view: HostView, layout: ClientPaths, paths: Iterable[str], programs: Iterable[str] = ()
) -> tuple[UnprotectedPath, ...]:
    """Return what others could change of the files at `paths` and of `programs`, and of the folders above them.

    What is not there is left out. A program is never ours to close: what was open to others may be another's by now.
    """
    programs = tuple(programs)
    kept = {resolve_link(view, path) for path in programs}
    trusted = _trusted(view)
    found = {}
    for path in _names(view, layout, (*paths, *programs)):
        stat = view.stat(path)
        inside = _is_inside(layout, path)
        words = _words(stat, trusted, inside=inside) if stat is not None else ""
        if stat is not None and words:
            # a list of Windows is replaced with its file alone
            closable = inside and path not in kept and (not layout.system.is_windows or stat.kind == "file")
            found[path] = UnprotectedPath(path, stat, words, closable)
    return tuple(found.values())


def shut(view: HostView, layout: ClientPaths, path: str) -> tuple[tuple[str, Stat], ...]:
    """Return the folders of the vendor's tree on the way to a file through which root alone may go.

    A folder for a group, or for an account of its own, is the site's choice.
    """
    found = []
    for folder in path_prefixes(view, path) if layout.system.separator == "/" else ():
        stat = view.stat(folder)
        if stat is None or stat.kind != "directory" or not _is_inside(layout, folder):
            continue
        who = stat.mode & 0o001, stat.gid != 0 and stat.mode & 0o010, stat.uid != 0 and stat.mode & 0o100
        if not any(who):
            found.append((folder, stat))
    return tuple(found)


def is_roots_alone(stat: Stat) -> bool:
    """Tell whether root alone may read a file. One for a group, or for an account of its own, is the site's choice."""
    who = stat.mode & 0o004, stat.gid != 0 and stat.mode & 0o040, stat.uid != 0 and stat.mode & 0o400
    return not any(who)


def close(host: Host, each: UnprotectedPath) -> None:
    """Leave a name to its owner, and that to root; whom its mode lets read stays. Raises as `write` does.

    A file is replaced: a process that has it open for writing has the old one.
    """
    trusted = _trusted(host)
    stat = each.stat
    uid = stat.uid if stat.uid in trusted.users else 0
    owner = None if stat.uid < 0 else (uid, stat.gid)
    if stat.kind == "file":
        data = host.read(each.path)
        if data is not None:
            host.write(each.path, data, mode=closed(stat.mode), owner=owner)
        return
    host.chmod(each.path, closed(stat.mode), owner=owner)


def require_own(view: HostView, layout: ClientPaths, program: str) -> None:
    """Raise AgentError `permissions-unsafe` when a program that is about to be run is another user's to change.

    A directory that is ours to close is another check's: what lies in it is still root's.
    """
    for each in exposed(view, layout, (), (program,)):
        if not each.ours:
            raise each.refuse()


def close_all(host: Host, open_now: Callable[[], tuple[UnprotectedPath, ...]]) -> None:
    """Close what is ours to close, before anything of it is run. Raises AgentError `permissions-unsafe`.

    Whoever could write to a directory may have exchanged a program in it since the check, and until it was closed: what
    is not ours is refused, and all is checked once more.
    """
    for each in open_now():
        if not each.ours:
            raise each.refuse()
        close(host, each)
    for each in open_now():
        raise each.refuse()


def closed(mode: int) -> int:
    """Return a mode without what it lets others write."""
    return mode & ~(_OTHERS | _GROUP)


def require_closed(view: HostView, layout: ClientPaths, path: str) -> None:
    """Raise AgentError `permissions-unsafe` when others could change what is at a path, or lead to it."""
    for each in exposed(view, layout, (path,)):
        raise each.refuse()


def _is_inside(layout: ClientPaths, path: str) -> bool:
    roots = (layout.root, *layout.homes)
    return any(path == root or path.startswith(root + layout.system.separator) for root in roots)


def _names(view: HostView, layout: ClientPaths, paths: Iterable[str]) -> Iterator[str]:
    """Yield each real name that decides what is at a path, the upper ones first."""
    if layout.system.separator == "/":
        for path in paths:
            yield from path_prefixes(view, path)
        return
    yield layout.root
    for path in paths:
        at = resolve_link(view, path)
        yield from _folders_below(layout.root, at, layout.system.separator)
        yield at


def _folders_below(root: str, path: str, separator: str) -> Iterator[str]:
    """Yield the folders between a root and a path below it: a user who may write to one can replace its contents."""
    if path.startswith(root + separator):
        parts = path[len(root) + 1 :].split(separator)[:-1]
        for count in range(1, len(parts) + 1):
            yield separator.join((root, *parts[:count]))


def _words(stat: Stat, trusted: _Trusted, *, inside: bool) -> str:
    """Say what lets others in; empty for nothing."""
    openings = []
    foreign = stat.uid >= 0 and stat.uid not in trusted.users
    if foreign and (inside or stat.uid != _UNMAPPED):
        openings.append(f"owner {stat.uid}")
    # in a folder with the sticky bit a name can be taken away by its owner alone
    sticky = not inside and stat.kind == "directory" and bool(stat.mode & _STICKY)
    # an access list shows what it lets anybody write in the place of the group, whichever that is
    group = stat.mode & _GROUP and (stat.gid != 0 if not inside else stat.gid not in trusted.groups - {0})
    if not sticky and (stat.mode & _OTHERS or group):
        openings.append(f"mode {stat.mode:04o}" + (f", group {stat.gid}" if group and stat.gid > 0 else ""))
    known = {"user": trusted.users, "group": trusted.groups}
    listed = [f"{kind} {number}" for kind, number in stat.writers if number not in known[kind]]
    if not sticky and listed:
        openings.append(f"writable for {', '.join(listed[:_MOST_LISTED])} by its access list")
    return ", ".join(openings)


def _trusted(view: HostView) -> _Trusted:
    users, groups = {0}, {0}
    for line in _passwd(view).decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if fields[0] == _ACCOUNT and all(map(_NUMBER.fullmatch, fields[2:4])) and len(fields) > 3:
            users.add(int(fields[2]))
            groups.add(int(fields[3]))
    return _Trusted(frozenset(users), frozenset(groups))


def _passwd(view: HostView) -> bytes:
    """Return the accounts of this host; of a file that cannot be read, or is too large, none is trusted."""
    if view.system.separator != "/":
        return b""
    try:
        return view.read("/etc/passwd") or b""
    except AgentError as error:
        if error.ends_run:
            raise
        return b""
