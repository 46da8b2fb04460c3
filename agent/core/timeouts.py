"""How long the agent waits for things outside it, in seconds, and how often it tries again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timeouts:
    """Waits of one run. `--timeout` sets `run` and, where it is shorter, bounds every other wait."""

    run: float = 1800.0
    package: float = 600.0
    lock: float = 300.0
    download: float = 600.0
    tool: float = 60.0
    connect: float = 5.0
    # A key-availability failure of the real client took about 87 s (cloudhsm-facts 5.5); cold start is slow.
    client: float = 90.0
    # AWS shows a new or deleted HSM tens of seconds late; an HSM takes minutes to be made, which no run waits for.
    cluster: float = 60.0
