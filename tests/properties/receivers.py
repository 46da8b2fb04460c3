"""Receivers of reports in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.host import READ_LIMIT
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.codes import CodeName


class Fixed(Memory):
    """A machine on which some files cannot be removed, replaced or read."""

    def remove(self, path: str) -> None:
        if any(path.startswith(each) for each in self.fixed):
            self.touches.append(("remove", path))
            raise AgentError("write-failed", f"{path} cannot be written", saw=f"{path}: an attribute")
        super().remove(path)

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        if any(path.startswith(each) for each in self.fixed):
            raise AgentError("write-failed", f"{path} cannot be written", saw=f"{path}: an attribute")
        super().write(path, data, mode=mode, owner=owner)

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        if path in self.broken:
            raise AgentError(self.broken[path], f"{path} cannot be read", saw="Input/output error")
        return super().read(path, offset=offset, limit=limit)

    fixed: tuple[str, ...] = ()
    broken: Mapping[str, CodeName] = {}
