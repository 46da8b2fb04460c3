"""The bundle for somebody who helps: what is in it, what never is, and that half a host is enough."""

from __future__ import annotations

import datetime as dt
import io
import json
import tarfile

import pytest

from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.system import LINUX
from agent.support_bundle import MOST_BYTES, MOST_FILES, BundlePart, archive, bundle_parts, index
from tests.fakes.memory import Entry, Memory

LOGS = "/opt/cloudhsm/run"
SECRET = "Zq9Zq9geheimgeheim"
NOW = dt.datetime(2026, 11, 30, tzinfo=dt.timezone.utc)


def host() -> Memory:
    """A host with a secret in everything that is read."""
    line = f"token={SECRET}\n".encode()
    url = f"https://u:{SECRET}@m.example/?sig={SECRET}"
    return Memory(
        {
            LINUX.report: json.dumps({"outcome": "ok", "token": SECRET, "asked": {"to": [url]}}).encode(),
            LINUX.configuration: f'# token={SECRET}\n[report]\nto = ["https://r.example/?t={SECRET}"]\n'.encode(),
            f"{LINUX.configuration_folder}/a.toml": f"# password: {SECRET}\n".encode(),
            "/opt/cloudhsm/etc/cloudhsm-cli.cfg": json.dumps({"clusters": [], "pin": SECRET}).encode(),
            "/opt/cloudhsm/etc/customerCA.crt": b"nothing",
            f"{LINUX.log}/hsm-agent.log": line,
            f"{LINUX.state}/desired.json": line,
            f"{LOGS}/cloudhsm-cli.log": line,
            f"{LOGS}/cloudhsm-pkcs11.log.2026-11-29": line,
            f"{LOGS}/other.log": line,
        },
        programs={
            "journalctl": CommandResult(0, line.decode(), ""),
            "uname": CommandResult(0, "x86_64\n", ""),
        },
    )


def parts(memory: Memory, **environ: str) -> tuple[BundlePart, ...]:
    return tuple(bundle_parts(memory, environ))


def test_everything_is_there_and_no_secret_is() -> None:
    found = parts(host(), HSM_AGENT_REPORT_TOKEN=SECRET)
    assert [each.name for each in found] == [
        "versions.json", "facts.json", "config.json", "report.json", "state.txt", "configuration/config.toml",
        "configuration/a.toml", "client/cloudhsm-cli.cfg", "client/CA.txt", "log/hsm-agent.log",
        "log/journal-hsm-agent.txt", "log/journal-first-boot.txt", "log/journal-cloudhsm-client.txt",
        "log/vendor/cloudhsm-cli.log", "log/vendor/cloudhsm-pkcs11.log.2026-11-29",
    ]  # fmt: skip
    assert not any(SECRET in each.text or SECRET in each.fault for each in found)
    texts = {each.name: each.text for each in found}
    assert json.loads(texts["report.json"])["outcome"] == "ok"
    assert "desired.json" in texts["state.txt"]
    assert texts["log/vendor/cloudhsm-cli.log"] == "token=(hidden)\n"


def test_the_archive_has_an_index_and_what_could_be_read() -> None:
    found = (
        BundlePart("a/b.txt", "/a", "words"),
        BundlePart("c.txt", "/c", fault="cannot be read: not root"),
    )
    packed = archive(found, "support-web1", NOW)
    assert archive(found, "support-web1", NOW)[10:] == packed[10:]
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getnames() == ["support-web1/index.json", "support-web1/a/b.txt"]
        assert {each.mode for each in tar.getmembers()} == {0o600}
        stream = tar.extractfile("support-web1/index.json")
        assert stream is not None
        assert json.load(stream) == index(found)
    assert [(each["name"], each["bytes"], each["fault"]) for each in index(found)] == [
        ("a/b.txt", 5, None),
        ("c.txt", 0, "cannot be read: not root"),
    ]


def test_what_cannot_be_read_is_named_and_the_rest_is_there() -> None:
    memory = host()
    for path in (LINUX.report, f"{LOGS}/cloudhsm-cli.log", LINUX.configuration):
        memory.entries[path] = Entry("directory")
    memory.programs["journalctl"] = CommandResult(127, "", "not found")
    faults = {each.name for each in parts(memory) if each.fault}
    assert {
        "report.json",
        "log/vendor/cloudhsm-cli.log",
        "configuration/config.toml",
        "config.json",
    } <= faults
    assert "log/journal-first-boot.txt" in faults
    assert any(each.name == "facts.json" and not each.fault for each in parts(memory))


def test_a_link_among_the_logs_brings_nothing_that_only_root_may_read() -> None:
    memory = host()
    memory.place("/root/id", b"a key without a mark")
    memory.entries[f"{LOGS}/cloudhsm-jce.log"] = Entry("link", link="/root/id")
    memory.entries[f"{LOGS}/cloudhsm-dyn.log"] = Entry(data=b"a key without a mark", names=2)
    made = {each.name: each for each in parts(memory)}
    assert "no log of its own" in made["log/vendor/cloudhsm-jce.log"].fault
    assert "2 names" in made["log/vendor/cloudhsm-dyn.log"].fault
    assert all("without a mark" not in each.text for each in made.values())


def test_an_interrupt_ends_it() -> None:
    memory = host()
    memory.stopped = True
    with pytest.raises(AgentError) as caught:
        parts(memory)
    assert caught.value.code.name == "interrupted"


def test_a_bundle_is_bounded() -> None:
    memory = host()
    memory.place(f"{LINUX.log}/hsm-agent.log", b"first line\n" + b"x" * (4 * MOST_BYTES))
    for number in range(2 * MOST_FILES):
        memory.place(f"{LINUX.configuration_folder}/{number:03}.toml", b"")
        memory.place(f"{LOGS}/cloudhsm-cli.log.{number:03}", b"")
    found = parts(memory)
    assert len(found) == MOST_FILES + 1
    assert "left out" in found[-1].fault
    log = tuple(bundle_parts(host(), {}))
    assert all(len(each.text) <= 2 * MOST_BYTES for each in (*found, *log))
