"""The file `copyright` of the packages, in Debian's format: owners and licences of all parts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sbom import licence_of

if TYPE_CHECKING:
    from libraries import Library
    from notes import Note

# the project has no licence yet
LICENCE = "LicenseRef-not-published"
# README and pyproject.toml use the same words
TERMS = "The authors have not published terms for hsm-agent itself yet; all rights reserved."
_APACHE = "Apache License 2.0: /usr/share/common-licenses/Apache-2.0 on Debian, and in its *.dist-info."
_TEXT = re.compile(r"\.dist-info/(licenses/)?(.*/)?(LICEN[CS]E|COPYING|NOTICE)[^/]*$", re.IGNORECASE)


def rights(note: Note, libraries: list[Library]) -> bytes:
    """Return the file."""
    about = (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: hsm-agent\n"
        "Comment: usr/lib/hsm-agent holds, beside the agent, the libraries below, unchanged but for one line in\n"
        " psutil/__init__.py that finds the module for this processor. Their own files of copyright and licence lie\n"
        " there in *.dist-info.\n"
    )
    parts = [
        about,
        f"Files: *\nCopyright: {note.date.year} {note.author}\nLicense: {LICENCE}\n",
        f"License: {LICENCE}\n {TERMS}\n",
    ]
    for each in libraries:
        text = (
            _APACHE
            if licence_of(each) == "Apache-2.0"
            else "\n\n".join(
                file.data.decode("utf-8").strip()
                for path, file in sorted(each.files.items())
                if _TEXT.search(path)
            )
        )
        name = f"{licence_of(each).replace(' ', '-')}-{each.name}"
        folders = sorted({path.split("/", 1)[0] for path in each.files})
        parts.append(
            f"Files: {' '.join(f'usr/lib/hsm-agent/{folder}/*' for folder in folders)}\n"
            f"Copyright: {_holders(text) or 'its authors'}\nLicense: {name}\n{_indented(text)}"
        )
    return "\n".join(parts).encode()


def _holders(text: str) -> str:
    found = re.findall(
        r"^\s*(?:Copyright:?|\(c\)|©)\s*(?:\(c\)|©)?\s*(\S.*?)\s*$", text, re.IGNORECASE | re.MULTILINE
    )
    return "\n ".join(
        dict.fromkeys(
            each.removesuffix(" All rights reserved.") for each in found if re.match(r"\d{4}", each)
        )
    )


def _indented(text: str) -> str:
    return "".join(f" {line.rstrip() or '.'}\n" for line in text.splitlines())
