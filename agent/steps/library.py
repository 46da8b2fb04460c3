"""What programs load of a component: its shared library, or its jar. Nothing there, or in doubt, is not loadable."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from agent.cloudhsm.protection import exposed
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.links import resolve_link
from agent.core.model import Finding

if TYPE_CHECKING:
    from collections.abc import Callable
    from zipfile import ZipFile

    from agent.cloudhsm.paths import ClientPaths
    from agent.core.host import HostView
    from agent.core.timeouts import Timeouts

_CODE = CODES["library-unloadable"]
_REINSTALL = "reinstalling the package replaces the file"
# what ldd prints for what it found: a path, the loader itself, the kernel's own
_FOUND = re.compile(r"\s*(\S+ => /.*|/\S+ |\S+ (=>\s+)?)\(0x[0-9a-f]+\)\s*|\s*statically linked\s*")
# the vendor's has tens of MB
_MOST_JAR = 256 * 1024 * 1024
_MOST_UNPACKED = 4 * _MOST_JAR
# a member stored as it is, or deflated: what Java unpacks
_METHODS = (0, 8)
_PIECE = 1024 * 1024
_CLASS = re.compile(r"com/amazonaws/cloudhsm/jce/[\w/$]+\.class")


class _Fault(NamedTuple):
    saw: str
    hint: str = _REINSTALL


@dataclass(frozen=True)
class Library:
    """A component's shared library is there for every program, and finds all that it is linked against.

    Its loader is asked, which maps it. It runs nothing of it, but what it names to be run: an audit library (DT_AUDIT,
    rtld-audit(7)). So nobody is asked about a library that others than root could change. To load it into a process
    would prove more, and would run as root what is only to be checked: constructors write logs and start threads.
    """

    component: str
    paths: ClientPaths = field(repr=False)
    loader: str
    limits: Timeouts = field(repr=False)
    requires: tuple[str, ...] = ()
    depends_on: str | None = None

    @property
    def id(self) -> str:
        return f"client:library:{self.component}"

    def check(self, view: HostView) -> Finding:
        wanted = f"*{self.paths.libraries[self.component]}*.so"
        names = [
            each for each in view.list_dir(self.paths.lib) if self.paths.is_library(self.component, each)
        ]
        return _finding(view, self.paths.lib, names, wanted, self._fault)

    def _fault(self, view: HostView, path: str) -> _Fault | None:
        try:
            open_to_others = exposed(view, self.paths, (), (path,))
        except AgentError as error:
            if error.code.name != "unreadable":
                raise
            return _Fault(f"cannot be loaded: {error.saw}")
        for each in open_to_others:
            raise each.refuse()
        done = view.query((self.loader, path), timeout=self.limits.tool)
        lines = [line for line in done.out.splitlines() if line.strip()]
        missing = sorted({line.split("=>")[0].strip() for line in lines if "not found" in line})
        if missing:
            return _Fault(f"lacks {', '.join(missing)}", _CODE.fix)
        if done.ok and lines and all(map(_FOUND.fullmatch, lines)):
            return None
        answer = f"no answer in {self.limits.tool:g} s" if done.timed_out else done.tail(1).strip()
        return _Fault(f"cannot be loaded, {self.loader} says: {answer or f'exit {done.status}'}")


@dataclass(frozen=True)
class Jar:
    """The jar of JCE is there for every program, is complete, and has the provider's classes in it."""

    id: ClassVar[str] = "client:library:jce"

    folder: str
    requires: tuple[str, ...] = ()
    depends_on: str | None = None

    def check(self, view: HostView) -> Finding:
        # the documents leave "jce" out, the package does not (facts 3.2)
        name = re.compile(r"cloudhsm-(jce-)?\d[\d.-]*\.jar")
        names = [each for each in view.list_dir(self.folder) if name.fullmatch(each)]
        return _finding(view, self.folder, names, "cloudhsm-*.jar", _jar_fault)


def _finding(
    view: HostView,
    folder: str,
    names: list[str],
    wanted: str,
    fault_of: Callable[[HostView, str], _Fault | None],
) -> Finding:
    """Check each of these files, and the folders above it; the first fault is reported."""
    if not names:
        return _not_met(_Fault(f"no {wanted} in {folder}"))
    for path in (view.system.programs, folder.rpartition("/")[0], folder):
        closed = _closed(view, resolve_link(view, path), 0o001)
        if closed is not None:
            return _not_met(closed)
    for each in names:
        path = f"{folder}/{each}"
        fault = _closed(view, path, 0o004) or fault_of(view, path)
        if fault is not None:
            return _not_met(_Fault(f"{each} {fault.saw}", fault.hint))
    return Finding.ok(", ".join(names), "loadable")


def _not_met(fault: _Fault) -> Finding:
    return Finding.unmet(fault.saw, "loadable", _CODE.name, fault.hint)


def _closed(view: HostView, path: str, bit: int) -> _Fault | None:
    """Programs of all users load it. A link has no mode of its own."""
    stat = view.stat(path)
    if stat is None or stat.kind == "link" or stat.mode & bit:
        return None
    return _Fault(f"has mode {stat.mode:04o}, which not every program may use", f"`chmod o+rX {path}`")


def _jar_fault(view: HostView, path: str) -> _Fault | None:
    import zipfile  # noqa: PLC0415 -- 10 ms that only this component pays
    import zlib  # noqa: PLC0415 -- with zipfile

    data = view.read(path, limit=_MOST_JAR)
    if not data:
        return _Fault("is not there" if data is None else "is empty")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as jar:
            classes = [name for name in jar.namelist() if _CLASS.fullmatch(name)]
            if sum(each.file_size for each in jar.infolist()) > _MOST_UNPACKED:
                return _Fault("is no jar of the vendor's: it holds more than any")
            strange = next((each for each in jar.infolist() if each.compress_type not in _METHODS), None)
            if strange is not None:
                return _Fault(f"is no jar: Java cannot unpack {strange.filename} in it")
            # a provider is signed, and Java takes no part of one that was changed anywhere
            damaged = _damaged(view, jar)
            if damaged is not None:
                return _Fault(f"is a damaged jar: {damaged} in it is damaged")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return _Fault(f"is a damaged jar: {error}")
    return None if classes else _Fault("has no class of com.amazonaws.cloudhsm.jce")


def _damaged(view: HostView, jar: ZipFile) -> str | None:
    """Return the first member of a jar that does not have its checksum, None for none.

    One of 60 MB takes a second or two, and the largest that is looked at many: the run may end between two pieces.
    """
    from zipfile import BadZipFile  # noqa: PLC0415 -- as above

    name = ""
    try:
        for each in jar.infolist():
            name = each.filename
            with jar.open(each) as member:
                while member.read(_PIECE):
                    view.sleep(0)
    except BadZipFile:
        return name
    return None
