"""Files as values, and reproducible archives of them: the same files give the same bytes."""

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
    """A file; with `link` a symbolic link; with a directory's mode, and neither link nor data, an empty folder."""

    data: bytes = b""
    mode: int = 0o644
    link: str | None = None
    folder: bool = False


Files = dict[str, File]  # by path, relative and with slashes


def digest(files: Mapping[str, File]) -> str:
    """Return the SHA-256 of names, modes and contents, independent of the archive format."""
    found = hashlib.sha256()
    for path, file in sorted(files.items()):
        found.update(f"{path}\0{file.mode:o}\0{file.link or ''}\0{len(file.data)}\0".encode() + file.data)
    return found.hexdigest()


def compress(data: bytes) -> bytes:
    """Return gzip data without a name and a time."""
    return gzip.compress(data, 9, mtime=0)


def archive(files: Mapping[str, File], top: str, epoch: int) -> bytes:
    """Return a tar.gz with everything in one folder, owned by root, with one time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, file in sorted(files.items()):
            info = tarfile.TarInfo(f"{top}/{path}")
            info.mtime, info.mode, info.size = epoch, file.mode, len(file.data)
            info.uname = info.gname = "root"
            tar.addfile(info, io.BytesIO(file.data))
    return compress(buffer.getvalue())


def packed(name: str, files: Files, date: datetime, out: Path) -> Path:
    """Write an archive into a folder, with its digest in its name; return its path."""
    name = f"{name}-{digest(files)[:12]}"
    path = out / f"{name}.tar.gz"
    path.write_bytes(archive(files, name, int(date.timestamp())))
    return path


def zipped(files: Iterable[tuple[str, bytes]], date: datetime, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of them in that order, with one time, readable by every user."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for path, data in files:
            info = zipfile.ZipInfo(path, date.timetuple()[:6])
            info.create_system = 3  # Unix, whose modes these are, on every system
            info.external_attr = 0o644 << 16
            info.compress_type = method
            packed.writestr(info, data)
    return buffer.getvalue()


def lay_out(files: Mapping[str, File], root: Path, epoch: int) -> None:
    """Write the files below a folder, with their modes and one time."""
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
