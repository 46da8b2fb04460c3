"""`--attach-group`: the cluster's group on a real interface of moto's EC2, attached by `configure` and taken off by `remove`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent import commands
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.core.model import StepOutcome
from agent.render.json_report import to_document
from agent.render.progress import NullProgress
from agent.report import new_run
from agent.state import records
from agent.steps.cluster_group import undo_attachment
from tests.fakes.aws import KEYS, half, refuses
from tests.fakes.vendor import MIRROR, Vendor
from tests.golden.runs import NOW

pytest.importorskip("moto")
pytest.importorskip("flask")

from tests.fakes.moto_server import CLUSTER, REGION, policy, user_with
from tests.fakes.unreached import Scene, detach
from tests.fakes.unreached import scene as scene  # noqa: PLC0414 -- pytest takes it from here
from tests.fakes.unreached import server as server  # noqa: PLC0414 -- as above

if TYPE_CHECKING:
    from agent.core.model import Report, StepResult
    from agent.state.records import AttachedGroup

MODIFY = "ec2:ModifyNetworkInterfaceAttribute"


class Host:
    """The instance of a scene as a host in memory: its HSMs answer where its interface has the cluster's group."""

    def __init__(self, scene: Scene, ca: bytes) -> None:
        self.scene = scene
        self.vendor = Vendor(addresses=scene.cluster.addresses)
        self.memory = self.vendor.machine(NOW)
        self.keys: dict[str, str] = {}
        self.desired = Desired(
            cluster_id=CLUSTER, region=REGION, attach_group=True, ca_cert=CaSource("inline", ca.decode()),
            package_source=MIRROR, sha256=self.vendor.checksums(),
        )  # fmt: skip

    @property
    def environ(self) -> dict[str, str]:
        return {**self.scene.environ, **self.keys}

    def configure(self, desired: Desired | None = None) -> Report:
        return self._run(
            "configure",
            lambda run: commands.configure(self.memory, desired or self.desired, run, NullProgress()),
        )

    def plan(self) -> Report:
        return self._run("plan", lambda run: commands.verify(self.memory, self.desired, run, NullProgress()))

    def verify(self) -> Report:
        return self._run("verify", lambda run: commands.verify(self.memory, Desired(), run, NullProgress()))

    def remove(self) -> Report:
        return self._run("remove", lambda run: commands.remove(self.memory, run, NullProgress(), None))

    def _run(self, name: str, command: Any) -> Report:
        self.memory.sleep(1.0)  # a name of its own for each run
        report: Report = command(new_run(self.memory, name, self.environ))
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in to_document(report) + repr(self.memory.entries)
        return report

    @property
    def groups(self) -> list[str]:
        return self.scene.cluster.groups_of(self.scene.instance.interface)

    @property
    def attached(self) -> AttachedGroup | None:
        return next(iter(records.read_attached(self.memory)), None)

    def modifications(self) -> int:
        ours = (KEYS["AWS_ACCESS_KEY_ID"], self.keys.get("AWS_ACCESS_KEY_ID"))
        return sum(each.permission == MODIFY and each.key_id in ours for each in self.scene.server.calls)


@pytest.fixture
def host(scene: Scene, ca_pem: bytes) -> Host:
    detach(scene)
    return Host(scene, ca_pem)


def group_line(report: Report) -> StepResult:
    return next(each for each in report.steps if each.id == "cluster:group")


def codes(report: Report) -> list[str]:
    return [each.code for each in report.notices]


def test_the_group_is_attached_beside_the_others_and_that_is_said(host: Host) -> None:
    (own,) = host.groups
    planned = host.plan()
    assert (group_line(planned).outcome, planned.exit_status) == (StepOutcome.WOULD_CHANGE, 3)
    assert host.modifications() == 0
    report = host.configure()
    assert (report.outcome.value, report.exit_status, report.changed) == ("ok", 0, True)
    steps = [
        each.id for each in report.steps if not each.id.startswith(("cluster:state", "cluster:addresses"))
    ]
    assert steps[0] == "cluster:group"
    assert group_line(report).outcome is StepOutcome.CHANGED
    assert host.groups == [own, host.scene.cluster.group]
    assert "group-attached" in codes(report)
    assert host.attached is not None
    assert (host.attached.interface, host.attached.group) == (
        host.scene.instance.interface, host.scene.cluster.group,
    )  # fmt: skip
    again = host.configure(Desired())
    assert (again.exit_status, again.changed, group_line(again).outcome) == (0, False, StepOutcome.MET)
    verified = host.verify()
    assert (verified.exit_status, host.modifications()) == (0, 1)
    assert "group-attached" in codes(verified)


def test_what_metadata_shows_needs_no_permission(host: Host) -> None:
    assert host.configure().exit_status == 0
    host.scene.tell_metadata(host.scene.instance.interface)
    host.scene.server.calls.clear()
    assert host.verify().exit_status == 0
    assert host.scene.server.permissions() == ["cloudhsm:DescribeClusters"]


