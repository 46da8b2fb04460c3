"""The main job on every platform: from bare to proven, judged by testinfra and plain commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.core.codes import EXIT_STATUSES

from .scene import CA, ROWS, STATE, Scene, agent, cluster, prepare, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab

IMAGES = [name for name in ROWS if "+" not in name]


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        for image in IMAGES:
            for package in ("cloudhsm-cli", "cloudhsm-pkcs11"):
                made.package(image, package)
        yield made


@pytest.fixture
def host(scene: Scene, make_host: MakeHost, image: str) -> LabHost:
    made = make_host(image, agent=True)
    prepare(made, scene)
    return made


@pytest.mark.parametrize("image", IMAGES)
def test_from_bare_to_proven_and_back(scene: Scene, host: LabHost, image: str) -> None:
    options = scene.options(image)
    planned = agent(host, "plan", *options, "--component", "pkcs11")
    assert (planned.exit_status, planned.code) == (3, "drift"), planned
    for place in ("/opt/cloudhsm", "/var/cache/hsm-agent", "/var/log/hsm-agent"):
        assert not host.testinfra.file(place).exists
    assert not host.testinfra.file(STATE).exists

    first = agent(host, "configure", *options, "--component", "pkcs11")
    assert (first.exit_status, first.report["outcome"], first.report["changed"]) == (0, "ok", True), first
    assert [each["id"] for each in first.report["steps"] if each["outcome"] == "changed"] == [
        each["id"] for each in planned.report["steps"] if each["outcome"] == "would-change"
    ]
    for package in ("cloudhsm-cli", "cloudhsm-pkcs11"):
        assert version_of(host, image, package).startswith("5.18.0-1")
    ca = host.testinfra.file(CA)
    assert (ca.user, ca.group, ca.mode) == ("root", "root", 0o644)
    assert ca.content == scene.made.ca.cert.read_bytes()
    for component in ("cli", "pkcs11"):
        assert servers(host, component) == list(scene.addresses)
    answer = host.must(["/opt/cloudhsm/bin/cloudhsm-cli", "cluster", "hsm-info"])
    assert answer.count("serial-number") == 2
    assert host.testinfra.file(f"{STATE}/report.json").mode == 0o644
    assert host.testinfra.file("/var/cache/hsm-agent").listdir() == []

    second = agent(host, "configure", *options, "--component", "pkcs11")
    assert (second.exit_status, second.outcomes, second.report["changed"]) == (0, {"met"}, False)
    assert agent(host, "verify").outcomes == {"met"}
    status = host.run(["hsm-agent", "status"], user="nobody")
    assert (status.returncode, "all as wanted" in status.stdout) == (0, True), status

    removed = agent(host, "remove")
    assert (removed.exit_status, removed.outcomes) == (0, {"changed"}), removed
    assert not host.testinfra.file("/opt/cloudhsm/bin/cloudhsm-cli").exists
    assert (agent(host, "remove").exit_status, host.testinfra.file(CA).exists) == (0, True)

    again = agent(host, "configure", *options)
    assert (again.exit_status, servers(host)) == (0, list(scene.addresses))


def version_of(host: LabHost, image: str, package: str) -> str:
    if ROWS[image][2].endswith(".deb"):
        return host.must(["dpkg-query", "-W", "-f=${Version}", package])
    return host.must(["rpm", "-q", "--qf", "%{VERSION}-%{RELEASE}", package])


@pytest.mark.parametrize("image", ["ubuntu24.04", "amzn2023"])
def test_an_upgrade_when_asked_and_never_a_downgrade(scene: Scene, host: LabHost, image: str) -> None:
    scene.package(image, version="5.17.2-1")
    options = scene.options(image)
    old = agent(host, "configure", *options, "--client-version", "5.17.2")
    assert (old.exit_status, version_of(host, image, "cloudhsm-cli")[:8]) == (0, "5.17.2-1"), old

    kept = agent(host, "configure", *options)
    assert (kept.outcomes, "client-newer-available" in kept.told) == ({"met"}, True)

    new = agent(host, "configure", *options, "--client-version", "5.18.0")
    assert (new.exit_status, version_of(host, image, "cloudhsm-cli")[:8]) == (0, "5.18.0-1"), new
    # the new package brought its placeholder, and the same run configured it again
    assert (new.outcome("configure:cli"), servers(host)) == ("changed", list(scene.addresses))

    refused = agent(host, "configure", *options, "--client-version", "5.17.2")
    assert (refused.exit_status, refused.code) == (22, "package-downgrade")
    assert version_of(host, image, "cloudhsm-cli")[:8] == "5.18.0-1"


def test_a_host_outside_the_table_is_refused_by_name(scene: Scene, make_host: MakeHost) -> None:
    host = make_host("bullseye", agent=True)
    prepare(host, scene)
    ran = agent(host, "plan", "--hsm-ip", scene.addresses[0], "--ca-cert", "/root/customerCA.crt")
    assert (ran.exit_status, ran.code) == (10, "platform-unsupported")
    assert "--platform u22.04" in ran.report["failure"]["hint"]
    facts = host.run(["hsm-agent", "facts"])
    assert (facts.returncode, "--platform u22.04" in facts.stdout) == (10, True)


def test_nothing_of_the_run_is_readable_to_others(scene: Scene, make_host: MakeHost) -> None:
    host = make_host("ubuntu24.04", agent=True)
    prepare(host, scene)
    agent(host, "configure", *scene.options("ubuntu24.04"))
    done = host.run(["ls", STATE], user="nobody")
    assert done.returncode != 0
    assert host.run(["cat", f"{STATE}/desired.json"], user="nobody").returncode != 0


@pytest.mark.parametrize("image", IMAGES[:1])
def test_bytes_that_are_no_text_cost_no_report(scene: Scene, host: LabHost, image: str) -> None:
    """A name of a file is any bytes. What it stands in is kept, delivered and shown, and the run ends by the table."""
    odd = b"/root/\xff\xfe-\xed\xa0\x80".decode("utf-8", "surrogateescape")
    options = scene.options(image)
    assert agent(host, "configure", *options).exit_status == 0
    host.put("/root/token", b"secret\n", 0o600)
    host.must(["cp", "-a", "/root/token", odd])
    calls = (
        ("--report-to", f"file:{odd}.json"), ("--report-to", f"junit:{odd}.xml"), ("--report-to", f"prometheus:{odd}"),
        ("--log-file", odd, "--log-type", "file"), ("--report-to", "https://127.0.0.1:1/", "--report-token-file", odd),
        ("--report-to", f"https://127.0.0.1:1/{odd}"), ("--package-source", odd), ("--ca-cert", odd), ("--client-cert", odd, "--client-key", odd),
    )  # fmt: skip
    for words in calls:
        kept = options if words[0] not in ("--package-source", "--ca-cert") else without(options, words[0])
        done = agent(host, "configure", *kept, *words)
        assert done.exit_status in EXIT_STATUSES, (words, done)
        assert (done.exit_status != 1, "Traceback" in done.err) == (True, False), (words, done)
        if done.code != "config-invalid":
            last = json.loads(host.get(f"{STATE}/report.json"))
            assert last["run_id"] == done.report["run_id"], words
    shown = host.run(["hsm-agent", "status"])
    assert "Traceback" not in shown.stderr
    assert agent(host, "configure", *options).exit_status == 0


def without(options: list[str], name: str) -> list[str]:
    """Return the options without one and its value."""
    place = options.index(name)
    return [*options[:place], *options[place + 2 :]]
