"""What a run is given counts."""

from __future__ import annotations

from dataclasses import replace

from agent import commands
from agent.render.progress import NullProgress
from tests.fakes.vendor import catalogue
from tests.golden.runs import Scene


def test_the_catalogue_that_a_run_is_given_decides_what_fits() -> None:
    scene = Scene()
    empty = replace(catalogue(), hosts=(), rows=())
    run = replace(scene.run("configure"), catalogue=empty)
    report = commands.configure(scene.memory, scene.desired, run, NullProgress())
    assert (report.code, report.exit_status) == ("platform-unsupported", 10)
    own = replace(scene.run("configure"), catalogue=None)
    assert commands.configure(scene.memory, scene.desired, own, NullProgress()).exit_status == 0
