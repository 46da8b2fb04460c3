"""Documents from elsewhere are held to the published schema; jsonschema, which the tests have, is the judge of that."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.render.json_report import schema, to_tree
from agent.render.schema_check import first_violation
from tests.examples import examples
from tests.golden.runs import REPORTS, rolled_back, single_hsm_accepted

SCHEMA = schema()
REPORT = SCHEMA["$defs"]["report"]
JUDGE = jsonschema.Draft202012Validator({**REPORT, "$defs": SCHEMA["$defs"]})
TREES = [to_tree(rolled_back()), to_tree(single_hsm_accepted())]
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 300), st.floats(allow_nan=False), st.text(max_size=5),
    st.sampled_from(["ok", "failed", "met", "hsm-refused", "2026-11-23T20:15:00Z"]),
    st.just([]), st.just({}), st.just([None]), st.just([{}]), st.just({"id": "x"}),
)  # fmt: skip


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in paths(each, (*path, key)))]


@pytest.mark.parametrize("case", REPORTS, ids=lambda case: case.__name__)
def test_a_report_of_ours_has_the_shape(case: Any) -> None:
    assert first_violation(to_tree(case()), REPORT, SCHEMA) is None


@examples(200)
@given(tree=st.sampled_from(TREES), data=st.data())
def test_what_is_spoilt_is_judged_as_jsonschema_does(tree: dict[str, Any], data: st.DataObject) -> None:
    spoilt = {"it": copy.deepcopy(tree)}
    path = ("it", *data.draw(st.sampled_from(paths(tree))))
    way, last = path[:-1], path[-1]
    place: Any = spoilt
    for key in way:
        place = place[key]
    if isinstance(place, dict) and len(way) > 0 and data.draw(st.booleans()):
        del place[last]
    else:
        place[last] = data.draw(JUNK)
    assert (first_violation(spoilt["it"], REPORT, SCHEMA) is None) == JUDGE.is_valid(spoilt["it"])


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("steps", [{"id": "service"}], "steps.0.outcome"),
        ("warnings", None, "warnings"),
        ("exit_status", True, "exit_status"),
        ("host", {"name": 3}, "host.os"),
    ],
)
def test_the_place_is_named(key: str, value: object, where: str) -> None:
    assert first_violation({**TREES[0], key: value}, REPORT, SCHEMA) == where


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_what_is_no_object_is_no_report(document: object) -> None:
    assert first_violation(document, REPORT, SCHEMA) == "the whole"


def test_a_word_of_the_schema_that_is_not_known_is_a_defect() -> None:
    with pytest.raises(ValueError, match="minLength"):
        first_violation("x", {"minLength": 3}, {})
