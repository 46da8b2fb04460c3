"""What is loadable, by the host's own loader: a sound library, and every way in which it can be none."""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from agent.cloudhsm.paths import LINUX
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.timeouts import Timeouts
from agent.demo.package_contents import describe
from agent.hosts.local import local_host
from agent.steps.library import Jar, Library
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from agent.core.model import Finding

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("ldd") is None, reason="what ldd says is looked at on Linux"
)
LIB = "libcloudhsm_pkcs11.so"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def files_of(package: str, arch: str = "") -> dict[str, bytes]:
    made = describe(package, "5.18.0", arch=arch or ARCH[platform.machine()], interpreter="/bin/sh")
    return {path: file.data for path, file in made.files.items()}


def library(arch: str = "") -> bytes:
    return files_of("cloudhsm-pkcs11", arch)[f"/opt/cloudhsm/lib/{LIB}"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "client" / "lib").mkdir(parents=True)
    for each in (tmp_path / "client", tmp_path / "client" / "lib"):
        each.chmod(0o755)
    return tmp_path / "client" / "lib"


def look(folder: Path) -> Finding:
    layout = replace(LINUX, lib=str(folder))
    return Library("pkcs11", layout, "ldd", Timeouts(tool=10)).check(local_host())


def put(folder: Path, data: bytes, name: str = LIB, mode: int = 0o755) -> Path:
    (folder / name).write_bytes(data)
    (folder / name).chmod(mode)
    return folder / name


def test_a_sound_library_is_loadable_also_through_a_link(folder: Path) -> None:
    put(folder, library(), f"{LIB}.5.18")
    (folder / LIB).symlink_to(f"{LIB}.5.18")
    put(folder, b"an administrator's copy of nothing", f"{LIB}.bak")
    assert look(folder).met, look(folder).saw
    real = next(
        line.split()[2]
        for line in subprocess.check_output(["ldd", sys.executable], text=True).splitlines()
        if "=> /" in line
    )
    shutil.copy(real, folder / f"{LIB}.9")
    (folder / f"{LIB}.9").chmod(0o644)
    assert look(folder).met, look(folder).saw


OTHER = "arm64" if platform.machine() == "x86_64" else "amd64"


def anew(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


BREAKS: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "a text": lambda path: path.write_bytes(b"hello\n"),
    "a script": lambda path: path.write_bytes(b"#!/bin/sh\nexit 0\n"),
    "empty": lambda path: path.write_bytes(b""),
    "another processor's": lambda path: path.write_bytes(library(OTHER)),
    "cut in its header": lambda path: path.write_bytes(library()[:40]),
    "cut behind its header": lambda path: path.write_bytes(library()[:400]),
    "cut at its end": lambda path: path.write_bytes(library()[:-100]),
    "a header and zeros": lambda path: path.write_bytes(library()[:64] + bytes(5000)),
    "noise": lambda path: path.write_bytes(b"\x7fELF" + bytes(range(256)) * 9),
    "of 32 bits": lambda path: path.write_bytes(library()[:4] + b"\x01" + library()[5:]),
    "a dangling link": lambda path: anew(path, lambda new: new.symlink_to("nowhere")),
    "a circle": lambda path: anew(path, lambda new: new.symlink_to(new.name)),
    "a folder": lambda path: anew(path, Path.mkdir),
    "a FIFO": lambda path: anew(path, os.mkfifo),
    "for its owner alone": lambda path: path.chmod(0o700),
    "in a folder for root": lambda path: path.parent.chmod(0o700),
    "below a folder for root": lambda path: path.parent.parent.chmod(0o750),
    "renamed": lambda path: path.rename(path.with_name("pkcs11.so")),
    "one of two": lambda path: path.with_name(f"{LIB}.1").write_bytes(b""),
}


@pytest.mark.parametrize("how", BREAKS)
def test_what_cannot_be_loaded_is_not_met(folder: Path, how: str) -> None:
    path = put(folder, library())
    assert look(folder).met
    BREAKS[how](path)
    found = look(folder)
    assert not found.met, found.saw
    assert (found.code, found.want) == ("library-unloadable", "loadable")
    assert found.saw
    assert found.hint


GOOD = "\tlinux-vdso.so.1 =>  (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"


