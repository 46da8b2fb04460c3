"""What a host does with the build for Windows: run it where it lies, install, upgrade, refuse and remove it.

Run by `test_build.py` with the Python of Windows inside Wine, where exit statuses have all their bits. What is built
lies in `Z:\\scratch\\0.1.0` and `0.1.1`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

assert sys.platform == "win32"

import winreg  # noqa: E402

from agent.config.desired import Desired, to_json  # noqa: E402
from agent.hosts.local import local_host  # noqa: E402
from agent.hosts.windows import event_source as source_of_events  # noqa: E402
from agent.remote.protocol import RECORD  # noqa: E402
from agent.windows import scheduler  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILT = Path("Z:\\scratch")
OLDER, NEWER = "0.1.0", "0.1.1"
PROGRAMS = Path("C:\\Program Files\\hsm-agent")
STATE = Path("C:\\ProgramData\\hsm-agent\\state")
# says how it was started, and ends as it is told
MIRROR = """
import json, pathlib, sys
said = {
    "words": sys.argv[1:], "path": sys.path, "isolated": sys.flags.isolated, "inspect": sys.flags.inspect,
    "stdin": sys.stdin is not None and sys.stdin.read(), "encoding": sys.stdout and sys.stdout.encoding,
}
pathlib.Path(sys.argv[2]).write_text(json.dumps(said), encoding="utf-8")
sys.exit(int(sys.argv[1]))
"""


def only(version: str, pattern: str) -> Path:
    (found,) = (BUILT / version).glob(pattern)
    return found


def names_below(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())


def differing(folder: Path, version: str) -> list[str]:
    """The files that are not those of the zip, byte for byte, on either side."""
    with zipfile.ZipFile(only(version, "*.zip")) as packed:
        wanted = {name.partition("/")[2]: packed.read(name) for name in packed.namelist()}
    there = set(names_below(folder))
    return sorted(
        {path for path in there & set(wanted) if (folder / path).read_bytes() != wanted[path]}
        | there ^ set(wanted)
    )


def ask(program: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *words], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=60,
        check=False, env={**os.environ, **more},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the zip under a name that is hard to say."""
    place = tmp_path_factory.mktemp("build") / "Ägent für 日本 (x86)"
    with zipfile.ZipFile(only(OLDER, "*.zip")) as packed:
        packed.extractall(place)
    (top,) = place.iterdir()
    return top


@pytest.fixture(scope="module")
def mirror(folder: Path) -> Path:
    """The same launcher and interpreter with another agent."""
    place = folder.with_name("another agent")
    shutil.copytree(folder / "python", place / "python")
    shutil.copy(folder / "hsm-agent.exe", place)
    (place / "agent").mkdir()
    (place / "agent" / "__main__.py").write_text(MIRROR, encoding="utf-8")
    return place / "hsm-agent.exe"


def test_it_runs_where_it_lies_and_writes_nothing_there(folder: Path) -> None:
    program = folder / "hsm-agent.exe"
    before = names_below(folder)
    for words, line in (("--version", f"hsm-agent {OLDER}"), ("--help", "Usage: hsm-agent")):
        done = ask(program, words)
        assert (done.returncode, done.stderr) == (0, "")
        assert line in done.stdout
    assert names_below(folder) == before


def test_the_folder_of_the_search_path_offers_nothing_else(folder: Path) -> None:
    """Other programs look for their DLLs there, too, and shells for programs."""
    assert [each.name for each in folder.iterdir() if each.suffix in (".exe", ".dll", ".pyd", ".com")] == [
        "hsm-agent.exe"
    ]


def test_wrong_words_are_the_agents_own_failure_in_utf_8(folder: Path) -> None:
    done = ask(folder / "hsm-agent.exe", "explain", 'ü日 * "é" \\')
    assert (done.returncode, done.stdout) == (2, "")
    assert 'there is no code `ü日 * "é" \\`' in done.stderr


@pytest.mark.parametrize("status", [0, 1, 41, 3010, 0x40010004])
def test_words_and_status_pass_through(mirror: Path, tmp_path: Path, status: int) -> None:
    told = tmp_path / "said.json"
    words = [
        str(status),
        str(told),
        "",
        "a b",
        '"',
        "\\",
        'c:\\d\\"',
        "*",
        "?.py",
        "-c",
        "-I",
        "日本 ü",
        "%PATH%",
        "a\tb\nc",
    ]
    done = ask(mirror, *words)
    assert (done.returncode, done.stderr) == (status, "")
    assert json.loads(told.read_text(encoding="utf-8"))["words"] == words


