"""The page of a cluster in a real Chromium, from a file: it is complete, runs no script, and asks nobody for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.render.cluster.document import to_tree
from agent.render.cluster.html import page
from tests import chromium
from tests.fakes import cluster_views as views
from tests.fakes.evil import EVIL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.cloudhsm.cluster_view import ClusterView
    from tests.chromium import Browser, Page

# which texts of the picture stick out of their box, or out of the picture
STICKING = """(() => {
  const inside = (one, other) => one.left >= other.left - 1 && one.right <= other.right + 1 && one.top >= other.top - 1 && one.bottom <= other.bottom + 1;
  const whole = document.querySelector("svg").getBoundingClientRect();
  return Array.from(document.querySelectorAll("svg text"), (text) => {
    const box = text.closest(".chip")?.querySelector("rect").getBoundingClientRect() ?? whole;
    return inside(text.getBoundingClientRect(), box) ? "" : text.textContent;
  }).filter(Boolean);
})()"""
# the least contrast of a text in the picture with the box that it is in
DRAWN = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).map((n) => n / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let least = 21;
  for (const text of document.querySelectorAll("svg .chip text")) {
    const mark = text.classList.contains("number") ? text.previousElementSibling : text.closest(".chip").querySelector("rect");
    const fill = getComputedStyle(mark).fill;
    const behind = fill === "none" ? getComputedStyle(document.querySelector(".vpc")).fill : fill;
    const [one, other] = [light(getComputedStyle(text).fill), light(behind)].sort((a, b) => b - a);
    least = Math.min(least, (one + 0.05) / (other + 0.05));
  }
  return least;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium.missing():
        pytest.skip(f"no {' and no '.join(chromium.missing())}, which `packaging/bootstrap test` installs")
    browser = chromium.Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield browser
    finally:
        browser.close()


def shown(browser: Browser, folder: Path, view: ClusterView, *, dark: bool = False, medium: str = "") -> Page:
    path = folder / "cluster.html"
    path.write_text(page(to_tree(view)), encoding="utf-8")
    tab = browser.page()
    tab.show(1280, dark=dark, medium=medium)
    tab.open(path.as_uri())
    assert (tab.requests, tab.complaints) == ([path.as_uri()], [])
    return tab


@pytest.mark.parametrize("made", views.VIEWS, ids=lambda made: made.__name__)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_fits_and_can_be_read(
    browser: Browser, tmp_path: Path, made: Callable[[], ClusterView], *, dark: bool
) -> None:
    tab = shown(browser, tmp_path, made(), dark=dark)
    assert tab.value(STICKING) == []
    assert tab.value(chromium.CONTRAST.replace('"body *"', '"body *:not(svg *)"')) >= 4.5
    assert tab.value(DRAWN) >= 4.5
    assert (tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark


@pytest.mark.parametrize("number", range(len(EVIL)))
def test_what_aws_says_runs_nowhere_and_asks_for_nothing(
    browser: Browser, tmp_path: Path, number: int
) -> None:
    tab = shown(browser, tmp_path, views.saying(EVIL[number]))
    assert tab.value("typeof window.hacked") == "undefined"
    assert (
        tab.value(
            "document.querySelectorAll('script, img, link, iframe, [style], [onerror], [onmouseover]').length"
        )
        == 0
    )
    assert tab.value(STICKING) == []
    assert tab.value("document.documentElement.scrollWidth") <= 1280


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_sticks_out_at_any_width(browser: Browser, tmp_path: Path, width: int) -> None:
    tab = shown(browser, tmp_path, views.troubled())
    tab.show(width)
    assert tab.value("document.documentElement.scrollWidth") <= width


def test_on_paper_the_picture_is_whole_and_light(browser: Browser, tmp_path: Path) -> None:
    tab = shown(browser, tmp_path, views.crowded(), dark=True, medium="print")
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.value("document.querySelector('svg').getBoundingClientRect().height") < 600
    assert tab.value(DRAWN) >= 4.5
    assert 2 <= tab.pdf().count(b"/Type /Page\n") <= 12


def test_the_picture_says_in_words_what_it_shows(browser: Browser, tmp_path: Path) -> None:
    tab = shown(browser, tmp_path, views.troubled())
    assert tab.value("document.getElementById('drawn').textContent") == (
        "3 HSMs in 3 zones, 7 of 8 instances in the group, 2 things stop packets"
    )
    assert tab.value("document.querySelector('.causes li:nth-child(2) .cure code').textContent").startswith(
        "aws ec2 "
    )


def test_long_tables_are_closed_and_open_without_a_script(browser: Browser, tmp_path: Path) -> None:
    tab = shown(browser, tmp_path, views.crowded())
    assert tab.value("Array.from(document.querySelectorAll('details'), e => e.open)") == [False, False]
    tab.click("details summary")
    assert tab.value("document.querySelectorAll('details[open] tbody tr').length") == 100
