"""Saved pages of the vendor's guide lead to a catalogue that holds what they say, or to a question, never to a guess."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.catalogue.loader import Catalogue, parse
from tests.examples import examples

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "packaging"))

from refresh_catalogue import Proposal  # noqa: E402 -- a program, not a package
from vendor_pages import read_page  # noqa: E402

PAGES = ROOT / "tests" / "golden" / "vendor_pages"
CATALOGUE = ROOT / "agent" / "catalogue"
FILES = ("platforms.toml", "checksums.toml")
DAY = "2026-12-02"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(CATALOGUE / name, tmp_path)
    return tmp_path


def refresh(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "packaging" / "refresh_catalogue.py"), "--catalogue", str(folder)]
    return subprocess.run(
        [*argv, "--seen", DAY, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


def catalogue(folder: Path) -> Catalogue:
    return parse(*((folder / name).read_text(encoding="utf-8") for name in FILES))


def attention(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.removeprefix("attention: ") for line in done.stderr.splitlines()]


def changed(done: subprocess.CompletedProcess[str], sign: str) -> list[str]:
    return [line[1:] for line in done.stdout.splitlines() if line[0] == sign and line[:3] != sign * 3]


def test_a_new_release_is_proposed_with_its_page_and_day(folder: Path) -> None:
    before = catalogue(folder)
    pages = (PAGES / "latest-releases.md", PAGES / "document-history.html")
    looked = refresh(folder, *pages)
    assert catalogue(folder) == before  # a proposal writes nothing
    done = refresh(folder, "--write", *pages)
    assert (done.stdout, changed(done, "-")) == (looked.stdout, [])
    after = catalogue(folder)
    (new,) = set(after.releases) - set(before.releases)
    assert after.releases[0] == new
    assert (new.version, new.release, new.date) == ("5.99.0", "1", dt.date(2026, 12, 1))
    assert (new.source, new.seen.isoformat()) == ("document-history", DAY)
    added = {path: sum_ for path, sum_ in after.checksums.items() if path not in before.checksums}
    assert len(added) == 66
    assert all("5.99.0-1" in path for path in added)
    assert (
        "[release.'5.99.0-1']\nsource = 'latest-releases'\nseen = 2026-12-02\n"
        in (folder / FILES[1]).read_text()
    )
    # what nobody can decide but a person
    assert done.returncode == 1
    told = attention(done)
    assert [each for each in told if "has no row yet" in each] == [
        "latest-releases: Zesty/cloudhsm-cli_5.99.0-1_u28.04_amd64.deb is for a platform that has no row yet"
    ]
    dropped = [each for each in told if "no file of" in each]
    assert len(dropped) == 8
    assert all("for u22.04 " in each and each.endswith("last = '5.18.0'") for each in dropped)
    assert len(told) == 9


def test_a_second_look_finds_nothing_new(folder: Path) -> None:
    page = PAGES / "document-history.html"
    refresh(folder, "--write", PAGES / "latest-releases.md", page)
    done = refresh(folder, page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_changed_checksum_is_told_and_never_proposed(folder: Path) -> None:
    done = refresh(folder, PAGES / "client-version-previous.html")
    assert done.returncode == 1
    (told,) = attention(done)
    assert "EL9/cloudhsm-cli-5.18.0-1.el9.x86_64.rpm CHANGED from d37cabf2" in told
    assert "el9" not in "".join(changed(done, "+"))


def test_a_file_of_a_known_release_is_added_to_it(folder: Path) -> None:
    done = refresh(folder, "--write", PAGES / "client-version-previous.html")
    assert changed(done, "+")[:2] == [
        "source = 'latest-releases (as of 5.17.2), client-version-previous'",
        f"seen = {DAY}",
    ]
    assert len(changed(done, "+")) == 3
    assert "Jammy/cloudhsm-pkcs11_5.17.2-1_u22.04_amd64.deb" in catalogue(folder).checksums


def test_each_page_alone_says_what_it_lacks(folder: Path) -> None:
    assert "5.99.0 got today's date" in refresh(folder, PAGES / "latest-releases.md").stderr
    assert (
        "5.99.0 is out: save latest-releases too" in refresh(folder, PAGES / "document-history.html").stderr
    )


def test_a_page_of_another_form_is_not_taken_for_no_news(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "latest-releases.html"
    page.write_text("<html><body>Sign in to continue</body></html>")
    done = refresh(folder, page)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has its form changed?" in done.stderr


def test_the_catalogue_is_what_the_pages_said(folder: Path) -> None:
    """The tool finds nothing to add to the release that was copied by another hand."""
    published = [path for path in catalogue(folder).checksums if "5.18.0-1" in path]
    page = folder / "latest-releases.md"
    base = "https://s3.amazonaws.com/cloudhsmv2-software/CloudHsmClient"
    sums = catalogue(folder).checksums
    page.write_text("".join(f"+ [x]({base}/{path}) (SHA256 checksum {sums[path]})\n" for path in published))
    done = refresh(folder, page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- whatever is changed in a page is noticed: a question, or another proposal

PAGE_NAMES = ("latest-releases.md", "document-history.html", "client-version-previous.html")
BASE = "https://s3.amazonaws.com/cloudhsmv2-software/CloudHsmClient"


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[str, tuple[str, ...]]]:
    """Return a function from a page's name and text to what is proposed and asked, in this process for speed."""
    before = {name: (CATALOGUE / name).read_text(encoding="utf-8") for name in FILES}
    place = tmp_path_factory.mktemp("pages")

    def proposal(name: str, text: str) -> tuple[str, tuple[str, ...]]:
        page = place / name
        page.write_text(text, encoding="utf-8")
        one = read_page(page, dt.date.fromisoformat(DAY), BASE)
        dated = dict.fromkeys(one.released, one)
        made = Proposal(before[FILES[0]], before[FILES[1]], dated, (one,))
        made.add_page(one)
        made.compare_dates()
        return made.platforms + made.checksums, tuple(made.attention)

    # the same text gives the same proposal, and the pages as they are come often
    return lru_cache(maxsize=16)(proposal)


