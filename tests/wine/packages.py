"""Stand-ins for the vendor's MSI packages, made by wixl: a file, a registry value, a major upgrade and a condition."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.wine import root

if TYPE_CHECKING:
    from pathlib import Path

_WXS = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="*" Name="{name}" Language="1033" Version="{version}" Manufacturer="Amazon Web Services" UpgradeCode="{upgrade}">
    <Package InstallerVersion="500" Compressed="yes" InstallScope="perMachine"/>
    <MajorUpgrade DowngradeErrorMessage="A newer version of {name} is already installed."/>
    {condition}
    <Media Id="1" Cabinet="one.cab" EmbedCab="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="ProgramFiles64Folder">
        <Directory Id="Amazon" Name="Amazon"><Directory Id="CloudHSM" Name="CloudHSM"><Directory Id="BIN" Name="bin">
          <Component Id="Tool" Guid="{component}" Win64="yes">
            <File Id="tool" Name="{tool}" Source="tool.txt" KeyPath="yes"/>
          </Component>
        </Directory></Directory></Directory>
      </Directory>
    </Directory>
    <Feature Id="Main" Level="1"><ComponentRef Id="Tool"/></Feature>
  </Product>
</Wix>
"""
_NEVER = '<Condition Message="This computer is not what {name} wants.">NEVER = 1</Condition>'


@dataclass(frozen=True)
class Package:
    """One package: its file, the program's name, its version, and whether it refuses every computer."""

    file: str
    name: str
    version: str
    refuses: bool = False


PACKAGES = (
    Package("cli-5.17.1.msi", "AWS CloudHSM CLI", "5.17.1"),
    Package("cli-5.18.0.msi", "AWS CloudHSM CLI", "5.18.0"),
    Package("pkcs11-5.18.0.msi", "AWS CloudHSM PKCS #11 Library", "5.18.0"),
    Package("ksp-5.18.0.msi", "AWS CloudHSM KSP", "5.18.0", refuses=True),
)


def make(python: root.Python, folder: Path) -> None:
    """Put all packages into the folder `packages` of a scratch folder, and one that is damaged."""
    goal = folder / "packages"
    goal.mkdir()
    goal.chmod(0o777)
    (goal / "tool.txt").write_text("a tool\n")
    for package in PACKAGES:
        text = _WXS.format(
            name=package.name,
            version=package.version,
            upgrade=uuid.uuid5(uuid.NAMESPACE_DNS, package.name),
            component=uuid.uuid5(uuid.NAMESPACE_DNS, f"{package.name} tool"),
            tool=f"{package.file.partition('-')[0]}.exe",
            condition=_NEVER.format(name=package.name) if package.refuses else "",
        )
        (goal / package.file).with_suffix(".wxs").write_text(text)
    (goal / "damaged.msi").write_bytes(b"no package\n" * 1000)
    script = 'cd /scratch/packages; for each in *.wxs; do wixl -a x64 -o "${each%.wxs}.msi" "$each"; done'
    done = root.enter(python, ["sh", "-ec", script], folder, seconds=60)
    assert done.returncode == 0, done.stdout + done.stderr
