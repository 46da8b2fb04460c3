"""CPython for Linux, compiled from the tarballs of Debian's source packages, for glibc 2.17 and newer.

zig's compiler has the headers and symbols of that glibc: the distribution's compiler would bind the result to the
glibc of the machine that builds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING

from bundled import of_sources
from files import File, Files
from libraries import SERIES, Library, Lock, by_hash, download, locked
from selfcontained import NOT_NEEDED

if TYPE_CHECKING:
    from collections.abc import Mapping

# The processor of this machine comes first: its interpreter makes the bytecode of both, and the others need it to be
# compiled. With the number of each in an ELF header.
PROCESSORS = {"x86_64": 62, "aarch64": 183}
GLIBC = "2.17"
_PYTHON = f"python{SERIES}"  # the name of Debian's source package
LIBRARY = f"lib/{_PYTHON}/"
SOURCES = Path(__file__).with_name("sources.txt")
COMPILER = Lock(Path(__file__).with_name("compiler.txt"), SERIES, ("manylinux2014_x86_64",))
# by package: its licence, the licence file in its tarball, which must be distributed with the binary, and vendor and
# product as in vulnerability databases
_LICENCES = {
    "openssl": ("Apache-2.0", "LICENSE.txt", "openssl:openssl"),
    _PYTHON: ("PSF-2.0", "LICENSE", "python:python"),
    "zlib": ("Zlib", "LICENSE", "zlib:zlib"),
}
_TOOLS = ("make", "perl", "tar", "xz")
# Newest first: each release of Debian keeps its patch level; tarballs are chosen by hash.
_SUITES = ("sid", "forky", "trixie")
_OWN = "own"  # the folder of linked libraries; the result is in `made`
# Only what current TLS needs; nothing is loaded at run time.
_OPENSSL = (
    "no-shared", "no-module", "no-tests", "no-docs", "no-apps", "no-engine", "no-legacy", "no-quic", "no-comp",
    "no-srp", "no-idea", "no-mdc2", "no-seed", "no-camellia", "no-aria", "no-whirlpool", "no-rc4", "no-sm2", "no-sm3",
    "no-sm4", "no-cms", "no-ts", "no-ct", "no-cmp", "no-autoload-config",
)  # fmt: skip
_WANTED = (
    "_hashlib", "_socket", "_ssl", "fcntl", "pyexpat", "resource", "select", "syslog", "unicodedata", "zlib",
)  # fmt: skip
# Modules that need a library which is not compiled here. Only the demo uses one of them, ctypes; Debian's tarball of
# libffi has no configure script, and needs autotools and more.
_NOT_BUILT = (
    "_ctypes", "_tkinter", "_sqlite3", "_dbm", "_gdbm", "readline", "_curses", "_curses_panel", "_bz2", "_lzma",
    "_uuid",
)  # fmt: skip


def cpython(downloads: Path) -> dict[str, list[Library]]:
    """Compile CPython and its libraries for each processor; return CPython first, with all files, then the others.

    Takes minutes for each.
    """
    missing = [each for each in _TOOLS if shutil.which(each) is None]
    if missing:
        sys.exit(f"the build for Linux wants {', '.join(missing)}")
    downloads.mkdir(parents=True, exist_ok=True)
    tarballs = _tarballs(downloads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zig = _zig(downloads, folder)
        made: dict[str, list[Library]] = {}
        for processor in PROCESSORS:
            (folder / processor).mkdir()
            native = folder / next(iter(PROCESSORS)) / "made" / "bin" / f"python{SERIES}"
            made[processor] = _compiled(tarballs, folder / processor, zig, None if not made else native)
    return made


def _compiled(tarballs: Mapping[str, Path], folder: Path, zig: Path, native: Path | None) -> list[Library]:
    """Compile for the processor after which the folder is named; `native` is the interpreter of this machine's own."""
    environment = _compiler(zig, folder)
    for package, tarball in tarballs.items():
        (folder / package).mkdir()
        _run(["tar", "-xf", str(tarball), "--strip-components=1"], folder / package, environment)
    _zlib(folder / "zlib", folder, environment)
    _openssl(folder / "openssl", folder, environment)
    _python(folder / _PYTHON, folder, environment, native)
    # CPython's own build succeeds without the modules that it could not compile
    if native is None:
        program = folder / "made" / "bin" / f"python{SERIES}"
        _run([str(program), "-I", "-c", f"import {', '.join(_WANTED)}"], folder, environment)
    else:
        _require_same_modules(native.parents[1], folder / "made")
    files = _kept(folder / "made")
    inside = of_sources((folder / _PYTHON / "Misc" / "sbom.spdx.json").read_bytes())
    for package, (_, licence, _) in _LICENCES.items():
        files[f"LICENSE.{package}.txt"] = File((folder / package / licence).read_bytes())
    judge(files, PROCESSORS[folder.name])
    parts = [_library(wanted, sha256, files) for wanted, (sha256,) in locked(SOURCES).items()]
    return [*sorted(parts, key=lambda each: not each.files), *inside]


