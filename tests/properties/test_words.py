"""What a run says: what it was asked for, everything that is wrong at once, and hints with the values that are known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent import commands
from agent.config.desired import Desired
from agent.config.input_errors import InputErrors
from agent.core.errors import AgentError
from agent.render import json_report, screen
from agent.render.progress import NullProgress
from agent.render.schema_check import first_violation
from agent.report import RunInfo
from agent.run import report_invalid_input
from agent.state.last_report import last_report
from tests.fakes.memory import Memory
from tests.fakes.vendor import Vendor, catalogue
from tests.properties.worlds import STARTED, configure, desired_of, look, machine_of

if TYPE_CHECKING:
    from agent.core.model import Report


def tree(report: Report) -> dict[str, object]:
    found: dict[str, object] = json.loads(json_report.to_document(report))
    schema = json_report.schema()
    assert first_violation(found, schema, schema) is None
    return found


def test_a_report_says_what_was_asked(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    wanted = desired_of(vendor, ca_pem, "pkcs11", client_version="5.18.0", report_token_file="/root/token")
    asked = tree(configure(memory, wanted))["asked"]
    assert isinstance(asked, dict)
    assert (asked["addresses"], asked["components"], asked["version"]) == (
        list(vendor.addresses), ["pkcs11"], "5.18.0",
    )  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{64}", asked["ca_fingerprint"])
    assert "token" not in json.dumps(asked)
    # a look without options is for the same
    assert tree(look(memory, Desired(), "verify"))["asked"] == asked


def test_a_report_of_a_run_that_ended_early_says_what_was_asked(ca_pem: bytes) -> None:
    vendor = Vendor()
    wanted = desired_of(vendor, ca_pem, "ksp")
    asked = tree(configure(machine_of(vendor), wanted))["asked"]
    assert isinstance(asked, dict)
    assert asked["components"] == ["ksp"]


@pytest.mark.parametrize("command", ["rollback", "remove"])
def test_a_run_that_is_asked_for_nothing_says_so(command: str, ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem))
    run = RunInfo("20261125T000000Z-0000", command, STARTED, catalogue=catalogue())
    report = (
        commands.rollback(memory, None, run, NullProgress())
        if command == "rollback"
        else commands.remove(memory, run, NullProgress(), None)
    )
    assert tree(report)["asked"] is None


def test_options_without_an_address_are_told_what_they_lack() -> None:
    memory = machine_of(Vendor())
    report = configure(memory, Desired(component=("pkcs11",)))
    assert (report.code, report.exit_status) == ("config-invalid", 2)
    assert report.failure is not None
    assert "--hsm-ip" in report.failure.saw
    assert "--ca-cert" in report.failure.saw
    # who is told, and for how long it may take, is not about a host
    assert configure(memory, Desired(timeout=60.0)).code == "nothing-recorded"


def test_what_lacks_is_told_with_what_is_wrong(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    wrong = InputErrors(["--log-level: 'loud' is none"]).error()
    run = RunInfo("20261125T000000Z-0000", "configure", STARTED, catalogue=catalogue())
    report = report_invalid_input(memory, run, wrong, Desired())
    assert report.failure is not None
    assert report.failure.sentence.startswith("3 things are wrong")
    assert [line.partition(":")[0] for line in report.failure.saw.splitlines()] == [
        "--log-level", "--hsm-ip", "--ca-cert",
    ]  # fmt: skip
    # not what was said, though wrongly, nor what the record has
    spelled = InputErrors(["hsm.ip: 'x' is not an IP address", "HSM_AGENT_CA_CERT: no"]).error()
    assert report_invalid_input(memory, run, spelled, Desired()).failure.saw == spelled.saw  # type: ignore[union-attr]
    configure(memory, desired_of(vendor, ca_pem))
    assert report_invalid_input(memory, run, wrong, Desired()).failure.saw == wrong.saw  # type: ignore[union-attr]


def test_one_complaint_is_not_every_line() -> None:
    assert "every line" not in InputErrors(["--hsm-ip: no"]).error().hint
    assert "every line" in InputErrors(["--hsm-ip: no", "--sdk: no"]).error().hint
    assert "no host was contacted" in InputErrors(["a: no"]).error("inventory-invalid").hint


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_a_host_that_was_never_configured_has_not_drifted(command: str, ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    wanted = desired_of(vendor, ca_pem)
    new = look(memory, wanted, command)
    assert new.failure is not None
    assert (new.exit_status, "no `configure` is recorded" in new.failure.sentence) == (3, True)
    assert "the last one again" not in screen.report(tree(new))
    configure(memory, wanted)
    drifted = look(memory, replace(wanted, accept_single_hsm=True), command)
    assert drifted.failure is not None
    assert "the last one again" in drifted.failure.hint


def test_an_ordinary_user_is_not_told_that_nothing_is_recorded_here(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem))
    memory.root = False
    report = look(memory, desired_of(vendor, ca_pem, log_level="debug"), "verify")
    assert report.failure is not None
    assert (report.code, "recorded here" in report.failure.sentence) == ("drift", False)


def test_a_known_value_stands_in_the_hint(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    for address in vendor.addresses:
        memory.ports[address, 2223] = "hsm-no-route"
    report = configure(memory, desired_of(vendor, ca_pem))
    hints = [line.hint or "" for line in report.steps if line.code == "hsm-no-route"]
    assert [f"ip route get {address}" in hint for address, hint in zip(vendor.addresses, hints)] == [
        True,
        True,
    ]


def test_a_wait_is_not_silent() -> None:
    memory = Memory()
    said: list[str] = []
    with pytest.raises(AgentError):
        last_report(memory, 100, said.append)
    assert len(said) == 4  # at once, and every half a minute
    assert all("at most" in each for each in said)
