"""The Debian package, built by dpkg-deb."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from files import File, Files, compress, lay_out
from installed import CONFIGURATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notes import Note

HERE = Path(__file__).with_name("debian")
UNITS = (
    "lib/systemd/system"  # the only place for Debian 11's systemd; in newer releases it is the same folder
)
DOC = "usr/share/doc/hsm-agent"


def deb(files: Mapping[str, File], note: Note, changelog: bytes, rights: bytes, out: Path) -> Path:
    """Write the package into that folder."""
    package = out / f"hsm-agent_{note.version}_all.deb"
    epoch = int(note.date.timestamp())
    content: Files = dict(files)
    content[f"{DOC}/changelog.gz"] = File(compress(changelog))
    content[f"{DOC}/copyright"] = File(rights)
    content["usr/share/lintian/overrides/hsm-agent"] = File((HERE / "lintian-overrides").read_bytes())
    kilobytes = sum(len(file.data) // 1024 + 1 for file in content.values())
    control = (HERE / "control").read_text(encoding="utf-8")
    control = control.format(version=note.version, author=note.author, kilobytes=kilobytes)
    sums = [
        f"{hashlib.md5(file.data).hexdigest()}  {path}\n"  # noqa: S324 -- the form that dpkg --verify reads
        for path, file in sorted(content.items())
        if file.link is None and not file.folder and path != CONFIGURATION
    ]
    content["DEBIAN/control"] = File(control.encode())
    content["DEBIAN/md5sums"] = File("".join(sums).encode())
    content["DEBIAN/conffiles"] = File(f"/{CONFIGURATION}\n".encode())
    for name in ("postinst", "prerm", "postrm"):
        content[f"DEBIAN/{name}"] = File((HERE / name).read_bytes(), 0o755)
    with tempfile.TemporaryDirectory() as folder:
        lay_out(content, Path(folder), epoch)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", folder, str(package)],
            # one thread: xz splits its input by the number of threads
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "DPKG_DEB_THREADS_MAX": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return package