@pytest.mark.parametrize(
    ("done", "met"),
    [
        (CommandResult(0, GOOD, ""), True),
        (CommandResult(0, GOOD, "ldd: warning: you do not have execution permission for `x'\n"), True),
        (CommandResult(0, "\tstatically linked\n", ""), True),
        (CommandResult(1, GOOD, ""), False),
        (CommandResult(0, "", ""), False),
        (CommandResult(0, "\tnot a dynamic executable\n", ""), False),
        (CommandResult(1, "", "ldd: exited with unknown exit code (135)\n"), False),
        (CommandResult(0, GOOD + "\tlibssl.so.99 => not found\n", ""), False),
        (
            CommandResult(
                0, "/x.so: /lib/libc.so.6: version `GLIBC_9' not found (required by /x.so)\n" + GOOD, ""
            ),
            False,
        ),
        (CommandResult(0, GOOD + "undefined symbol: SSL_new\t(/x.so)\n", ""), False),
        (CommandResult(139, GOOD, ""), False),
        (CommandResult(127, "", "ldd: No such file or directory\n"), False),
        (CommandResult(None, GOOD, ""), False),
    ],
)
def test_exit_status_and_every_line_count(done: CommandResult, met: bool) -> None:
    memory = Memory({f"/opt/cloudhsm/lib/{LIB}": b""}, programs={"ldd": done})
    found = Library("pkcs11", LINUX, "ldd", Timeouts()).check(memory)
    assert (found.met, found.code) == (met, None if met else "library-unloadable")


def jar() -> bytes:
    (data,) = (data for path, data in files_of("cloudhsm-jce").items() if path.endswith(".jar"))
    return data


def other_jar() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as made:
        made.writestr("com/example/Provider.class", b"")
    return written.getvalue()


def jar_of(*entries: tuple[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in entries:
            made.writestr(name, data)
    return written.getvalue()


def test_every_part_of_a_jar_counts(folder: Path) -> None:
    """A provider is signed: of one that was changed anywhere, Java takes nothing."""
    classes = [f"com/amazonaws/cloudhsm/jce/provider/{name}.class" for name in ("CloudHsmProvider", "Other")]
    parts = [(name, os.urandom(2000)) for name in (*classes, "META-INF/MANIFEST.MF", "META-INF/AMZN.SF")]
    data = jar_of(*parts)
    assert Jar(str(put(folder, data, "cloudhsm-jce-5.18.0.jar", 0o644).parent)).check(local_host()).met
    for _, content in parts:
        at = data.index(content[:200]) + 1000
        put(folder, data[:at] + bytes(20) + data[at + 20 :], "cloudhsm-jce-5.18.0.jar", 0o644)
        found = Jar(str(folder)).check(local_host())
        assert (found.met, found.code) == (False, "library-unloadable")
        assert "is damaged" in found.saw


def test_a_jar_that_unpacks_without_end_is_none(folder: Path) -> None:
    data = jar_of(("com/amazonaws/cloudhsm/jce/A.class", b"x"), ("bomb", bytes(2000)))
    at = data.rindex(b"PK\x01\x02") + 24  # what the directory says of the size of the last entry
    put(folder, data[:at] + b"\xf0\xff\xff\xff" + data[at + 4 :], "cloudhsm-jce-5.18.0.jar", 0o644)
    found = Jar(str(folder)).check(local_host())
    assert not found.met
    assert "more than any" in found.saw


def test_a_large_jar_does_not_outlive_the_run() -> None:
    path = f"{LINUX.jars}/cloudhsm-jce-5.18.0.jar"
    memory = Memory({path: jar_of(("com/amazonaws/cloudhsm/jce/A.class", bytes(50_000_000)))})
    for each in ("/opt", "/opt/cloudhsm", LINUX.jars):
        memory.place(str(each), kind="directory", mode=0o755)
    assert Jar(str(LINUX.jars)).check(memory).met
    memory.stopped = True
    with pytest.raises(AgentError) as caught:
        Jar(str(LINUX.jars)).check(memory)
    assert caught.value.code.name == "interrupted"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_java_cannot_unpack_is_no_jar(folder: Path, method: int) -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as made:
        made.writestr("com/amazonaws/cloudhsm/jce/A.class", b"x")
    put(folder, written.getvalue(), "cloudhsm-jce-5.18.0.jar", 0o644)
    found = Jar(str(folder)).check(local_host())
    assert not found.met
    assert "Java cannot unpack" in found.saw


@pytest.mark.parametrize("name", ["cloudhsm-jce-5.18.0.jar", "cloudhsm-5.18.0.jar"])
def test_the_jar_of_jce_is_whole_and_has_the_provider_in_it(folder: Path, name: str) -> None:
    def met() -> bool:
        return Jar(str(folder)).check(local_host()).met

    assert not met()
    path = put(folder, jar(), name, 0o644)
    put(folder, b"docs", "cloudhsm-jce-5.18.0-javadoc.jar")
    assert met()
    for data in (b"", b"a text", jar()[:-30], jar()[:-10], jar()[40:], other_jar(), bytes(5000)):
        path.write_bytes(data)
        assert not met(), data
    path.write_bytes(jar())
    path.chmod(0o640)
    assert not met()
    path.unlink()
    path.symlink_to("nowhere")
    assert not met()
    path.unlink()
    path.symlink_to(put(folder, jar(), "kept", 0o644))
    assert met()
