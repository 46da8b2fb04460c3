"""What is built is the same from the same source, small, and holds what it should where it should."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer.main
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from agent import __version__
from agent.cli.fleet import COMMANDS as FLEET_COMMANDS
from agent.cli.host import COMMANDS
from agent.cli.root import command_tree
from agent.config.desired import resolve
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS, CaSource
from agent.config.readers import read_text
from agent.core.codes import CODES
from agent.core.system import windows
from agent.render.manual import page, topics
from agent.sinks.registry import SINKS
from tests.building import Release, build, copied, release_of_this_run
from tests.system import images

ROOT = Path(__file__).parents[2]
LIMIT = 4_000_000


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    if shutil.which("apt-get") and images.reason_not_to_run() is None:
        images.install_tools()
    missing = [each for each in ("dpkg-deb", "rpmbuild") if shutil.which(each) is None]
    if missing:
        pytest.skip(f"packages cannot be built without {' and '.join(missing)}")
    return release_of_this_run(tmp_path_factory)


@pytest.fixture(scope="module")
def source(release: Release) -> Path:
    """This checkout at one moment."""
    return release.source


@pytest.fixture(scope="module")
def built(release: Release) -> Path:
    return release.dist


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def in_deb(built: Path) -> tarfile.TarFile:
    argv = ["dpkg-deb", "--fsys-tarfile", str(only(built, "*.deb"))]
    done = subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return tarfile.open(fileobj=io.BytesIO(done.stdout))


def content(deb: tarfile.TarFile, path: str) -> bytes:
    member = deb.extractfile(f"./{path}")
    assert member is not None
    return member.read()


def in_rpm(built: Path) -> dict[str, str]:
    """Return path -> mode, owner and where a link leads."""
    form = "[%{FILENAMES}\\t%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILELINKTOS}\\n]"
    argv = ["rpm", "-qp", "--nosignature", "--qf", form, str(only(built, "*.rpm"))]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    return dict(line.split("\t") for line in done.stdout.splitlines())


def test_the_same_source_gives_the_same_bytes(source: Path, built: Path, tmp_path: Path) -> None:
    elsewhere = copied(source, tmp_path / "elsewhere")
    for path in elsewhere.rglob("*"):  # as another person's checkout is: another time, another umask
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() else 0o600)
    again = build(elsewhere, tmp_path / "dist", TZ="Pacific/Auckland", LANG="C", HOME=str(tmp_path))
    assert {each.name: each.read_bytes() for each in again.iterdir()} == {
        each.name: each.read_bytes() for each in built.iterdir()
    }


def test_packages_are_small(built: Path) -> None:
    sizes = {each.name: each.stat().st_size for each in built.iterdir()}
    assert all(size <= LIMIT for size in sizes.values()), sizes


def test_what_a_roll_out_sends_is_small_and_brings_nothing_of_an_operator(built: Path) -> None:
    """It goes to every host of a fleet; a person's credentials are for the machine that they type on."""
    archive = only(built, "hsm-agent-far-end-*.tar.gz")
    assert archive.stat().st_size <= 1_000_000
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert "agent/aws/client.py" in names
    assert names & {"agent/aws/operator.py", "agent/iam_policy.py"} == set()
    assert not any(name.startswith(("botocore/", "moto/", "agent/cli/")) for name in names)


def test_the_checksums_are_the_ones_of_the_files(built: Path) -> None:
    lines = (built / "SHA256SUMS").read_text().splitlines()
    named = {line.split("  ")[1]: line.split("  ")[0] for line in lines}
    assert named == {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in built.iterdir()
        if each.name != "SHA256SUMS"
    }


def test_the_tree_is_in_one_folder_named_by_its_content(built: Path) -> None:
    path = only(built, "hsm-agent-[0-9]*.tar.gz")
    top = path.name.removesuffix(".tar.gz")
    assert re.fullmatch(rf"hsm-agent-{re.escape(__version__)}-[0-9a-f]{{12}}", top)
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    names = [each.name for each in members]
    assert names == sorted(names)
    assert {name.split("/")[0] for name in names} == {top}
    assert {(each.uname, each.gname, each.uid, each.gid, each.isfile()) for each in members} == {
        ("root", "root", 0, 0, True)
    }
    assert len({each.mtime for each in members}) == 1
    assert {each.mode for each in members} == {0o644, 0o755}
    assert [name for name in names if "__pycache__" in name or "/tests/" in name] == []
    compiled = {name.removeprefix(f"{top}/") for name in names if name.endswith(".so")}
    assert compiled == {f"psutil/{machine}/_psutil_linux.abi3.so" for machine in ("x86_64", "aarch64")}


