"""Fixtures of the lab: `lab`, `make_host`, `make_shared_host`, `image`, `host`, `agent_host` and `make_hsm`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import images
from .host import LabHost
from .lab import Lab
from .network import HsmSeat

MakeHost = Callable[..., LabHost]
MakeHsm = Callable[..., HsmSeat]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab of this run, with every image built; the run fails if anything of it is left at the end."""
    reason = images.reason_not_to_run()
    if reason:
        pytest.skip(reason)
    images.install_tools()
    images.ensure()
    the_lab = Lab()
    left = ["the lab was not closed"]
    try:
        yield the_lab
    finally:
        left = the_lab.close()
    assert left == []


@contextmanager
def _hosts_of(lab: Lab) -> Iterator[MakeHost]:
    made: list[LabHost] = []

    def make(*args: object, **kwargs: object) -> LabHost:
        host = lab.host(*args, **kwargs)  # type: ignore[arg-type]
        made.append(host)
        return host

    try:
        yield make
    finally:
        for host in made:
            lab.end(host)


@pytest.fixture
def make_host(lab: Lab) -> Iterator[MakeHost]:
    """`make_host("rhel9", agent=True)`: hosts that end with the test. The arguments are those of `Lab.host`."""
    with _hosts_of(lab) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_host(lab: Lab) -> Iterator[MakeHost]:
    """The same, for hosts that all tests of a module share."""
    with _hosts_of(lab) as make:
        yield make


@pytest.fixture
def image() -> str:
    """The image of `host` and `agent_host`; a test asks for others by parametrising this name."""
    return "ubuntu22.04"


@pytest.fixture
def host(make_host: MakeHost, image: str) -> LabHost:
    return make_host(image)


@pytest.fixture
def agent_host(make_host: MakeHost, image: str) -> LabHost:
    """A host with the agent of this checkout as `hsm-agent`."""
    return make_host(image, agent=True)


@pytest.fixture
def make_hsm(lab: Lab) -> Iterator[MakeHsm]:
    """`make_hsm()`: seats for HSM stand-ins, whose servers end with the test."""
    made: list[HsmSeat] = []

    def make(ip: str | None = None) -> HsmSeat:
        seat = lab.hsm(ip)
        made.append(seat)
        return seat

    yield make
    for seat in made:
        lab.end(seat)
