"""python packaging/build.py [--out dist] - write tree, packages, wheel, SBOM and checksums, reproducibly."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from deb import UNITS as DEB_UNITS
from deb import deb
from files import digest, packed
from installed import installed, pages
from libraries import libraries
from linux import linux
from notes import notes
from rights import LICENCE, rights
from rpm import UNITS as RPM_UNITS
from rpm import rpm
from sbom import sbom
from tree import far_end, tree, version
from wheel import wheel
from windows import windows

ROOT = Path(__file__).resolve().parent.parent
_SELFCONTAINED = {"windows": windows, "linux": linux}


def build(out: Path, wheels: Path, only: str) -> list[Path]:
    """Write everything into a folder, or only `far-end`, `windows` or `linux`; return the paths."""
    changes = notes(ROOT / "packaging" / "changelog")
    note = changes[0]
    if note.version != version(ROOT):
        sys.exit(f"packaging/changelog is at {note.version}, agent/__init__.py at {version(ROOT)}")
    out.mkdir(parents=True, exist_ok=True)
    wheels.mkdir(parents=True, exist_ok=True)
    if only in _SELFCONTAINED:
        made = _SELFCONTAINED[only](ROOT, wheels, changes, out)
        return [*made, summed(made, out / f"SHA256SUMS.{only}")]
    parts = libraries(wheels)
    travelling = packed(f"hsm-agent-far-end-{note.version}", far_end(ROOT, parts), note.date, out)
    if only == "far-end":
        return [travelling]
    files = tree(ROOT, parts)
    whole = packed(f"hsm-agent-{note.version}", files, note.date, out)
    terms = rights(note, parts)
    changelog = (ROOT / "packaging" / "changelog").read_bytes()
    documents = pages(files, note.date)
    debian = deb(installed(ROOT, files, documents, DEB_UNITS), note, changelog, terms, out)
    redhat = rpm(installed(ROOT, files, documents, RPM_UNITS), changes, terms, LICENCE, out)
    operators = wheel(ROOT, travelling, note.date, out)
    bill = out / f"hsm-agent-{note.version}.cdx.json"
    bill.write_bytes(sbom(note.version, digest(files), note.date, parts))
    made = [whole, travelling, debian, redhat, operators, bill]
    return [*made, summed(made, out / "SHA256SUMS")]


def summed(made: list[Path], sums: Path) -> Path:
    """Write the checksums in the format of `sha256sum --check`."""
    sums.write_text(
        "".join(f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in made)
    )
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description="build the tree and the packages, reproducibly")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument(
        "--wheels", type=Path, default=ROOT / "build" / "wheels", help="downloads are kept here"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--tree",
        dest="only",
        action="store_const",
        const="far-end",
        default="",
        help="only the far end, which `hsm-agent fleet --tree` takes",
    )
    only.add_argument(
        "--windows",
        dest="only",
        action="store_const",
        const="windows",
        help="only the build for Windows with an interpreter in it, which wants Wine, mingw-w64, wixl and msitools",
    )
    only.add_argument(
        "--linux",
        dest="only",
        action="store_const",
        const="linux",
        help="only the build for Linux with an interpreter in it, compiled here in some minutes",
    )
    given = parser.parse_args()
    for each in build(given.out, given.wheels, given.only):
        print(f"{each.stat().st_size:>9}  {each}")


if __name__ == "__main__":
    main()
