"""What lies inside an interpreter: the libraries that CPython's makers compile into it, for the bill of materials."""

from __future__ import annotations

import json
import re
from email.message import Message
from typing import TYPE_CHECKING

from libraries import Library

if TYPE_CHECKING:
    from files import Files

# of each: the file that holds it, what it says of itself there, and vendor:product as vulnerability databases call it
_SAYS = {
    "openssl": ("DLLs/libcrypto-3.dll", rb"OpenSSL (\d+\.\d+\.\d+)", "openssl:openssl"),
    "expat": ("DLLs/pyexpat.pyd", rb"expat_(\d+\.\d+\.\d+)", "libexpat_project:libexpat"),
    "bzip2": ("DLLs/_bz2.pyd", rb"(\d+\.\d+\.\d+), \d+-\w{3}-\d{4}", "bzip:bzip2"),
    "mpdecimal": ("DLLs/_decimal.pyd", rb"\0(\d+\.\d+\.\d+)\0", "bytereef:mpdecimal"),
}
# These say nothing; PCbuild/get_externals.bat of CPython 3.13 names them.
_SILENT = {
    "libffi": ("3.4.4", "libffi_project:libffi"),
    "xz": ("5.2.5", "tukaani:xz"),
    "zlib": ("1.3.1", "zlib:zlib"),
}


def of_windows(files: Files) -> list[Library]:
    """Return what lies in CPython as built for Windows, by what its files say of themselves.

    Ends with KeyError or ValueError where a file is not there or does not say it, so that none is left out in silence.
    """
    found = []
    for name, (path, says, cpe) in _SAYS.items():
        said = re.search(says, files[path].data)
        if said is None:
            raise ValueError(f"{path} does not say which {name} lies in it")
        found.append(_library(name, said[1].decode(), cpe))
    return [*found, *(_library(name, version, cpe) for name, (version, cpe) in _SILENT.items())]


def of_sources(spdx: bytes) -> list[Library]:
    """Return what lies in CPython's sources, by the bill of materials in them (`Misc/sbom.spdx.json`)."""
    found = []
    for package in json.loads(spdx)["packages"]:
        named = [each["referenceLocator"] for each in package.get("externalRefs", ())]
        cpes = [each.split(":") for each in named if each.startswith("cpe:2.3:a:")]
        found += [_library(package["name"], package["versionInfo"], ":".join(each[3:5])) for each in cpes]
    return found


def _library(name: str, version: str, cpe: str) -> Library:
    metadata = Message()
    metadata["Summary"] = f"{name} {version}, which CPython's makers put into it"
    metadata["License"] = "as CPython's LICENSE.txt says"
    return Library(name, version, metadata, (), {}, "generic", cpe)
