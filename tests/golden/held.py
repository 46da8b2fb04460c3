"""Compares with a file that is kept, or writes it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

# What the schemas of Jenkins (junit-10.xsd) and of windyroad agree upon: element -> attributes it must and may have.
SUITE = {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"}
CASE = {"name", "classname", "time"}
CHILDREN = {
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
    "system-out": set(),
}


def hold(text: str) -> ET.Element:
    """See that this is JUnit XML: its elements, their order, their attributes, and that the sums are right."""
    suite = ET.fromstring(text)
    assert (suite.tag, set(suite.keys())) == ("testsuite", SUITE)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}", suite.attrib["timestamp"])
    properties, *cases = list(suite)
    assert properties.tag == "properties"
    assert all((each.tag, set(each.keys())) == ("property", {"name", "value"}) for each in properties)
    assert all((each.tag, set(each.keys())) == ("testcase", CASE) for each in cases)
    children = [child for case in cases for child in case]
    assert all(len(case) == 1 for case in cases)
    assert all(set(child.keys()) == CHILDREN[child.tag] and len(child) == 0 for child in children)
    assert all(child.get("type") != "" for child in children)
    tags = [child.tag for child in children]
    wanted = (len(cases), *(tags.count(tag) for tag in ("failure", "error", "skipped")))
    assert tuple(int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")) == wanted
    total = sum(float(case.attrib["time"]) for case in cases)
    assert float(suite.attrib["time"]) == pytest.approx(total, abs=0.001)
    return suite
