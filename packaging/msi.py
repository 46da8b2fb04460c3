"""The MSI, built by wixl; msibuild adds to its tables what wixl does not support. Reproducible."""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from files import digest, lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from files import File
    from notes import Note

TOOLS = ("wixl", "msibuild")
# must never change: by it a newer package finds the older one
UPGRADE_CODE = "7A06F36B-B241-4CD2-B469-B2685D0755A4"
_NAMES = uuid.UUID(UPGRADE_CODE)
_PROGRAM = "hsm-agent.exe"
_NEWER = "A newer version of hsm-agent is installed. Remove it first if you want this one."

# wixl of Debian 12 has no <Environment>. `=-*`: set it, remove it on uninstall, system-wide; `[~]` is the old value
_ENVIRONMENT = """\
Environment\tName\tValue\tComponent_
s72\tl255\tL255\ts72
Environment\tEnvironment
Path\t=-*PATH\t[~];[INSTALLDIR]\t{component}
"""
# Uninstall removes what the agent created and what is useless without it. `-` removes the key on uninstall.
_REGISTRY = """\
Registry\tRoot\tKey\tName\tValue\tComponent_
s72\ti2\tl255\tL255\tL0\ts72
Registry\tRegistry
EventSource\t2\tSYSTEM\\CurrentControlSet\\Services\\EventLog\\Application\\hsm-agent\t-\t\t{component}
"""
# 3170: a program in that folder (34), within the transaction (1024), as SYSTEM (2048), its exit status ignored (64):
# the task may not exist
_ACTIONS = """\
Action\tType\tSource\tTarget
s72\ti2\tS72\tS255
CustomAction\tAction
EndVerify\t3170\tSystem64Folder\t"[System64Folder]schtasks.exe" /delete /tn hsm-agent-verify /f
EndFirstBoot\t3170\tSystem64Folder\t"[System64Folder]schtasks.exe" /delete /tn hsm-agent-first-boot /f
"""
# wixl makes a random package code, and uses the current time
_SUMMARY = """\
PropertyId\tValue
i2\tl255
_SummaryInformation\tPropertyId
9\t{{{code}}}
12\t{time}
13\t{time}
18\thsm-agent
"""
# removed for good, not replaced by another version
_LAST = 'REMOVE="ALL" AND NOT UPGRADINGPRODUCTCODE'
_CHANGES = (
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Sequence`) VALUES ('RemoveEnvironmentStrings', 3300)",
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Sequence`) VALUES ('WriteEnvironmentStrings', 5200)",
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Sequence`) VALUES ('RemoveRegistryValues', 2600)",
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('EndVerify', '{last}', 3401)",
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('EndFirstBoot', '{last}', 3402)",
    # remove the older one within the transaction (wixl: before it), so that it comes back if this one fails
    "UPDATE `InstallExecuteSequence` SET `Sequence` = 1501 WHERE `Action` = 'RemoveExistingProducts'",
    # another build of the same version also replaces the installed one (512: this version included); the column is part
    # of the key, which UPDATE cannot change
    "DELETE FROM `Upgrade` WHERE `ActionProperty` = 'WIX_UPGRADE_DETECTED'",
    (
        "INSERT INTO `Upgrade` (`UpgradeCode`, `VersionMax`, `Attributes`, `ActionProperty`)"
        " VALUES ('{{{upgrade}}}', '{version}', 513, 'WIX_UPGRADE_DETECTED')"
    ),
)


def msi(files: Mapping[str, File], note: Note, made: Path) -> Path:
    r"""Write the package and return its path; it installs to `%ProgramFiles%\hsm-agent` and adds that to PATH."""
    content = f"{note.version} {digest(files)}"
    product, package = (str(uuid.uuid5(_NAMES, f"{of} {content}")).upper() for of in ("product", "package"))
    times = int(note.date.timestamp())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(files, folder / "files", times)
        ET.ElementTree(_wix(files, note, product)).write(
            folder / "package.wxs", "utf-8", xml_declaration=True
        )
        draft = folder / "package.msi"
        _run(["wixl", "--arch", "x64", "--output", str(draft), "package.wxs"], folder)
        time = note.date.strftime("%Y/%m/%d %H:%M:%S")
        tables = {
            "environment.idt": _ENVIRONMENT.format(component=_id("c", _PROGRAM)),
            "registry.idt": _REGISTRY.format(component=_id("c", _PROGRAM)),
            "actions.idt": _ACTIONS,
            "summary.idt": _SUMMARY.format(code=package, time=time),
        }
        for table, text in tables.items():
            (folder / table).write_text(text, encoding="ascii", newline="\r\n")
            _run(["msibuild", str(draft), "-i", table], folder)
        for each in _CHANGES:
            query = each.format(upgrade=UPGRADE_CODE, version=note.version, last=_LAST)
            _run(["msibuild", str(draft), "-q", query], folder)
        made.write_bytes(draft.read_bytes())
    return made


def _run(argv: list[str], folder: Path) -> None:
    # times in a cabinet are local times
    subprocess.run(argv, cwd=folder, check=True, timeout=300, env={**os.environ, "TZ": "UTC"})


def _id(kind: str, path: str) -> str:
    """Return an identifier for the tables, which take 72 characters and fewer kinds than a path has."""
    return f"{kind}{uuid.uuid5(_NAMES, path).hex}"


def _wix(files: Mapping[str, File], note: Note, code: str) -> ET.Element:
    """Return the description of the package. Each file is a component of its own, identified by its path."""
    top = ET.Element("Wix", xmlns="http://schemas.microsoft.com/wix/2006/wi")
    product = ET.SubElement(
        top, "Product", Id=code, Name="hsm-agent", Language="1033", Version=note.version,
        Manufacturer=note.author.partition(" <")[0], UpgradeCode=UPGRADE_CODE,
    )  # fmt: skip
    ET.SubElement(
        product, "Package", InstallerVersion="500", Compressed="yes", InstallScope="perMachine",
        Description=f"hsm-agent {note.version}", Comments="brings this host to a proven state with AWS CloudHSM",
    )  # fmt: skip
    ET.SubElement(product, "MajorUpgrade", DowngradeErrorMessage=_NEWER)
    ET.SubElement(product, "Media", Id="1", Cabinet="files.cab", EmbedCab="yes")
    source = ET.SubElement(product, "Directory", Id="TARGETDIR", Name="SourceDir")
    ET.SubElement(source, "Directory", Id="System64Folder")
    programs = ET.SubElement(source, "Directory", Id="ProgramFiles64Folder")
    folders = {".": ET.SubElement(programs, "Directory", Id="INSTALLDIR", Name="hsm-agent")}
    feature = ET.SubElement(product, "Feature", Id="Agent", Level="1")
    for path in sorted(files):
        place = PurePosixPath(path)
        component = ET.SubElement(
            _folder(folders, place.parent), "Component",
            Id=_id("c", path), Guid=str(uuid.uuid5(_NAMES, path)).upper(), Win64="yes",
        )  # fmt: skip
        ET.SubElement(
            component, "File", Id=_id("f", path), Name=place.name, Source=f"files/{path}", KeyPath="yes"
        )
        ET.SubElement(feature, "ComponentRef", Id=_id("c", path))
    return top


def _folder(folders: dict[str, ET.Element], path: PurePosixPath) -> ET.Element:
    if str(path) not in folders:
        above = _folder(folders, path.parent)
        folders[str(path)] = ET.SubElement(above, "Directory", Id=_id("d", str(path)), Name=path.name)
    return folders[str(path)]
