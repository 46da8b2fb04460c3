"""Who asks for a run, and from where: a record for those who look at it later, and no proof of identity."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from agent.core.plain import cut, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST = 200


def requester(machine: str, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return who runs this process on `machine`: the user, who became that user by sudo, and their address.

    The address is that of an SSH login; None where there was none, and behind sudo, which removes the variable.
    """
    return {
        "user": _shown(_user_name(os.geteuid())),
        "sudo_user": _shown(environ.get("SUDO_USER", "")),
        "host": _shown(machine),
        "from": _shown(environ.get("SSH_CONNECTION", "").partition(" ")[0]),
    }


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container whose user is in no database
        return str(uid)


def _shown(text: str) -> str | None:
    return cut(printable(text), _LONGEST) or None