TEXTS = {name: (PAGES / name).read_text(encoding="utf-8") for name in PAGE_NAMES}
# of Javadocs nothing is kept, and of a platform without a row nothing can be
UNREAD = re.compile(r"(javadoc|Zesty)\S*\W[^0-9]*SHA256 checksum $")
SUMS = [(name, each.start()) for name in PAGE_NAMES for each in re.finditer(r"\b[0-9a-f]{64}\b", TEXTS[name])]
LINKS = [
    (name, each.start(), each.end())
    for name in PAGE_NAMES
    for each in re.finditer(rf"{BASE}/[^\s)\"<]+\.(rpm|deb|msi)", TEXTS[name])
    if "latest" not in each[0]
]


def question_or_another_proposal(
    read: Callable[[str, str], tuple[str, tuple[str, ...]]], name: str, text: str
) -> bool:
    proposed, asked = read(name, TEXTS[name])
    now, also = read(name, text)
    return now != proposed or bool(set(also) - set(asked))


@given(
    place=st.sampled_from([(name, at) for name, at in SUMS if not UNREAD.search(TEXTS[name][at - 120 : at])]),
    at=st.integers(0, 63),
    to=st.sampled_from(
        [*"0123456789abcdef", "", "g", " ", "\n", "\u2011", "\u200b", "\uff10", "<wbr>", "00"]
    ),
)
@examples(25)
def test_a_change_of_any_checksum_is_noticed(
    read: Callable[[str, str], tuple[str, tuple[str, ...]]], place: tuple[str, int], at: int, to: str
) -> None:
    name, begins = place
    text = TEXTS[name]
    if to == text[begins + at] or (to == "<wbr>" and name.endswith(".html")):
        return  # the same digits, also to a reader
    changed = text[: begins + at] + to + text[begins + at + 1 :]
    assert question_or_another_proposal(read, name, changed)


@given(
    place=st.sampled_from(LINKS),
    at=st.floats(0, 1, exclude_max=True),
    to=st.sampled_from([*"0a-_.X/%", "", " "]),
)
@examples(25)
def test_a_change_of_any_link_is_noticed(
    read: Callable[[str, str], tuple[str, tuple[str, ...]]], place: tuple[str, int, int], at: float, to: str
) -> None:
    name, begins, ends = place
    where = begins + int(at * (ends - begins))
    text = TEXTS[name]
    if to != text[where] and not (to == " " and name.endswith(".html")):
        assert question_or_another_proposal(read, name, text[:where] + to + text[where + 1 :])


