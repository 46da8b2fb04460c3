"""What machines get of a roll-out, whole: JUnit XML and the JSON tree, which keeps to its published schema."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any, Callable

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource

from agent.render.fleet.junit import suites
from agent.render.fleet.schema import schema
from agent.render.json_report import schema as host_schema
from tests.fakes.fleets import Tree, fleet, host, not_reached, unreachable
from tests.golden.fleet_runs import (
    CASES,
    FOLDER,
    drift_in_a_fleet,
    ok,
    one_host,
    stopped_by_the_failure_limit,
    ten_hosts_for_many_reasons,
)
from tests.golden.held import hold
from tests.golden.runs import report_undelivered

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITES = {"name", "tests", "failures", "errors", "time"}
WRITERS: dict[str, Callable[[Tree], str]] = {
    "xml": suites,
    "json": lambda tree: json.dumps(tree, indent=2, ensure_ascii=False) + "\n",
}


def a_wrong_inventory() -> Tree:
    failure = {
        "code": "inventory-invalid",
        "sentence": "1 thing is wrong with the inventory",
        "saw": "hosts:3: web-1 is named twice",
        "want": "",
        "hint": "correct it",
    }
    return {**fleet([], code="inventory-invalid"), "failure": failure}


def interrupted_at_once() -> Tree:
    return fleet([not_reached("web-1"), not_reached("web-2")], code="interrupted")


GOLDEN = (drift_in_a_fleet, ten_hosts_for_many_reasons, a_wrong_inventory, interrupted_at_once)
ALL = (*CASES, a_wrong_inventory, interrupted_at_once)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.__name__)
def test_what_machines_are_given_is_what_was_reviewed(
    case: Callable[[], Tree], kind: str, pytestconfig: pytest.Config
) -> None:
    text = WRITERS[kind](case())
    path = FOLDER / f"{case.__name__}.{kind}"
    if pytestconfig.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_nothing_is_left_over() -> None:
    found = {path.name for kind in WRITERS for path in FOLDER.glob(f"*.{kind}")}
    assert found == {f"{case.__name__}.{kind}" for case in GOLDEN for kind in WRITERS}


def held(text: str) -> ET.Element:
    """See that this is JUnit XML as Jenkins' junit-10.xsd has it, and that every sum is right."""
    root = ET.fromstring(text)
    assert (root.tag, set(root.keys())) == ("testsuites", SUITES)
    for suite in root:
        hold(ET.tostring(suite, encoding="unicode"))
    for key in ("tests", "failures", "errors"):
        assert int(root.attrib[key]) == sum(int(suite.attrib[key]) for suite in root)
    assert re.fullmatch(r"\d*(\.\d*)?", root.attrib["time"])
    cases = [(case.attrib["classname"], case.attrib["name"]) for case in root.iter("testcase")]
    assert len(cases) == len(set(cases))
    return root


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.__name__)
def test_junit_is_valid_and_fails_when_the_run_does(case: Callable[[], Tree]) -> None:
    tree = case()
    root = held(suites(tree))
    assert (root.attrib["failures"] == root.attrib["errors"] == "0") == (tree["exit_status"] == 0)


def test_who_was_not_met_is_an_error_and_who_was_not_reached_is_skipped() -> None:
    root = held(suites(stopped_by_the_failure_limit()))
    found = {suite.attrib["name"]: suite for suite in root}
    met, lost, left = (found[f"edge-{number}"] for number in ("0064", "0101", "0106"))
    assert [len(suite) - 1 for suite in (met, lost, left)] == [7, 1, 1]
    error = lost.find("testcase/error")
    assert error is not None
    assert (error.attrib["type"], error.attrib["message"]) == (
        "ssh-timed-out",
        "the host did not answer in time over SSH",
    )
    assert (error.text or "").splitlines() == [
        "saw: no answer from 10.9.1.101:22 in 10 s",
        "hint: check with `ssh -v HOST` from here: TCP 22 must be allowed from this machine",
    ]
    assert [child.tag for child in left.iter() if child.tag in ("skipped", "error")] == ["skipped"]


def test_a_host_that_is_proven_is_well_also_when_its_report_did_not_reach_everybody() -> None:
    root = held(suites(fleet([ok("web-1", run=report_undelivered)])))
    assert (root.attrib["failures"], root.attrib["errors"]) == ("0", "0")


def test_a_host_that_claims_success_without_its_proof_is_an_error() -> None:
    each = {**ok("web-1"), "outcome": "failed", "code": "far-end-failed"}
    root = held(suites(fleet([each])))
    assert (root.attrib["failures"], root.attrib["errors"]) == ("0", "1")


@given(said=st.text(st.characters(codec=None), min_size=1), hint=st.text())
def test_whatever_a_host_said_the_document_is_one(said: str, hint: str) -> None:
    hosts = [
        {**unreachable("x"), "name": f"x{said}", "saw": said, "hint": hint, "code": said},
        host("y", "ok"),
    ]
    held(suites(fleet(hosts)))


def validator() -> Any:
    resource = Resource.from_contents(host_schema())
    registry: Registry[Any] = Registry().with_resource(host_schema()["$id"], resource)
    return jsonschema.Draft202012Validator(schema(), registry=registry)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.__name__)
def test_every_tree_keeps_to_the_published_schema(case: Callable[[], Tree]) -> None:
    validator().validate(case())


# what the users' contract promises for version 1 of a fleet's report
PROMISED = {
    "": {"schema_version", "run_id", "command", "agent_version", "tree", "waves", "hosts", "totals", "outcome", "exit_status", "resume"},
    "waves": {"number", "hosts", "ok", "failed"},
    "hosts": {"name", "address", "port", "wave", "outcome", "changed", "code", "exit_status", "saw", "hint", "seconds", "report"},
    "totals": {"ok", "degraded", "failed", "unreachable", "not-reached"},
}  # fmt: skip


def required(node: dict[str, Any], path: str) -> set[str]:
    inner = node["properties"][path] if path else node
    return set(inner.get("items", inner)["required"])


def test_every_key_that_was_promised_is_required() -> None:
    assert {path: keys - required(schema(), path) for path, keys in PROMISED.items()} == {
        path: set() for path in PROMISED
    }


def spoilt() -> Iterator[tuple[str, Tree]]:
    tree = one_host()
    yield "version", {**tree, "schema_version": 2}
    yield "outcome", {**tree, "outcome": "fine"}
    yield "command", {**tree, "command": "configure"}
    yield "exit status", {**tree, "exit_status": "0"}
    yield "a host's outcome", {**tree, "hosts": [{**tree["hosts"][0], "outcome": "lost"}]}
    yield "a host's own report", {**tree, "hosts": [{**tree["hosts"][0], "report": {"schema_version": 1}}]}
    yield (
        "well without a report",
        {**tree, "hosts": [{**tree["hosts"][0], "outcome": "failed", "code": None}]},
    )
    yield "no totals", {key: value for key, value in tree.items() if key != "totals"}


@pytest.mark.parametrize(
    ("what", "tree"), list(spoilt()), ids=lambda each: each if isinstance(each, str) else ""
)
def test_the_schema_refuses_what_is_no_report_of_a_fleet(what: str, tree: Tree) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(tree)