def test_nothing_around_it_counts(mirror: Path, tmp_path: Path) -> None:
    told = tmp_path / "said.json"
    (tmp_path / "json.py").write_text("raise SystemExit('of the current folder')\n")
    done = subprocess.run(
        [str(mirror), "0", str(told)], cwd=tmp_path, input="", capture_output=True, encoding="utf-8", timeout=60, check=False,
        env={
            **os.environ, "PYTHONHOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "PYTHONINSPECT": "1",
            "PYTHONSTARTUP": str(tmp_path / "json.py"), "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0",
        },
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    python = mirror.parent / "python"
    assert json.loads(told.read_text(encoding="utf-8")) == {
        "words": ["0", str(told)], "isolated": 1, "inspect": 0, "stdin": "", "encoding": "utf-8",
        "path": [str(python / "python313.zip"), str(python), str(mirror.parent)],
    }  # fmt: skip


def test_it_needs_no_console_and_no_handles(mirror: Path, folder: Path, tmp_path: Path) -> None:
    told = tmp_path / "said.json"
    detached = subprocess.DETACHED_PROCESS
    for program, words in ((mirror, ["7", str(told)]), (folder / "hsm-agent.exe", ["explain"])):
        ended = subprocess.run([str(program), *words], creationflags=detached, timeout=60, check=False)
        assert ended.returncode == (7 if program == mirror else 0)
    assert told.exists()


def test_it_serves_a_request_of_a_roll_out(folder: Path) -> None:
    """The way `landing.ps1` starts it: one word, one request, and bytes that nothing translates."""
    request = {
        "tree": {"sha256": "f00", "keep": True}, "command": "plan", "request": "RUN/win-1/1", "again": False,
        "desired": to_json(Desired(hsm_ip=("127.0.0.77",))), "resumed": False, "seconds": 60.0,
    }  # fmt: skip
    done = subprocess.run(
        [str(folder / "hsm-agent.exe"), "far-end"], input=json.dumps(request).encode() + b"\n", capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    said = [json.loads(line[1:]) for line in done.stdout.split(b"\n")[:-1] if line[:1] == RECORD]
    assert [each["event"] for each in said if each["event"] != "at"] == ["hello", "report"]
    assert said[-1]["report"]["request"] == "RUN/win-1/1"
    assert b"\r" not in done.stdout


def msiexec(*words: str) -> int:
    argv = ["msiexec", *words, "/qn", "/norestart"]
    return subprocess.run(argv, timeout=120, check=False).returncode


def installed() -> list[tuple[str, str]]:
    """The name and version of every entry of ours in the list of installed programs."""
    found = []
    place = "SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Uninstall"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place, 0, winreg.KEY_READ | winreg.KEY_WOW64_64KEY) as top:
        for number in range(winreg.QueryInfoKey(top)[0]):
            with winreg.OpenKey(top, winreg.EnumKey(top, number)) as key:
                name, version = (
                    winreg.QueryValueEx(key, each)[0] for each in ("DisplayName", "DisplayVersion")
                )
                found += [(name, version)] if name == "hsm-agent" else []
    return found


def search_path() -> list[str]:
    """The PATH that whoever logs in next gets from the system."""
    place = "SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Environment"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
        return [each.rstrip("\\") for each in winreg.QueryValueEx(key, "PATH")[0].split(";")]


@pytest.fixture(scope="module")
def host() -> Iterator[None]:
    """A host with a report of an earlier run, onto which the older one was installed."""
    STATE.mkdir(parents=True)
    (STATE / "report.json").write_text("{}")
    assert msiexec("/i", str(only(OLDER, "*.msi"))) == 0
    yield
    assert search_path().count(str(PROGRAMS)) == 0


def test_the_package_puts_there_what_the_zip_holds(host: None) -> None:
    assert differing(PROGRAMS, OLDER) == []
    assert installed() == [("hsm-agent", OLDER)]


def test_it_is_found_by_its_name(host: None) -> None:
    found = shutil.which("hsm-agent", path=";".join(search_path()))
    assert found is not None
    assert ask(Path(found), "--version").stdout == f"hsm-agent {OLDER}\n"


def test_the_same_again_is_fine(host: None) -> None:
    assert msiexec("/i", str(only(OLDER, "*.msi"))) == 0
    assert installed() == [("hsm-agent", OLDER)]


def scheduled() -> tuple[str, ...]:
    here = local_host()
    assert here.system.tasks is not None
    return here.list_dir(here.system.tasks.registered)


def event_source() -> bool:
    return local_host().registry(rf"HKLM\{source_of_events.KEY}") is not None


def test_a_newer_one_takes_its_place(host: None) -> None:
    assert msiexec("/i", str(only(NEWER, "*.msi"))) == 0
    assert installed() == [("hsm-agent", NEWER)]
    assert differing(PROGRAMS, NEWER) == []
    assert ask(PROGRAMS / "hsm-agent.exe", "--version").stdout == f"hsm-agent {NEWER}\n"
    assert search_path().count(str(PROGRAMS)) == 1


def test_an_older_one_is_refused(host: None) -> None:
    assert msiexec("/i", str(only(OLDER, "*.msi"))) == 1603
    assert installed() == [("hsm-agent", NEWER)]
    assert ask(PROGRAMS / "hsm-agent.exe", "--version").stdout == f"hsm-agent {NEWER}\n"


def test_taken_off_it_leaves_its_state_alone_and_nothing_that_would_call_it(
    host: None, tmp_path: Path
) -> None:
    source_of_events.open_source()
    assert event_source()
    assert [notice.code for notice in scheduler.ensure_daily_verify(local_host())] == ["scheduled"]
    brought = PROGRAMS / "agent" / "templates" / "windows" / "hsm-agent-verify.xml"
    (tmp_path / "task.xml").write_bytes(brought.read_text(encoding="utf-8").encode("utf-16"))
    argv = ["schtasks", "/create", "/tn", scheduler.FIRST_BOOT, "/xml", str(tmp_path / "task.xml")]
    subprocess.run(argv, check=True, timeout=60, capture_output=True)
    assert scheduled() == (scheduler.FIRST_BOOT, scheduler.VERIFY)
    assert msiexec("/x", str(only(NEWER, "*.msi"))) == 0
    assert installed() == []
    assert not PROGRAMS.exists()
    assert (scheduled(), event_source()) == ((), False)
    assert (STATE / "report.json").read_text() == "{}"
