"""User-data as others read it: run by a shell, judged by shellcheck, parsed as YAML and by a grammar of PowerShell.

The shell runs the text with its folders exchanged for others; what it calls that changes a machine is a stand-in. The
boot of a real host, with nothing exchanged, is system/test_first_boot.py.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import HealthCheck, given

from agent.config.desired import Desired
from agent.config.input_errors import InputErrors
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.core.system import windows
from agent.hosts.posix import Posix
from agent.hosts.windows import acl
from agent.http.proxies import proxy_for
from agent.render.json_report import schema
from agent.sinks.file import path_of
from agent.user_data import (
    MOST_BYTES,
    PATIENCE,
    TIMEOUT,
    AgentSource,
    config_json,
    first_boot_options,
    parse_agent_source,
    user_data,
)
from agent.windows.scheduler import FIRST_BOOT
from tests.examples import examples
from tests.fakes.receiver import Exchange, accept, only, receiver
from tests.fakes.scripts import TEXTS, Shell, archive, bucket
from tests.golden.first_boots import CASES, LEAST, Case
from tests.task_schema import input_errors

if TYPE_CHECKING:
    from tests.fakes.receiver import Answer


TOKEN = "s3cr3t-t0ken"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def script_of(desired: Desired, source: AgentSource | None = None) -> str:
    return user_data(Posix(), desired, source or AgentSource(), "shell").decode("ascii")


@examples(40, suppress=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_every_value_arrives_as_it_was_and_none_becomes_code(shell: Shell, text: str) -> None:
    wanted = Desired(
        hsm_ip=("10.0.1.6", "fd00::6"), package_source=text.rstrip("/") or "/", replace_ca=True, timeout=77.0,
        report_to=("file:/r",), report_ca="/a'$(touch pwned) `touch pwned`\\", platform="el9",
        ca_cert=CaSource("https", "https://desk.example/'$(touch${IFS}pwned)`touch${IFS}pwned`;{{wanted}}"),
        sha256={"a'$(x)": "0" * 64}, sdk=5,
    )  # fmt: skip
    done = shell.run(script_of(wanted))
    assert (done.returncode, shell.given()) == (0, wanted), done.stderr
    assert shell.read("mode").strip() == "600"
    assert not (shell.folder / "pwned").exists()


@given(text=TEXTS)
def test_the_other_forms_carry_the_same(text: str) -> None:
    wanted = replace(LEAST, package_source=text)
    cloud = yaml.safe_load(user_data(Posix(), wanted, AgentSource(), "cloud-config"))
    (file,) = cloud["write_files"]
    assert file["content"] == script_of(wanted)
    assert cloud["runcmd"] == [["/bin/sh", file["path"]]]
    windows = user_data(
        Posix(), wanted, AgentSource("msi", "a.msi", "https://x/a.msi", "0" * 64), "powershell"
    ).decode("ascii")
    assert (windows.count("</powershell>"), windows.count("<powershell>")) == (1, 1)
    told, task = carried(windows)
    assert told == config_json(wanted)
    assert input_errors(task) == []


@pytest.mark.parametrize(
    "case", [each for each in CASES if each.form != "powershell"], ids=lambda case: case.path.name
)
def test_shellcheck_has_nothing_to_say(case: Case) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck, which `packaging/bootstrap test` installs")
    text = case.text()
    if case.form == "cloud-config":
        text = yaml.safe_load(text)["write_files"][0]["content"]
    done = subprocess.run(
        ["shellcheck", "-"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def carried(text: str) -> list[str]:
    """What PowerShell decodes: the configuration, and the task that goes on at each start of Windows."""
    encoded = re.findall(r"FromBase64String\('([A-Za-z0-9+/=]+)'\)", text)
    return [base64.b64decode(each).decode("ascii") for each in encoded]


POWERSHELL = [each for each in CASES if each.form == "powershell"]


@pytest.mark.parametrize("case", POWERSHELL, ids=lambda case: case.path.name)
def test_the_task_goes_on_with_the_words_that_the_first_boot_used(case: Case) -> None:
    text = case.text()
    _, task = carried(text)
    assert input_errors(task) == []
    assert task.isascii()
    parts = {each.tag.rpartition("}")[2]: each.text or "" for each in ET.fromstring(task).iter()}
    assert parts["Command"] == '"PROGRAM"'
    words = parts["Arguments"].removesuffix(" --quiet")
    assert f"& $program {words}\n".replace("FOLDER", "$folder") in text
    timeout = case.desired.timeout or TIMEOUT
    assert f"--timeout {timeout:g}s" in words
    assert ("--replace-ca" in words) is case.desired.replace_ca
    assert parts["ExecutionTimeLimit"] == f"PT{timeout + 300:g}S"
    assert parts["URI"] == f"\\{FIRST_BOOT}"
    assert f"/tn {FIRST_BOOT} " in text
    # what is quoted for XML must stay in the place where it was put, and the words must be found by those who end it
    assert (task.count("PROGRAM"), task.count("FOLDER")) == (1, 1)
    folder = windows()
    assert folder.tasks is not None
    config = words.split('"')[1].replace("FOLDER", rf"{folder.data}\hsm-agent")
    assert config == folder.tasks.first_boot


def test_the_folder_is_made_closed_to_all_others() -> None:
    """The agent refuses one that others may write to, and so would never run."""
    (list_,) = re.findall(r"SddlForm\('(.+?)'\)", POWERSHELL[0].text())
    assert acl.mode(list_, folder=True) == 0o711


@pytest.mark.parametrize("case", POWERSHELL, ids=lambda case: case.path.name)
def test_powershell_is_ascii_and_follows_its_grammar(case: Case) -> None:
    grammar = pytest.importorskip("tree_sitter_powershell", reason="has no wheel for this Python")
    from tree_sitter import Language, Parser

    text = case.text()
    match = re.fullmatch(r"<powershell>\n(.*)</powershell>\n<persist>true</persist>\n", text, re.DOTALL)
    assert match is not None
    parser = Parser(Language(grammar.language()))
    inner = match[1].encode("ascii")
    assert not parser.parse(inner).root_node.has_error
    assert parser.parse(inner.replace(b"}", b"", 1)).root_node.has_error  # it would have told


@pytest.mark.parametrize("source", ["package", "deb", "tree", "inline", "already there"])
def test_the_agent_comes_and_is_run(shell: Shell, source: str) -> None:
    data = archive() if source in ("tree", "inline") else b"a package"
    name = "hsm-agent.tar.gz" if source in ("tree", "inline") else "hsm-agent.deb"
    (shell.folder / name).write_bytes(data)
    if source != "already there":
        shell.program("hsm-agent", None)
    with bucket(shell.folder) as url:
        found = parse_agent_source(
            Posix(),
            {"inline": str(shell.folder / name), "tree": f"{url}/{name}", "deb": f"{url}/{name}"}.get(
                source, "package"
            ),
            hashlib.sha256(data).hexdigest() if source in ("tree", "deb") else None,
            "shell",
        )
        done = shell.run(script_of(LEAST, found))
    assert done.returncode == 0, done.stderr
    assert shell.given().hsm_ip == LEAST.hsm_ip
    asked = shell.read("apt").splitlines() if (shell.folder / "apt").exists() else []
    assert [line.split()[-1].rpartition("/")[2] for line in asked] == {
        "package": ["update", "hsm-agent"], "deb": [name],
    }.get(source, [])  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("another file", "checksum-mismatch", 21),
        ("no such file", "package-not-found", 20),
        ("no server", "download-failed", 20),
        ("no room in apt", "package-failed", 22),
        ("an agent that does not start", "package-failed", 22),
    ],
)
def test_what_fails_early_is_told_all_the_same(shell: Shell, fault: str, code: str, status: int) -> None:
    shell.program("hsm-agent", None)
    (shell.folder / "token").write_text(TOKEN)
    (shell.folder / "hsm-agent.deb").write_bytes(b"a package")
    sha256 = hashlib.sha256(b"another" if fault == "another file" else b"a package").hexdigest()
    if fault == "no room in apt":
        shell.program("apt-get", "#!/bin/sh\necho 'E: no room'; exit 100\n")
    if fault == "an agent that does not start":
        (shell.folder / "agent").write_text("#!/bin/sh\necho 'needs Python 3.9'; exit 1\n")
    with receiver(only(503), accept) as server, bucket(shell.folder) as url:
        name = "gone.deb" if fault == "no such file" else "hsm-agent.deb"
        base = "http://127.0.0.1:9" if fault == "no server" else url
        source = AgentSource("deb", name, f"{base}/{name}?X-Amz-Signature=hidden", sha256)
        to = (f"file:{shell.folder}/report.json", server.url, "junit:/nowhere/x.xml")
        wanted = replace(LEAST, timeout=8.0, report_to=to, report_token_file=str(shell.folder / "token"))
        done = shell.run(script_of(wanted, source))
        told = list(server.taken.values())
        keys = {headers["Idempotency-Key"] for _, headers in server.requests}
        tokens = {headers["Authorization"] for _, headers in server.requests}
    assert done.returncode == status, done.stderr
    (report,) = told
    assert (report["code"], report["exit_status"], report["outcome"]) == (code, status, "failed")
    assert json.loads(shell.read("report.json")) == report
    jsonschema.validate(report, schema())
    assert (len(keys), tokens) == (1, {f"Bearer {TOKEN}"})
    assert not (shell.folder / "argv").exists()
    words = {"no room in apt": "E: no room", "an agent that does not start": "needs Python 3.9"}.get(
        fault, name
    )
    assert words in report["failure"]["saw"]
    for secret in ("hidden", TOKEN):
        assert secret not in done.stdout + done.stderr + json.dumps(report)


def test_a_shutdown_before_the_agent_is_there_lets_the_package_manager_end_and_is_told(shell: Shell) -> None:
    shell.program("hsm-agent", None)
    shell.program("apt-get", "#!/bin/sh\nkill -TERM $PPID\necho ended >>apt\nexit 100\n")
    done = shell.run(script_of(replace(LEAST, report_to=(f"file:{shell.folder}/report.json",))))
    report = json.loads(shell.read("report.json"))
    assert (done.returncode, report["code"], report["exit_status"]) == (130, "interrupted", 130), done.stderr
    assert shell.read("apt").split() == ["ended"]


def test_cloudformation_is_told_by_the_aws_command(shell: Shell) -> None:
    shell.program("hsm-agent", None)
    shell.program("apt-get", "#!/bin/sh\nexit 100\n")
    shell.program("aws", "#!/bin/sh\nprintf '%s\\n' \"$@\" >aws\n")
    done = shell.run(script_of(replace(LEAST, timeout=8.0, report_to=("cfn:web/Group?region=eu-central-1",))))
    words = shell.read("aws").splitlines()
    assert done.returncode == 22
    assert words[:6] == [
        "cloudformation",
        "signal-resource",
        "--stack-name",
        "web",
        "--logical-resource-id",
        "Group",
    ]
    assert words[7].startswith("package-failed.")
    assert words[8:] == ["--status", "FAILURE", "--region", "eu-central-1"]


def test_a_bucket_is_read_with_the_aws_command(shell: Shell) -> None:
    (shell.folder / "kept").write_bytes(archive())
    shell.program("aws", '#!/bin/sh\necho "$@" >>aws\ncp kept "$5"\n')
    shell.program("hsm-agent", None)
    sha256 = hashlib.sha256(archive()).hexdigest()
    done = shell.run(script_of(LEAST, AgentSource("tree", "t.tar.gz", "s3://bucket/a/t.tar.gz", sha256)))
    assert done.returncode == 0, done.stderr
    assert shell.read("aws").startswith("s3 cp --only-show-errors s3://bucket/a/t.tar.gz ")


def test_a_host_that_has_its_systems_own_python_alone_is_brought_and_told_by_that(shell: Shell) -> None:
    """RHEL 8: the agent that comes is the build with an interpreter in it, which is a tree in a tar.gz too."""
    platform = shell.folder / "usr/libexec/platform-python"
    platform.parent.mkdir(parents=True)
    platform.write_text(f'#!/bin/sh\necho "$@" >>asked\nexec {sys.executable} "$@"\n')
    platform.chmod(0o755)
    shell.program("python3", "#!/bin/sh\nexit 127\n")
    shell.program("hsm-agent", None)
    (shell.folder / "t.tar.gz").write_bytes(archive())
    with bucket(shell.folder) as url:
        source = AgentSource("tree", "t.tar.gz", f"{url}/t.tar.gz", hashlib.sha256(archive()).hexdigest())
        done = shell.run(script_of(LEAST, source))
        assert done.returncode == 0, done.stderr
        assert shell.given().hsm_ip == LEAST.hsm_ip
        wanted = replace(LEAST, timeout=8.0, report_to=(f"file:{shell.folder}/report.json",))
        failed = shell.run(script_of(wanted, replace(source, sha256="0" * 64)))
    assert (failed.returncode, json.loads(shell.read("report.json"))["code"]) == (21, "checksum-mismatch")
    assert [line.split()[:1] for line in shell.read("asked").splitlines()] == [["-I"]] * 3


def test_what_holds_a_lock_is_waited_for(shell: Shell) -> None:
    shell.program("hsm-agent", None)
    busy = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)"
    shell.program(
        "apt-get",
        f"#!/bin/sh\necho x >>tries\n[ $(wc -l <tries) -gt 3 ] || {{ echo '{busy}'; exit 100; }}\ncp agent bin/hsm-agent\n",
    )
    done = shell.run(script_of(LEAST))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("It is held by process 812") == 3


def test_a_network_that_is_late_is_waited_for(shell: Shell) -> None:
    (shell.folder / "hsm-agent.tar.gz").write_bytes(archive())
    shell.program("hsm-agent", None)
    sha256 = hashlib.sha256(archive()).hexdigest()

    def send(exchange: Exchange, length: int) -> None:
        exchange.answer(200, Content_Length=len(archive()))
        exchange.wfile.write(archive()[:length])

    answers: list[Answer] = [Exchange.reset, only(503), lambda exchange: send(exchange, 30)]
    with receiver(*answers, lambda exchange: send(exchange, len(archive()))) as server:
        url = f"http://127.0.0.1:{server.server_port}/hsm-agent.tar.gz"
        done = shell.run(script_of(LEAST, AgentSource("tree", "hsm-agent.tar.gz", url, sha256)))
    assert done.returncode == 0, done.stderr
    assert (shell.given().hsm_ip, len(server.requests)) == (LEAST.hsm_ip, 4)


@pytest.mark.parametrize(("status", "runs"), [(0, False), (41, True), (60, False), (3, True), (40, True)])
def test_at_a_later_boot_what_was_configured_since_stands(shell: Shell, status: int, runs: bool) -> None:
    script = script_of(LEAST)
    state = shell.folder / "var/lib/hsm-agent"
    state.mkdir(parents=True)
    (state / "first-boot").touch()
    os.utime(state / "first-boot", (1, 1))
    (state / "desired.json").write_text("{}")
    (shell.folder / "status").write_text(str(status))
    done = shell.run(script, "go")
    assert (done.returncode, (shell.folder / "argv").exists()) == (0, runs)
    if status == 41:  # degraded is not done, and yet it is what somebody configured that is tried again
        assert shell.read("argv").split() == ["configure", "--timeout", "1800s"]
    # but what is as old as this host's image says nothing of it
    os.utime(state / "desired.json", (0, 0))
    assert shell.run(script, "go").returncode == 0
    assert (shell.folder / "argv").exists()


def test_a_clock_that_is_behind_is_waited_for(shell: Shell, ca_pem: bytes) -> None:
    shell.program(
        "date", '#!/bin/sh\necho x >>dates\n[ $(wc -l <dates) -gt 3 ] && exec /bin/date "$@"\necho 1000\n'
    )
    done = shell.run(script_of(replace(LEAST, ca_cert=CaSource.of(ca_pem.decode()))))
    assert (done.returncode, len(shell.read("dates").splitlines())) == (0, 4), done.stderr
    assert shell.given().ca_cert == CaSource.of(ca_pem.decode())


def test_a_ca_that_is_none_is_refused_here_and_now(ca_pem: bytes, tmp_path: Path) -> None:
    path = tmp_path / "customerCA.crt"
    path.write_bytes(ca_pem)
    assert ca_pem.decode().splitlines()[1] in script_of(replace(LEAST, ca_cert=CaSource.of(str(path))))
    key = b"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"
    path.write_bytes(key + ca_pem)
    with pytest.raises(AgentError) as caught:
        script_of(replace(LEAST, ca_cert=CaSource.of(str(path))))
    assert caught.value.code.name == "ca-is-private-key"


def test_what_is_large_is_compressed_and_what_is_too_large_is_named(tmp_path: Path) -> None:
    sums = {f"cloudhsm-cli_5.99.{number}-1_u24.04_amd64.deb": "ab" * 32 for number in range(100)}
    many = replace(LEAST, sha256=sums)
    data = user_data(Posix(), many, AgentSource(), "shell")
    assert (len(data) <= MOST_BYTES, data[:2]) == (True, b"\x1f\x8b")
    assert gzip.decompress(data).startswith(b"#!/bin/sh\n")
    assert gzip.decompress(user_data(Posix(), many, AgentSource(), "cloud-config")).startswith(
        b"#cloud-config\n"
    )
    large = tmp_path / "hsm-agent_0.1.0_all.deb"
    large.write_bytes(os.urandom(20_000))
    for desired, form, source, word in (
        (many, "powershell", AgentSource("msi", "a.msi", "https://x/a.msi", "0" * 64), "the other options"),
        (LEAST, "shell", parse_agent_source(Posix(), str(large), None, "shell"), large.name),
    ):
        with pytest.raises(AgentError) as caught:
            user_data(Posix(), desired, source, form)
        assert caught.value.code.name == "user-data-too-large"
        assert word in caught.value.saw
        assert caught.value.hint.startswith(word)


@pytest.mark.parametrize(
    ("text", "sha256", "form", "complaint"),
    [
        ("https://x/a.deb", None, "shell", "the SHA-256 of what the URL holds is needed"),
        ("https://x/a.deb", "12", "shell", "is not a SHA-256"),
        ("https://x/a.zip", "0" * 64, "shell", "does not end in"),
        ("https://x/a.deb'$(x)", "0" * 64, "shell", "percent-encoded"),
        ("https://u:p@x/a.deb", "0" * 64, "shell", "must not contain a password"),
        ("ftp://x/a.deb", "0" * 64, "shell", "an http, https or s3 URL"),
        ("https://[x/a.deb", "0" * 64, "shell", "an http, https or s3 URL"),
        ("https://[::1/a.deb", "0" * 64, "shell", "an http, https or s3 URL"),
        ("https://x:99999/a.deb", "0" * 64, "shell", "an http, https or s3 URL"),
        ("https:///a.deb", "0" * 64, "shell", "an http, https or s3 URL"),
        ("s3:///a.deb", "0" * 64, "shell", "an http, https or s3 URL"),
        ("/no/such.deb", None, "shell", "there is no file"),
        ("/etc/hostname", None, "shell", "does not end in"),
        ("https://x/a.deb", "0" * 64, "powershell", "the URL of an .msi"),
        ("package", None, "powershell", "the URL of an .msi"),
        ("https://x/a.msi", "0" * 64, "cloud-config", "a .deb, .rpm or .tar.gz"),
    ],
)
def test_where_the_agent_comes_from_is_checked(
    text: str, sha256: str | None, form: str, complaint: str
) -> None:
    with pytest.raises(AgentError) as caught:
        parse_agent_source(Posix(), text, sha256, form)
    assert caught.value.code.name == "config-invalid"
    assert complaint in caught.value.saw


def test_the_command_prints_it() -> None:
    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        argv = [sys.executable, "-m", "agent", "user-data", *words]
        return subprocess.run(argv, capture_output=True, timeout=60, check=False)

    assert run("--hsm-ip", "10.0.1.6").stdout == user_data(Posix(), LEAST, AgentSource(), "shell")
    refused = run("--format", "bash")
    assert (refused.returncode, refused.stdout, b"--format takes shell" in refused.stderr) == (2, b"", True)
    nobody = run()
    assert (nobody.returncode, b"at least one address" in nobody.stderr) == (2, True)


@pytest.mark.parametrize("form", ["shell", "powershell"])
def test_the_quick_start_of_the_manual_prints_it(form: str, ca_pem: bytes, tmp_path: Path) -> None:
    page = (ROOT / "agent" / "docs" / "first-boot.md").read_text(encoding="utf-8")
    (tmp_path / "customerCA.crt").write_bytes(ca_pem)
    start = "hsm-agent user-data --format" if form == "powershell" else "hsm-agent user-data --hsm-ip"
    line = page[page.index(start) : page.index(">", page.index(start))]
    words = (
        line.replace("\\\n", " ")
        .replace("`\n", " ")
        .replace("BUCKET", "b")
        .replace("REGION", "r")
        .split()[1:]
    )
    words = ["ab" * 32 if word.startswith("HASH") else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "agent", *words], cwd=tmp_path, capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"<powershell>" if form == "powershell" else b"#!/bin/sh")


@pytest.mark.parametrize("manager", ["apt-get", "dnf", "yum"])
@pytest.mark.parametrize("late", [False, True], ids=["a network", "a late network"])
def test_an_agent_that_no_repository_has_ends_the_wait_when_all_were_asked(
    shell: Shell, manager: str, late: bool
) -> None:
    """What is not there is not waited for; but nothing is known of it before the repositories have answered."""
    shell.program("hsm-agent", None)
    asked = "update" if manager == "apt-get" else "makecache"
    text = f"""#!/bin/sh
