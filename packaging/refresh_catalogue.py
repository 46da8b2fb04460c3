"""python packaging/refresh_catalogue.py [--write] PAGE... - saved pages of the vendor's guide -> the catalogue's diff.

    latest-releases.html  document-history.html        saved with a browser, or Markdown of the same names

What a page adds is proposed as a diff, each row with its page and day; nothing is fetched. What contradicts the
catalogue, or is ambiguous, is never proposed: it is printed, and the exit status is 1. Examples: a published file whose
checksum changed, a link whose checksum cannot be read, a release without a day.
"""

from __future__ import annotations

import argparse
import datetime as dt
import difflib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vendor_pages import Page, Published, read_page

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.catalogue.loader import Catalogue, PlatformRow, parse  # noqa: E402 -- of this checkout
from agent.catalogue.versions import parse_version  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

PLATFORMS, CHECKSUMS = "platforms.toml", "checksums.toml"
_ENDINGS = {"x86_64": r"x86_64\.rpm|amd64\.deb|msi", "aarch64": r"aarch64\.rpm|arm64\.deb"}


@dataclass
class Proposal:
    """The proposed text of both files, and what a person must check. `dated`: version -> the page that dates it."""

    platforms: str
    checksums: str
    dated: dict[str, Page]
    pages: tuple[Page, ...] = ()
    attention: list[str] = field(default_factory=list)

    @property
    def catalogue(self) -> Catalogue:
        return parse(self.platforms, self.checksums)

    def add_page(self, page: Page) -> None:
        before = self.catalogue
        self.attention += [f"{page.source}: {question}" for question in page.questions]
        fresh = list(self._fresh(page, before))
        if page.is_doubtful and fresh:
            self.attention.append(
                f"{page.source}: {len(fresh)} new files are not proposed, since a checksum may be another's"
            )
            fresh = []
        for release in sorted({each.release for each in fresh}, key=_order):
            if release not in {f"{each.version}-{each.release}" for each in before.releases}:
                self._add_release(release, page)
            self._add_checksums(release, [each for each in fresh if each.release == release], page)
            newest = max((each.version for each in before.releases), key=parse_version)
            if parse_version(release.partition("-")[0]) > parse_version(newest):
                self._report_missing(release, newest)
        if not page.files and not page.released:
            self.attention.append(f"{page.source}: nothing was found on this page; has its form changed?")

    def compare_dates(self) -> None:
        """Report dates that differ, and new versions without files here; call it after all pages."""
        dates = {each.version: each.date for each in self.catalogue.releases}
        newest = max(dates, key=parse_version)
        for version, page in self.dated.items():
            day = page.released[version]
            if version in dates and dates[version] != day:
                self.attention.append(
                    f"{page.source}: {version} is of {day}, in the catalogue of {dates[version]}"
                )
            elif version not in dates and day >= self._first_supported():
                self.attention.append(f"{page.source}: {version} is out: save latest-releases too")
        self._compare_versions(newest)

    def _first_supported(self) -> dt.date:
        """Return the day from which on every release is listed; of earlier ones only some are."""
        return min(each.date for each in self.catalogue.releases if not each.end_of_support)

    def _compare_versions(self, newest: str) -> None:
        """Report each newer version that a page mentions, but without files and without a day."""
        for page in self.pages:
            for version in sorted(page.named - set(self.dated), key=parse_version):
                if parse_version(version) > parse_version(newest):
                    self.attention.append(
                        f"{page.source}: speaks of {version}, of which nothing could be read"
                    )

    def _fresh(self, page: Page, known: Catalogue) -> Iterable[Published]:
        directories = {row.directory for row in known.rows}
        for each in page.files:
            if each.path.partition("/")[0] not in directories:
                self.attention.append(f"{page.source}: {each.path} is for a platform that has no row yet")
            elif each.path not in known.checksums:
                question = _unlike(each, known)
                if question:
                    self.attention.append(f"{page.source}: {each.path} {question}")
                else:
                    yield each
            elif known.checksums[each.path] != each.sha256:
                self.attention.append(
                    f"{page.source}: the checksum of {each.path} CHANGED from {known.checksums[each.path]} to "
                    f"{each.sha256}; ask AWS before you believe it"
                )

    def _add_release(self, release: str, page: Page) -> None:
        version, _, number = release.partition("-")
        dating = self.dated.get(version)
        if dating is None:
            self.attention.append(f"{page.source}: {version} got today's date: save document-history too")
        day = dating.released[version] if dating else page.seen
        row = (
            f"version = '{version}'\nrelease = '{number}'\ndate = {day}\nend_of_support = false\n"
            f"sdk = {version.partition('.')[0]}\nsource = '{(dating or page).source}'\nseen = {(dating or page).seen}\n"
        )
        self.platforms = self.platforms.replace("[[release]]\n", f"[[release]]\n{row}\n[[release]]\n", 1)

    def _add_checksums(self, release: str, files: list[Published], page: Page) -> None:
        lines = "".join(f"'{each.path}' = '{each.sha256}'\n" for each in files)
        head, sums = f"[release.'{release}']\n", f"[release.'{release}'.sha256]\n"
        if head not in self.checksums:
            table = f"{head}source = '{page.source}'\nseen = {page.seen}\n\n{sums}{lines}\n"
            before, after = _at_first_table(self.checksums)
            self.checksums = f"{before}# as the page has it\n{table}{after}"
            return
        known = re.search(rf"{re.escape(head)}source = '(.*)'\nseen = .*\n", self.checksums)
        if known is None:
            sys.exit(f"{CHECKSUMS}: {head.strip()} does not begin with its source and its day")
        source = known[1] if page.source in known[1].split(", ") else f"{known[1]}, {page.source}"
        text = self.checksums.replace(known[0], f"{head}source = '{source}'\nseen = {page.seen}\n", 1)
        self.checksums = text.replace(sums, f"{sums}{lines}", 1)

    def _report_missing(self, release: str, newest: str) -> None:
        """Report clients that have no file in a new release: they may have ended."""
        known = self.catalogue
        directories = {row.name: row.directory for row in known.rows}
        packages = {each.component: each for each in known.packages if each.sdk == 5}
        made = [client for client in known.clients if client.sdk == 5 and client.last is None]
        for platform, arch, component in (
            (client.platform, arch, each)
            for client in made
            for arch in client.arch
            for each in client.component
        ):
            folder, package = directories[platform], packages[component]
            name = package.msi if folder == "Windows" else package.package
            form = re.compile(rf"{folder}/{name}[-_]{re.escape(release)}[._].*({_ENDINGS[arch]})")
            if not any(form.fullmatch(path) for path in known.checksums):
                self.attention.append(
                    f"{release}: no file of {component} for {platform} {arch}; if it is dropped, its row gets "
                    f"last = '{newest}'"
                )