def _require_same_modules(native: Path, made: Path) -> None:
    """End the build where a module is missing that this machine's interpreter has: the other one cannot be asked."""
    ours, theirs = (
        {each.name.partition(".")[0] for each in (root / LIBRARY / "lib-dynload").glob("*.so")}
        for root in (native, made)
    )
    if ours != theirs:
        sys.exit(f"for {made.parent.name} these modules differ: {', '.join(sorted(ours ^ theirs))}")


def _library(wanted: str, sha256: str, files: Files) -> Library:
    package, _, version = wanted.partition("==")
    metadata = Message()
    metadata["Summary"] = f"{package} {version}, compiled from Debian's upstream tarball"
    licence, _, cpe = _LICENCES[package]
    metadata["License-Expression"] = licence
    if package == _PYTHON:
        return Library("python", version, metadata, (sha256,), files, "generic", cpe)
    return Library(package, version, metadata, (sha256,), {}, "generic", cpe)


def _tarballs(downloads: Path) -> dict[str, Path]:
    """Return them by package; apt fetches from Debian what the folder lacks, by hash."""
    wanted = {each: sha256 for each, (sha256,) in locked(SOURCES).items()}
    found = by_hash(downloads, "*.orig.tar.*z")
    absent = dict(each.split("==") for each, sha256 in wanted.items() if sha256 not in found)
    if absent:
        _fetch(downloads, absent)
        found = by_hash(downloads, "*.orig.tar.*z")
    missing = [each for each, sha256 in wanted.items() if sha256 not in found]
    if missing:
        sys.exit(
            f"Debian has moved on from {', '.join(missing)}, or cannot be reached: put the tarball, which Debian's"
            f" snapshots keep, into {downloads}, or take a newer one into {SOURCES.name}"
        )
    return {each.partition("==")[0]: found[sha256] for each, sha256 in wanted.items()}


def _fetch(downloads: Path, wanted: dict[str, str]) -> None:
    # with its own sources.list, since most machines have no deb-src of this Debian; apt checks Debian's signature
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        for each in ("lists/partial", "cache/archives/partial"):
            (state / each).mkdir(parents=True)
        rows = [f"deb-src {archive()} {suite} main\n" for suite in _SUITES]
        (state / "sources.list").write_text("".join(rows), encoding="utf-8")
        options = [
            "-q",
            f"-oDir::Etc::sourcelist={state / 'sources.list'}",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::State::lists={state / 'lists'}",
            f"-oDir::Cache={state / 'cache'}",
            "-oAPT::Sandbox::User=",
        ]
        subprocess.run(["apt-get", *options, "update"], check=False, timeout=300)
        for package, version in wanted.items():
            argv = ["apt-get", *options, "source", "--tar-only", "--download-only"]
            for each in _versions(package, version, options):
                subprocess.run([*argv, f"{package}={each}"], cwd=downloads, check=False, timeout=300)


def _versions(package: str, upstream: str, options: list[str]) -> list[str]:
    """Return Debian's versions of a source package that have this upstream version."""
    asked = ["apt-cache", *options, "madison", package]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60).stdout
    rows = [[cell.strip() for cell in line.split("|")] for line in shown.splitlines()]
    found = [row[1] for row in rows if len(row) == 3 and row[2].endswith("Sources")]
    # zlib 1.3.2 is 1:1.3.dfsg+really1.3.2-4 there
    wanted = re.compile(rf"(^|[:y]){re.escape(upstream)}([-+~]|$)")
    return list(dict.fromkeys(each for each in found if wanted.search(each)))