echo "$@" >>tries
case "$*" in
*{asked}*) [ {int(late)} = 0 ] || [ "$(grep -c {asked} tries)" -gt 3 ] || {{ echo 'Could not resolve host'; exit 1; }} ;;
*) echo 'nobody has it'; exit 1 ;;
esac
"""
    others = {"apt-get": ("dnf", "yum"), "dnf": ("apt-get", "yum"), "yum": ("apt-get", "dnf")}[manager]
    shell.program(manager, text)
    shell.program("apt-cache", "#!/bin/sh\nexit 100\n")
    if manager != "apt-get":
        shell.hide("apt-get")
    if manager == "yum":
        shell.hide("dnf")
    assert manager not in others
    done = shell.run(script_of(replace(LEAST, report_to=(f"file:{shell.folder}/report.json",))))
    assert done.returncode == 20, done.stderr
    report = json.loads(shell.read("report.json"))
    assert (report["code"], report["exit_status"]) == ("package-not-found", 20)
    assert "nor in one of its package repositories" in report["failure"]["saw"]
    tries = [line for line in shell.read("tries").splitlines() if asked in line]
    assert len(tries) == (4 if late else 1)


def test_user_data_that_brings_no_agent_says_so_at_the_desk() -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "agent", "user-data", "--hsm-ip", "10.0.1.6", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    without = run()
    assert (without.returncode, without.stdout.startswith("#!/bin/sh")) == (0, True)
    assert "does not contain hsm-agent" in without.stderr
    assert "--agent URL" in without.stderr
    assert "the image must have customerCA.crt" in without.stderr
    brought = run("--agent", "https://b/a.deb", "--agent-sha256", "ab" * 32, "--ca-cert", "https://b/ca.crt")
    assert (brought.returncode, brought.stderr) == (0, "")


# --- what first boot tells of secrets, and whom


def failing(shell: Shell, *to: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run user-data whose agent does not come, with a token, and return how it ended."""
    shell.program("hsm-agent", None)
    shell.program("apt-get", "#!/bin/sh\nexit 100\n")
    shell.program("apt-cache", "#!/bin/sh\nexit 100\n")
    (shell.folder / "token").write_text(TOKEN)
    wanted = replace(LEAST, timeout=8.0, report_to=to, report_token_file=str(shell.folder / "token"))
    env = {name: value for name, value in more.items() if isinstance(value, str)}
    return shell.run(script_of(wanted), **env)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_neither_report_nor_token_elsewhere(shell: Shell, status: int) -> None:
    with receiver(accept) as other, receiver(only(status, Location=other.url)) as server:
        done = failing(shell, server.url)
    assert other.requests == []
    assert {headers["Authorization"] for _, headers in server.requests} == {f"Bearer {TOKEN}"}
    assert "no report to http" in done.stdout + done.stderr


