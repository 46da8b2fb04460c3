"""The rpm package, built by rpmbuild."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from files import File, Files, lay_out
from installed import CONFIGURATION, EXAMPLE, PLACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notes import Note

SPEC = Path(__file__).with_name("redhat") / "hsm-agent.spec"
UNITS = "usr/lib/systemd/system"
RIGHTS = "usr/share/licenses/hsm-agent/copyright"


# Compiled as it is started by units that may not write here; -f because every file of a package is of the same time.
_COMPILED = "python3 -m compileall -q -f -x /templates/ /usr/lib/hsm-agent || :"


def rpm(
    files: Mapping[str, File],
    notes: Sequence[Note],
    rights: bytes,
    licence: str,
    out: Path,
    processor: str | None = None,
) -> Path:
    """Write the package into that folder. One for a processor has its own interpreter and bytecode in it."""
    arch = processor or "noarch"
    note = notes[0]
    epoch = int(note.date.timestamp())
    content: Files = {**files, RIGHTS: File(rights)}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "files").mkdir()
        lay_out(content, top / "files", epoch)
        spec = top / "hsm-agent.spec"
        spec.write_text(
            SPEC.read_text(encoding="utf-8").format(
                version=note.version,
                author=note.author,
                licence=licence,
                folder=top / "files",
                listed="\n".join(_listed(content)),
                arch=arch,
                runs="its own interpreter" if processor else "the distribution's own\nPython",
                python="" if processor else "Requires: python3 >= 3.9",
                compiled="" if processor else _COMPILED,
                changes="\n\n".join(map(_change, notes)),
            ),
            encoding="utf-8",
        )
        rpmbuild = ["rpmbuild", "-bb", "--quiet", "--nodeps", "--target", arch]
        # without the user's macros and without this machine's database
        rpmbuild += [
            "--define",
            f"_topdir {top}",
            "--define",
            f"_rpmdir {top}",
            "--define",
            f"_dbpath {top}/db",
        ]
        subprocess.run(
            [*rpmbuild, str(spec)],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "HOME": folder},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        built = next(top.glob(f"{arch}/*.rpm"))
        package = out / built.name
        package.write_bytes(built.read_bytes())
    return package


def _listed(files: Mapping[str, File]) -> list[str]:
    """Return the lines of %files: every file, and the folders that only this package owns."""
    own = {"etc/hsm-agent", PLACE, *(str(PurePosixPath(path).parent) for path in (RIGHTS, EXAMPLE))}
    own.add("usr/share/doc/hsm-agent")
    own |= {
        str(folder)
        for path in files
        for folder in PurePosixPath(path).parents
        if PurePosixPath(PLACE) in folder.parents
    }
    lines = [f'%dir "/{folder}"' for folder in sorted(own)]
    for path, file in sorted(files.items()):
        kind = "%dir " if file.folder else ""
        if path == CONFIGURATION:
            kind = "%config(noreplace) "
        elif path.startswith(("usr/share/man/", "usr/share/doc/")):
            kind = "%doc "
        elif path == RIGHTS:
            kind = "%license "
        lines.append(f'{kind}"/{path}"')
    return lines


def _change(note: Note) -> str:
    text = " ".join(note.lines).replace("%", "%%").split("* ")
    return "\n".join(
        [
            f"* {note.date:%a %b %d %Y} {note.author} - {note.version}-1",
            *(f"- {each.strip()}" for each in text if each),
        ]
    )
