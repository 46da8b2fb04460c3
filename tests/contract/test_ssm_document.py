"""Documents of Systems Manager as others read them: a shell, shellcheck, a grammar of PowerShell, botocore's models."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given

from agent.config.desired import resolve
from agent.config.input_errors import InputErrors
from agent.config.readers import read_text
from agent.core.errors import AgentError
from agent.fleet.run_spec import MOST_PARALLEL
from agent.hosts.posix import Posix
from agent.ssm_document import (
    BASE64,
    SECONDS,
    AgentSources,
    association_of,
    configure_document,
    content_of,
    encoded,
    name_of,
    rollout_document,
)
from agent.user_data import config_json, parse_agent_source
from tests.examples import examples
from tests.fakes.moto_server import client
from tests.fakes.scripts import TEXTS, Shell, archive, bucket
from tests.golden.first_boots import LEAST, USUAL
from tests.golden.ssm_cases import CASES, MSI, Case

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config.desired import Desired

# what is installed and, once it runs, keeps what it was given on standard input and on its command line
AGENT = """#!/bin/sh
case $1 in
--version) echo hsm-agent 0.1.0 ;;
configure) printf '%s\\n' "$@" >argv; cat >config; echo the report; exit 41 ;;
run-command) cat >request; echo packed ;;
esac
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.program("hsm-agent", AGENT)
    (tmp_path / "agent").write_text(AGENT)
    return shell


def substituted(script: str, request: str) -> str:
    """Return a script as agents of SSM before 3.3.2746.0 run it: they write the value in its place."""
    return script.replace("{{ request }}", request)