def test_a_proxy_never_sees_what_is_for_this_machine(shell: Shell) -> None:
    with receiver(accept) as proxy, receiver(accept) as server:
        place = proxy.url.partition("/reports")[0]
        failing(shell, server.url, http_proxy=place, https_proxy=place, all_proxy=place)
    assert (len(server.taken), proxy.requests) == (1, [])


def test_no_token_goes_over_http_to_another_machine(shell: Shell) -> None:
    with receiver(accept) as proxy:
        done = failing(
            shell,
            "http://mirror.invalid/x",
            "https://u:p@mirror.invalid/x",
            http_proxy=proxy.url.partition("/reports")[0],
        )
    assert proxy.requests == []
    assert "reported to http" not in done.stdout


@pytest.mark.parametrize(
    "form",
    ["file:{}/my%20reports/a%25b.json", "file:{}/my reports/a%25b.json", "file://localhost{}/my%20reports/a%25b.json",
     "file://{}/my%20reports/a%25b.json", "file:///{}/my%20reports/a%25b.json"],
)  # fmt: skip
def test_first_boot_reads_the_path_of_a_file_as_the_agent_does(shell: Shell, form: str) -> None:
    """What one reader takes and the other does not is a report that nobody gets."""
    place = shell.folder / "my reports"
    place.mkdir()
    uri = form.format(shell.folder)
    assert Path(os.path.normpath(path_of(uri))) == place / "a%b.json"
    done = failing(shell, uri)
    assert "no report to" not in done.stdout + done.stderr
    assert json.loads((place / "a%b.json").read_text())["exit_status"] == 22


