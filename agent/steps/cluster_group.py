"""The cluster's security group on the interface of this instance that leads to the HSMs: attached, or detached again.

AWS replaces the whole list of an interface's groups and has no condition for that. The list is read right before, so
that only what somebody else changes in the same moment could be lost.
"""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from agent.core.errors import AgentError
from agent.core.model import Finding, Notice, StepOutcome, StepResult
from agent.state import records
from agent.state.records import AttachedGroup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.aws.access import AwsAccess
    from agent.aws.own_interface import OwnInterface
    from agent.core.codes import CodeName
    from agent.core.host import Host, HostView

# EC2 may describe what it was for a moment after a change: how often it is asked again, a second apart.
_LOOKS = 10
# seconds for a connection that is only to show from which address it is tried
_MOMENT = 0.2
_PORT = 2223
NOT_DESCRIBED = (
    "name the cluster with `--cluster-id`, and let this host ask AWS for it (cloudhsm:DescribeClusters)"
)


@dataclass(frozen=True)
class GroupAttached:
    """The group is on the interface, beside all that are there. `address` is that of an HSM, to which it leads."""

    id: ClassVar[str] = "cluster:group"
    not_applied_code: ClassVar[CodeName] = "group-not-attached"

    group: str
    vpc: str
    address: str
    run_id: str = field(compare=False)
    access: AwsAccess = field(repr=False, compare=False)
    environ: Mapping[str, str] = field(repr=False, compare=False)

    def check(self, view: HostView) -> Finding:
        """Look at instance metadata and, since that follows late, at EC2. What cannot be attached is refused here."""
        own = _own_interface(view, self.environ, self.address).interface
        want = f"{self.group} on {own.id}"
        if self.group in own.groups:
            return Finding.ok(f"{own.id} has {', '.join(own.groups)}", want)
        if own.vpc != self.vpc:
            raise _refused(
                f"{own.id} is in {own.vpc}, and the group of {self.vpc}", "an instance in the cluster's VPC"
            )
        groups = _groups_of(self.access, own.id) or own.groups
        saw = f"{own.id} has {', '.join(groups)}"
        if self.group in groups:
            return Finding.ok(saw, want)
        self._require_room(own.id, groups)
        return Finding.unmet(saw, want)

    def apply(self, host: Host) -> None:
        own = _own_interface(host, self.environ, self.address).interface
        groups = _groups_of(self.access, own.id) or own.groups
        if self.group in groups:
            return
        self._require_room(own.id, groups)
        region = self.access.client.session.region
        attached = AttachedGroup(own.id, self.group, region, self.run_id)
        records.add_attached(host, attached)
        try:
            _set_groups(self.access, own.id, [*groups, self.group])
        except AgentError as error:
            if error.code.name in ("aws-denied", "aws-refused"):  # it is sure that nothing was attached
                records.forget_attached(host, attached)
            raise
        for _ in range(_LOOKS):
            if self.group in (_groups_of(self.access, own.id) or ()):
                return
            host.sleep(1.0)

    def _require_room(self, interface: str, groups: Sequence[str]) -> None:
        """Refuse an interface that is full; who has a larger quota attaches the group with the command."""
        from agent.aws.path import MOST_GROUPS  # noqa: PLC0415 -- as above

        if len(groups) < MOST_GROUPS:
            return
        region = self.access.client.session.region
        rule = f"IpProtocol=tcp,FromPort=2223,ToPort=2225,UserIdGroupPairs=[{{GroupId={groups[0]}}}]"
        instead = _command(
            "authorize-security-group-ingress", region, "--group-id", self.group, "--ip-permissions", rule
        )
        with_quota = _attach_command(region, interface, [*groups, self.group])
        raise _refused(
            f"{interface} has {len(groups)} groups: {', '.join(groups)}",
            f"fewer than {MOST_GROUPS} groups",
            f"{instead} lets {groups[0]} in instead; where the quota was raised, {with_quota} attaches the group",
        )


@dataclass(frozen=True)
class GroupByName:
    """The same where AWS did not describe the cluster: the instance's metadata knows the group that AWS makes for it.

    What is not there cannot be attached, since nobody knows its id.
    """

    id: ClassVar[str] = "cluster:group"
    not_applied_code: ClassVar[CodeName] = "group-not-attached"

    group: str
    address: str
    environ: Mapping[str, str] = field(repr=False, compare=False)

    def check(self, view: HostView) -> Finding:
        own = _own_interface(view, self.environ, self.address)
        interface = own.interface.id
        groups = own.group_names or own.interface.groups
        saw, want = f"{interface} has {', '.join(groups)}", f"{self.group} on {interface}"
        if self.group in own.group_names:
            return Finding.ok(saw, want)
        raise _refused(
            f"AWS did not describe the cluster, and {saw}", "the description of the cluster", NOT_DESCRIBED
        )

    def apply(self, host: Host) -> None:
        """Do nothing: `check` refuses what is not there."""


@dataclass(frozen=True)
class GroupsDetached:
    """What the agent attached is not there any more. Nothing else is detached, and nothing that AWS does not show."""

    id: ClassVar[str] = "cluster:group"
    not_applied_code: ClassVar[CodeName] = "aws-refused"

    detachments: tuple[Detachment, ...]

    def check(self, view: HostView) -> Finding:
        found = [each.check(view) for each in self.detachments]
        return Finding(
            met=all(each.met for each in found),
            saw="; ".join(each.saw for each in found),
            want="; ".join(each.want for each in found),
            notices=tuple(notice for each in found for notice in each.notices),
        )

    def apply(self, host: Host) -> None:
        for each in self.detachments:
            if not each.check(host).met:
                each.apply(host)


