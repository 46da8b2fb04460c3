"""The archive of the agent that travels: found beside the agent, or named; read once, known by its SHA-256."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from agent import __version__
from agent.core.errors import AgentError

# A release puts the archive here: `packaging/build.py` makes both.
HERE = Path(__file__).parent
_LARGEST = 64 * 1024 * 1024


@dataclass(frozen=True)
class Tree:
    """An archive: its file name, its SHA-256 in hex, and its bytes."""

    name: str
    sha256: str
    data: bytes = field(repr=False)


def load(named: str | None) -> Tree:
    """Return the archive that was named, or else the one that this agent came with.

    Raises AgentError `tree-missing`.
    """
    if named is not None:
        path = Path(named)
    else:
        found = sorted(HERE.glob("hsm-agent-far-end-*.tar.gz"))
        if not found:
            raise AgentError(
                "tree-missing", "this agent came without the archive that is sent to hosts", saw="none"
            )
        path = found[-1]
    try:
        if path.stat().st_size > _LARGEST:
            raise AgentError(
                "tree-missing", f"{path} is no archive of the agent", saw=f"{path.stat().st_size} bytes"
            )
        data = path.read_bytes()
    except OSError as error:
        raise AgentError(
            "tree-missing", f"{path} cannot be read", saw=error.strerror or str(error)
        ) from error
    version = _version(path.name, data)
    if version != __version__:
        # what it answers is read by this agent, so both must be of one version
        raise AgentError("tree-missing", f"{path.name} is of another version", saw=version, want=__version__)
    return Tree(path.name, hashlib.sha256(data).hexdigest(), data)


def _version(name: str, data: bytes) -> str:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            for member in tar:
                if member.name.endswith("/agent/__init__.py"):
                    file = tar.extractfile(member)
                    text = file.read().decode("utf-8") if file else ""
                    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
                    if found:
                        return found[1]
    except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as error:
        raise AgentError("tree-missing", f"{name} is no archive of the agent", saw=str(error)) from error
    raise AgentError("tree-missing", f"{name} is no archive of the agent", saw="no agent in it")