def test_a_failure_of_many_words_is_told_all_the_same(shell: Shell) -> None:
    """An argument of a program is at most 128 KiB; a progress bar is one line however long it is."""
    shell.program("hsm-agent", None)
    shell.program(
        "apt-get", "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' x\necho 'E: no room'\nexit 100\n"
    )
    shell.program("apt-cache", "#!/bin/sh\necho hsm-agent\n")
    wanted = replace(LEAST, timeout=4.0, report_to=(f"file:{shell.folder}/report.json",))
    done = shell.run(script_of(wanted))
    assert done.returncode == 22
    saw = json.loads(shell.read("report.json"))["failure"]["saw"]
    assert saw.endswith("E: no room")
    assert len(saw) <= 4000


@pytest.mark.parametrize(
    "what", ["link at the draft", "link at the file", "folder of a link", "device", "folder"]
)
def test_a_report_is_not_written_where_a_user_wants_it(shell: Shell, what: str) -> None:
    victim = shell.folder / "victim"
    victim.mkdir()
    (victim / "report.json").write_text("precious")
    place = shell.folder / "public"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    target = place / "report.json"
    if what == "link at the draft":
        (place / "report.json.new").symlink_to(victim / "report.json")
    elif what == "link at the file":
        target.symlink_to(victim / "report.json")
    elif what == "folder of a link":
        (place / "deep").symlink_to(victim)
        if os.geteuid() == 0:
            os.lchown(place / "deep", 65534, 65534)
        target = place / "deep" / "report.json"
    elif what == "device":
        os.mkfifo(target)
    else:
        target.mkdir()
    done = failing(shell, f"file:{target}")
    assert (victim / "report.json").read_text() == "precious"
    if what == "link at the draft":
        assert json.loads(target.read_text())["exit_status"] == 22
        assert target.stat().st_mode & 0o777 == 0o644
    elif what != "folder of a link" or os.geteuid() == 0:
        assert "no report to" in done.stdout + done.stderr
    assert not [each for each in place.iterdir() if each.name.startswith(".report")]


