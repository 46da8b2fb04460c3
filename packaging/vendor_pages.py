"""A saved page of the AWS CloudHSM User Guide -> the files with checksums and the releases with dates that it names."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FILE = re.compile(
    r"/cloudhsmv2-software/CloudHsmClient/(?P<path>[A-Za-z0-9]+/(?P<name>[^/\s()<>\"\]]+?\.(?:rpm|deb|msi)))"
    r"(?P<between>[^\[]{0,80}?)SHA-?256\s+checksum\W{0,4}(?P<sha256>[0-9a-fA-F]{64})\b"
)
_VERSION = re.compile(r"[-_](?P<version>\d+\.\d+\.\d+)(?:-(?P<release>\d+))?[._]")
_RELEASED = re.compile(
    r"Released\s+(?:the\s+)?AWS\s+CloudHSM\s+client\s+version\s+(?P<version>\d+\.\d+\.\d+)\b[^|]*\|\s*"
    r"(?P<month>[A-Z][a-z]+)\s+(?P<day>\d{1,2}),\s+(?P<year>\d{4})"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Published:
    """A file and its checksum. `path` is below the vendor's base; `release` is `5.18.0-1`."""

    path: str
    release: str
    sha256: str


@dataclass(frozen=True)
class Page:
    """One page as it was saved. `source` is its name in the guide, `seen` the day."""

    source: str
    seen: dt.date
    files: tuple[Published, ...]
    released: dict[str, dt.date]


class _Text(HTMLParser):
    """HTML as the Markdown in which the guide is mirrored: links keep their address, cells their border."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append(dict(attrs).get("href") or "")
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


def read_page(path: Path, seen: dt.date | None) -> Page:
    """Read a saved copy, HTML or Markdown; without a day it is that of the file."""
    day = seen or dt.datetime.fromtimestamp(path.stat().st_mtime, dt.timezone.utc).date()
    text = path.read_text(encoding="utf-8", errors="replace")
    if re.match(r"\s*<", text):
        parser = _Text()
        parser.feed(text)
        text = "".join(parser.text)
    text = text.replace("\\", "")  # Markdown's, before every _ and #
    return Page(path.stem, day, tuple(_files(text)), _released(text))


def _files(text: str) -> list[Published]:
    found = []
    for each in _FILE.finditer(text):
        named = _VERSION.search(each["name"])
        if named is not None:  # `latest` files have no checksum of their own
            release = f"{named['version']}-{named['release'] or '1'}"
            found.append(Published(each["path"], release, each["sha256"].lower()))
    return list(dict.fromkeys(found))


def _released(text: str) -> dict[str, dt.date]:
    """Return the first day of each version: some are named again for another platform."""
    found: dict[str, dt.date] = {}
    for each in _RELEASED.finditer(text):
        day = dt.date(int(each["year"]), 1 + _MONTHS.index(each["month"][:3]), int(each["day"]))
        found[each["version"]] = min(day, found.get(each["version"], day))
    return found
