"""How many files this process may have open: one that talks to many hosts needs more than a shell usually gives."""

from __future__ import annotations

import contextlib
import resource

from agent.core.errors import AgentError

# What a roll-out needs beside its connections, and what one connection needs: its socket, an agent's, and the pipes of
# a proxy command or of ssh.
_ALWAYS, _EACH = 48, 6


def require(connections: int) -> None:
    """Have room for so many connections at a time, if need be by raising this process's own limit.

    Raises AgentError `no-resources` where the hard limit is lower: in the middle of a roll-out every part of it would
    fail in a way of its own.
    """
    wanted = _ALWAYS + _EACH * connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # some systems give less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and soft < wanted:
        fewer = (soft - _ALWAYS) // _EACH
        less = f", or `--parallel {fewer}`" if fewer > 0 else ""
        raise AgentError(
            "no-resources",
            f"too few open files for {connections} hosts at a time",
            saw=f"a limit of {soft} open files",
            want=f"{wanted}",
            hint=f"`ulimit -n {wanted}`{less}",
        )
