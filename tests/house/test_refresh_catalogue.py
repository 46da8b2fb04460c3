"""Saved pages of the vendor's guide lead to a catalogue that holds what they say, or to a question, never to a guess."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.catalogue.rows import Catalogue, parse

ROOT = Path(__file__).parents[2]
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
