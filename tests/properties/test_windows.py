"""What holds for a whole run on Windows alone: restarts and signatures. All else is in test_laws.py, for both systems."""

from __future__ import annotations

from agent.config.desired import Desired
from agent.core.model import RunOutcome, StepOutcome
from tests.fakes.vendor import WindowsVendor
from tests.properties.worlds import configure, desired_of, look, machine_of, outcomes


def test_a_restart_that_is_due_ends_the_run_and_is_not_forgotten(ca_pem: bytes) -> None:
    vendor = WindowsVendor(moods={"installer": "reboot"})
    memory = machine_of(vendor)
    desired = desired_of(vendor, ca_pem, "pkcs11")
    first = configure(memory, desired)
    assert (first.code, first.exit_status, first.changed) == ("reboot-required", 23, True), first
    assert outcomes(first)["certificate"] is StepOutcome.SKIPPED
    # nothing was restarted: it is seen in the registry, and nothing is changed but our own records
    vendor.moods.clear()
    memory.touches.clear()
    assert configure(memory, desired, 2).code == "reboot-required"
    own = {memory.system.report, memory.system.lock, memory.system.desired}
    assert {touch[1] for touch in memory.touches} <= own
    vendor.restart()
    assert (configure(memory, desired, 3).outcome, look(memory, Desired(), "verify").exit_status) == (
        RunOutcome.OK,
        0,
    )


def test_a_package_whose_signature_is_of_other_bytes_is_not_installed(ca_pem: bytes) -> None:
    vendor = WindowsVendor(moods={"signature": "HashMismatch"})
    report = configure(machine_of(vendor), desired_of(vendor, ca_pem))
    assert (report.code, report.exit_status, vendor.installed) == ("checksum-mismatch", 21, {})
    vendor.moods["signature"] = "NotSigned"
    told = configure(machine_of(vendor), desired_of(vendor, ca_pem), 2)
    assert (told.exit_status, [notice.code for notice in told.notices]) == (0, ["signature-unusual"])
