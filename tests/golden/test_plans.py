"""The plan for every Linux row and processor, with every component that fits: its files, as an operator mirrors them.

`pytest tests/golden --update-golden` writes them; a change of the catalogue is then a difference to review.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from agent.catalogue import components, fit_host, load
from agent.cloudhsm.ca import Ca
from agent.config.desired import Desired
from agent.core.timeouts import Timeouts
from agent.facts import Facts
from agent.planner import plan
from agent.steps.package import Package

FOLDER = Path(__file__).parent / "plans"
CATALOGUE = load()
CA = Ca(
    b"",
    ("ca" * 32,),
    (),
    "CN=root",
    "CN=root",
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    dt.datetime(2036, 1, 1, tzinfo=dt.timezone.utc),
)


def facts_of(row: str, arch: str) -> Facts:
    """Return a virgin host of a row: the one the row is named after, so without a bound of its own."""
    host = next(each for each in CATALOGUE.hosts if each.platform == row and each.last is None)
    form = next(each.format for each in CATALOGUE.rows if each.name == row)
    return Facts("host", host.os, host.version, (), host.title, arch, form, "systemd")


def cases() -> dict[str, tuple[str, str, int]]:
    """Return file name -> row, processor, SDK: whatever AWS ever made for a Linux."""
    found = {}
    for row in CATALOGUE.rows:
        for arch in ("x86_64", "aarch64") if row.format != "msi" else ():
            for sdk in (5, 3):
                made = [each for each in CATALOGUE.clients if (each.platform, each.sdk) == (row.name, sdk)]
                if any(arch in each.arch for each in made):
                    found[f"{row.name}-{arch}{'' if sdk == 5 else '-sdk3'}.txt"] = (row.name, arch, sdk)
    return found


CASES = cases()


def written(row: str, arch: str, sdk: int) -> str:
    facts = facts_of(row, arch)
    fitting = components(CATALOGUE, fit_host(facts, None, CATALOGUE), arch, sdk)
    desired = Desired(
        hsm_ip=("10.0.1.6",),
        component=fitting,
        sdk=sdk,
        package_source="https://mirror.example" if sdk == 3 else None,
    )
    found = plan(facts, desired, CATALOGUE, CA, Timeouts())
    lines = [f"{facts.title} {arch}, SDK {sdk} {found.client.version}", ""]
    for step in found.plan.steps:
        if isinstance(step, Package) and step.download is not None:
            lines += [
                f"{step.id} {step.package} {step.version}",
                f"  {step.download.url}",
                f"  sha256 {step.download.sha256 or 'unknown'}",
            ]
        else:
            lines.append(step.id)
    lines += ["", *(each.id for each in found.plan.probes)]
    if found.plan.notices:
        lines += ["", *(f"{each.code}: {each.text}" for each in found.plan.notices)]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_plan_is_the_one_that_was_reviewed(name: str, request: pytest.FixtureRequest) -> None:
    found = written(*CASES[name])
    path = FOLDER / name
    if request.config.getoption("--update-golden"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == found


def test_there_is_no_plan_for_what_is_not_made_any_more(request: pytest.FixtureRequest) -> None:
    for path in FOLDER.iterdir() if request.config.getoption("--update-golden") else ():
        if path.name not in CASES:
            path.unlink()
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(CASES)
