"""The page of a roll-out in a real Chromium, from a file: it works, with keys too, and asks nobody for anything."""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import TYPE_CHECKING

import pytest

from agent.core.fleet_model import Target
from agent.fleet.collected.sources import FolderSource
from agent.fleet.collected.spool import ReportSpool
from agent.fleet.collected.status import StatusRequest, status
from agent.hosts.posix import Posix
from agent.render.fleet.html import page
from agent.render.json_report import schema
from tests import chromium
from tests.fakes.evil import EVIL, saying
from tests.fakes.visits import REPORT
from tests.golden.fleet_runs import stopped_by_the_failure_limit, ten_hosts_for_many_reasons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chromium import Browser, Page

NAMES = (
    "Array.from(document.querySelectorAll('#table tbody tr:not([hidden]) th'), e => e.firstChild.textContent)"
)
SHOWN = "document.getElementById('shown').textContent"
VISIBLE = "Array.from(document.querySelectorAll({}), e => e.checkVisibility({{contentVisibilityAuto: true, visibilityProperty: true}}) && e.getClientRects().length > 0)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium.missing():
        pytest.skip(f"no {' and no '.join(chromium.missing())}, which `packaging/bootstrap test` installs")
    browser = chromium.Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(ten_hosts_for_many_reasons()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def tab(browser: Browser, url: str) -> Page:
    tab = browser.page()
    tab.show(1280)
    tab.open(url)
    return tab


def test_it_loads_itself_and_nothing_else_and_complains_of_nothing(tab: Page, url: str) -> None:
    assert (tab.requests, tab.complaints) == ([url], [])
    assert tab.value(SHOWN) == "10 of 10 shown"


@pytest.mark.parametrize("number", range(len(EVIL)))
def test_what_hosts_say_runs_nowhere_and_asks_for_nothing(
    browser: Browser, tmp_path: Path, number: int
) -> None:
    path = tmp_path / "evil.html"
    path.write_text(page(saying(EVIL[number])), encoding="utf-8")
    tab = browser.page()
    tab.open(path.as_uri())
    assert (tab.requests, tab.complaints) == ([path.as_uri()], [])
    assert tab.value("typeof window.hacked") == "undefined"
    assert tab.value(SHOWN) == "3 of 3 shown"


def test_what_is_typed_sifts(tab: Page) -> None:
    tab.click("#find")
    tab.type("web TIMED-out")
    assert tab.value(NAMES) == ["web-3", "web-7", "web-5", "web-4"]
    assert tab.value(SHOWN) == "4 of 10 shown"
    tab.type(" nowhere")
    assert (tab.value(SHOWN), tab.value("document.getElementById('none').hidden")) == ("0 of 10 shown", False)


def test_a_cause_is_chosen_with_the_keyboard_alone(tab: Page) -> None:
    tab.value("document.getElementById('find').focus()")
    tab.press("TAB")
    assert tab.value("document.activeElement.id") == "only"
    tab.press("ARROW_DOWN")
    assert tab.value("document.getElementById('only').value") == "bad"
    assert tab.value(SHOWN) == "6 of 10 shown"


def test_each_cause_leads_to_its_hosts(tab: Page) -> None:
    tab.click("button[data-only=g3]")
    assert tab.value(NAMES) == ["web-5"]
    assert tab.value("document.activeElement.id") == "only"


def test_a_head_sorts_up_and_then_down(tab: Page) -> None:
    tab.click("#table th:nth-child(1) button")
    assert tab.value(NAMES) == ["db-1.internal.example", *(f"web-{number}" for number in range(1, 10))]
    tab.click("#table th:nth-child(5) button")
    tab.press("ENTER")
    assert tab.value(NAMES)[:3] == ["web-3", "web-6", "web-5"]
    assert tab.value("Array.from(document.querySelectorAll('#table thead th'), e => e.ariaSort).join()") == (
        "none,none,none,none,descending,none,none,none"
    )
    tab.click("#table th:nth-child(2) button")
    assert tab.value(NAMES)[:2] == ["web-3", "web-7"]


def test_steps_open_by_mouse_by_key_and_all_at_once(tab: Page) -> None:
    opened = "document.querySelectorAll('details[open]').length"
    tab.click("#table summary")
    assert tab.value(opened) == 1
    assert "wanted connected" in tab.value("document.querySelector('details[open] li.failed').innerText")
    tab.press("ENTER")
    assert tab.value(opened) == 0
    tab.click("#unfold")
    assert tab.value(opened) == 8
    tab.click("#unfold")
    assert tab.value(opened) == 0


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_sticks_out_at_any_width(tab: Page, width: int) -> None:
    tab.show(width)
    assert tab.value("document.documentElement.scrollWidth") <= width
    tab.click("#unfold")
    assert tab.value("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_can_be_read(tab: Page, *, dark: bool) -> None:
    tab.show(1280, dark=dark)
    tab.click("#unfold")
    assert tab.value(chromium.CONTRAST) >= 4.5
    assert (tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark


def test_on_paper_is_a_compact_table_without_the_controls(tab: Page) -> None:
    tab.click("#unfold")
    tab.show(1280, medium="print", dark=True)
    for hidden in ("'#controls'", "'.only'", "'details ul'"):
        assert not any(tab.value(VISIBLE.format(hidden)))
    for seen in ("'#table tbody tr'", "'#table summary'", "'.continue'"):
        assert all(tab.value(VISIBLE.format(seen)))
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf().startswith(b"%PDF")


def test_a_thousand_hosts_are_printed_on_few_pages_and_each_names_its_columns(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "many.html"
    path.write_text(page(stopped_by_the_failure_limit()), encoding="utf-8")
    tab = browser.page()
    tab.open(path.as_uri())
    assert tab.value(SHOWN) == "1000 of 1000 shown"
    tab.show(1280, medium="print")
    # Chromium repeats a head on each page only when there are no boxes in it
    displayed = "getComputedStyle(document.querySelector('thead{}')).display"
    assert (tab.value(displayed.format("")), tab.value(displayed.format(" button"))) == (
        "table-header-group",
        "contents",
    )
    pages = tab.pdf().count(b"/Type /Page\n")
    assert 5 < pages < 50


def test_without_scripts_every_host_is_there(browser: Browser, url: str) -> None:
    tab = browser.page()
    tab.forbid_scripts()
    tab.open(url)
    assert tab.value("document.querySelectorAll('#table thead button').length") == 0
    assert tab.value(VISIBLE.format("'#table tbody tr'")) == [True] * 10
    assert not any(tab.value(VISIBLE.format("'#controls, .only'")))
    tab.click("#table summary")
    assert tab.value("document.querySelectorAll('details[open]').length") == 1


@pytest.fixture(scope="module")
def collected_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of hosts that left their reports in a folder: proven, different, silent, never reported, unusable."""
    folder = tmp_path_factory.mktemp("reports")
    for number in range(8):
        own = {
            **REPORT["host"],
            "name": f"web-{number}.a-long-name-of-a-zone.internal.example",
            "identity": None,
        }
        finished = f"2026-11-{30 - number}T11:00:00Z"
        (folder / f"web-{number}.json").write_text(json.dumps({**REPORT, "host": own, "finished": finished}))
        at = dt.datetime(2026, 11, 30, 11, 0, tzinfo=dt.timezone.utc).timestamp()
        os.utime(folder / f"web-{number}.json", (at, at))
    (folder / "web-8.json").write_text("{")
    request = StatusRequest("20261130T120000Z-0000", "hosts", [Target("web-9", "10.0.4.9")])
    path = tmp_path_factory.mktemp("page") / "collected.html"
    with ReportSpool() as spool:
        found = status(FolderSource(Posix(), str(folder)), request, schema(), spool, at + 3600)
        path.write_text(page(found.whole()), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_what_hosts_left_is_shown_with_plots(
    browser: Browser, collected_url: str, width: int, *, dark: bool
) -> None:
    tab = browser.page()
    tab.show(width, dark=dark)
    tab.open(collected_url)
    assert (tab.requests, tab.complaints) == ([collected_url], [])
    assert tab.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert tab.value(chromium.CONTRAST) >= 4.5
    widths = "Array.from(document.querySelectorAll('.plot rect'), e => e.getBoundingClientRect().width)"
    bars = tab.value(widths)
    assert len(bars) >= 5
    assert all(bar > 0 for bar in bars)
    assert tab.value("Array.from(document.querySelectorAll('.plot caption'), e => e.textContent)") == [
        "client", "CA expires", "HSMs", "last report",
    ]  # fmt: skip
    assert (
        len(tab.value("Array.from(document.querySelectorAll('#table tbody tr.silent'), e => e.textContent)"))
        == 7
    )
