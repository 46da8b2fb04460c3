"""Files as values: what an archive or a package holds, in the same order and with the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True)
class File:
    """One file; with `link` a symbolic link, with neither link nor data and a directory's mode an empty folder."""

    data: bytes = b""
    mode: int = 0o644
    link: str | None = None
    folder: bool = False


Files = dict[str, File]  # by path, relative and with slashes


def digest(files: Mapping[str, File]) -> str:
    """Return the SHA-256 of names, modes and content, whatever they are packed with."""
    found = hashlib.sha256()
    for path, file in sorted(files.items()):
        found.update(f"{path}\0{file.mode:o}\0{file.link or ''}\0{len(file.data)}\0".encode() + file.data)
    return found.hexdigest()


def compress(data: bytes) -> bytes:
    """Return it as gzip writes it without a name and a time."""
    return gzip.compress(data, 9, mtime=0)


def archive(files: Mapping[str, File], top: str, epoch: int) -> bytes:
    """Return a tar.gz in which everything lies in one folder, belongs to root and is of one time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, file in sorted(files.items()):
            info = tarfile.TarInfo(f"{top}/{path}")
            info.mtime, info.mode, info.size = epoch, file.mode, len(file.data)
            info.uname = info.gname = "root"
            tar.addfile(info, io.BytesIO(file.data))
    return compress(buffer.getvalue())


def packed(name: str, files: Files, date: datetime, out: Path) -> Path:
    """Write an archive into a folder, named by its content too; return its path."""
    name = f"{name}-{digest(files)[:12]}"
    path = out / f"{name}.tar.gz"
    path.write_bytes(archive(files, name, int(date.timestamp())))
    return path


def zipped(files: Iterable[tuple[str, bytes]], date: datetime, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of them in that order, all of one time; what it unpacks is for everybody to read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for path, data in files:
            info = zipfile.ZipInfo(path, date.timetuple()[:6])
            info.create_system = 3  # the one whose modes these are, whatever this runs on
            info.external_attr = 0o644 << 16
            info.compress_type = method
            packed.writestr(info, data)
    return buffer.getvalue()


def lay_out(files: Mapping[str, File], root: Path, epoch: int) -> None:
    """Write the files under a folder, with their modes, all of one time."""
    for path, file in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.link is not None:
            target.symlink_to(file.link)
        elif file.folder:
            target.mkdir()
        else:
            target.write_bytes(file.data)
            target.chmod(file.mode)
    for each in (*root.rglob("*"), root):
        if each.is_dir() and not each.is_symlink():
            each.chmod(0o755)
        os.utime(each, (epoch, epoch), follow_symlinks=False)
