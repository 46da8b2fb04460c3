"""Stand-ins for the vendor's MSI packages, made by wixl: its names, its places, the stand-in programs behind an .exe."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from agent.demo import default_config, package_contents
from tests.windows import found, root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = r"C:\ProgramData\Amazon\CloudHSM"

# What the programs call themselves is not published: these names are plausible, and no more.
NAMES = {
    "CLI": "AWS CloudHSM CLI",
    "PKCS11": "AWS CloudHSM PKCS #11 Library",
    "JCE": "AWS CloudHSM JCE Provider",
    "KSP": "AWS CloudHSM Key Storage Provider",
    "Client": "AWS CloudHSM Client",
}
# Where the libraries lie is documented for that of KSP only.
_LIBRARIES = {"PKCS11": "cloudhsm_pkcs11.dll", "JCE": "cloudhsm_jce.dll", "KSP": "cloudhsm-ksp.dll"}

_WXS = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="*" Name="{name}" Language="1033" Version="{version}" Manufacturer="Amazon Web Services" UpgradeCode="{upgrade}">
    <Package InstallerVersion="500" Compressed="yes" InstallScope="perMachine"/>
    <MajorUpgrade DowngradeErrorMessage="A newer version of {name} is already installed."/>
    {condition}
    <Media Id="1" Cabinet="one.cab" EmbedCab="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="ProgramFiles64Folder">
        <Directory Id="Amazon" Name="Amazon"><Directory Id="PROGRAMS" Name="CloudHSM">
          <Directory Id="BIN" Name="bin"/><Directory Id="JAVA" Name="java"/>
        </Directory></Directory>
      </Directory>
      <Directory Id="CommonAppDataFolder">
        <Directory Id="AmazonData" Name="Amazon"><Directory Id="DATA" Name="CloudHSM">
          <Directory Id="INNER" Name="data"/>
        </Directory></Directory>
      </Directory>
    </Directory>
    {components}
    <Feature Id="Main" Level="1">{references}</Feature>
  </Product>
</Wix>
"""
_COMPONENT = """<DirectoryRef Id="{directory}"><Component Id="{id}" Guid="{guid}" Win64="yes">
      <File Id="file_{id}" Name={name} Source={source} KeyPath="yes"/>{more}
    </Component></DirectoryRef>"""
# Whether the vendor's starts with Windows, and at once, is not published: this one does the first and not the second.
_SERVICE = """
      <ServiceInstall Id="service" Name="AWSCloudHSMClient" DisplayName="AWS CloudHSM Client" Type="ownProcess"
        Start="auto" ErrorControl="normal"/>
      <ServiceControl Id="service_control" Name="AWSCloudHSMClient" Stop="both" Remove="uninstall" Wait="yes"/>"""
_SERVICE_PROGRAM = "cloudhsm_client_service.exe"
_NEVER = '<Condition Message="This computer is not what {name} wants.">NEVER = 1</Condition>'

# What wixl has no word for is written into the tables by hand: 256 is 64 bit, 128 never over what is there, 16 left
# behind by a removal.
_KEEP = "UPDATE `Component` SET `Attributes` = 400 WHERE `Component` = '{}'"
_REBOOT = "INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('ScheduleReboot', 'NOT REMOVE', 6500)"


_COMPILE = "x86_64-w64-mingw32-gcc -Wall -Wextra -Werror -O2 -s"


@dataclass(frozen=True)
class Package:
    """One package. `source` is the folder that stands for a mirror, `file` the name in it if it is another's."""

    component: str
    version: str
    source: str = "vendor"
    file: str = ""
    inner: bool = True  # facts 3.2: whether the configuration lies in a folder `data`
    keeps: bool = True  # facts 2.3, of SDK 3: an update does not overwrite configuration files
    refuses: bool = False
    reboot: bool = False
    shown: str = ""

    @property
    def path(self) -> str:
        """Return where the vendor would have it below a mirror's address: facts 2.1."""
        return f"Windows/{found.file_name(self.file or self.component, self.version)}"

    def files(self) -> Iterator[tuple[str, str, bytes | str]]:
        """Give directory, name and bytes of each file; or what was compiled when it is no text."""
        yield from self._sdk3() if self.component == "Client" else self._sdk5()

    def _sdk5(self) -> Iterator[tuple[str, str, bytes | str]]:
        component = self.component.lower()
        settings = rf"{DATA}\data" if self.inner else DATA
        constants = {"VERSION": self.version, "DATA": settings}
        yield from _tool("BIN", f"configure-{component}", "configure", **constants)
        if self.component == "CLI":
            yield from _tool("BIN", "cloudhsm-cli", "cloudhsm-cli", **constants)
        else:
            yield "BIN", _LIBRARIES[self.component], "library.dll"
        if self.component == "JCE":
            yield "JAVA", f"cloudhsm-jce-{self.version}.jar", b"a stand-in, not a jar\n"
        settings_file = default_config.fresh_cfg(
            component, ca=rf"{DATA}\customerCA.crt", logs="C:\\Program Files\\Amazon\\CloudHSM\\"
        )
        yield "INNER" if self.inner else "DATA", f"cloudhsm-{component}.cfg", settings_file.encode()

    def _sdk3(self) -> Iterator[tuple[str, str, bytes | str]]:
        """Give what facts 3.3 lists, as far as there are stand-ins, and the service's program, whose name is made up."""
        yield from _tool("PROGRAMS", "configure", "configure3")
        for name in ("cloudhsm_mgmt_util", "cloudhsm_client"):
            yield from _tool("PROGRAMS", name, name)
            yield (
                "INNER",
                f"{name}.cfg",
                default_config.fresh_sdk3_cfg(f"{name}.cfg", etc=f"{DATA}\\").encode(),
            )
        yield "PROGRAMS", _SERVICE_PROGRAM, "service.exe"
        for name in ("client.crt", "client.key"):
            yield "DATA", name, b"a stand-in for what ships with SDK 3\n"


