"""The archives of the agent that are sent to hosts: in this package, or named; read once, known by their SHA-256."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.core.errors import AgentError
from agent.core.fleet_model import ArchiveDigests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# A release puts the archive here: `packaging/build.py` makes both.
HERE = Path(__file__).parent
_LARGEST = 64 * 1024 * 1024
_MODULE = "/agent/__init__.py"
# The names of the agent's packages by kind; those with a processor have an interpreter in them.
_PACKAGES = {
    "deb": "hsm-agent_{}_all.deb",
    "rpm": "hsm-agent-{}-1.noarch.rpm",
    "rpm-x86_64": "hsm-agent-{}-1.x86_64.rpm",
    "rpm-aarch64": "hsm-agent-{}-1.aarch64.rpm",
    "msi": "hsm-agent-{}-x86_64.msi",
}
# the top folder of a build for Linux hosts without a Python, with the processor as `uname -m` has it
_BUILD = re.compile(r"hsm-agent-[^/]*-(x86_64|aarch64)-linux-[0-9a-f]+/")


@dataclass(frozen=True)
class AgentArchive:
    """An archive: its file name, its SHA-256 in hex, and its bytes."""

    name: str
    sha256: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class AgentArchives:
    """The archives by kind of system; without one for Windows, each Windows host fails.

    `linux` has by processor the builds with an interpreter in them: without one, each such host without a Python fails.
    `packages` has those of the agent that a roll-out installs, by kind as `agent.steps.agent_package` names it.
    """

    posix: AgentArchive
    windows: AgentArchive | None = None
    linux: Mapping[str, AgentArchive] = field(default_factory=dict)
    packages: Mapping[str, AgentArchive] = field(default_factory=dict)

    @property
    def sent(self) -> ArchiveDigests:
        linux = {processor: each.sha256 for processor, each in self.linux.items()}
        return ArchiveDigests(self.posix.sha256, self.windows.sha256 if self.windows else None, linux)


def load(named: str | None, windows: str | None, linux: Sequence[str] = ()) -> AgentArchives:
    """Return the named archives, or else those in this package; builds for Linux also from beside the named archive.

    Raises AgentError `tree-missing` for a file that is not an archive, and where there is none for POSIX.
    """
    return AgentArchives(_posix(named), _windows(windows), _linux(linux, named))


def load_packages(folder: str | None, beside: str | None) -> dict[str, AgentArchive]:
    """Return the agent's packages of this version in a directory, else beside the named archive or in this package.

    Raises AgentError `tree-missing` where there is none, or one cannot be read.
    """
    place = Path(folder) if folder is not None else HERE if beside is None else Path(beside).parent
    names = {kind: name.format(__version__) for kind, name in _PACKAGES.items()}
    found = {kind: _package(place / name) for kind, name in names.items() if (place / name).is_file()}
    if not found:
        raise AgentError(
            "tree-missing", "there is no package of the agent to install on hosts", saw=f"none in {place}",
            want=", ".join(names.values()),
            hint="`python packaging/build.py` makes them in dist/; then name it: `--agent-packages DIR`",
        )  # fmt: skip
    return found


def _package(path: Path) -> AgentArchive:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AgentError(
            "tree-missing", f"{path} cannot be read", saw=error.strerror or str(error)
        ) from error
    return AgentArchive(path.name, hashlib.sha256(data).hexdigest(), data)


def _linux(named: Sequence[str], beside: str | None) -> dict[str, AgentArchive]:
    """Return the builds by processor: those that are named, else the newest that lies there of this version."""
    folder = HERE if beside is None else Path(beside).parent
    there = folder.glob(f"hsm-agent-{__version__}-*-linux-*.tar.gz")
    paths = [Path(each) for each in named] or sorted(there, key=lambda each: each.stat().st_mtime)
    found = {}
    for path in paths:
        archive = _read(path, _in_tar)
        found[_processor(archive)] = archive
    return found


def _processor(archive: AgentArchive) -> str:
    """Return the processor of a build with an interpreter in it. Raises AgentError `tree-missing` for another file."""
    with tarfile.open(fileobj=io.BytesIO(archive.data), mode="r:gz") as tar:
        first = tar.next()
    build = _BUILD.match(first.name) if first is not None else None
    if build is None:
        raise AgentError(
            "tree-missing", f"{archive.name} is no build with an interpreter in it", saw=first.name if first else "",
            want="hsm-agent-VERSION-ARCH-linux-HASH.tar.gz",
        )  # fmt: skip
    return build[1]


def _posix(named: str | None) -> AgentArchive:
    path = _found(named, "hsm-agent-far-end-*.tar.gz")
    if path is None:
        raise AgentError(
            "tree-missing", "this agent came without the archive that is sent to hosts", saw="none"
        )
    return _read(path, _in_tar)


def _windows(named: str | None) -> AgentArchive | None:
    path = _found(named, "hsm-agent-*-windows-*.zip")
    return None if path is None else _read(path, _in_zip)


def _found(named: str | None, pattern: str) -> Path | None:
    if named is not None:
        return Path(named)
    found = sorted(HERE.glob(pattern))
    return found[-1] if found else None


def _read(path: Path, version_in: Callable[[bytes], str | None]) -> AgentArchive:
    try:
        if path.exists() and not path.is_file():  # a FIFO or a device may never end
            raise AgentError("tree-missing", f"{path} is no archive of the agent", saw="no regular file")
        if path.stat().st_size > _LARGEST:
            raise AgentError(
                "tree-missing", f"{path} is no archive of the agent", saw=f"{path.stat().st_size} bytes"
            )
        data = path.read_bytes()
    except OSError as error:
        raise AgentError(
            "tree-missing", f"{path} cannot be read", saw=error.strerror or str(error)
        ) from error
    try:
        version = version_in(data)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError) as error:
        raise AgentError("tree-missing", f"{path.name} is no archive of the agent", saw=str(error)) from error
    if version is None:
        raise AgentError("tree-missing", f"{path.name} is no archive of the agent", saw="no agent in it")
    if version != __version__:
        # this agent reads its answers, so both must be of one version
        raise AgentError("tree-missing", f"{path.name} is of another version", saw=version, want=__version__)
    return AgentArchive(path.name, hashlib.sha256(data).hexdigest(), data)


def _in_tar(data: bytes) -> str | None:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(_MODULE) else None
            if file is not None:
                return _version(file.read())
    return None


def _in_zip(data: bytes) -> str | None:
    """Return the version of a zip with one top directory that contains the program to start."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        names = packed.namelist()
        for name in names:
            top = name[: -len(_MODULE)]
            if name.endswith(_MODULE) and "/" not in top and f"{top}/hsm-agent.exe" in names:
                return _version(packed.read(name))
    return None


def _version(source: bytes) -> str | None:
    found = re.search(r'^__version__ = "(.+)"\r?$', source.decode("utf-8"), re.MULTILINE)
    return found[1] if found else None
