"""The main job on Windows, from Windows Installer to the report: first run, second run, drift, undo, removal."""

from __future__ import annotations

import subprocess
import sys

from tests.windows.cluster import FIRST, NOBODY, SECOND
from tests.windows.found import CLUSTER
from tests.windows.job import (
    CA,
    DATA,
    OWN,
    PROGRAMS,
    SETTINGS,
    WAIT,
    a_virgin_host,  # noqa: F401 -- pytest takes it from here for every test
    configure,
    ended,
    hsm_agent,
    installed,
    misbehave,
    program,
    servers,
    words,
)  # fmt: skip

assert sys.platform == "win32"

# --- as it should be


def test_a_virgin_host_is_brought_to_a_proven_state_and_a_second_run_finds_all_met() -> None:
    plan = hsm_agent("plan", *words("--component=pkcs11", "--component=ksp"))
    assert (plan.status, set(plan.steps.values())) == (3, {"would-change", "met", "skipped"}), plan
    assert not OWN.exists()
    assert installed() == {}
    first = ended(program("configure", *words("--component=pkcs11", "--component=ksp")))
    assert (first.status, first.report["outcome"], first.report["code"]) == (0, "ok", None), first
    assert [name for name, outcome in first.steps.items() if outcome == "changed"] == [
        name for name, outcome in plan.steps.items() if outcome == "would-change"
    ]
    assert installed() == {
        "AWSCloudHSMCLI": "5.18.0",
        "AWSCloudHSMPKCS11": "5.18.0",
        "AWSCloudHSMKSP": "5.18.0",
    }
    for component in ("cli", "pkcs11", "ksp"):
        assert servers(DATA / "data" / f"cloudhsm-{component}.cfg") == [FIRST, SECOND]
    assert CA.read_bytes() == CLUSTER.ca.read_bytes()
    assert [(hsm["ip"], hsm["reached"]) for hsm in first.report["hsms"]] == [(FIRST, True), (SECOND, True)]
    assert first.report["host"]["platform"] == "windows"
    # PowerShell is a stub here, and so it is told that nobody vouched for the signature
    assert {each["code"] for each in first.report["warnings"]} == {
        "platform-forced", "signature-unchecked", "checksum-replaced",
    }  # fmt: skip
    written = SETTINGS.stat().st_mtime_ns
    second = configure("--component=pkcs11", "--component=ksp")
    assert (second.status, set(second.steps.values()), second.report["changed"]) == (0, {"met"}, False), (
        second
    )
    assert SETTINGS.stat().st_mtime_ns == written
    looked = hsm_agent("verify")
    assert (looked.status, set(looked.steps.values())) == (0, {"met"}), looked
    status = hsm_agent("status")
    assert (status.status, status.report["command"]) == (0, "verify")


def test_drift_is_found_with_its_cause_and_cured() -> None:
    assert configure().status == 0
    subprocess.run([PROGRAMS / "bin" / "configure-cli.exe", "-a", NOBODY], check=True, timeout=WAIT)
    CA.write_bytes(CLUSTER.other_ca.read_bytes())
    looked = hsm_agent("verify")
    assert (looked.status, looked.report["code"]) == (31, "ca-would-be-replaced"), looked
    CA.unlink()
    looked = hsm_agent("verify")
    assert (looked.status, looked.steps["certificate"], looked.steps["configure:cli"]) == (
        3, "would-change", "would-change",
    ), looked  # fmt: skip
    assert hsm_agent("configure").status == 0
    assert (servers(), hsm_agent("verify").status) == ([FIRST, SECOND], 0)


def test_removal_takes_the_client_off_and_keeps_a_copy() -> None:
    assert configure("--component=ksp").status == 0
    gone = hsm_agent("remove")
    assert (gone.status, gone.steps) == (
        0, {"package:ksp": "changed", "package:cli": "changed", "firewall": "met"},
    ), gone  # fmt: skip
    assert (installed(), (PROGRAMS / "bin").exists()) == ({}, False)
    again = hsm_agent("remove")
    assert (again.status, again.report["changed"]) == (0, False), again
    CA.unlink()
    back = hsm_agent("rollback", gone.report["run_id"])
    assert (back.status, CA.read_bytes()) == (0, CLUSTER.ca.read_bytes()), back


def test_a_run_that_fails_on_a_host_that_worked_is_undone() -> None:
    assert configure().status == 0
    misbehave("configure-cli", "half")
    failed = configure("--accept-single-hsm", ips=(SECOND,))
    # what a tool leaves half is put back at once, so that nothing was changed
    assert (failed.status, failed.report["code"], failed.report["changed"]) == (50, "configure-failed", False)
    assert servers() == [FIRST, SECOND]
    # what the failed run was asked for counts until a `configure` succeeds
    assert hsm_agent("verify").status == 3
    assert (configure().status, hsm_agent("verify").status) == (0, 0)
