"""`file:PATH`: the report's document as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.system import is_absolute

if TYPE_CHECKING:
    from agent.reporting.letter import Letter, Means


def check(uri: str) -> None:
    """Want an absolute path, to a file."""
    path_of(uri)


def path_of(uri: str) -> str:
    """Return the path that `SCHEME:PATH` or `SCHEME:///PATH` names; ValueError when there is none."""
    scheme, _, rest = uri.partition(":")
    path = rest
    if rest.startswith("///"):  # the third stroke belongs to a path of Linux, and not to C:/x
        path = rest[3:] if is_absolute(rest[3:]) else rest[2:]
    if not is_absolute(path) or path[-1] in "/\\":
        raise ValueError(f"{uri!r} names no file: {scheme}:/PATH is wanted")
    return path


def send(letter: Letter, means: Means) -> None:
    means.machine.write(path_of(letter.uri), letter.document.encode(), mode=0o644)
