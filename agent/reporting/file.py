"""`file:PATH`: the report's document as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.reporting.letter import Letter, Means


def check(uri: str) -> None:
    """Want an absolute path, to a file."""
    path_of(uri)


def path_of(uri: str) -> str:
    """Return the path that `SCHEME:PATH` or `SCHEME:///PATH` names; ValueError when there is none."""
    scheme, _, rest = uri.partition(":")
    path = rest[2:] if rest.startswith("///") else rest
    if not path.startswith("/") or path.startswith("//") or path.endswith("/"):
        raise ValueError(f"{uri!r} names no file: {scheme}:/PATH is wanted")
    return path


def send(letter: Letter, means: Means) -> None:
    means.machine.write(path_of(letter.uri), letter.document.encode(), mode=0o644)