CLI = f"{BASE}/EL9/cloudhsm-cli-5.18.0-1.el9.x86_64.rpm"
OTHER = "d67e2e944994496c8d8ec76eed0cf9f09679448d584b532bebf941852a37f5ed"


@pytest.mark.parametrize(
    "around",
    [
        "(SHA256 checksum SUM)", "SHA-256: SUM", "sha256sum `SUM`", "**SUM**", "| SUM |", "Checksum (sha256)\n\nSUM",
        "- its SHA\u2013256 digest is SUM", "SUM", "(" + "x" * 300 + " SUM)", "[x] SUM",
    ],
)  # fmt: skip
def test_a_checksum_is_compared_whatever_the_words_around_it(
    read: Callable[[str, str], tuple[str, tuple[str, ...]]], around: str
) -> None:
    text = f"+ [CLI]({CLI}) {around.replace('SUM', OTHER)}\n"
    _, asked = read("latest-releases.md", text)
    assert any("CHANGED from d37cabf2" in each for each in asked)
    page = f"<html><a href='{CLI}'><b>CLI</b></a><p>{around.replace('SUM', OTHER.upper())}</p></html>"
    _, asked = read("latest-releases.html", page)
    assert any("CHANGED from d37cabf2" in each for each in asked)


@pytest.mark.parametrize(
    "text",
    [
        f"[CLI]({CLI}) (SHA256 checksum)",
        f"[CLI]({CLI}) (SHA256 checksum {OTHER[:63]})",
        f"[CLI]({CLI}) (SHA256 checksum {OTHER}0)",
        f"[CLI]({CLI}) {OTHER[:32]} {OTHER[32:]}",
        f"[CLI]({CLI}) {OTHER} {'0' * 64}",
        f"[CLI]({CLI}) ([SHA256](help.html) checksum {OTHER})",
        f"{OTHER} [CLI]({CLI})",
        f"[CLI]({CLI.replace('https', 'http')}) {OTHER}",
        f"[CLI]({CLI.replace('s3.amazonaws.com', 's3.example.com')}) {OTHER}",
        f"[CLI](../{CLI.rpartition('CloudHsmClient/')[2]}) {OTHER}",
        f"[CLI]({CLI.replace('/EL9/', '/EL8/')}) {OTHER}",
        f"[new]({CLI.replace('cli', 'newtool')}) {OTHER}",
        f"[CLI]({CLI.replace('5.18.0-1', 'latest')}) {OTHER}",
        f"wget {CLI}",
    ],
)
def test_what_cannot_be_read_for_certain_is_a_question_and_never_proposed(
    read: Callable[[str, str], tuple[str, tuple[str, ...]]], text: str
) -> None:
    proposed, asked = read("latest-releases.md", f"{text}\n")
    assert asked
    assert proposed == read("latest-releases.md", "")[0]


@pytest.mark.parametrize(
    ("day", "read_as"),
    [
        ("2027-01-05", True), ("January 5, 2027", True), ("Jan 5, 2027", True), ("5 January 2027", True),
        ("05.01.2027", False), ("Janvier 5, 2027", True), ("soon", False), ("", False), ("2027-13-05", False),
        ("Foo 5, 2027", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", ["5.99.0", "5.17.9"])
def test_a_release_with_any_date_is_noticed(
    read: Callable[[str, str], tuple[str, tuple[str, ...]]], day: str, read_as: bool, version: str
) -> None:
    row = f"| New release | Released AWS CloudHSM client version {version}. | {day} |\n| Other | x | August 20, 2024 |\n"
    _, asked = read("document-history.md", row)
    words = "is out: save latest-releases too" if read_as else "cannot be read"
    assert any(version in each and words in each for each in asked), asked


@pytest.mark.parametrize(
    "text",
    ["Client SDK 5.99.0 is available", '<html><a href="x.html#client-version-5-99-0">Added</a></html>'],
)
def test_a_version_in_other_words_is_a_question(
    read: Callable[[str, str], tuple[str, tuple[str, ...]]], text: str
) -> None:
    _, asked = read("document-history.html", text)
    assert any("5.99.0" in each for each in asked)
