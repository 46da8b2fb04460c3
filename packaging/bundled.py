"""The libraries that CPython's builds include, for the bill of materials."""

from __future__ import annotations

import json
import re
from email.message import Message
from typing import TYPE_CHECKING

from libraries import Library

if TYPE_CHECKING:
    from files import Files

# of each: the file, the version string in it, and vendor:product as in vulnerability databases
_SAYS = {
    "openssl": ("DLLs/libcrypto-3.dll", rb"OpenSSL (\d+\.\d+\.\d+)", "openssl:openssl"),
    "expat": ("DLLs/pyexpat.pyd", rb"expat_(\d+\.\d+\.\d+)", "libexpat_project:libexpat"),
    "bzip2": ("DLLs/_bz2.pyd", rb"(\d+\.\d+\.\d+), \d+-\w{3}-\d{4}", "bzip:bzip2"),
    "mpdecimal": ("DLLs/_decimal.pyd", rb"\0(\d+\.\d+\.\d+)\0", "bytereef:mpdecimal"),
}
# These have no version string; PCbuild/get_externals.bat of CPython 3.13 names them.
_SILENT = {
    "libffi": ("3.4.4", "libffi_project:libffi"),
    "xz": ("5.2.5", "tukaani:xz"),
    "zlib": ("1.3.1", "zlib:zlib"),
}


def of_windows(files: Files) -> list[Library]:
    """Return the libraries in CPython for Windows, by the version strings in its files.

    Raises KeyError or ValueError for a file that is missing or has no such string, so that no library is left out.
    """
    found = []
    for name, (path, says, cpe) in _SAYS.items():
        found_text = re.search(says, files[path].data)
        if found_text is None:
            raise ValueError(f"{path} has no version string of {name}")
        found.append(_library(name, found_text[1].decode(), cpe))
    return [*found, *(_library(name, version, cpe) for name, (version, cpe) in _SILENT.items())]


def of_sources(spdx: bytes) -> list[Library]:
    """Return the libraries in CPython's sources, by the bill of materials in them (`Misc/sbom.spdx.json`)."""
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