def _tool(directory: str, name: str, script: str, **constants: str) -> Iterator[tuple[str, str, bytes | str]]:
    yield directory, f"{name}.exe", "launcher.exe"
    yield directory, f"{name}.py", package_contents.program(script, "python.exe", **constants)


_CLI = Package("CLI", "5.18.0")
# Several sources, since in each the files have the vendor's names: what is odd in one is said by its name.
PACKAGES = (
    *(Package(component, version) for component in ("CLI", "PKCS11") for version in ("5.17.1", "5.17.2", "5.18.0")),
    Package("JCE", "5.18.0"),
    Package("KSP", "5.18.0"),
    Package("Client", "3.4.4"),
    replace(_CLI, source="refuses", refuses=True),
    replace(_CLI, source="reboot", reboot=True),
    replace(_CLI, source="another-product", component="PKCS11", file="CLI"),
    replace(_CLI, source="other-place", inner=False),
    replace(_CLI, source="forgets", keeps=False),
    replace(_CLI, source="four-numbers", shown="5.18.0.0"),
)  # fmt: skip
DAMAGED = replace(_CLI, source="damaged")


def make(python: root.Python, folder: Path) -> None:
    """Put all packages into the folder `packages` of a scratch folder: SOURCE/Windows/FILE, SOURCE/SHA256SUMS."""
    goal, work = folder / "packages", folder / "work"
    work.mkdir()
    for name in ("launcher.c", "service.c"):
        (work / name).write_bytes((root.CHECKOUT / "tests/windows" / name).read_bytes())
    (work / "library.c").write_text("__declspec(dllexport) int C_GetFunctionList(void) { return 0x54; }\n")
    lines = [
        "cd /scratch/work",
        f"{_COMPILE} -o launcher.exe launcher.c",
        f"{_COMPILE} -o service.exe service.c",
        f"{_COMPILE} -shared -o library.dll library.c",
    ]
    for number, package in enumerate(PACKAGES):
        (goal / package.source / "Windows").mkdir(parents=True, exist_ok=True)
        lines += _commands(package, work, f"{number}")
    for each in (work, *goal.rglob("*"), goal):
        each.chmod(0o777)
    done = root.enter(python, ["sh", "-ec", "\n".join(lines)], folder, seconds=120)
    assert done.returncode == 0, done.stdout + done.stderr
    damaged = goal / DAMAGED.source / DAMAGED.path
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no package\n" * 1000)
    for source in goal.iterdir():
        sums = {
            path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(source.glob("*/*.msi"))
        }
        text = "".join(f"{digest}  {path.relative_to(source).as_posix()}\n" for path, digest in sums.items())
        (source / "SHA256SUMS").write_text(text)


def _commands(package: Package, work: Path, name: str) -> list[str]:
    """Write down what one package is made of, and return the shell's commands that make it."""
    components, changes = dict[str, str](), list[str]()
    for number, (directory, file, content) in enumerate(package.files()):
        key = f"c{number}"
        if package.keeps and file.endswith(".cfg"):
            changes.append(_KEEP.format(key))
        source = content if isinstance(content, str) else f"{name}-{number}"
        if isinstance(content, bytes):
            (work / source).write_bytes(content)
        components[key] = _COMPONENT.format(
            directory=directory, id=key, guid=_uuid(f"{directory} {file}"), name=quoteattr(file),
            source=quoteattr(source), more=_SERVICE if file == _SERVICE_PROGRAM else "",
        )  # fmt: skip
    text = _WXS.format(
        name=NAMES[package.component],
        version=package.shown or package.version,
        upgrade=_uuid(package.component),
        condition=_NEVER.format(name=NAMES[package.component]) if package.refuses else "",
        components="\n    ".join(components.values()),
        references="".join(f'<ComponentRef Id="{key}"/>' for key in components),
    )
    (work / f"{name}.wxs").write_text(text)
    msi = f"/scratch/packages/{package.source}/{package.path}"
    if package.reboot:
        changes.append(_REBOOT)
    return [
        f"wixl -a x64 -o {msi} {name}.wxs",
        *(f'msibuild {msi} -q "{_quoted(change)}"' for change in changes),
    ]


def _quoted(query: str) -> str:
    return query.replace("`", r"\`")


def _uuid(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"hsm-agent stand-in {text}"))
