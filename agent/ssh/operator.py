"""The user of this machine as ssh sees it: by the user database, and not by HOME."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Operator:
    """`name` is None for a user without an entry in the database, as in some containers."""

    uid: int
    name: str | None
    home: Path
    environment: Mapping[str, str]
    host: str = field(default_factory=socket.gethostname)

    @classmethod
    def of_this_process(cls, environment: Mapping[str, str]) -> Operator:
        uid = os.getuid()
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return cls(uid, None, Path(environment.get("HOME") or "/"), environment)
        return cls(uid, entry.pw_name, Path(entry.pw_dir), environment)