@dataclass(frozen=True)
class Detachment:
    """One group, and the interface that it is taken off."""

    attached: AttachedGroup
    access: AwsAccess = field(repr=False, compare=False)

    def check(self, view: HostView) -> Finding:
        """Look. That AWS cannot be asked is remarked on: it is no reason to leave the packages on the host."""
        del view
        group, interface = self.attached.group, self.attached.interface
        want = f"{interface} without {group}"
        try:
            groups = _groups_of(self.access, interface)
        except AgentError as error:
            if error.ends_run:
                raise
            text = f"whether {group} is still on {interface} is not known: {error.saw} ({error.code.name})"
            return Finding.ok(text, want, notices=(Notice("group-not-detached", text),))
        if groups is None:
            return Finding.ok(f"{interface} is gone", want)
        saw = f"{interface} has {', '.join(groups)}"
        if groups == (group,):
            text = f"{group} is the only group of {interface}, which must have one"
            return Finding.ok(saw, want, notices=(Notice("group-not-detached", text),))
        return Finding(met=group not in groups, saw=saw, want=want)

    def apply(self, host: Host) -> None:
        group, interface = self.attached.group, self.attached.interface
        rest = [each for each in _groups_of(self.access, interface) or () if each != group]
        if not rest:
            return
        try:
            _set_groups(self.access, interface, rest)
        except AgentError as error:
            command = _attach_command(self.attached.region, interface, rest)
            error.hint = f"{error.hint}; or run {command}"
            raise
        for _ in range(_LOOKS):
            if group not in (_groups_of(self.access, interface) or ()):
                return
            with contextlib.suppress(AgentError):  # interrupted: what was begun is ended, without pauses
                host.sleep(1.0)


def _own_interface(view: HostView, environ: Mapping[str, str], address: str) -> OwnInterface:
    """Return the interface that leads to an HSM. Raises AgentError `group-not-attachable`."""
    from agent.aws.own_interface import find_own_interface  # noqa: PLC0415 -- where it is asked for alone

    source = view.connect(address, _PORT, timeout=_MOMENT, tls=False).source
    own = find_own_interface(view, environ, source)
    if isinstance(own, str):
        raise _refused(own, "an EC2 instance whose metadata names its interfaces")
    return own


def has_attached(view: HostView, run_id: str) -> bool:
    """Tell whether a run attached a group that it did not detach: also one that EC2 does not show yet."""
    try:
        return any(each.run_id == run_id for each in records.read_attached(view))
    except AgentError:
        return False


def undo_attachment(host: Host, environ: Mapping[str, str], run_id: str) -> tuple[StepResult, ...]:
    """Detach what this very run attached: one line, `undone` or `failed`; none where it attached nothing.

    An interrupt may be why it is undone, and does not end it.
    """
    from agent.aws.access import AwsAccess  # noqa: PLC0415 -- where it is asked for alone

    try:
        attached = next((each for each in records.read_attached(host) if each.run_id == run_id), None)
    except AgentError:
        return ()
    if attached is None:
        return ()
    access = AwsAccess(host, environ, attached.region, check_stopped=lambda: None)
    line, step = GroupsDetached.id, Detachment(attached, access)
    saw, want = f"{attached.group} on {attached.interface}", f"{attached.interface} without {attached.group}"
    try:
        before = step.check(host)
        if not before.met:
            step.apply(host)
        after = before if before.met else step.check(host)
        if after.met and not after.notices:
            if before.met:  # EC2 may show late what was attached a moment ago: `remove` looks again
                return ()
            records.forget_attached(host, attached)
            return (StepResult(line, StepOutcome.UNDONE, saw, want),)
    except AgentError as error:
        return (StepResult(line, StepOutcome.FAILED, error.saw, want, "rollback-failed", error.hint),)
    return (StepResult(line, StepOutcome.FAILED, after.saw, want, "rollback-failed"),)


def _groups_of(access: AwsAccess, interface: str) -> tuple[str, ...] | None:
    """Return the groups of an interface as EC2 has them now, None where it has no such interface."""
    from agent.aws.network import read_interfaces  # noqa: PLC0415 -- where it is asked for alone
    from agent.aws.operations import DESCRIBE_NETWORK_INTERFACES  # noqa: PLC0415 -- as above

    wanted = {"Filter": [{"Name": "network-interface-id", "Value": [interface]}]}
    found = read_interfaces(access.client.pages(DESCRIBE_NETWORK_INTERFACES, wanted))
    return found[0].groups if found else None


def _set_groups(access: AwsAccess, interface: str, groups: Sequence[str]) -> None:
    from agent.aws.operations import MODIFY_NETWORK_INTERFACE_ATTRIBUTE  # noqa: PLC0415 -- as above

    params = {"NetworkInterfaceId": interface, "SecurityGroupId": list(groups)}
    access.client.call(MODIFY_NETWORK_INTERFACE_ATTRIBUTE, params)


def _attach_command(region: str, interface: str, groups: Sequence[str]) -> str:
    name = "modify-network-interface-attribute"
    return _command(name, region, "--network-interface-id", interface, "--groups", *groups)


def _command(name: str, region: str, *words: str) -> str:
    return f"`{shlex.join(['aws', 'ec2', name, '--region', region, *words])}`"


def _refused(saw: str, want: str, hint: str | None = None) -> AgentError:
    return AgentError(
        "group-not-attachable", "the cluster's group cannot be attached", saw=saw, want=want, hint=hint
    )