def test_python_of_first_boot_takes_nothing_from_where_it_happens_to_run(shell: Shell) -> None:
    poison = "open('pwned', 'w').close()\n"
    for name in ("json.py", "hashlib.py", "socket.py", "sitecustomize.py", "usercustomize.py"):
        (shell.folder / name).write_text(poison)
    (shell.folder / "hsm-agent.deb").write_bytes(b"a package")
    startup = str(shell.folder / "json.py")
    with bucket(shell.folder) as url:
        source = AgentSource(
            "deb", "hsm-agent.deb", f"{url}/hsm-agent.deb", hashlib.sha256(b"a package").hexdigest()
        )
        wanted = replace(LEAST, timeout=8.0, report_to=(f"file:{shell.folder}/report.json",))
        shell.program("hsm-agent", None)
        shell.program("apt-get", "#!/bin/sh\nexit 100\n")
        shell.run(
            script_of(wanted, source),
            PYTHONPATH=str(shell.folder),
            PYTHONSTARTUP=startup,
            HOME=str(shell.folder),
        )
    assert json.loads(shell.read("report.json"))["code"] == "package-failed"
    assert not (shell.folder / "pwned").exists()


def test_a_signed_url_is_in_no_argument_of_a_process(shell: Shell) -> None:
    shell.program("hsm-agent", None)
    (shell.folder / "hsm-agent.deb").write_bytes(b"a package")
    real = sys.executable
    python = f'#!/bin/sh\nfor word; do echo "$word" >>words; done\nexec {real} "$@"\n'
    platform = shell.folder / "usr/libexec/platform-python"
    platform.parent.mkdir(parents=True)
    platform.write_text(python)
    platform.chmod(0o755)

    def send(exchange: Exchange) -> None:
        exchange.answer(200, Content_Length=9)
        exchange.wfile.write(b"a package")

    with receiver(send) as server:
        url = f"http://127.0.0.1:{server.server_port}/hsm-agent.deb?X-Amz-Signature=hidden"
        source = AgentSource("deb", "hsm-agent.deb", url, hashlib.sha256(b"a package").hexdigest())
        done = shell.run(script_of(LEAST, source))
    assert done.returncode == 0, done.stderr
    assert server.requests[0][0] == "/hsm-agent.deb?X-Amz-Signature=hidden"
    assert "hidden" not in shell.read("words")
    assert "hidden" not in done.stdout + done.stderr