def test_a_host_that_may_not_ask_for_the_cluster_knows_its_group_by_name(host: Host) -> None:
    """As after a roll-out: the operator's answer was sent along, and this host may not ask for another one."""
    addresses = replace(host.desired, hsm_ip=host.scene.cluster.addresses)
    assert host.configure(addresses).exit_status == 0
    host.scene.tell_metadata(host.scene.instance.interface)
    host.scene.server.misbehave(refuses("AccessDeniedException", "no", 403))
    verified = host.verify()
    assert (verified.exit_status, group_line(verified).outcome) == (0, StepOutcome.MET)
    assert "cluster-not-checked" in codes(verified)
    host.scene.server.misbehave()
    detach(host.scene)
    host.scene.server.misbehave(refuses("AccessDeniedException", "no", 403))
    found = host.verify()
    assert (found.code, found.exit_status) == ("group-not-attachable", 44)
    assert "has web" in str(group_line(found).saw)
    assert any(each.kind == "reach" and each.outcome is StepOutcome.MET for each in found.steps)


def test_remove_takes_off_what_was_attached_and_nothing_else(host: Host) -> None:
    (own,) = host.groups
    host.configure()
    more = host.scene.cluster.group_of(host.scene.cluster.vpc, "added-later")
    host.scene.cluster.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=host.scene.instance.interface, Groups=[*host.groups, more]
    )
    report = host.remove()
    assert (report.exit_status, group_line(report).outcome) == (0, StepOutcome.CHANGED)
    assert [each.kind for each in report.steps][-1] == "cluster"
    assert host.groups == [own, more]
    assert host.attached is None
    assert "cluster:group" not in [each.id for each in host.remove().steps]


def test_a_group_that_was_there_before_stays(host: Host) -> None:
    interface = host.scene.instance.interface
    host.scene.cluster.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=interface, Groups=[*host.groups, host.scene.cluster.group]
    )
    before = host.groups
    assert group_line(host.configure()).outcome is StepOutcome.MET
    report = host.remove()
    assert (report.exit_status, host.groups) == (0, before)
    assert host.attached is None
    assert host.modifications() == 0


def test_a_group_that_somebody_took_off_meanwhile_is_forgotten(host: Host) -> None:
    host.configure()
    detach(host.scene)
    report = host.remove()
    assert (report.exit_status, group_line(report).outcome) == (0, StepOutcome.MET)
    assert host.attached is None
    assert host.modifications() == 0


def test_the_last_group_of_an_interface_stays_and_that_is_said(host: Host) -> None:
    host.configure()
    host.scene.cluster.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=host.scene.instance.interface, Groups=[host.scene.cluster.group]
    )
    report = host.remove()
    assert report.exit_status == 0
    assert "group-not-detached" in codes(report)
    assert host.attached is not None


def test_an_interface_that_is_full_is_refused_before_anything_changes(host: Host) -> None:
    full = [host.scene.cluster.group_of(host.scene.cluster.vpc, f"full-{number}") for number in range(5)]
    interface = host.scene.instance.interface
    host.scene.cluster.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=full)
    report = host.configure()
    assert (report.code, report.exit_status, report.changed) == ("group-not-attachable", 44, False)
    hint = str(group_line(report).hint)
    assert "authorize-security-group-ingress" in hint
    assert f"GroupId={full[0]}" in hint
    assert host.groups == full
    assert host.attached is None
    assert "/opt/cloudhsm/etc/customerCA.crt" not in host.memory.entries


def test_an_instance_of_another_vpc_is_refused(host: Host) -> None:
    other = host.scene.cluster.add_instance(
        "10.78.20.5", "far", attached=False, vpc=host.scene.cluster.add_vpc("10.78.0.0/18")
    )
    host.scene.tell_metadata(other.interface)
    report = host.configure()
    assert (report.code, report.exit_status) == ("group-not-attachable", 44)
    assert other.vpc in str(group_line(report).saw)
    assert host.modifications() == 0


def test_without_metadata_no_interface_is_touched(host: Host) -> None:
    host.scene.metadata.mode = "disabled"
    report = host.configure()
    assert (report.code, host.modifications()) == ("group-not-attachable", 0)
    assert "metadata service" in str(group_line(report).saw)


def test_a_denied_change_is_named_and_leaves_no_record(host: Host) -> None:
    host.keys = user_with(
        host.scene.server.url, policy("cloudhsm:DescribeClusters", "ec2:DescribeNetworkInterfaces")
    )
    with host.scene.server.enforcing():
        report = host.configure()
    assert (report.code, report.exit_status) == ("aws-denied", 12)
    assert MODIFY in str(group_line(report).hint)
    assert host.attached is None
    assert next(each for each in report.steps if each.id == "package:cli").outcome is StepOutcome.SKIPPED


def test_a_removal_that_may_not_look_says_so_and_the_next_one_takes_it_off(host: Host) -> None:
    (own,) = host.groups
    host.configure()
    host.keys = user_with(host.scene.server.url, policy("cloudhsm:DescribeClusters"))
    with host.scene.server.enforcing():
        report = host.remove()
    assert (report.exit_status, report.changed) == (0, True)
    (text,) = (each.text for each in report.notices if each.code == "group-not-detached")
    assert "aws-denied" in text
    assert host.attached is not None
    host.keys = {}
    assert group_line(host.remove()).outcome is StepOutcome.CHANGED
    assert host.groups == [own]
    assert host.attached is None


