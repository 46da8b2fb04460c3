"""Reports that hosts left in a folder: who is proven, who differs, who is silent, and everything else that lies there."""

from __future__ import annotations

import copy
import datetime as dt
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from referencing import Registry, Resource

from agent.cli.collected import json_pieces
from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.fleet.collected import status as collected
from agent.fleet.collected.collect import MOST_OBJECTS
from agent.fleet.collected.sources import MOST_BYTES, FolderSource, StoredObject
from agent.fleet.collected.spool import ReportSpool
from agent.fleet.collected.standing import iso
from agent.hosts.posix import Posix
from agent.render.fleet.html import page
from agent.render.fleet.junit import suites
from agent.render.fleet.schema import schema as fleet_schema
from agent.render.fleet.screen import report as screen
from agent.render.json_report import schema
from tests.fakes.evil import EVIL
from tests.fakes.visits import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = dt.datetime(2026, 11, 30, 12, 0, tzinfo=dt.timezone.utc).timestamp()
HOUR = 3600.0
DRIFT: dict[str, Any] = {"outcome": "drift", "code": "drift", "exit_status": 3, "failure": {
    "code": "drift", "sentence": "differs", "saw": "5.17.0", "want": "5.18.0", "hint": "configure"}}  # fmt: skip


@dataclass
class Place:
    """A folder of reports, and what is asked of it."""

    folder: Path
    spool: ReportSpool
    targets: list[Target] | None = None
    silent_after: float = 36 * HOUR
    shown: dict[str, Any] = field(default_factory=dict)

    def write(
        self, label: str, hours: float = 1.0, written: float | None = None, **more: Any
    ) -> dict[str, Any]:
        """Leave a report of a host that ended so many hours ago; `written` is when it came there, in hours ago."""
        report = copy.deepcopy(REPORT)
        host = {**report["host"], "name": label, "identity": None, **more.pop("host", {})}
        report.update({"host": host, "finished": iso(NOW - hours * HOUR), "request": None, **more})
        self.put(f"{label}.json", json.dumps(report).encode(), hours if written is None else written)
        return report

    def put(self, name: str, data: bytes, hours: float = 1.0) -> None:
        (self.folder / name).write_bytes(data)
        os.utime(self.folder / name, (NOW - hours * HOUR,) * 2)

    def look(self) -> dict[str, dict[str, Any]]:
        """Return the hosts by their names. Every form of the report is made, and held to its schema."""
        request = collected.StatusRequest(
            "20261130T120000Z-0000",
            "hosts" if self.targets else "",
            self.targets,
            silent_after=self.silent_after,
        )
        found = collected.status(FolderSource(Posix(), str(self.folder)), request, schema(), self.spool, NOW)
        document = json.loads("".join(json_pieces(found.whole())))
        registry: Registry[Any] = Registry().with_resource(schema()["$id"], Resource.from_contents(schema()))
        jsonschema.Draft202012Validator(fleet_schema(), registry=registry).validate(document)
        self.shown = {
            **found.tree, "screen": screen(found.tree), "page": page(found.whole()), "junit": suites(found.whole()),
        }  # fmt: skip
        assert len({each["name"] for each in document["hosts"]}) == len(document["hosts"])
        return {each["name"]: each for each in document["hosts"]}

    def outcomes(self) -> dict[str, tuple[str, str | None]]:
        return {name: (each["outcome"], each["code"]) for name, each in self.look().items()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ReportSpool() as spool:
        yield Place(tmp_path, spool)


def test_everybody_is_shown_as_they_stand(place: Place) -> None:
    place.targets = [Target(f"web-{number}", f"10.0.4.{number}") for number in range(1, 5)]
    place.write("web-1")
    place.write("web-2", **DRIFT)
    place.write("web-3", hours=24 * 12)
    assert place.outcomes() == {
        "web-1": ("ok", None),
        "web-2": ("drifted", "drift"),
        "web-3": ("silent", "host-silent"),
        "web-4": ("silent", "host-never-reported"),
    }
    shown = place.shown
    assert (shown["exit_status"], shown["totals"]["silent"], shown["totals"]["ok"]) == (70, 2, 1)
    assert "its last report is from 12 days ago: configure, ok" in shown["screen"]
    assert f"no report in {place.folder}" in shown["screen"]
    assert all(word in shown["page"] for word in ("At a glance", "last report", "12 days ago"))
    assert 'type="host-never-reported"' in shown["junit"]


@pytest.mark.parametrize(
    ("changed", "exit_status"),
    [([], 0), ([DRIFT], 3), ([DRIFT, {"hsms": []}], 70), ([{"command": "remove"}], 3)],
)
def test_the_exit_status_is_that_of_a_check(
    place: Place, changed: list[dict[str, Any]], exit_status: int
) -> None:
    place.write("web-0")
    for number, more in enumerate(changed, 1):
        place.write(f"web-{number}", **more)
    place.look()
    assert place.shown["exit_status"] == exit_status


def test_silence_alone_is_not_proven(place: Place) -> None:
    place.write("web-1", hours=2)
    place.silent_after = HOUR
    assert place.outcomes() == {"web-1": ("silent", "host-silent")}
    assert place.shown["exit_status"] == 70


def test_a_report_that_came_late_is_as_old_as_its_run(place: Place) -> None:
    """A host that could not deliver for days sends what it kept: that says nothing of today."""
    place.write("web-1", hours=50, written=0.1)
    assert place.outcomes() == {"web-1": ("silent", "host-silent")}


@pytest.mark.parametrize(("written", "outcome"), [(1.0, "ok"), (-48.0, "silent")])
def test_a_date_in_the_future_makes_nobody_younger(place: Place, written: float, outcome: str) -> None:
    """The bucket's clock counts where the host's is ahead; where both are, nobody knows how old the report is."""
    place.write("web-1", hours=-48.0, written=written)
    assert place.look()["web-1"]["outcome"] == outcome
    expected = "a clock is ahead by up to 2 days: web-1" if outcome == "ok" else "written in the future"
    assert expected in place.shown["screen"]


def test_a_date_that_no_calendar_has_is_old(place: Place) -> None:
    place.write("web-1", finished="2026-99-99T99:99:99Z")
    assert place.look()["web-1"]["outcome"] == "silent"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (json.dumps(REPORT).encode()[:-40], "not a whole JSON document"),
        (b"[" * 100_000, "not a whole JSON document"),
        (b'{"schema_version": 1, "run_id": 1e999, "host": {}}', "not a whole JSON document"),
        (json.dumps({**REPORT, "schema_version": 2}).encode(), "its schema version is 2"),
        (json.dumps({**REPORT, "steps": 7}).encode(), "wrong at steps"),
        (json.dumps({**REPORT, "outcome": "failed", "code": "of-tomorrow"}).encode(), "wrong at code"),
        (b"x" * (MOST_BYTES + 1), "too large"),
    ],
)
def test_what_is_no_usable_report_is_not_proven(place: Place, data: bytes, why: str) -> None:
    place.write("web-1")
    place.put("web-2.json", data)
    place.targets = [Target("web-1", "web-1"), Target("web-2", "web-2")]
    for _ in range(2):  # with the inventory and without
        host = place.look()["web-2"]
        assert (host["outcome"], host["code"], why in host["saw"]) == ("failed", "report-unreadable", True)
        place.targets = None