# --- what must fail at boot fails at the desk


@pytest.mark.parametrize(
    ("words", "input_errors"),
    [
        (["--platform", "el99"], ["--platform: el99 is not a platform that reads shell"]),
        (["--platform", "windows"], ["--platform: windows is not a platform that reads shell"]),
        (["--component", "ksp"], ["--component: ksp is not made for"]),
        (["--platform", "el10", "--component", "dyn", "--component", "cli"], ["--component: dyn is not made for el10"]),
        (["--platform", "el9", "--agent", "https://b/a.deb", "--agent-sha256", "ab" * 32], ["--agent: el9 does not install a .deb"]),
        (["--report-to", "gopher://h/x"], ["is no place for a report"]),
        (["--report-to", "file:C:/r.json"], ["--report-to: 'file:C:/r.json' is not a path of Linux"]),
        (["--report-token-file", "C:\\token"], ["--report-token-file: 'C:\\\\token' is not a path of Linux"]),
        (["--package-source", "mirror"], ["--package-source: 'mirror' is no directory of the host: an absolute path of Linux is wanted"]),
        (["--format", "powershell", "--report-to", "cloudwatch:g/s"], ["--report-to: cloudwatch: is for Linux only", "the URL of an .msi"]),
        (["--format", "powershell", "--report-to", "junit:/r.xml"], ["--report-to: 'junit:/r.xml' is not a path of Windows"]),
        (["--proxy", "http://u:secret@proxy:3128"], ["--proxy: user-data must not contain a password"]),
        (["--proxy", "socks5://proxy:1080"], ["--proxy: http://HOST:PORT is wanted"]),
        (["--proxy", "http://proxy:3128';touch x;'"], ["--proxy: http://HOST:PORT is wanted"]),
        (["--no-proxy", ".corp"], ["--no-proxy: it needs --proxy"]),
        (["--proxy", "http://p:1", "--no-proxy", "a;b"], ["--no-proxy: names, addresses and ranges"]),
        (
            ["--platform", "el99", "--component", "nosuch", "--agent", "/no/such.deb", "--report-to", "x:y", "--sdk", "3"],
            ["el99", "nosuch", "there is no file /no/such.deb", "is no place for a report", "AWS no longer hosts SDK 3"],
        ),
    ],
)  # fmt: skip
def test_what_no_host_could_do_is_told_at_the_desk_all_at_once(
    words: list[str], input_errors: list[str]
) -> None:
    argv = [sys.executable, "-m", "agent", "user-data", "--hsm-ip", "10.0.1.6", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    for complaint in input_errors:
        assert complaint in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("size", [20_000, 2**23, 2**33])
def test_a_file_that_never_fits_is_told_by_its_size(tmp_path: Path, size: int) -> None:
    large = tmp_path / "hsm-agent.tar.gz"
    with large.open("wb") as file:
        file.write(os.urandom(20_000))
        file.truncate(size)
    with pytest.raises(AgentError) as caught:
        user_data(Posix(), LEAST, parse_agent_source(Posix(), str(large), None, "shell"), "shell")
    assert caught.value.code.name == "user-data-too-large"
    assert large.name in caught.value.saw
    assert "s3://BUCKET/KEY" in caught.value.hint


# --- proxies


def test_a_proxy_is_for_first_boot_and_for_the_units(shell: Shell) -> None:
    shell.program("hsm-agent", None)
    data = archive()
    asked: list[str] = []

    def send(exchange: Exchange) -> None:
        asked.append(exchange.path)
        exchange.answer(200, Content_Length=len(data))
        exchange.wfile.write(data)

    with receiver(send) as proxy:
        way = first_boot_options(f"http://127.0.0.1:{proxy.server_port}", ".corp,10.0.0.0/8", InputErrors())
        source = AgentSource(
            "tree", "t.tar.gz", "http://mirror.invalid/t.tar.gz", hashlib.sha256(data).hexdigest()
        )
        text = user_data(Posix(), LEAST, source, "shell", way).decode("ascii")
        text = text.replace("/etc/hsm-agent/environment", f"{shell.folder}/environment")
        done = shell.run(text, no_proxy="", http_proxy="")
    assert done.returncode == 0, done.stderr
    assert asked == ["http://mirror.invalid/t.tar.gz"]
    lines = shell.read("environment").splitlines()
    assert lines[0] == f"http_proxy=http://127.0.0.1:{proxy.server_port}"
    assert lines[1] == f"https_proxy=http://127.0.0.1:{proxy.server_port}"
    # the role's credentials are asked for there, and no proxy has them
    assert lines[2] == "no_proxy=localhost,127.0.0.1,::1,169.254.169.254,fd00:ec2::254,.corp,10.0.0.0/8"
    (shell.folder / "environment").write_text("as it was\n")
    shell.run(text)
    assert shell.read("environment") == "as it was\n"


def test_the_agent_comes_past_the_proxy_from_a_range_that_is_spared(shell: Shell) -> None:
    shell.program("hsm-agent", None)
    data = archive()
    (shell.folder / "t.tar.gz").write_bytes(data)
    with receiver(only(403)) as proxy, bucket(shell.folder, "127.0.0.2") as url:
        way = first_boot_options(f"http://127.0.0.1:{proxy.server_port}", ".corp,127.0.0.0/8", InputErrors())
        source = AgentSource("tree", "t.tar.gz", f"{url}/t.tar.gz", hashlib.sha256(data).hexdigest())
        text = user_data(Posix(), replace(LEAST, timeout=8.0), source, "shell", way).decode("ascii")
        done = shell.run(text.replace("/etc/hsm-agent/environment", f"{shell.folder}/environment"))
    assert (done.returncode, proxy.requests) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("10.0.0.0/8", "10.1.2.3"), ("10.0.0.0/8", "11.1.2.3"), (".corp, 10.1.2.0/24", "10.1.2.3"),
        ("fd00::/8", "fd12::1"), ("[fd00::]/8", "fd12::1"), ("fd00:ec2::254", "fd00:ec2::254"), ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3/24", "10.1.2.9"), ("", "10.1.2.3"), ("10.0.0.0/99", "10.1.2.3"), ("::/0", "10.1.2.3"),
        (".corp", "a.corp"),
    ],
)  # fmt: skip
def test_first_boot_spares_the_same_addresses_as_the_agent(
    no_proxy: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", no_proxy)
    known: dict[str, Any] = {"os": os, "ipaddress": ipaddress}
    exec(compile((ROOT / "templates/user-data/direct.py").read_text(), "direct.py", "exec"), known)
    place = f"[{host}]" if ":" in host else host
    asked = proxy_for(f"https://{place}/x", {"https_proxy": "http://p:1", "no_proxy": no_proxy})
    # names are urllib's own affair
    assert known["direct"](host) == (asked is None and not host.endswith(".corp"))


@pytest.mark.parametrize("unit", ["hsm-agent-verify.service", "hsm-agent-apply.service"])
def test_every_unit_knows_the_environment_that_an_administrator_wrote(unit: str) -> None:
    lines = (ROOT / "templates" / "units" / unit).read_text(encoding="utf-8").splitlines()
    assert "EnvironmentFile=-/etc/hsm-agent/environment" in lines
    assert "EnvironmentFile=-/etc/hsm-agent/environment" in script_of(LEAST).splitlines()


def test_a_first_boot_that_ends_degraded_is_not_done() -> None:
    script = script_of(LEAST)
    (done,) = re.findall(r"^SuccessExitStatus=(.*)$", script, re.MULTILINE)
    assert done.split() == ["60"]


def test_the_clock_is_waited_for_as_long_as_all_else(shell: Shell, ca_pem: bytes) -> None:
    shell.program("date", "#!/bin/sh\necho 1000\n")
    wanted = replace(LEAST, ca_cert=CaSource.of(ca_pem.decode()), timeout=2.0)
    start = time.monotonic()
    done = shell.run(script_of(wanted))
    assert done.returncode == 0
    assert 1 <= time.monotonic() - start < 60
    assert f"limit=$(($(uptime) + {PATIENCE}))" in script_of(replace(wanted, timeout=None))


def test_beside_another_part_cloud_config_keeps_both() -> None:
    tree = yaml.safe_load(user_data(Posix(), LEAST, AgentSource(), "cloud-config"))
    assert tree["merge_how"] == [
        {"name": "list", "settings": ["append"]},
        {"name": "dict", "settings": ["no_replace", "recurse_list"]},
    ]


# --- PowerShell, by its grammar: nothing here runs it


def commands(text: str) -> dict[str, list[list[str]]]:
    """The commands of a script: their names, and the words behind each."""
    grammar = pytest.importorskip("tree_sitter_powershell", reason="has no wheel for this Python")
    from tree_sitter import Language, Parser

    found: dict[str, list[list[str]]] = {}
    waiting = [Parser(Language(grammar.language())).parse(text.encode()).root_node]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        name = node.child_by_field_name("command_name") if node.type == "command" else None
        if name is not None and name.text is not None:
            words = (node.text or b"").decode()[len(name.text) :].split()
            found.setdefault(name.text.decode(), []).append(words)
    return found


@pytest.mark.parametrize("case", POWERSHELL, ids=lambda case: case.path.name)
def test_powershell_means_the_same_in_every_folder_language_and_shell(case: Case) -> None:
    text = case.text()
    found = commands(text)
    assert {"Test-Path", "Get-FileHash", "Remove-Item", "Add-Content", "Get-Content"} <= found.keys()
    for name, uses in found.items():
        # a bracket in -Path is a pattern
        assert not any("-Path" in words for words in uses), name
    for words in found["Remove-Item"]:
        # a file that a scanner holds fails nothing
        assert words[words.index("-ErrorAction") + 1] == "SilentlyContinue"
    # the calendar of a language is not everybody's
    assert "Get-Date" not in found
    assert not re.search(r"\{\d:[^}]*(yyyy|u)", text)
    assert "InvariantCulture" in text
    # a 32-bit shell has other folders under these names
    assert "ProgramW6432" in text
    assert "Sysnative" in text


@pytest.mark.parametrize("case", POWERSHELL, ids=lambda case: case.path.name)
def test_powershell_tells_a_failure_to_all_again_and_nobody_else(case: Case) -> None:
    found = commands(case.text())
    (post,) = found["Invoke-RestMethod"]
    assert post[post.index("-MaximumRedirection") + 1] == "0"
    assert "Send-CFNResourceSignal" in found
    assert "foreach ($attempt in 1, 2, 3)" in case.text()
    # where no agent and no log can be, the Event Log is
    assert "eventcreate.exe" in case.text()
    lines = case.text().splitlines()
    mode = next(number for number, line in enumerate(lines) if "LanguageMode" in line)
    # a method of .NET is refused there, so that nothing else would be said
    assert not any("::" in line for line in lines[:mode])


@pytest.mark.parametrize("case", POWERSHELL, ids=lambda case: case.path.name)
def test_powershell_writes_nothing_before_the_folder_is_found_closed(case: Case) -> None:
    text = case.text()
    (line,) = [each for each in text.splitlines() if "Add-Content" in each]
    before = text[: text.index(line)]
    assert before.rstrip().splitlines()[-2].strip() == "if ($next.log) {"
    assert text.count("$next.log = $true") == 1
    body = text[text.index("function New-Folder") : text.index("$next.log = $true")]
    assert body.count("Assert-Closed") == 2
    for word in ("ReparsePoint", "GetOwner", "GetAccessRules"):
        assert word in text[text.index("function Assert-Closed") : text.index("function Write-Line")]
    # every right that the agent's own reader of such lists counts as one to change things
    (mask,) = re.findall(r"-band (0x[0-9A-F]+)", text)
    for right in (0x2, 0x4, 0x40, 0x40000, 0x80000, 0x10000000, 0x40000000):
        assert int(mask, 16) & right


def test_what_shows_the_log_of_windows_is_one_command_in_both_of_its_shells() -> None:
    story = windows().log_command
    ((*words,),) = commands(story)["wevtutil"]
    assert words == ["qe", "Application", "\"/q:*[System[Provider[@Name='hsm-agent']]]\"", "/f:text"]


def test_a_proxy_of_windows_spares_the_same_hosts() -> None:
    input_errors: InputErrors = InputErrors()
    way = first_boot_options("http://proxy.corp:3128", ".corp,10.1.2.3,10.0.0.0/8", input_errors)
    assert input_errors.texts == []
    source = AgentSource("msi", "a.msi", "https://x/a.msi", "0" * 64)
    text = user_data(Posix(), LEAST, source, "powershell", way).decode("ascii")
    patterns = [re.compile(each) for each in re.findall(r"'(\^https.+?\$)'", text)]
    for url, spared in {
        "http://169.254.169.254": True, "https://desk.corp": True, "https://corp:8443": True, "http://[::1]:80": True,
        "https://10.1.2.3": True, "https://notcorp": False, "https://corp.example": False, "https://110.1.2.3x": False,
    }.items():  # fmt: skip
        assert any(each.match(url) for each in patterns) == spared, url
    assert "proxy.corp" not in user_data(Posix(), LEAST, source, "powershell").decode("ascii")
