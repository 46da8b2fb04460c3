"""A saved page of the AWS CloudHSM User Guide -> the files with checksums and the releases with dates in it.

What is ambiguous becomes a question: each linked package has one checksum after its link, each checksum belongs to a
link, and each release has a date.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The address of a link, in Markdown or bare; and a text that only looks like the path of a package.
_LINK = re.compile(
    r"\]\(\s*<?(?P<target>[^)\s>]*)[^)]*\)"
    r"|(?P<bare>[a-z][a-z0-9+.-]*://[^\s<>()\[\]\"'|]+)"
    r"|(?P<path>[^\s<>()\[\]\"'|]*/[^\s<>()\[\]\"'|]*\.(?:rpm|deb|msi)\b)",
    re.IGNORECASE,
)
_PACKAGE = re.compile(r"\.(rpm|deb|msi)$", re.IGNORECASE)
_LATEST = re.compile(r"[-_]latest[._]")
_SHA256 = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{64}(?![0-9A-Za-z])")
_VERSION = re.compile(r"[-_](?P<version>\d+\.\d+\.\d+)(?:-(?P<release>\d+))?[._]")
_RELEASED = re.compile(r"Released\b[^|]{0,80}?\bversion\s+(?P<version>\d+\.\d+\.\d+)\b")
# the cell after the one that names a release
_NEXT_CELL = re.compile(r"[^|]*\|\s*(?P<cell>[^|\n]*)")
# of a CloudHSM client: other software in these pages has other major versions
_NAMED = re.compile(
    r"(?<![\d.])([5-9]\.\d{1,3}\.\d{1,3})(?![\d.]*\d)|client-version-([5-9]-\d{1,3}-\d{1,3})\b"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATES = (
    re.compile(r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"),
    re.compile(r"(?P<month>[A-Za-z]{3,9})\.? (?P<day>\d{1,2}),? (?P<year>\d{4})"),
    re.compile(r"(?P<day>\d{1,2})\.? (?P<month>[A-Za-z]{3,9})\.? (?P<year>\d{4})"),
)


@dataclass(frozen=True)
class Published:
    """A file and its checksum. `path` is below the vendor's base; `release` is `5.18.0-1`."""

    path: str
    release: str
    sha256: str


@dataclass(frozen=True)
class Page:
    """A saved page. `source` is its name in the guide, `seen` the day of the copy.

    `questions` are for a person. `is_doubtful` if a checksum of the page has no file: other files may then have
    the wrong one. `named` are all versions of a client that the page mentions.
    """

    source: str
    seen: dt.date
    files: tuple[Published, ...]
    released: dict[str, dt.date]
    named: frozenset[str]
    questions: tuple[str, ...] = ()
    is_doubtful: bool = False


@dataclass(frozen=True)
class _Linked:
    """A link, and the checksums between it and the next one."""

    target: str
    sums: tuple[str, ...]

    @property
    def is_package(self) -> bool:
        return _PACKAGE.search(re.split(r"[?#]", self.target)[0]) is not None


class _Text(HTMLParser):
    """HTML as the Markdown of the guide's mirror: links keep their address, cells their border."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append("".join((dict(attrs).get("href") or "").split()))
            self.text.append("[")
        elif tag in ("td", "th"):
            self.text.append(" | ")
        elif tag in ("p", "li", "tr", "div", "br", "h1", "h2", "h3", "h4"):
            self.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self.links:
            self.text.append(f"]({self.links.pop()})")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read_page(path: Path, seen: dt.date | None, base_url: str) -> Page:
    """Read a saved copy, HTML or Markdown. `seen` defaults to the day of the file; `base_url` is that of the files."""
    day = seen or dt.datetime.fromtimestamp(path.stat().st_mtime, dt.timezone.utc).date()
    text = path.read_text(encoding="utf-8", errors="replace")
    if re.match(r"\s*<", text):
        parser = _Text()
        parser.feed(text)
        parser.close()
        text = "".join(parser.text)
    text = text.replace("\\", "")  # Markdown's, before every _ and #
    questions: list[str] = []
    files, is_doubtful = _files(text, base_url, questions)
    released = _released(text, questions)
    named = frozenset((each[1] or each[2]).replace("-", ".") for each in _NAMED.finditer(text))
    return Page(path.stem, day, files, released, named, tuple(questions), is_doubtful)


def _links(text: str) -> Iterator[_Linked]:
    """Yield every link in order, first an empty one for the text before the first link."""
    target, begins = "", 0
    for each in _LINK.finditer(text):
        following = each["target"] or each["bare"] or each["path"] or ""
        between = text[begins : each.start()]
        # a link whose label is its own address
        if not (following == target and re.fullmatch(r"\W*", between)):
            yield _Linked(target, _sums(between))
            target = following
        begins = each.end()
    yield _Linked(target, _sums(text[begins:]))


def _sums(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found.lower() for found in _SHA256.findall(text)))


def _files(text: str, base_url: str, questions: list[str]) -> tuple[tuple[Published, ...], bool]:
    """Return the files that have one checksum, and whether a checksum has no file."""
    found: dict[str, Published] = {}
    is_doubtful = False
    for link in _links(text):
        path = link.target[len(base_url) + 1 :] if link.target.startswith(f"{base_url}/") else None
        if not link.is_package:
            # other files at the same address, such as Javadocs, have checksums too
            if link.sums and path is None:
                is_doubtful = True
                questions.append(f"the checksum {link.sums[0]} belongs to no file")
            continue
        name = link.target.rpartition("/")[2]
        named = _VERSION.search(name)
        if _LATEST.search(name):  # these files have no checksum of their own
            if link.sums:
                is_doubtful = True
                questions.append(f"{name} has a checksum, which no file of that name keeps")
        elif path is None or named is None:
            questions.append(f"{link.target} is not a version of a file below {base_url}")
        elif len(link.sums) != 1:
            is_doubtful = is_doubtful or len(link.sums) > 1
            questions.append(f"{path}: {len(link.sums)} checksums can be read behind its link, and not one")
        else:
            one = Published(path, f"{named['version']}-{named['release'] or '1'}", link.sums[0])
            if found.setdefault(path, one) != one:
                is_doubtful = True
                questions.append(f"{path} has two checksums, {found[path].sha256} and {one.sha256}")
    return tuple(found.values()), is_doubtful


def _released(text: str, questions: list[str]) -> dict[str, dt.date]:
    """Return the first day of each version: some are listed again for another platform."""
    found: dict[str, dt.date] = {}
    for each in _RELEASED.finditer(text):
        version = each["version"]
        cell = _NEXT_CELL.match(text, each.end())
        words = " ".join(cell["cell"].split()) if cell else ""
        day = _date(words)
        if day is None:
            questions.append(f"the day on which {version} was released cannot be read: {words[:60]!r}")
        else:
            found[version] = min(day, found.get(version, day))
    return found


def _date(text: str) -> dt.date | None:
    """Parse a text that is a date."""
    for form in _DATES:
        match = form.fullmatch(text)
        if match is None:
            continue
        word = match["month"].lower()
        month = (
            int(word)
            if word.isdigit()
            else 1 + next((at for at, it in enumerate(_MONTHS) if word.startswith(it)), -1)
        )
        try:
            return dt.date(int(match["year"]), month, int(match["day"]))
        except ValueError:
            return None
    return None