def test_what_another_program_left_is_named_and_no_host(place: Place) -> None:
    place.write("web-1")
    place.put("notes.txt", b"mine")
    place.put("config.json", b'{"a": 1}')
    (place.folder / "history").mkdir()
    (place.folder / "fifo.json").symlink_to(place.folder / "history")
    os.mkfifo(place.folder / "pipe.json")
    assert list(place.look()) == ["web-1"]
    assert "since they are no reports: config.json, notes.txt" in place.shown["screen"]
    assert place.shown["exit_status"] == 0


@pytest.mark.parametrize("there", [{}, {"config.json": b"{}"}])
def test_a_place_without_reports_proves_nobody(place: Place, there: dict[str, bytes]) -> None:
    for name, data in there.items():
        place.put(name, data)
    with pytest.raises(AgentError, match="there are no reports") as refused:
        place.look()
    assert (refused.value.code.exit_status, str(place.folder) in refused.value.saw) == (2, True)
    place.targets = [Target("web-1", "web-1")]
    assert place.outcomes() == {"web-1": ("silent", "host-never-reported")}


def test_a_place_that_is_not_there_is_told(place: Place) -> None:
    place.folder = place.folder / "none"
    with pytest.raises(AgentError, match="there is no directory"):
        place.look()


def test_a_host_that_was_renamed_is_one_host(place: Place) -> None:
    same = {"identity": "f00d"}
    place.write("old", hours=100, host=same)
    place.write("new", host=same)
    place.targets = [Target("old", "10.0.0.1")]
    assert place.outcomes() == {"old": ("ok", None)}
    assert "old reports as new now: its old report, old.json, does not count" in place.shown["screen"]
    place.targets = None
    assert place.outcomes() == {"new": ("ok", None)}


