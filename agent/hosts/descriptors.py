"""How many files this process may have open: a program with many connections needs more than a shell usually allows."""

from __future__ import annotations

import contextlib
import resource

from agent.core.errors import AgentError

# Descriptors of a roll-out beside its connections, and of one connection: its socket, an agent's, and the pipes of
# a proxy command or of ssh.
_ALWAYS, _EACH = 48, 6


def require(connections: int) -> None:
    """Make sure that so many connections can be open at a time; raise this process's own limit if necessary.

    Raises AgentError `no-resources` where the hard limit is lower: in the middle of a roll-out each part of it would
    fail in a different way.
    """
    wanted = _ALWAYS + _EACH * connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they report
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
