"""A host and a vendor in memory, and runs of the agent on them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Callable

from agent import commands
from agent.cloudhsm.paths import client_paths
from agent.config.desired import Desired, with_options
from agent.config.options import CaSource
from agent.render.progress import NullProgress
from agent.report import RunInfo
from tests.fakes.vendor import MIRROR, Vendor, catalogue

if TYPE_CHECKING:
    from agent.core.host import Host
    from agent.core.model import Report, StepOutcome
    from tests.fakes.memory import Memory


STARTED = dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc)


def desired_of(vendor: Vendor, pem: bytes, *components: str, **more: object) -> Desired:
    wanted = Desired(
        hsm_ip=vendor.addresses,
        ca_cert=CaSource.of(pem.decode()),
        component=components,
        package_source=MIRROR,
        sha256=vendor.checksums(),
    )
    return with_options(wanted, more)


def machine_of(vendor: Vendor) -> Memory:
    return vendor.machine(dt.datetime.now(dt.timezone.utc))  # the CA was made just now


def configure(memory: Host, desired: Desired, number: int = 1) -> Report:
    return commands.configure(
        memory,
        desired,
        RunInfo(f"2026112{number}T000000Z-0000", "configure", STARTED, catalogue=catalogue()),
        NullProgress(),
    )


def look(memory: Host, desired: Desired, command: str = "plan") -> Report:
    return commands.verify(
        memory,
        desired,
        RunInfo("20261129T000000Z-0000", command, STARTED, catalogue=catalogue()),
        NullProgress(),
    )


def outcomes(report: Report) -> dict[str, StepOutcome]:
    return {line.id: line.outcome for line in report.steps}


class Killed(BaseException):
    """The agent is gone: nothing after this line runs."""


class Fragile:
    """A host that is gone, or refuses, at its n-th touch."""

    def __init__(self, inner: Memory, breaks_at: int, error: Callable[[], BaseException]) -> None:
        self._inner = inner
        self._left = breaks_at
        self._error = error
        self.broke = False

    def __getattr__(self, verb: str) -> object:
        value = getattr(self._inner, verb)
        if verb not in ("write", "remove", "run", "download"):
            return value

        def touch(*args: object, **kwargs: object) -> object:
            self._left -= 1
            if self._left == 0:
                self.broke = True
                raise self._error()
            return value(*args, **kwargs)

        return touch


def state(memory: Memory) -> tuple[object, ...]:
    here = client_paths(memory.system)
    return tuple(
        memory.read(path) for path in (here.ca, *(here.settings(each, memory) for each in ("cli", "pkcs11")))
    )