def test_two_hosts_of_one_identity_that_both_report_are_two(place: Place) -> None:
    for name in ("one", "two"):
        place.write(name, host={"identity": "f00d"})
    assert place.outcomes() == {"one": ("ok", None), "two": ("ok", None)}
    assert "have the same identity" in place.shown["screen"]


def test_two_hosts_of_one_name_are_told_apart_by_their_objects(place: Place) -> None:
    for label in ("a", "b"):
        place.write(label, host={"name": "web-1"})
    place.targets = [Target("web-1", "10.0.0.1")]
    hosts = place.outcomes()
    assert set(hosts) == {"web-1", "web-1 (a.json)", "web-1 (b.json)"}
    assert hosts["web-1"] == ("silent", "host-never-reported")  # which of them it is nobody knows


@pytest.mark.parametrize(
    ("target", "label", "more"),
    [
        (Target("web-1.example.com", "10.0.0.1"), "web-1", {}),
        (Target("WEB-1", "10.0.0.1"), "web-1", {}),
        (Target("web 1", "10.0.0.1"), "web-1", {"host": {"name": "ip-10-0-0-1"}}),
        (Target("front", "ip-10-0-0-1.ec2.internal"), "ip-10-0-0-1", {}),
        (Target("i-0abc123def4567890", "10.0.0.1"), "x", {"host": {"instance_id": "i-0abc123def4567890"}}),
        (Target("front", "10.0.0.1"), "x", {"request": "20261130T110000Z-0000/front/1"}),
    ],
)
def test_a_host_is_known_by_any_of_its_names(
    place: Place, target: Target, label: str, more: dict[str, Any]
) -> None:
    place.write(label, **more)
    place.write("another")
    place.targets = [target]
    assert place.look()[target.name]["outcome"] == "ok"
    assert "the inventory does not have another" in place.shown["screen"]


def test_what_hosts_have_is_counted(place: Place) -> None:
    ca = {**REPORT["ca"], "not_after": "2026-12-03T00:00:00Z"}
    for number in range(3):
        place.write(f"web-{number}", hours=number * 20, ca=ca if number == 0 else REPORT["ca"])
    place.look()
    seen = place.shown["overview"]
    assert [each["hosts"] for each in seen["cas"]] == [2, 1]
    assert seen["addresses"] == [{"addresses": ["10.0.1.6"], "hosts": 3}]
    last_seen = {each["within"]: each["hosts"] for each in seen["last_seen"] if each["hosts"]}
    assert last_seen == {3600.0: 1, 86400.0: 1, 7 * 86400.0: 1}
    assert "2026-12-03, in 3 days: 1 host" in place.shown["screen"].replace("\u00a0", " ")
    assert place.shown["page"].count('<table class="plot">') == 4


@pytest.mark.parametrize("text", EVIL)
def test_what_a_host_says_stays_text(place: Place, text: str) -> None:
    said = json.loads(json.dumps(text))
    host = {**dict.fromkeys(("name", "title", "os", "arch", "os_version"), said), "identity": said}
    client = {**REPORT["client"], "version": said}
    place.write("web-1", host=host, client=client, hsms=[{**REPORT["hsms"][0], "ip": said}])
    place.write("web-2", host=host, **{**DRIFT, "failure": {**DRIFT["failure"], "saw": said}})
    place.put("web-3.json", json.dumps({**REPORT, "steps": said}).encode())
    place.look()
    shown, drawn = place.shown["screen"], place.shown["page"]
    assert not any(bad in shown + drawn for bad in ("\x1b", "\x00", "\u202e"))
    assert not any(bad in drawn for bad in ("<script>window", "<img", "<style>@import"))


class Endless:
    """A place that lists more than anybody reads."""

    place = "s3://endless/"
    closed = False

    def objects(self) -> Iterator[StoredObject]:
        for number in range(MOST_OBJECTS + 1):
            yield StoredObject(f"{number}.txt", 1, NOW)

    def read(self, name: str) -> bytes | None:
        raise AssertionError(name)

    def close(self) -> None:
        self.closed = True


def test_more_than_a_fleet_is_refused() -> None:
    endless = Endless()
    with ReportSpool() as spool, pytest.raises(AgentError, match="there is more than is read"):
        collected.status(endless, collected.StatusRequest("x"), schema(), spool, NOW)
    assert endless.closed