def given_options(shell: Shell) -> Desired:
    input_errors = InputErrors()
    read = read_text((shell.folder / "config").read_bytes(), "-", input_errors)
    return resolve([read], input_errors)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shellcheck_has_nothing_to_say(case: Case) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck, which `packaging/bootstrap test` installs")
    words = ["shellcheck", "-"]
    done = subprocess.run(
        words, input=case.script(0), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_powershell_is_ascii_and_follows_its_grammar(case: Case) -> None:
    grammar = pytest.importorskip("tree_sitter_powershell", reason="has no wheel for this Python")
    from tree_sitter import Language, Parser

    parser = Parser(Language(grammar.language()))
    text = case.script(1).encode("ascii")
    assert not parser.parse(text).root_node.has_error
    assert parser.parse(text.replace(b"}", b"", 1)).root_node.has_error  # it finds what is wrong


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_aws_takes_the_document_and_its_association(case: Case) -> None:
    """botocore's models have the lengths and patterns of both requests; the document's own form they do not know."""
    from botocore.stub import Stubber

    ssm = client("http://127.0.0.1:9", "ssm")
    name = name_of(case.document)
    with Stubber(ssm) as stub:
        stub.add_response("create_document", {})
        content = content_of(case.document)
        ssm.create_document(Content=content, Name=name, DocumentType="Command", DocumentFormat="JSON")
        stub.add_response("create_association", {})
        targets = [("tag:Role", ["hsm", "web"])]
        ssm.create_association(**association_of(case.document, targets, "rate(1 day)", MOST_PARALLEL))
    assert re.fullmatch(r"[a-zA-Z0-9_\-.]{3,128}", name)
    assert len(content) <= 64 * 1024


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_only_the_request_and_the_limit_are_filled_in(case: Case) -> None:
    for step in case.document["mainSteps"]:
        assert step["inputs"]["timeoutSeconds"] == "{{ executionTimeout }}"
        script = "\n".join(step["inputs"]["runCommand"])
        assert re.findall(r"\{\{.*?\}\}", script) == ["{{ request }}"]
    assert set(case.document["parameters"]) == {"request", "executionTimeout"}
    for name, values in case.document["parameters"].items():
        assert values["allowedPattern"] == {"request": BASE64, "executionTimeout": SECONDS}[name]
        assert re.fullmatch(values["allowedPattern"], values.get("default", "77"))


@pytest.mark.parametrize("text", ["'$(touch pwned)'", "a b", "a\n", "{{ssm:secret}}", "a=b", "===", '"'])
def test_a_parameter_that_is_no_base64_is_refused(text: str) -> None:
    assert re.search(BASE64.replace("$", r"\Z"), text) is None


@examples(20, suppress=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_every_value_arrives_as_it_was_and_none_becomes_code(shell: Shell, text: str) -> None:
    wanted = replace(LEAST, package_source=text.rstrip("/") or "/")
    case = Case("", configure_document(wanted, AgentSources()))
    request = case.document["parameters"]["request"]["default"]
    by_variable = shell.run(case.script(0), SSM_request=request)
    assert (by_variable.returncode, given_options(shell)) == (41, wanted), by_variable.stderr
    by_text = shell.run(substituted(case.script(0), request))
    assert (by_text.stdout, given_options(shell)) == ("the report\n", wanted)
    assert not (shell.folder / "pwned").exists()


def test_the_exit_status_and_the_words_are_those_of_configure(shell: Shell) -> None:
    wanted = replace(USUAL, timeout=77.0, replace_ca=True)
    case = Case("", configure_document(wanted, AgentSources()))
    done = shell.run(case.script(0), SSM_request=encoded(config_json(LEAST)))
    assert (done.returncode, done.stdout) == (41, "the report\n")
    words = "configure --config - --output json --quiet --timeout 77s --replace-ca"
    assert shell.read("argv").split() == words.split()
    assert given_options(shell) == LEAST  # what is given with the command, not the default


@pytest.mark.parametrize("kind", ["package", "deb", "tree"])
def test_the_agent_is_brought_once_and_answers(shell: Shell, kind: str) -> None:
    data = archive_of_agent() if kind == "tree" else b"a package"
    name = "hsm-agent.tar.gz" if kind == "tree" else "hsm-agent.deb"
    (shell.folder / name).write_bytes(data)
    shell.program("hsm-agent", None)
    with bucket(shell.folder) as url:
        text = "package" if kind == "package" else f"{url}/{name}"
        sha256 = None if kind == "package" else hashlib.sha256(data).hexdigest()
        linux = parse_agent_source(Posix(), text, sha256, "shell")
        script = Case("", rollout_document(AgentSources(linux))).script(0)
        first = shell.run(script, SSM_request="QUJD")
    # the second time nothing serves it any more
    second = shell.run(script, SSM_request="QUJE")
    assert [(each.returncode, each.stdout) for each in (first, second)] == [(0, "packed\n")] * 2, first.stderr
    assert shell.read("request") == "QUJE"


def test_nobody_else_can_hold_the_lock_of_the_installation(shell: Shell) -> None:
    script = Case("", rollout_document(AgentSources())).script(0)
    assert shell.run(script, SSM_request="QUJD").returncode == 0
    assert (shell.folder / "var/lib/hsm-agent/ssm.lock").stat().st_mode & 0o777 == 0o600


def archive_of_agent() -> bytes:
    """Return a tree with the agent of these tests."""
    import gzip
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        (name,) = tar.getnames()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        info = tarfile.TarInfo(name)
        info.mode, info.size = 0o755, len(AGENT)
        made.addfile(info, io.BytesIO(AGENT.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("another file", "checksum-mismatch", 21),
        ("no such file", "package-not-found", 20),
        ("an agent that does not start", "package-failed", 22),
    ],
)
def test_what_fails_before_there_is_an_agent_has_a_code(
    shell: Shell, fault: str, code: str, status: int
) -> None:
    (shell.folder / "hsm-agent.deb").write_bytes(b"a package")
    shell.program("hsm-agent", None)
    if fault == "an agent that does not start":
        (shell.folder / "agent").write_text("#!/bin/sh\necho no Python here\nexit 1\n")
    with bucket(shell.folder) as url:
        name = "other.deb" if fault == "no such file" else "hsm-agent.deb"
        data = b"another" if fault == "another file" else b"a package"
        linux = parse_agent_source(Posix(), f"{url}/{name}", hashlib.sha256(data).hexdigest(), "shell")
        done = shell.run(Case("", rollout_document(AgentSources(linux))).script(0), SSM_request="QUJD")
    assert done.returncode == status
    assert done.stdout.startswith(f"hsm-agent failed {code}: ")


def test_a_document_that_does_not_fit_is_refused() -> None:
    many = replace(LEAST, sha256={f"file-{number}.deb": "0" * 64 for number in range(1000)})
    with pytest.raises(AgentError) as raised:
        configure_document(many, AgentSources())
    assert raised.value.code.name == "user-data-too-large"


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "ssm-document", *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_prints_it() -> None:
    done = command("--hsm-ip", "10.0.1.6", "--windows-agent", MSI.url, "--windows-agent-sha256", MSI.sha256)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    options = json.loads(base64.b64decode(document["parameters"]["request"]["default"]))
    assert options == {"hsm": {"ip": ["10.0.1.6"]}}
    assert f"name: {name_of(document)}\n" in done.stderr
    assert "package-not-found" in done.stderr


def test_the_command_prints_an_association_that_spares_the_cluster() -> None:
    done = command("--hsm-ip", "10.0.1.6", "--format", "association", "--target", "tag:Role=hsm,web")
    association = json.loads(done.stdout)
    assert association["Targets"] == [{"Key": "tag:Role", "Values": ["hsm", "web"]}]
    assert int(association["MaxConcurrency"]) * 2 <= 900 // 2


def test_all_complaints_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"a tree")
    done = command(
        "--agent", str(tmp_path / "a.tar.gz"), "--windows-agent", "https://x/a.deb", "--format", "association",
        "--schedule", "rate(5 minutes)", "--target", "Role=hsm",
    )  # fmt: skip
    assert done.returncode == 2
    for complaint in (
        "--agent: a document has no room",
        "--windows-agent-sha256: ",
        "--windows-agent: ",
        "--schedule: 'rate(5 minutes)'",
        "--target: 'Role=hsm'",
    ):
        assert complaint in done.stderr, done.stderr
