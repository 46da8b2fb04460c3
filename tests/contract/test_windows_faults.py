"""The main job on Windows when packages, tools, cluster, files or the agent itself fail: the cause, and no harm done."""

from __future__ import annotations

import sys

import pytest

from agent.cli.root import main
from tests.windows.cluster import FIRST, NOBODY, SECOND
from tests.windows.found import CLUSTER, Source
from tests.windows.job import (
    CA,
    VENDOR,
    WAIT,
    a_virgin_host,  # noqa: F401 -- pytest takes it from here for every test
    configure,
    end_tools,
    hsm_agent,
    installed,
    misbehave,
    program,
    servers,
    words,
)  # fmt: skip

assert sys.platform == "win32"


@pytest.mark.parametrize("name", ["other-place", "forgets", "four-numbers"])
def test_what_is_not_documented_may_be_otherwise(name: str) -> None:
    """Where the configuration lies, whether an update keeps it, how many numbers a version has."""
    source = Source(name)
    assert configure(source=source).status == 0
    second = configure(source=source)
    assert (second.status, set(second.steps.values())) == (0, {"met"}), second


def test_an_older_client_is_upgraded_when_it_is_asked_for_and_never_downgraded() -> None:
    assert configure("--client-version=5.17.1").status == 0
    assert installed() == {"AWSCloudHSMCLI": "5.17.1"}
    kept = configure()
    assert (kept.status, kept.steps["package:cli"]) == (0, "met"), kept
    assert configure("--client-version=5.18.0").status == 0
    assert installed() == {"AWSCloudHSMCLI": "5.18.0"}
    assert servers() == [FIRST, SECOND]
    down = configure("--client-version=5.17.1")
    assert (down.status, down.report["code"]) == (22, "package-downgrade"), down
    assert installed() == {"AWSCloudHSMCLI": "5.18.0"}


def test_one_hsm_that_is_silent_is_named_and_nothing_is_undone() -> None:
    degraded = configure(ips=(FIRST, NOBODY))
    assert (degraded.status, degraded.report["code"]) == (41, "hsm-degraded"), degraded
    assert degraded.step(f"reach:{NOBODY}:2223")["code"] == "hsm-refused"
    assert servers() == [FIRST, NOBODY]


@pytest.mark.parametrize(
    ("mode", "status", "code"),
    [
        ("unactivated", 43, "cluster-not-activated"),
        ("other-ca", 42, "client-tls-failed"),
        ("mtls", 42, "client-disconnected"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_told_by_its_cause(mode: str, status: int, code: str) -> None:
    CLUSTER.mode(mode)
    ran = configure()
    assert (ran.status, ran.report["code"]) == (status, code), ran


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("lie", "configure-not-applied"),
        ("wrong", "configure-not-applied"),
        ("fail", "configure-failed"),
        ("hang", "configure-failed"),
        ("fail-with-effect", None),
        ("noisy", None),
        ("garbage", None),
        ("orphan", None),
    ],
)
def test_the_configure_tool_is_believed_by_its_file_alone(word: str, code: str | None) -> None:
    misbehave("configure-cli", word)
    ran = configure(*(["--timeout=12s"] if word == "hang" else []))
    assert (ran.report["code"], ran.status) == (code, 50 if code else 0), ran


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("refuses", 22, "package-failed"),
        ("damaged", 22, "package-failed"),
        ("another-product", 22, "package-failed"),
    ],
)
def test_a_package_that_cannot_be_used_is_told(name: str, status: int, code: str) -> None:
    ran = configure(source=Source(name))
    assert (ran.status, ran.report["code"]) == (status, code), ran
    assert ran.steps["configure:cli"] == "skipped"


def test_other_bytes_than_those_that_are_wanted_are_not_installed() -> None:
    file = "AWSCloudHSMCLI-5.18.0-1.msi"
    ran = hsm_agent(
        "configure", "--platform=windows", f"--hsm-ip={FIRST}", f"--hsm-ip={SECOND}", f"--ca-cert={CLUSTER.ca}",
        f"--package-source={VENDOR.folder}", f"--sha256={file}={'0' * 64}",
    )  # fmt: skip
    assert (ran.status, ran.report["code"], installed()) == (21, "checksum-mismatch", {}), ran


def test_a_file_that_another_program_holds_open_is_told_and_nothing_is_half_written() -> None:
    assert configure().status == 0
    old = CA.read_bytes()
    with CA.open("rb"):
        ran = hsm_agent(
            "configure", *[word for word in words("--replace-ca") if not word.startswith("--ca-cert")],
            f"--ca-cert={CLUSTER.other_ca}",
        )  # fmt: skip
    assert (ran.status, ran.report["cause"] or ran.report["code"]) == (11, "write-failed"), ran
    assert CA.read_bytes() == old


def test_two_runs_at_once_refuse_each_other() -> None:
    misbehave("configure-cli", "hang")
    first = program("configure", *words("--timeout=60s"))
    try:
        assert first.stderr is not None
        assert any("certificate changed" in line for line in first.stderr)
        second = configure()
        assert (second.status, second.report["code"]) == (11, "run-locked"), second
        assert "hsm-agent configure, run" in second.report["failure"]["saw"]
    finally:
        first.kill()
        first.communicate(timeout=WAIT)
        end_tools()
    misbehave("configure-cli", "")
    assert configure().status == 0


def test_killed_in_the_middle_again_and_again_the_next_run_completes() -> None:
    """Each kill meets a run that goes on from where the one before was killed."""
    for number in (1, 2, 4):
        going = program("configure", *words("--component=pkcs11"))
        assert going.stderr is not None
        for told, _ in enumerate(going.stderr, 1):
            if told == number:
                break
        going.kill()
        going.communicate(timeout=WAIT)
    ran = configure("--component=pkcs11")
    assert (ran.status, ran.report["code"]) == (0, None), ran
    assert set(configure("--component=pkcs11").steps.values()) == {"met"}
    assert installed() == {"AWSCloudHSMCLI": "5.18.0", "AWSCloudHSMPKCS11": "5.18.0"}


def test_a_restart_that_windows_installer_asks_for_is_told() -> None:
    ran = configure(source=Source("reboot"))
    assert (ran.status, ran.report["code"]) == (23, "reboot-required"), ran
    assert ran.steps["certificate"] == "skipped"
    after = configure(source=Source("reboot"))  # Wine has nothing to replace at its next start
    assert (after.status, after.steps["package:cli"]) == (0, "met"), after


@pytest.mark.parametrize("typed", [["demo"], ["fleet", "status"]], ids=" ".join)
def test_what_needs_linux_says_so(typed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed) == 10
    assert "runs on Linux alone" in capsys.readouterr().err


def test_sdk_3_with_its_service() -> None:
    ran = configure("--sdk=3")
    assert (ran.status, ran.steps["service"]) == (0, "met"), ran  # the configure step has started it
    second = configure("--sdk=3")
    assert (second.status, set(second.steps.values())) == (0, {"met"}), second