def test_the_tree_brings_the_task_of_windows_where_the_agent_looks_for_it(built: Path) -> None:
    """What the MSI installs is this tree, in a folder `hsm-agent`."""
    tasks = windows().tasks
    assert tasks is not None
    place = tasks.verify.partition("\\hsm-agent\\")[2].replace("\\", "/")
    with tarfile.open(only(built, "hsm-agent-[0-9]*.tar.gz")) as tar:
        assert f"{tar.getnames()[0].split('/')[0]}/{place}" in tar.getnames()


def test_the_packages_wrap_the_tree(built: Path) -> None:
    path = only(built, "hsm-agent-[0-9]*.tar.gz")
    with tarfile.open(path) as tar:
        top = f"{path.name.removesuffix('.tar.gz')}/"
        tree = {each.name.removeprefix(top): each for each in tar.getmembers()}
        bytes_of = {name: tar.extractfile(each) for name, each in tree.items()}
        wanted = {name: file.read() for name, file in bytes_of.items() if file is not None}
    with in_deb(built) as deb:
        place = "./usr/lib/hsm-agent/"
        found = {
            each.name.removeprefix(place): each for each in deb.getmembers() if each.name.startswith(place)
        }
        files = {
            name: content(deb, f"usr/lib/hsm-agent/{name}") for name, each in found.items() if each.isfile()
        }
    assert files == wanted
    place = "/usr/lib/hsm-agent/"
    in_package = {
        path.removeprefix(place)
        for path, mode in in_rpm(built).items()
        if path.startswith(place) and mode[0] == "-"
    }
    assert in_package == set(wanted)


INSTALLED = (
    "/etc/hsm-agent",
    "/usr/bin/hsm-agent",
    "/usr/lib/hsm-agent",
    "/usr/share/bash-completion/completions/hsm-agent",
    "/usr/share/fish/vendor_completions.d/hsm-agent.fish",
    "/usr/share/zsh/site-functions/_hsm-agent",
    "/usr/share/man/man1/hsm-agent.1.gz",
    "/usr/share/man/man7/hsm-agent-",
)


def test_the_far_end_imports_nothing_that_does_not_travel(built: Path, tmp_path: Path) -> None:
    """Every import in it, also one inside a function, is of the standard library or of what is in it."""
    with tarfile.open(only(built, "hsm-agent-far-end-*.tar.gz")) as tar:
        top = tar.getnames()[0].split("/")[0]
        files = {member.name.removeprefix(f"{top}/"): member for member in tar.getmembers()}
        sources = {path: tar.extractfile(files[path]) for path in files if path.startswith("agent/")}
        trees = {
            path: ast.parse(file.read()) for path, file in sources.items() if file and path.endswith(".py")
        }
    there = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files}
    tops = {name.split(".")[0] for name in there} | set(sys.stdlib_module_names)
    absent = set()
    for path, tree in trees.items():
        for node in ast.walk(tree):  # what only a type checker imports is not sent
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.split(".")[0] not in tops or (name.startswith("agent.") and name not in there):
                    absent.add((path, name))
    assert absent == set()


def test_the_wheel_has_the_tree_in_it_and_is_whole(built: Path) -> None:
    travelling = only(built, "hsm-agent-far-end-*.tar.gz")
    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    assert files[f"agent/fleet/{travelling.name}"] == travelling.read_bytes()
    assert {"agent/templates/fleet/page.html", "agent/py.typed"} <= set(files)
    record = next(name for name in files if name.endswith("/RECORD"))
    listed = dict(line.split(",", 1) for line in files[record].decode().splitlines())
    digests = {
        name: f"sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for name, data in files.items()
    }
    assert listed == {**digests, record: ","}