def test_a_removal_that_may_not_detach_fails_with_the_command_and_keeps_the_record(host: Host) -> None:
    (own,) = host.groups
    host.configure()
    host.keys = user_with(host.scene.server.url, policy("ec2:DescribeNetworkInterfaces"))
    with host.scene.server.enforcing():
        report = host.remove()
    assert (report.code, report.exit_status, report.changed) == ("aws-denied", 12, True)
    interface = host.scene.instance.interface
    assert f"--network-interface-id {interface} --groups {own}`" in str(group_line(report).hint)
    assert host.attached is not None


def test_a_record_that_cannot_be_believed_takes_nothing_off(host: Host) -> None:
    host.configure()
    before = host.groups
    path = "/var/lib/hsm-agent/attached-group.json"
    data = host.memory.read(path) or b""
    host.memory.place(path, data.replace(host.scene.cluster.group.encode(), b"sg-other"), mode=0o600)
    report = host.remove()
    assert "group-not-detached" in codes(report)
    assert (host.groups, host.modifications()) == (before, 1)


def test_an_undone_run_takes_off_what_it_attached_itself(host: Host) -> None:
    (own,) = host.groups
    report = host.configure()
    assert undo_attachment(host.memory, host.environ, "another-run") == ()
    (undone,) = undo_attachment(host.memory, host.environ, report.run_id)
    assert (undone.id, undone.outcome) == ("cluster:group", StepOutcome.UNDONE)
    assert host.groups == [own]
    assert host.attached is None
    assert undo_attachment(host.memory, host.environ, report.run_id) == ()


def test_a_run_that_is_rolled_back_leaves_the_groups_as_they_were(host: Host) -> None:
    (own,) = host.groups
    assert host.configure(replace(host.desired, attach_group=False)).exit_status == 0
    host.vendor.activated = False
    report = host.configure()
    assert (report.outcome.value, report.exit_status) == ("rolled-back", 51)
    assert [each.outcome for each in report.steps if each.id == "cluster:group"] == [
        StepOutcome.CHANGED, StepOutcome.UNDONE,
    ]  # fmt: skip
    assert host.groups == [own]
    assert host.attached is None


def test_what_an_earlier_run_attached_is_still_known_after_another_one(host: Host) -> None:
    (own,) = host.groups
    host.configure()
    first = host.attached
    assert first is not None
    other = replace(
        first, group=host.scene.cluster.group_of(host.scene.cluster.vpc, "other"), run_id="earlier"
    )
    host.scene.cluster.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=other.interface, Groups=[own, other.group]
    )
    records.forget_attached(host.memory, first)
    records.add_attached(host.memory, other)  # of another cluster, say
    host.configure()
    assert host.groups == [own, other.group, host.scene.cluster.group]
    assert [each.group for each in records.read_attached(host.memory)] == [other.group, first.group]
    report = host.remove()
    assert (report.exit_status, group_line(report).outcome) == (0, StepOutcome.CHANGED)
    assert (host.groups, host.attached) == ([own], None)


def test_a_denied_change_forgets_nothing_of_an_earlier_run(host: Host) -> None:
    host.configure()
    first = host.attached
    assert first is not None
    earlier = replace(first, group="sg-earlier", run_id="earlier")
    records.forget_attached(host.memory, first)
    records.add_attached(host.memory, earlier)
    detach(host.scene)
    host.keys = user_with(
        host.scene.server.url, policy("cloudhsm:DescribeClusters", "ec2:DescribeNetworkInterfaces")
    )
    with host.scene.server.enforcing():
        assert host.configure().code == "aws-denied"
    assert records.read_attached(host.memory) == (earlier,)


def test_an_interrupted_run_takes_off_what_it_attached(host: Host) -> None:
    (own,) = host.groups
    report = host.configure()
    host.memory.stopped = True
    (undone,) = undo_attachment(host.memory, host.environ, report.run_id)
    assert (undone.outcome, host.groups, host.attached) == (StepOutcome.UNDONE, [own], None)


def test_an_attachment_whose_answer_is_lost_is_a_change(host: Host) -> None:
    def lose(exchange: Any) -> None:
        host.scene.cluster.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=host.scene.instance.interface, Groups=[*host.groups, host.scene.cluster.group]
        )
        half("<ModifyNetworkInterfaceAttributeResponse/>", "length")(exchange)

    host.scene.server.misbehave(None, None, None, lose, refuses("ServiceUnavailable", "later", 503))
    report = host.configure()
    assert (group_line(report).outcome, report.changed) == (StepOutcome.FAILED, True)
    assert host.attached is not None


def test_what_ec2_does_not_show_yet_is_not_forgotten(host: Host) -> None:
    report = host.configure()
    attached = host.attached
    detach(host.scene)  # EC2 describes what it was before
    assert undo_attachment(host.memory, host.environ, report.run_id) == ()
    assert host.attached == attached
