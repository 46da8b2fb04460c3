"""The build for Linux without its compilation: what it refuses, what is laid out, how that starts.

To compile takes minutes and Debian's tarballs, so that is done for a release: packaging/README.md says what was seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.building import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PACKAGING = ROOT / "packaging"
# an interpreter for the place of the compiled one: this machine's, without what is installed in its environment
LAY_OUT = """
import sys
from email.message import Message
from pathlib import Path
from files import File, lay_out
from libraries import CURRENT, Library, libraries
from linux import folder
from tree import tree
root, wheels, to = map(Path, sys.argv[1:])
files = {
    "bin/python3": File(f'#!/bin/sh\\nexec {Path(sys.executable).resolve()} "$@"\\n'.encode(), 0o755),
    "lib/python3.13/somewhere/deep.py": File(b"said = 1\\n"),
    "lib/python3.13/lib-dynload/fast.so": File(b"binary"),
}
python = Library("python3.13", "3.13.5", Message(), (), files)
lay_out(folder(tree(root, libraries(wheels)), python, python), to, 0)
"""
JUDGE = """
import sys
from cpython import judge
from files import File
glibc, processor = sys.argv[1:]
elf = b"\\x7fELF" + bytes(14) + bytes([int(processor), 0]) + b"\\0GLIBC_2.2.5\\0GLIBC_" + glibc.encode() + b"\\0end"
judge({"other": File(b"\\0GLIBC_9.9\\0"), "bin/python3": File(elf)}, 62)
"""


def script(text: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *words], env={**os.environ, "PYTHONPATH": str(PACKAGING)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a place with blanks") / "hsm-agent"
    done = script(LAY_OUT, str(ROOT), str(ROOT / "build" / "wheels"), str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def everything(folder: Path) -> dict[str, int]:
    return {str(each): each.lstat().st_mtime_ns for each in folder.rglob("*")}


def test_it_runs_where_it_lies_and_writes_nothing_there(laid_out: Path, tmp_path: Path) -> None:
    before = everything(laid_out)
    link = tmp_path / "hsm-agent"
    link.symlink_to(laid_out / "hsm-agent")
    for program in (link, laid_out / "hsm-agent"):
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.stderr, done.returncode) == (f"hsm-agent {__version__}\n", "", 0)
    # neither variables nor the folder that it is started in have a say in what is imported
    (tmp_path / "agent.py").write_text("raise SystemExit(99)")
    facts = subprocess.run(
        [link, "facts", "--output", "json"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert facts.returncode in (0, 10), facts.stderr
    assert "host" in json.loads(facts.stdout)
    assert everything(laid_out) == before


def test_the_standard_library_is_one_file_of_bytecode_and_ours_lies_beside_its_sources(
    laid_out: Path,
) -> None:
    with zipfile.ZipFile(laid_out / "python" / "lib" / "python313.zip") as library:
        assert library.namelist() == ["somewhere/deep.pyc"]
    files = {str(each.relative_to(laid_out)) for each in laid_out.rglob("*") if each.is_file()}
    assert {each for each in files if each.startswith("python/")} == {
        "python/bin/python3",
        "python/lib/python313.zip",
        "python/lib/python3.13/lib-dynload/fast.so",
    }
    assert {"agent/planner.py", "agent/__pycache__/planner.cpython-313.pyc", "start.py"} <= files


@pytest.mark.parametrize(("newest", "status"), [("2.17", 0), ("2.18", 1), ("2.4", 0), ("3.0", 1)])
def test_what_wants_a_newer_glibc_than_is_promised_ends_the_build(newest: str, status: int) -> None:
    done = script(JUDGE, newest, "62")
    said = f"bin/python3 wants glibc {newest}, and 2.17 is promised\n" if status else ""
    assert (done.returncode, done.stderr) == (status, said)


def test_what_is_for_another_processor_ends_the_build() -> None:
    done = script(JUDGE, "2.17", "183")
    assert (done.returncode, done.stderr) == (1, "bin/python3 is for another processor\n")


def test_a_tarball_that_debian_has_no_more_is_named_with_where_it_is_kept(tmp_path: Path) -> None:
    # where this machine has Debian from is where the tarballs come from, whatever else it has there
    targets = "http://mirror.example/corp/debian-security/ trixie-security\nhttp://mirror.example/corp/debian/ trixie\n"
    apt = {
        "apt-get": f'echo "$@" >>"$0.asked"; cat "$(dirname "$0")"/*/sources.list >>"$0.asked" 2>/dev/null\ncase "$*" in indextargets*) printf "%s" "{targets}" ;; esac',
        "apt-cache": "printf 'zlib | 1:1.3.dfsg+really1.3.2-4 | x Sources\\nzlib | 1:1.3.1-1 | x Sources\\n'",
    }
    for name, text in apt.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    sources = tmp_path / "build" / "sources"
    sources.mkdir(parents=True)
    (sources / "zlib_1.3.2.orig.tar.gz").write_bytes(b"not what was locked")
    argv = [sys.executable, str(PACKAGING / "build.py"), "--linux", "--out", str(tmp_path / "dist")]
    done = subprocess.run(
        [*argv, "--wheels", str(sources.with_name("wheels"))],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Debian has moved on from openssl==" in done.stderr
    assert all(f"{each}==" in done.stderr for each in ("python3.13", "zlib"))
    assert "which Debian's snapshots keep" in done.stderr
    asked = (tmp_path / "apt-get.asked").read_text()
    assert " update" in asked
    # of its versions there, the one that is made of the sources that are wanted
    assert "--download-only zlib=1:1.3.dfsg+really1.3.2-4" in asked
    assert "1.3.1-1" not in asked
    assert list((tmp_path / "dist").iterdir()) == []


def test_without_an_archive_of_debian_it_says_where_the_tarballs_go(tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho http://mirror.example/ubuntu noble\n")
    (tmp_path / "apt-get").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", "from cpython import archive; archive()"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGING), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "this machine's apt has no archive of Debian" in done.stderr
