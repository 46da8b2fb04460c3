"""The page of a roll-out without a browser: what hosts say stays text, nothing is asked of anybody, and it stays small."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.render.fleet.html import page
from tests.examples import examples
from tests.fakes.evil import EVIL, saying
from tests.fakes.fleets import Tree, fleet, not_reached
from tests.golden.fleet_runs import CASES, failed, ok, ten_hosts_for_many_reasons


class Shape(HTMLParser):
    """Which elements with which attributes a page has, in order, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "srcset", "action", "data")
        ]

    def handle_data(self, data: str) -> None:
        self.said.append(data)


PLAIN = Shape(page(saying("x")))


@example(EVIL[0])
@example(EVIL[1])
@example(EVIL[2])
@example(EVIL[3])
@example(EVIL[4])
@example(EVIL[5])
@examples(60)
@given(st.text(st.characters(codec=None), max_size=60).map(lambda text: f"x{text}"))
def test_whatever_anybody_says_stays_text(text: str) -> None:
    shape = Shape(page(saying(text)))
    assert shape.elements == PLAIN.elements
    assert shape.links == ["#hosts"]
    shown = "".join(shape.said)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", shown)


def test_what_was_said_is_there_to_be_read() -> None:
    assert EVIL[0] in "".join(Shape(page(saying(EVIL[0]))).said)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_policy_allows_this_style_and_this_script_and_nothing_else(case: Any) -> None:
    text = page(case())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    blocks = [re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("style", "script")]
    hashes = [
        base64.b64encode(hashlib.sha256(block[1].encode()).digest()).decode() for block in blocks if block
    ]
    assert policy is not None
    assert policy[1] == (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}';"
        " base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://|url\(|@import", text)
    names = {name for _, names in Shape(text).elements for name in names}
    assert not any(name.startswith("on") or name == "style" for name in names)


def test_the_page_has_its_parts_in_order() -> None:
    text = page(ten_hosts_for_many_reasons())
    headings = re.findall(r"<h[12][^>]*>([^<]+)", text)
    assert headings == [
        "fleet rollout ", "How the hosts ended", "Waves", "Life cycle and risks",
        "Host keys that were new, and are trusted from now on", "Hosts",
    ]  # fmt: skip
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert "<title>fleet rollout: failed, 2026-11-25T03:19:12Z</title>" in text
    assert "<code>hsm-agent fleet rollout --resume 20261125T031500Z-1f3a</code>" in text
    assert text.count("<tr data-g=") == 10


def test_a_run_that_ended_before_it_had_hosts_has_a_page_too() -> None:
    failure = {
        "code": "inventory-invalid",
        "sentence": "2 things are wrong with the inventory",
        "saw": "hosts:3: a",
        "want": "",
        "hint": "b",
    }
    tree = {
        **fleet([], code="inventory-invalid"),
        "failure": failure,
        "inventory": None,
        "tree": None,
        "finished": "",
    }
    text = page(tree)
    assert "2 things are wrong with the inventory" in text
    assert "hosts:3: a" in text


def big(text: str) -> Tree:
    """Return 1,000 hosts that all have a whole report, half of them with bad news of that length."""
    hosts = [ok(f"web-{number:04}.eu-central-1.compute.internal") for number in range(500)]
    for number in range(500):
        each = failed(f"db-{number:04}.eu-central-1.compute.internal")
        for step in each["report"]["steps"]:
            step["saw"] = f"{number} {text}"
        hosts.append({**each, "saw": f"{number} {text}"})
    return fleet([*hosts, *(not_reached(f"edge-{number}") for number in range(10))])


@pytest.mark.slow
@pytest.mark.parametrize("length", [10, 300, 20_000])
def test_a_thousand_hosts_stay_below_3_mb(length: int) -> None:
    text = page(big("x" * length))
    assert len(text.encode()) < 3_000_000
    assert text.count("<tr data-g=") == 1010
    assert ("more, in the JSON report" in text) == (length > 100)


@pytest.mark.slow
def test_what_there_is_no_room_for_is_never_what_failed() -> None:
    text = page(big("x" * 20_000))
    assert text.count('<li class="failed"><b>failed</b> reach:') == 1000
