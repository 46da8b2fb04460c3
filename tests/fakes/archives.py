"""Archives as a roll-out sends them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from agent.remote.bootstrap import (
    MANIFEST,
)
from agent.remote.protocol import RECORD, RecordStream

if TYPE_CHECKING:
    from pathlib import Path


def archive(files: dict[str, bytes], top: str = "hsm-agent-1") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mode = len(data), 0o755 if name == "hsm-agent" else 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ARCHIVE = archive({"hsm-agent": b"#!/usr/bin/python3\n", "agent/__init__.py": b"x = 1\n"})


class Ends:
    """Both ends of a wire: what is put in is there to be read, what was said can be looked at."""

    def __init__(self, incoming: bytes = b"") -> None:
        self.out = io.BytesIO()
        self.wire = RecordStream(io.BytesIO(incoming), self.out)

    @property
    def said(self) -> list[dict[str, Any]]:
        lines = self.out.getvalue().split(b"\n")[:-1]
        assert all(line.startswith(RECORD) for line in lines)
        return [json.loads(line[1:]) for line in lines]


def damage(folder: Path, how: str) -> None:
    compiled = next(folder.rglob("*.pyc"))
    source = folder / "agent/__init__.py"
    if how == "missing":
        source.unlink()
    elif how == "cut":
        source.write_bytes(source.read_bytes()[:2])
    elif how == "zeros":
        source.write_bytes(bytes(source.stat().st_size))
    elif how == "cut bytecode":
        compiled.write_bytes(compiled.read_bytes()[:20])
    elif how == "empty bytecode":
        compiled.write_bytes(b"")
    elif how == "no list":
        (folder / MANIFEST).unlink()
    elif how == "half a list":
        (folder / MANIFEST).write_text('{"agent/__init')
    elif how == "no list of ours":
        (folder / MANIFEST).write_text("[1]")
    elif how == "a folder":
        source.unlink()
        source.mkdir()
