"""`packaging/bootstrap` as far as it runs without a network: what it refuses, and which Python it takes.

Programs of the machine are replaced by scripts on a path of their own, which write down how they were called.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# what the script itself needs of the machine
NEEDED = (
    "sh",
    "dirname",
    "cat",
    "cksum",
    "getconf",
    "stat",
    "id",
    "env",
    "find",
    "chown",
    "rm",
    "mkdir",
    "chmod",
    "sort",
    "grep",
    "tr",
)
SAID = '#!/bin/sh\necho "${0##*/} $*" >>"$CALLS"\n'
# a Python that can make an environment, in which each call is written down too
PYTHON = """#!/bin/sh
echo "${0##*/} $*" >>"$CALLS"
case "$*" in
    --version) echo "Python VERSION" ;;
    *version_info*) STATUS ;;
    *"-m venv"*) mkdir -p .venv/bin; cat "$0" >.venv/bin/python; chmod +x .venv/bin/python ;;
    *"-m pytest"*) echo "bytecode: ${PYTHONDONTWRITEBYTECODE-kept}" >>"$CALLS" ;;
esac
"""


def tools() -> dict[str, tuple[str, str]]:
    """What tests call: program -> its packages on Debian and on Amazon Linux."""
    lines = (ROOT / "packaging" / "tools.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {program: (debian, amazon) for program, debian, amazon in rows}


class Machine:
    """A checkout and a path of made-up programs."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        (self.checkout / "packaging").mkdir(parents=True)
        shutil.copy(ROOT / "packaging" / "bootstrap", self.checkout / "packaging")
        shutil.copy(ROOT / "packaging" / "tools.txt", self.checkout / "packaging")
        shutil.copy(ROOT / "pyproject.toml", self.checkout)
        self.path = folder / "path"
        self.path.mkdir()
        self.calls = folder / "calls"
        for program in NEEDED:
            (self.path / program).symlink_to(str(shutil.which(program)))
        for program in tools():
            self.program(program, SAID)

    def program(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def python(self, name: str, version: str, *, new: bool) -> None:
        self.program(
            name, PYTHON.replace("VERSION", version).replace("STATUS", "exit 0" if new else "exit 1")
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        return subprocess.run(
            ["/bin/sh", "packaging/bootstrap", *arguments], cwd=self.checkout, capture_output=True, text=True, timeout=60,
            check=False,
            env={"PATH": str(self.path), "CALLS": str(self.calls), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip

    def called(self, word: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if word in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("arguments", [(), ("help",), ("install",)], ids=str)
def test_another_word_shows_the_usage(machine: Machine, arguments: tuple[str, ...]) -> None:
    done = machine.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: packaging/bootstrap demo|quick|check|test [ARGUMENT...]\n")
    assert "`hsm-agent demo`" in done.stderr
    assert machine.calls.read_text() == ""


PYTEST = "python -m pytest"
DISTRIBUTION = "--dist loadfile --no-loadscope-reorder"
PROCESSORS = os.cpu_count() or 1
QUICK = (
    "-m not slow --hypothesis-profile few"
    " tests/architecture/test_tree.py::test_the_checkers_have_nothing_to_say tests/unit tests/properties tests/golden "
)


@pytest.mark.parametrize(
    ("speed", "workers", "choice"),
    [
        ("quick", PROCESSORS, QUICK),
        ("check", PROCESSORS + 1, "--ignore tests/system --ignore tests/windows "),
        ("test", PROCESSORS + 1, ""),
    ],
)
def test_each_speed_passes_its_arguments_to_pytest(
    machine: Machine, speed: str, workers: int, choice: str
) -> None:
    machine.python("python3", "3.12.1", new=True)
    done = machine.run(speed, "-k", "nothing")
    assert done.returncode == 0, done.stderr
    assert machine.called("pytest") == [f"{PYTEST} -n {workers} {DISTRIBUTION} {choice}-k nothing"]
    assert machine.called("bytecode") == ["bytecode: kept"]
    assert [word for word in choice.split() if word.startswith("tests/") and not exists(word)] == []


def exists(name: str) -> bool:
    """Tell whether a file, or a test in it, is in the checkout."""
    file, _, test = name.partition("::")
    path = ROOT / file
    return path.exists() and (not test or f"def {test}(" in path.read_text())


def test_the_speeds_share_one_environment(machine: Machine) -> None:
    machine.python("python3", "3.12.1", new=True)
    assert machine.run("quick").returncode == 0
    assert (machine.run("test").returncode, machine.called("pip install")) == (0, [])


def test_the_first_python_that_is_new_enough_is_taken(machine: Machine) -> None:
    machine.python("python3", "3.6.8", new=False)
    machine.python("python3.11", "3.11.2", new=True)
    machine.python("python3.9", "3.9.2", new=True)
    done = machine.run("test", "-k", "nothing")
    assert done.returncode == 0, done.stderr
    assert "making .venv with Python 3.11.2" in done.stderr
    assert machine.called("-m venv") == ["python3.11 -m venv --clear .venv"]
    assert machine.called("pytest") == [f"{PYTEST} -n {PROCESSORS + 1} {DISTRIBUTION} -k nothing"]


def test_what_is_missing_is_installed_first_and_an_old_python_is_refused_by_its_version(
    machine: Machine,
) -> None:
    machine.python("python3", "3.6.8", new=False)
    manager = "apt-get" if Path("/usr/bin/apt-get").exists() else "dnf"
    machine.program(manager, SAID)
    machine.program("sudo", '#!/bin/sh\nexec "$@"\n')
    done = machine.run("demo")
    assert (done.returncode, done.stdout) == (11, "")
    assert done.stderr.splitlines()[-1] == (
        "bootstrap: Python 3.9 or newer with its venv module is needed; here is Python 3.6.8"
    )
    assert " install " in machine.called(manager)[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, without which nothing is installed for tests")
def test_for_tests_every_program_that_is_missing_is_installed_and_no_service_started(
    machine: Machine,
) -> None:
    machine.python("python3", "3.12.1", new=True)
    is_debian = Path("/usr/bin/apt-get").exists()
    manager = "apt-get" if is_debian else "dnf"
    policy = Path("/usr/sbin/policy-rc.d")
    before = policy.exists()
    # whatever a package wants to start, it asks this file first
    asked = 'case "$*" in *install*) "/usr/sbin/policy-rc.d" ssh start; echo "policy $?" >>"$CALLS" ;; esac\n'
    machine.program(manager, SAID + (asked if is_debian and not before else ""))
    for program in ("shellcheck", "createrepo_c", "lintian"):
        (machine.path / program).unlink()
    done = machine.run("test")
    assert done.returncode == 0, done.stderr
    wanted = {
        packages[not is_debian]
        for name, packages in tools().items()
        if name in ("shellcheck", "createrepo_c", "lintian")
    }
    (installed,) = [line for line in machine.called(manager) if " install " in line]
    assert set(installed.split()) & {each for pair in tools().values() for each in pair} == wanted - {"-"}
    assert machine.called("policy") == (["policy 101"] if is_debian and not before else [])
    assert policy.exists() == before
    # a failure of the package manager is the command's own, and nothing of it stays
    machine.program(manager, SAID + 'case "$*" in *install*) exit 100 ;; esac\n')
    assert machine.run("test").returncode == 100
    assert policy.exists() == before


def test_a_second_run_installs_nothing_until_pyproject_changes(machine: Machine) -> None:
    machine.python("python3", "3.12.1", new=True)
    assert machine.run("test").returncode == 0
    assert len(machine.called("pip install")) == 2
    again = machine.run("test")
    assert (again.returncode, again.stderr) == (0, "")
    assert (machine.called("pip install"), machine.called("-m venv")) == ([], [])
    with (machine.checkout / "pyproject.toml").open("a") as project:
        project.write("# one more line\n")
    assert machine.run("test").returncode == 0
    assert len(machine.called("pip install")) == 2


def test_an_environment_that_is_broken_is_made_anew(machine: Machine) -> None:
    machine.python("python3", "3.12.1", new=True)
    (machine.checkout / ".venv" / "bin").mkdir(parents=True)
    (machine.checkout / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    (machine.checkout / ".venv" / "bin" / "python").unlink()
    assert machine.run("test").returncode == 0
    assert machine.called("-m venv") == ["python3 -m venv --clear .venv"]


def test_the_status_of_the_tests_is_its_own(machine: Machine) -> None:
    tests_fail = PYTHON.replace("STATUS", "exit 0").replace(
        "esac", "esac\ncase $* in *pytest*) exit 5 ;; esac"
    )
    machine.program("python3", tests_fail)
    assert machine.run("test").returncode == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_root_in_somebody_else_s_checkout_leaves_nothing_of_its_own(machine: Machine) -> None:
    machine.python("python3", "3.12.1", new=True)
    for path in (machine.checkout, *machine.checkout.rglob("*")):
        os.chown(path, 1234, 1234)
    assert machine.run("test").returncode == 0
    assert {path.stat().st_uid for path in (machine.checkout, *machine.checkout.rglob("*"))} == {1234}


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["shellcheck", "packaging/bootstrap"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
