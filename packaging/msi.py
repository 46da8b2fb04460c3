"""The MSI, by wixl, with what wixl cannot say put into its tables by msibuild; the same bytes from the same files."""

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
# never changes: by it a newer package finds the older one
UPGRADE_CODE = "7A06F36B-B241-4CD2-B469-B2685D0755A4"
_NAMES = uuid.UUID(UPGRADE_CODE)
_PROGRAM = "hsm-agent.exe"
_NEWER = "A newer version of hsm-agent is installed. Remove it first if you want this one."

# wixl of Debian 12 has no <Environment>: `=-*` sets, removes at the end, and is the system's; `[~]` is what was there
_ENVIRONMENT = """\
Environment\tName\tValue\tComponent_
s72\tl255\tL255\ts72
Environment\tEnvironment
Path\t=-*PATH\t[~];[INSTALLDIR]\t{component}
"""
# What the agent made on the host and that means nothing without it goes with it. `-` removes the key at the end.
_REGISTRY = """\
Registry\tRoot\tKey\tName\tValue\tComponent_
s72\ti2\tl255\tL255\tL0\ts72
Registry\tRegistry
EventSource\t2\tSYSTEM\\CurrentControlSet\\Services\\EventLog\\Application\\hsm-agent\t-\t\t{component}
"""
# 3170: a program in that folder (34), within the transaction (1024) and as SYSTEM (2048), whatever comes of it (64):
# a task that is not there is none to remove
_ACTIONS = """\
Action\tType\tSource\tTarget
s72\ti2\tS72\tS255
CustomAction\tAction
EndVerify\t3170\tSystem64Folder\t"[System64Folder]schtasks.exe" /delete /tn hsm-agent-verify /f
EndFirstBoot\t3170\tSystem64Folder\t"[System64Folder]schtasks.exe" /delete /tn hsm-agent-first-boot /f
"""
# wixl makes up the code of the package, and takes the time of the day
_SUMMARY = """\
PropertyId\tValue
i2\tl255
_SummaryInformation\tPropertyId
9\t{{{code}}}
12\t{time}
13\t{time}
18\thsm-agent
"""
# removed for good, and not to make room for another version
_LAST = 'REMOVE="ALL" AND NOT UPGRADINGPRODUCTCODE'
_CHANGES = (
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Sequence`) VALUES ('RemoveEnvironmentStrings', 3300)",
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Sequence`) VALUES ('WriteEnvironmentStrings', 5200)",
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Sequence`) VALUES ('RemoveRegistryValues', 2600)",
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('EndVerify', '{last}', 3401)",
    "INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('EndFirstBoot', '{last}', 3402)",
    # the older one goes within the transaction (wixl: before it), so that it comes back when this one fails
    "UPDATE `InstallExecuteSequence` SET `Sequence` = 1501 WHERE `Action` = 'RemoveExistingProducts'",
    # another build of the same version takes the place of the one that is there, too (512: this version included); the
    # column is a part of the key, which no UPDATE changes
    "DELETE FROM `Upgrade` WHERE `ActionProperty` = 'WIX_UPGRADE_DETECTED'",
    (
        "INSERT INTO `Upgrade` (`UpgradeCode`, `VersionMax`, `Attributes`, `ActionProperty`)"
        " VALUES ('{{{upgrade}}}', '{version}', 513, 'WIX_UPGRADE_DETECTED')"
    ),
)


def msi(files: Mapping[str, File], note: Note, made: Path) -> Path:
    r"""Write the package and return its path; files go to `%ProgramFiles%\hsm-agent`, which is put on the PATH."""
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
    # times in a cabinet are those of the clock on the wall
    subprocess.run(argv, cwd=folder, check=True, timeout=300, env={**os.environ, "TZ": "UTC"})


def _id(kind: str, path: str) -> str:
    """Return a name for the tables: a path may hold what they do not take, and be longer than their 72 letters."""
    return f"{kind}{uuid.uuid5(_NAMES, path).hex}"


def _wix(files: Mapping[str, File], note: Note, code: str) -> ET.Element:
    """Return the package's description. A file is a component, known by its path; so each is looked after by itself."""
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