def _unlike(file: Published, known: Catalogue) -> str | None:
    """Return why a file does not belong in the catalogue, or None if it does."""
    folder, _, name = file.path.partition("/")
    made = [
        client
        for client in known.clients
        for row in known.rows
        if row.directory == folder and row.name == client.platform
        for arch in client.arch
        for component in client.component
        if name == _name_of(known, row, client.sdk, component, arch, file.release)
        and parse_version(client.first) <= parse_version(file.release)
        and (client.last is None or parse_version(file.release)[:3] <= parse_version(client.last))
    ]
    return (
        None if made else "is not a client that is made for this platform; if it is now, its row comes first"
    )


def _name_of(
    known: Catalogue, row: PlatformRow, sdk: int, component: str, arch: str, release: str
) -> str | None:
    package = next(each for each in known.packages if each.sdk == sdk and each.component == component)
    if row.format == "msi":
        return f"{package.msi}-{release if sdk == 5 else release.partition('-')[0]}.msi"
    if row.format == "rpm":
        return f"{package.package}-{release}.{row.suffix}.{arch}.rpm"
    debian = {"x86_64": "amd64", "aarch64": "arm64"}[arch]
    return "_".join(filter(None, (package.package, release, row.suffix, debian))) + ".deb"


def _at_first_table(text: str) -> tuple[str, str]:
    """Split before the first table and the comment above it."""
    place = text.rfind("\n\n", 0, text.index("[release.")) + 2
    return text[:place], text[place:]


def _order(release: str) -> tuple[int, ...]:
    version, _, number = release.partition("-")
    return (*parse_version(version), int(number))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="propose what saved pages of the vendor's guide add to the catalogue"
    )
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE", help="latest-releases.html and such")
    parser.add_argument(
        "--seen",
        type=dt.date.fromisoformat,
        metavar="DAY",
        help="when they were saved; default: the file's day",
    )
    parser.add_argument(
        "--catalogue", type=Path, default=ROOT / "agent" / "catalogue", help="default: this checkout's"
    )
    parser.add_argument(
        "--write", action="store_true", help="write what is proposed; review it with git diff"
    )
    given = parser.parse_args()
    before = {name: (given.catalogue / name).read_text(encoding="utf-8") for name in (PLATFORMS, CHECKSUMS)}
    base_url = parse(before[PLATFORMS], before[CHECKSUMS]).base_url
    pages = tuple(read_page(path, given.seen, base_url) for path in given.pages)
    dated = {version: page for page in pages for version in page.released}
    proposal = Proposal(before[PLATFORMS], before[CHECKSUMS], dated, pages)
    for page in pages:
        proposal.add_page(page)
    proposal.compare_dates()
    after = {PLATFORMS: proposal.platforms, CHECKSUMS: proposal.checksums}
    for name, text in after.items():
        sys.stdout.writelines(
            difflib.unified_diff(
                before[name].splitlines(keepends=True),
                text.splitlines(keepends=True),
                f"a/{name}",
                f"b/{name}",
            )
        )
        if given.write:
            (given.catalogue / name).write_text(text, encoding="utf-8")
    for each in proposal.attention:
        print(f"attention: {each}", file=sys.stderr)
    sys.exit(1 if proposal.attention else 0)


if __name__ == "__main__":
    main()