def archive() -> str:
    """Return the URL of Debian that this machine's apt uses. Ends the build if there is none."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60).stdout
    for line in shown.splitlines():
        uri, _, suite = line.partition(" ")
        if uri.rstrip("/").endswith("/debian") and "-" not in suite:
            return uri
    sys.exit(
        f"this machine's apt has no archive of Debian: put the tarballs of {SOURCES.name} where they are kept"
    )


def _zig(downloads: Path, folder: Path) -> Path:
    """Unpack the compiler, and return its program."""
    ((wanted, (sha256,)),) = locked(COMPILER.path).items()
    if sha256 not in by_hash(downloads, "*.whl"):
        download(downloads, COMPILER)
    found = by_hash(downloads, "*.whl").get(sha256)
    if found is None:
        sys.exit(f"the index has no file with the hash of {COMPILER.path.name} for {wanted}")
    with zipfile.ZipFile(found) as wheel:
        wheel.extractall(folder / "zig")
    zig = folder / "zig" / "ziglang" / "zig"
    zig.chmod(0o755)
    return zig


def _compiler(zig: Path, folder: Path) -> dict[str, str]:
    """Return an environment in which `make` finds the compiler under the names of compiler tools."""
    # keep the path of this folder, and a warning about __DATE__, out of the result
    words = f"cc -target {folder.name}-linux-gnu.{GLIBC} -Wno-date-time -ffile-prefix-map={folder}=."
    (folder / "bin").mkdir()
    for name, tool in (("cc", words), ("ar", "ar"), ("ranlib", "ranlib")):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {zig} {tool} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return {
        # by name, which OpenSSL records as well
        **{name: name.lower() for name in ("CC", "AR", "RANLIB")},
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": "0",
        "ZIG_GLOBAL_CACHE_DIR": str(folder / "cache"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "cache"),
    }


# Installed with DESTDIR, since OpenSSL records its prefix and loads modules from there: it must belong to root.


def _zlib(source: Path, folder: Path, environment: Mapping[str, str]) -> None:
    _run(["./configure", "--static", f"--prefix=/{_OWN}"], source, {**environment, "CFLAGS": "-O2 -fPIC"})
    _make(["libz.a"], source, environment)
    _make(["install", f"DESTDIR={folder}"], source, environment)


def _openssl(source: Path, folder: Path, environment: Mapping[str, str]) -> None:
    # certificates are where Debian's and Red Hat's links lead; the openssl.cnf there is not read
    words = [f"--prefix=/{_OWN}", "--libdir=lib", "--openssldir=/etc/ssl", "-O2", "-fPIC"]
    _run(["./Configure", f"linux-{folder.name}", *_OPENSSL, *words], source, environment)
    _make(["build_libs"], source, environment)
    _make(["install_dev", f"DESTDIR={folder}"], source, environment)


def _python(source: Path, folder: Path, environment: Mapping[str, str], native: Path | None) -> None:
    own = folder / _OWN
    settings = {
        **environment,
        **{f"py_cv_module_{each}": "n/a" for each in _NOT_BUILT},
        "PKG_CONFIG": "false",  # it would report this machine's libraries
        "CPPFLAGS": f"-I{own}/include",
        "LDFLAGS": f"-L{own}/lib -s",
        "ZLIB_CFLAGS": f"-I{own}/include",
        "ZLIB_LIBS": f"-L{own}/lib -lz",
    }
    words = ["--without-ensurepip", "--disable-test-modules", "--without-doc-strings"]
    if native is not None:
        host = f"{folder.name}-linux-gnu"
        words += [
            f"--build={next(iter(PROCESSORS))}-linux-gnu",
            f"--host={host}",
            f"--with-build-python={native}",
        ]
        # what its configure script cannot try here; of readelf it wants that there is one, and does not run it
        settings |= {"ac_cv_file__dev_ptmx": "yes", "READELF": "true"}
        settings |= {"ac_cv_file__dev_ptc": "no", "ac_cv_buggy_getaddrinfo": "no"}
    _run(["./configure", "--prefix=/", f"--with-openssl={own}", *words], source, settings)
    _make([], source, environment)
    _make(["install", f"DESTDIR={folder / 'made'}"], source, environment)


def _make(words: list[str], source: Path, environment: Mapping[str, str]) -> None:
    _run(["make", "-s", f"-j{os.cpu_count() or 1}", *words], source, environment)


def _run(argv: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        argv, cwd=folder, env=environment, check=False, timeout=1800, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n{' '.join(argv)} in {folder.name} ended with {done.returncode}")


def _kept(root: Path) -> Files:
    files = {"bin/python3": File((root / "bin" / f"python{SERIES}").read_bytes(), 0o755)}
    for path in sorted((root / LIBRARY).rglob("*")):
        name = path.relative_to(root / LIBRARY).as_posix()
        if path.suffix in (".py", ".so") and not NOT_NEEDED.match(name):
            files[LIBRARY + name] = File(path.read_bytes())
    return files


def judge(files: Files, processor: int) -> None:
    """End the build if a file needs a newer glibc than is promised, or is for another processor."""
    promised = tuple(map(int, GLIBC.split(".")))
    for path, file in files.items():
        if file.data[:4] != b"\x7fELF":
            continue
        if int.from_bytes(file.data[18:20], "little") != processor:
            sys.exit(f"{path} is for another processor")
        wanted = re.findall(rb"\0GLIBC_([0-9.]+)(?=\0)", file.data)
        newest = max((tuple(map(int, each.decode().split("."))) for each in wanted), default=())
        if newest > promised:
            sys.exit(f"{path} wants glibc {'.'.join(map(str, newest))}, and {GLIBC} is promised")