def test_no_file_lies_outside_its_place(built: Path) -> None:
    units = [
        f"hsm-agent-{name}" for name in ("verify.service", "verify.timer", "apply.service", "apply.timer")
    ]
    with in_deb(built) as deb:
        members = deb.getmembers()
    assert {(each.uname, each.gname) for each in members} == {("root", "root")}
    assert all(each.mode & 0o7022 == 0 for each in members if not each.issym())
    debian: tuple[str, ...] = (
        *INSTALLED,
        "/usr/share/doc/hsm-agent",
        "/usr/share/lintian/overrides/hsm-agent",
    )
    debian += tuple(f"/lib/systemd/system/{name}" for name in units)
    files = [each.name[1:] for each in members if not each.isdir()]
    assert [path for path in files if not path.startswith(debian)] == []
    redhat = (
        *INSTALLED,
        "/usr/share/doc/hsm-agent",
        "/usr/share/licenses/hsm-agent",
        *(f"/usr/lib/systemd/system/{name}" for name in units),
    )
    assert [path for path in in_rpm(built) if not path.startswith(redhat)] == []
    assert {each.split()[1:3] == ["root", "root"] for each in in_rpm(built).values()} == {True}


def test_the_configuration_is_one_that_upgrades_leave_alone(built: Path) -> None:
    argv = ["dpkg-deb", "--info", str(only(built, "*.deb")), "conffiles"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "/etc/hsm-agent/config.toml\n"
    argv = ["rpm", "-qp", "--nosignature", "--configfiles", str(only(built, "*.rpm"))]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "/etc/hsm-agent/config.toml\n"


def test_the_configuration_says_nothing_and_names_every_key(built: Path) -> None:
    with in_deb(built) as deb:
        short = content(deb, "etc/hsm-agent/config.toml")
        text = content(deb, "usr/share/doc/hsm-agent/examples/config.toml")
    input_errors = InputErrors()
    for each in (short, text):
        assert [line for line in each.decode().splitlines() if line and not line.startswith("#")] == []
    said = b"\n".join(re.findall(rb"^#(\S.*)$", short, re.MULTILINE))
    desired = resolve((read_text(said, "config.toml", input_errors),), input_errors)
    assert (desired.hsm_ip, desired.ca_cert) == (
        ("10.0.1.6", "10.0.2.9"),
        CaSource("file", "/etc/hsm-agent/customerCA.crt"),
    )
    tables = re.split(r"^#\[(\w+)\]$", text.decode(), flags=re.MULTILINE)[1:]
    named = {
        f"{table}.{key}"
        for table, rows in zip(tables[::2], tables[1::2])
        for key in re.findall(r"^#(\w+) = ", rows, re.MULTILINE)
    }
    assert named == {option.key for option in OPTIONS if option.key}


def every_command(command: Any) -> list[Any]:
    return [
        command,
        *(each for below in getattr(command, "commands", {}).values() for each in every_command(below)),
    ]


def test_the_manual_page_has_every_command_and_option_and_is_well_formed(built: Path, tmp_path: Path) -> None:
    with in_deb(built) as deb:
        text = gzip.decompress(content(deb, "usr/share/man/man1/hsm-agent.1.gz")).decode()
    plain = text.replace("\\-", "-")
    assert [name for name in COMMANDS if f"\n.B {name}" not in plain] == []
    assert [name for name in FLEET_COMMANDS if f"\n.B fleet {name}" not in plain] == []
    assert [each.switch for each in OPTIONS if f"\n.B {each.switch}" not in plain] == []
    # whatever any command's help lists
    root = typer.main.get_command(command_tree([]))
    switches = {
        switch
        for command in every_command(root)
        for each in command.params
        for switch in each.opts
        if switch[0] == "-"
    }
    assert {
        each for each in switches - {"-h", "--help"} if not re.search(rf"\n\.B .*{re.escape(each)}\b", plain)
    } == set()
    assert [name for name in CODES if f"\n.B {name} " not in plain] == []
    assert [place.form for place in SINKS.values() if f"\n.B {place.form}" not in plain] == []
    assert plain.count("\n.B hsm-agent ") >= 3
    assert complaints_of_groff(text, tmp_path) == ""


def complaints_of_groff(text: str, folder: Path) -> str:
    """Return what groff has to say about a manual page, nothing where there is no groff."""
    if shutil.which("groff") is None:
        return ""
    page = folder / "page.1"
    page.write_text(text, encoding="utf-8")
    argv = ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-z", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr if done.returncode == 0 else f"groff ends with {done.returncode}: {done.stderr}"


def test_every_topic_has_a_manual_page_that_says_what_the_topic_says(built: Path, tmp_path: Path) -> None:
    with in_deb(built) as deb:
        index = gzip.decompress(content(deb, "usr/share/man/man1/hsm-agent.1.gz")).decode()
        pages = {
            topic: gzip.decompress(content(deb, f"usr/share/man/man7/hsm-agent-{topic}.7.gz")).decode()
            for topic in topics()
        }
    assert "--max-failed" in pages["fleet"].replace("\\-", "-")
    assert pages["fleet"].count("\n.SH ") == 2 + page("fleet").count("\n## ") + 1
    for topic, text in pages.items():
        assert f".BR hsm-agent-{topic} (7)" in index.replace("\\-", "-")
        assert not re.search(r"\*\*|\]\(|^\|", text, re.MULTILINE), topic
        assert complaints_of_groff(text, tmp_path) == ""


OFFERS = [
    (["ver"], ["verify"]),
    (["configure", "--hsm"], ["--hsm-ip"]),
    (["verify", "--output", ""], ["text", "json"]),
    (["plan", "--component", "pk"], ["pkcs11"]),
    (["explain", "hsm-re"], ["hsm-refused"]),
    (["help", "fi"], ["files", "first-boot"]),
    (["fleet", "roll"], ["rollout"]),
    (["fleet", "rollout", "--wav"], ["--waves"]),
]
FILES_ONLY: tuple[list[str], list[str]] = (
    ["configure", "--ca-cert", "/et"],
    [],
)  # nothing of ours: the shell completes files


def completion(built: Path, place: str) -> str:
    with in_deb(built) as deb:
        return content(deb, f"usr/share/{place}").decode()


@pytest.mark.parametrize(("words", "offered"), [*OFFERS, FILES_ONLY])
def test_bash_completes(built: Path, words: list[str], offered: list[str]) -> None:
    script = completion(built, "bash-completion/completions/hsm-agent")
    ask = 'COMP_WORDS=(hsm-agent "$@"); COMP_CWORD=$#; _hsm_agent; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-uc", f"{script}\n{ask}", "bash", *words],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (offered, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish, which `packaging/bootstrap test` installs")
@pytest.mark.parametrize(("words", "offered"), OFFERS)
def test_fish_completes(built: Path, tmp_path: Path, words: list[str], offered: list[str]) -> None:
    script = tmp_path / "hsm-agent.fish"
    script.write_text(completion(built, "fish/vendor_completions.d/hsm-agent.fish"))
    done = subprocess.run(
        ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', str(script), " ".join(["hsm-agent", *words])],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == set(offered), done.stderr


# what zsh's own completion would be asked by a person at a terminal: the words, and which of them is being typed
ZSH = """
emulate zsh
source_of=$1; shift
words=(hsm-agent "$@"); CURRENT=$#words; prefix=$words[CURRENT]
compadd() {
    if [[ $1 == -a ]]; then set -- ${(P)2}; fi
    print -rl -- ${(M)@:#$prefix*}
}
_files() { print -r -- FILES; }
source $source_of
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh, which `packaging/bootstrap test` installs")
@pytest.mark.parametrize(("words", "offered"), [*OFFERS, (FILES_ONLY[0], ["FILES"])])
def test_zsh_completes(built: Path, tmp_path: Path, words: list[str], offered: list[str]) -> None:
    script = tmp_path / "_hsm-agent"
    script.write_text(completion(built, "zsh/site-functions/_hsm-agent"))
    done = subprocess.run(
        ["zsh", "-f", "-c", ZSH, "zsh", str(script), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_the_bill_of_materials_is_valid_and_complete(built: Path) -> None:
    text = only(built, "*.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    document = json.loads(text)
    named = {f"{each['name']}=={each['version']}" for each in document["components"]}
    lock = (ROOT / "packaging" / "libraries.txt").read_text().splitlines()
    assert named == {line.split(" ")[0] for line in lock if not line.startswith("#")}
    assert [each["name"] for each in document["components"] if not each["licenses"]] == []


INSIDE = """
import json
from bundled import of_sources, of_windows
from files import File
from sbom import sbom
from datetime import datetime, timezone
from interpreter import interpreter
from pathlib import Path
import sys
spdx = {"packages": [
    {"name": "expat", "versionInfo": "2.8.2", "externalRefs": [{"referenceLocator": "cpe:2.3:a:libexpat_project:libexpat:2.8.2:*:*:*:*:*:*:*"}]},
    {"name": "macholib", "versionInfo": "1.0", "externalRefs": [{"referenceLocator": "pkg:pypi/macholib@1.0"}]},
]}
windows = interpreter(Path(sys.argv[1]))
parts = [windows, *of_windows(windows.files), *of_sources(json.dumps(spdx).encode())]
sys.stdout.buffer.write(sbom("1.2.3", "0" * 64, datetime(2026, 1, 1, tzinfo=timezone.utc), parts))
try:
    of_windows({**windows.files, "DLLs/pyexpat.pyd": File(b"something else")})
except ValueError as error:
    sys.exit(f"refused: {error}")
"""


def test_interpreters_and_what_lies_in_them_have_the_names_that_scanners_match(tmp_path: Path) -> None:
    wheels = ROOT / "build" / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, str(wheels)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "packaging")},
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "refused: DLLs/pyexpat.pyd has no version string of expat"
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(done.stdout) is None
    document = json.loads(done.stdout)
    named = {(each["name"], each["version"], each["cpe"]) for each in document["components"]}
    # as the national vulnerability database spells them
    assert {
        ("python", "3.13.2", "cpe:2.3:a:python:python:3.13.2:*:*:*:*:*:*:*"),
        ("openssl", "3.0.15", "cpe:2.3:a:openssl:openssl:3.0.15:*:*:*:*:*:*:*"),
        ("expat", "2.6.4", "cpe:2.3:a:libexpat_project:libexpat:2.6.4:*:*:*:*:*:*:*"),
        ("expat", "2.8.2", "cpe:2.3:a:libexpat_project:libexpat:2.8.2:*:*:*:*:*:*:*"),
    } <= named
    assert {each["purl"].partition(":")[2].split("/")[0] for each in document["components"]} == {"generic"}
    # nobody owns the name of the agent at any index
    assert document["metadata"]["component"]["purl"] == "pkg:generic/hsm-agent@1.2.3"


def test_no_host_of_an_index_or_an_archive_is_named() -> None:
    hosts = re.compile(
        r"\b(deb|snapshot|sources|security|ftp)\.debian\.org|pypi\.org|pythonhosted|archive\.ubuntu",
        re.IGNORECASE,
    )
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {
        name
        for name in listed.splitlines()
        if Path(name).suffix not in (".crt", ".gz")
        and name != "tests/architecture/test_packaging.py"
        and (ROOT / name).is_file()
        and hosts.search((ROOT / name).read_text(encoding="utf-8", errors="replace"))
    }
    assert found == set()


def test_a_wheel_with_other_bytes_is_not_taken(tmp_path: Path) -> None:
    lock = (ROOT / "packaging" / "libraries.txt").read_text()
    wanted = re.findall(r"^(certifi==\S+)", lock, re.MULTILINE)[0]
    (tmp_path / f"{wanted.replace('==', '-')}-py3-none-any.whl").write_bytes(b"not what was locked")
    argv = [sys.executable, str(ROOT / "packaging" / "build.py"), "--out", str(tmp_path / "dist")]
    done = subprocess.run(
        [*argv, "--wheels", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PIP_NO_INDEX": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "no file with the hash of libraries.txt for annotated-doc==" in done.stderr
    assert wanted in done.stderr.splitlines()[-1]
    assert list((tmp_path / "dist").iterdir()) == []


def test_the_newest_change_note_is_of_this_version() -> None:
    first = (ROOT / "packaging" / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"hsm-agent ({__version__}) ")
