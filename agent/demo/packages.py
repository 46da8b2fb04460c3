"""Stand-in client packages: made by the real dpkg-deb and rpmbuild, in a mirror with the vendor's layout."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from agent.demo.package_contents import FAULTS, describe, with_fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.demo.package_contents import PackageContents

EPOCH = 1_767_225_600  # 2026-01-01, the time of every file and package: the same input gives the same bytes
LIMIT_SECONDS = 300.0
_MEBIBYTE = 1024 * 1024


class BuildError(Exception):
    """A package tool is missing or failed; the text is its own message."""


def build(
    mirror: Path,
    path: str,
    package: str,
    version: str,
    *,
    interpreter: str = "/usr/bin/python3",
    fault: str = "",
    padding_mb: int = 0,
) -> str:
    """Build one stand-in package at `mirror`/`path` and return its SHA-256 in hex.

    `path` is as the vendor names it, such as `Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb`,
    `Amzn2023/cloudhsm-cli-5.18.0-1.amzn2023.x86_64.rpm` or a `latest` name; format, processor and rpm suffix
    are taken from it. `package` is its own name, `version` is `5.18.0` or `5.18.0-1`. `interpreter` is the
    Python of the host it will be installed on. `padding_mb` makes it as large as a real one. Safe to call
    from several threads for several paths.
    """
    name = Path(path).name
    if fault not in FAULTS:
        raise ValueError(f"unknown fault {fault}, known: {' '.join(FAULTS)}")
    number, _, release = version.partition("-")
    target = mirror / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as folder:
        work = Path(folder)
        if name.endswith(".deb"):
            arch = name[: -len(".deb")].rsplit("_", 1)[-1]
            wanted = describe(
                package, number, arch=arch, interpreter=interpreter, release=release or "1", deb=True
            )
            built = _deb(with_fault(wanted, fault), work, padding_mb)
        elif name.endswith(".rpm"):
            suffix, arch = name[: -len(".rpm")].rsplit(".", 2)[-2:]
            release = f"{release or '1'}.{suffix}"
            wanted = describe(package, number, arch=arch, interpreter=interpreter, release=release, deb=False)
            built = _rpm(with_fault(wanted, fault), work, padding_mb)
        else:
            raise ValueError(f"neither .deb nor .rpm: {path}")
        built.chmod(0o644)
        built.replace(target)
    digest = hashlib.sha256()
    with target.open("rb") as file:
        while block := file.read(_MEBIBYTE):
            digest.update(block)
    return digest.hexdigest()


def install(root: Path, package: PackageContents) -> None:
    """Write a package's files below `root`, without its scripts: for tests of the stand-ins themselves."""
    _lay_out(root, package, 0)


def _lay_out(root: Path, package: PackageContents, padding_mb: int) -> None:
    for directory in package.directories:
        (root / directory[1:]).mkdir(parents=True, exist_ok=True)
    for path, file in package.files.items():
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
        target.chmod(file.mode)
    if padding_mb:
        with (root / _padding(package)[1:]).open("wb") as padding:
            for number in range(padding_mb):
                padding.write(random.Random(number).randbytes(_MEBIBYTE))  # noqa: S311, the same every time
    for folder, _, names in os.walk(root):
        for name in (*names, "."):
            os.utime(Path(folder) / name, (EPOCH, EPOCH))


def _padding(package: PackageContents) -> str:
    return f"/opt/cloudhsm/lib/.{package.name}.padding"


def _deb(package: PackageContents, work: Path, padding_mb: int) -> Path:
    tree, built = work / "tree", work / "built.deb"
    tree.mkdir(mode=0o755)
    _lay_out(tree, package, padding_mb)
    control = tree / "DEBIAN"
    control.mkdir(mode=0o755)
    depends = ", ".join(f"{name} (>= {least})" for name, least in package.needs)
    fields = {
        "Package": package.name,
        "Version": f"{package.version}-{package.release}",
        "Architecture": package.arch,
        "Maintainer": "hsm-agent lab <lab@example.invalid>",
        "Section": "utils",
        "Priority": "optional",
        "Depends": depends,
        "Conflicts": ", ".join(package.conflicts),
        "Description": "stand-in for the AWS CloudHSM client, for demonstration and test",
    }
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items() if value))
    scripts = {"preinst": package.before, "postinst": package.after, "prerm": package.before_removal}
    for name, body in scripts.items():
        if body:
            (control / name).write_text(f"#!/bin/sh\nset -e\n{body}")
            (control / name).chmod(0o755)
    for file in (control, *control.iterdir()):
        os.utime(file, (EPOCH, EPOCH))
    # no compression: fast, and the size is predictable
    _run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(built)])
    return built


def _rpm(package: PackageContents, work: Path, padding_mb: int) -> Path:
    tree = work / "tree"
    tree.mkdir(mode=0o755)
    _lay_out(tree, package, padding_mb)
    requires = "".join(f"Requires: {name} >= {least}\n" for name, least in package.needs)
    conflicts = "".join(f"Conflicts: {name}\n" for name in package.conflicts)
    listed = [f'%dir %attr(0755,root,root) "{path}"' for path in package.directories]
    listed += [f'%attr({file.mode:04o},root,root) "{path}"' for path, file in package.files.items()]
    if padding_mb:
        listed.append(f'%attr(0644,root,root) "{_padding(package)}"')
    scripts = {"%pre": package.before, "%post": package.after, "%preun": package.before_removal}
    spec = work / "package.spec"
    spec.write_text(
        f"Name: {package.name}\nVersion: {package.version}\nRelease: {package.release}\n"
        "Summary: stand-in for the AWS CloudHSM client, for demonstration and test\nLicense: test\n"
        f"AutoReqProv: no\n{requires}{conflicts}"
        "%global debug_package %{nil}\n%global __os_install_post %{nil}\n%global _build_id_links none\n"
        "%global _binary_payload w1.gzdio\n%global use_source_date_epoch_as_buildtime 1\n"
        "%global clamp_mtime_to_source_date_epoch 1\n%global _buildhost lab\n"
        f"%description\nstand-in\n%install\nmkdir -p %{{buildroot}}\ncp -a {tree}/. %{{buildroot}}/\n"
        + "".join(f"{name}\n{_escaped(body)}" for name, body in scripts.items() if body)
        + "%files\n"
        + "\n".join(listed)
        + "\n"
    )
    defines = {"_topdir": str(work / "rpm"), "_dbpath": str(work / "db")}
    argv = ["rpmbuild", "-bb", "--quiet", "--target", package.arch]
    for key, value in defines.items():
        argv += ["--define", f"{key} {value}"]
    _run([*argv, str(spec)])
    return next((work / "rpm" / "RPMS").rglob("*.rpm"))


def _escaped(script: str) -> str:
    return script.replace("%", "%%")


def _run(argv: Sequence[str]) -> None:
    if shutil.which(argv[0]) is None:
        raise BuildError(f"{argv[0]} is not installed here")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C"}
    done = subprocess.run(argv, capture_output=True, check=False, timeout=LIMIT_SECONDS, env=environment)
    if done.returncode != 0:
        raise BuildError(f"{argv[0]}: {done.stderr.decode(errors='replace')[-2000:]}")
