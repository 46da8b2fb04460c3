"""Why HSMs are not reached, as AWS has it: looked for after the probes, and never the reason for how a run ends.

There are three levels, each useful alone: the metadata of this instance, which needs no permission; the description of
the cluster; and what EC2 describes of the network. A level that is missing leaves less known, and that is said.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.cloudhsm.cluster import group_name
from agent.core.errors import AgentError, unexpected
from agent.core.model import Notice, StepOutcome, StepResult
from agent.steps.reach import Reach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.aws.access import AwsAccess
    from agent.aws.network import Network, NetworkInterface
    from agent.aws.own_interface import OwnInterface
    from agent.aws.path import Obstacle
    from agent.aws.path_questions import PathQuestions
    from agent.cloudhsm.cluster import ClusterDescription
    from agent.core.host import HostView
    from agent.core.model import Plan
    from agent.engine import EngineResult, Listener

# Seconds for all of it. The run's own limit ends it as well.
LIMIT = 20.0
# What a network does to packets that it does not let through. Who refuses a connection has got them.
_STOPPED_ON_THE_WAY = ("hsm-timed-out", "hsm-no-route")
_METADATA = "instance metadata"
# also for IPv6
_LOCAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"


@dataclass(frozen=True)
class Diagnosis:
    """What a run knows of its HSMs when some of them are not reached.

    `cluster_id` is the cluster that was named, `cluster` its description: each None where there is none.
    """

    view: HostView
    access: AwsAccess
    environ: Mapping[str, str] = field(repr=False)
    cluster_id: str | None = None
    cluster: ClusterDescription | None = None

    @property
    def is_possible(self) -> bool:
        """Whether anything is asked when an HSM is not reached: on EC2 alone."""
        from agent.http.imds import has_metadata  # noqa: PLC0415 -- 5 ms that a run which changes nothing need not pay

        return has_metadata(self.view, self.environ)

    def explain(self, result: EngineResult, plan: Plan, listener: Listener) -> EngineResult:
        """Return the result with the cause of each HSM that is not reached, where AWS shows one.

        The outcome and the exit status stay what they were, whatever AWS answers, or does not: nothing is raised.
        """
        unreached = _unreached(result, plan)
        if not unreached or result.stopped is not None:
            return result
        search = _Search(self, unreached, is_let_in=_reaches_another(result))
        try:
            if not self.is_possible:
                return search.without_metadata(result)
            listener.began("cluster:group", changing=False)
            search.run()
        except AgentError as error:
            search.cut_short(error)
        except Exception as crash:  # how the run ended must not depend on what is only an explanation
            logging.getLogger("agent").exception("the diagnosis failed")
            search.cut_short(unexpected(crash))
        return search.explained(result)


@dataclass(frozen=True)
class _Unreached:
    """An HSM whose probe failed: its address, and that of this host from which it was tried."""

    line: str
    address: str
    port: int
    source: str


def _unreached(result: EngineResult, plan: Plan) -> tuple[_Unreached, ...]:
    failed = {
        line.id: line
        for line in result.steps
        if line.outcome is StepOutcome.FAILED and line.code in _STOPPED_ON_THE_WAY
    }
    return tuple(
        _Unreached(probe.id, probe.address, probe.port, str(failed[probe.id].detail.get("source", "")))
        for probe in plan.probes
        if isinstance(probe, Reach) and probe.id in failed
    )


def _reaches_another(result: EngineResult) -> bool:
    return any(line.kind == "reach" and line.outcome is StepOutcome.MET for line in result.steps)


def _ephemeral_ports(view: HostView) -> tuple[int, int]:
    """Return the ports from which this host connects: as its kernel has it, or else by default."""
    from agent.aws.path import EPHEMERAL_LINUX, EPHEMERAL_WINDOWS  # noqa: PLC0415 -- only where an HSM is missing

    if view.system.is_windows:
        return EPHEMERAL_WINDOWS
    found = re.fullmatch(rb"([0-9]{1,5})\s+([0-9]{1,5})\s*", view.read(_LOCAL_PORTS) or b"")
    return (int(found[1]), int(found[2])) if found else EPHEMERAL_LINUX


def _as_described(own: OwnInterface, found: Mapping[str, NetworkInterface]) -> OwnInterface:
    """Return an interface with the groups that EC2 has now; metadata follows a change late, and its names with it."""
    now = found.get(own.interface.id)
    if now is None or set(now.groups) == set(own.interface.groups):
        return own
    return replace(own, interface=now, group_names=())


class _Search:
    """One search for the causes. What it has found stands, whatever ends it."""

    def __init__(self, known: Diagnosis, unreached: Sequence[_Unreached], *, is_let_in: bool) -> None:
        self._known = known
        self._unreached = unreached
        self._is_let_in = is_let_in  # as another HSM shows: all of a cluster have one group
        self._ends = known.view.monotonic() + LIMIT
        self._obstacles: dict[str, Obstacle] = {}
        self._judged: set[str] = set()
        self._own: dict[str, OwnInterface] = {}
        self._questions: PathQuestions | None = None
        self._lacks: list[str] = []

    def run(self) -> None:
        """Look from level to level, until every HSM has a cause or there is nothing more to ask."""
        if not self._find_own():
            return
        client = self._known.access.client
        region = client.session.region
        self._judge_membership(region)
        hsms = self._described()
        self._judge({}, hsms, region)
        from agent.aws.path_questions import PathQuestions  # noqa: PLC0415 -- AWS is only asked where an HSM is missing

        self._questions = questions = PathQuestions(client, self._ends)
        own, hsms = self._ask_for_interfaces(questions, hsms)
        if not hsms:
            return
        for network in questions.networks([*own.values(), *hsms.values()]):
            self._judge(own, hsms, region, network)
            if all(each.address in self._obstacles for each in self._unreached):
                return

    def cut_short(self, error: AgentError) -> None:
        """Say what ended the search."""
        self._lacks.append(f"{error.sentence}: {error.saw} ({error.code.name})")

    def without_metadata(self, result: EngineResult) -> EngineResult:
        """Return the result of a machine outside EC2; who named a cluster may have expected more."""
        if self._known.cluster_id is None:
            return result
        notice = Notice(
            "path-not-checked", "this machine is no EC2 instance: its network is not AWS's to show"
        )
        return replace(result, notices=(*result.notices, notice))

    def explained(self, result: EngineResult) -> EngineResult:
        """Return the result with what was found."""
        addresses = {each.line: each.address for each in self._unreached}
        lines = [self._with_cause(line, addresses.get(line.id)) for line in result.steps]
        group = self._group_line(lines)
        if group is not None:
            first = next(number for number, line in enumerate(lines) if line.kind == "reach")
            lines.insert(first, group)
        return replace(result, steps=tuple(lines), notices=(*result.notices, *self._notices()))

    # the three levels

    def _find_own(self) -> bool:
        """Find the interfaces that lead to the HSMs; tell whether all are known."""
        from agent.aws.own_interface import find_own_interface  # noqa: PLC0415 -- as above

        view, environ = self._known.view, self._known.environ
        for source in dict.fromkeys(each.source for each in self._unreached):
            found = find_own_interface(view, environ, source)
            if isinstance(found, str):
                self._lacks.append(found)
                return False
            self._own[source] = found
        return True

    def _judge_membership(self, region: str) -> None:
        """Judge by the names of the groups alone, where AWS does not describe the cluster."""
        from agent.aws.path import membership_obstacle  # noqa: PLC0415 -- as above

        if self._known.cluster_id is None or self._known.cluster is not None or self._is_let_in:
            return
        for each in self._unreached:
            own = self._own[each.source]
            self._judged.add(each.address)
            found = membership_obstacle(own.interface, own.group_names, self._group_name, region)
            if found is not None:
                self._obstacles[each.address] = found

    def _described(self) -> dict[str, NetworkInterface]:
        """Return the interface of each HSM that is not reached, as the description of the cluster has it."""
        from agent.aws.network import NetworkInterface  # noqa: PLC0415 -- as above

        cluster = self._known.cluster
        wanted = {each.address for each in self._unreached}
        return {
            address: NetworkInterface(
                hsm.interface, cluster.vpc, hsm.subnet, (cluster.security_group,), (address,)
            )
            for hsm in (cluster.hsms if cluster else ())
            for address in hsm.addresses
            if cluster and cluster.security_group and address in wanted
        }

    def _ask_for_interfaces(
        self, questions: PathQuestions, hsms: Mapping[str, NetworkInterface]
    ) -> tuple[dict[str, NetworkInterface], dict[str, NetworkInterface]]:
        """Return the interfaces as EC2 has them now: of this instance by id, and of the HSMs by address."""
        mine = {each.interface.id: each.interface for each in self._own.values()}
        ids = [each.id for each in hsms.values() if each.id]
        addresses = list(dict.fromkeys(each.address for each in self._unreached))
        if len(ids) == len(addresses):
            found = {each.id: each for each in questions.interfaces([*mine, *ids])}
            now = {address: found.get(each.id, each) for address, each in hsms.items()}
        else:
            found = {each.id: each for each in questions.interfaces([*mine])}
            now = {**hsms, **self._hsms_at(addresses, questions.interfaces_at(addresses))}
        self._own = {source: _as_described(each, found) for source, each in self._own.items()}
        return {each.interface.id: each.interface for each in self._own.values()}, now

    def _hsms_at(
        self, addresses: Sequence[str], found: Sequence[NetworkInterface] | None
    ) -> dict[str, NetworkInterface]:
        """Return the HSM's interface at each address: the one in this VPC, where another VPC has the address too."""
        hsms = {}
        vpcs = {each.interface.vpc for each in self._own.values()}
        for address in addresses if found is not None else ():
            at = [each for each in found or () if address in each.addresses]
            near = [each for each in at if each.vpc in vpcs] or at
            named = [each for each in near if "cloudhsm" in each.description.lower()]
            if len(named) == 1:
                hsms[address] = named[0]
            elif near:
                saw = ", ".join(f"{each.id} ({each.description or 'without description'})" for each in near)
                self._lacks.append(f"{address} belongs to {saw}: which HSM it is, is unknown")
            else:
                self._lacks.append(f"EC2 shows this account no interface with the address {address}")
        return hsms

    def _judge(
        self,
        own: Mapping[str, NetworkInterface],
        hsms: Mapping[str, NetworkInterface],
        region: str,
        network: Network | None = None,
    ) -> None:
        """Judge the path to each HSM whose interface is known; what is described later counts more."""
        from agent.aws import path  # noqa: PLC0415 -- as above
        from agent.aws.network import Network  # noqa: PLC0415 -- as above

        ephemeral = _ephemeral_ports(self._known.view)
        for each in self._unreached:
            mine, hsm = self._own[each.source], hsms.get(each.address)
            interface = own.get(mine.interface.id, mine.interface)
            address = each.source if each.source in interface.addresses else mine.address_like(each.address)
            if hsm is None or address is None:
                continue
            ends = path.PathEnd(interface, address), path.PathEnd(hsm, each.address)
            ports = [other.port for other in self._unreached if other.address == each.address]
            found = path.find_obstacle(
                network or Network(), *ends, region=region, ephemeral=ephemeral,
                tried=(min(ports), max(ports)), is_let_in=self._is_let_in,
            )  # fmt: skip
            self._judged.add(each.address)
            if found is None:
                self._obstacles.pop(each.address, None)
            else:
                self._obstacles[each.address] = found

    # what is said of it

    @property
    def _group_name(self) -> str:
        return group_name(self._known.cluster_id or "")

    def _with_cause(self, line: StepResult, address: str | None) -> StepResult:
        found = self._obstacles.get(address or "")
        if found is None:
            return line
        return replace(line, saw=f"{line.saw}; {found.saw}", code=found.code, hint=found.hint)

    def _group_line(self, lines: Sequence[StepResult]) -> StepResult | None:
        """Return the line about membership, None where it is not known or does not matter.

        An instance that is not a member may be let in by another rule: so it fails only where no HSM is reached, and
        because of that.
        """
        is_there = any(line.id == "cluster:group" for line in lines)  # the step of `--attach-group`
        if self._known.cluster_id is None or not self._own or is_there:
            return None
        cluster = self._known.cluster
        group = cluster.security_group if cluster and cluster.security_group else self._group_name
        saw = ", ".join(each.interface.id for each in self._own.values())
        if all(group in (*each.interface.groups, *each.group_names) for each in self._own.values()):
            return StepResult("cluster:group", StepOutcome.MET, f"{saw} is in {group}", f"{saw} in {group}")
        reaches = [line for line in lines if line.kind == "reach"]
        if any(line.code != "group-not-attached" for line in reaches):
            return None
        first = next(iter(self._obstacles.values()))
        return StepResult(
            "cluster:group", StepOutcome.FAILED, first.saw, first.want, "group-not-attached", first.hint
        )

    def _unknown_connections(self, answered: Sequence[str]) -> list[str]:
        """Say that what connects the VPCs is not known, where that matters."""
        cluster = self._known.cluster
        if cluster is None or not cluster.vpc or "ec2:DescribeVpcPeeringConnections" in answered:
            return []
        mine = (each.interface for each in self._own.values())
        return [
            f"{each.id} is in {each.vpc} and the cluster in {cluster.vpc}: what connects them is not known"
            for each in mine
            if each.vpc != cluster.vpc
        ]

    def _notices(self) -> tuple[Notice, ...]:
        """Say where was looked, where not, and that nothing was found."""
        questions = self._questions
        lacks = list(self._lacks)
        if questions is not None:
            lacks += [f"{each} is denied" for each in dict.fromkeys(questions.denied)]
            if questions.failure is not None:
                failure = questions.failure
                lacks.append(f"{failure.sentence}: {failure.saw} ({failure.code.name})")
        notices = []
        if self._own:
            levels = [_METADATA]
            if self._known.cluster is not None:
                levels.append("cloudhsm:DescribeClusters")
            levels += dict.fromkeys(questions.answered if questions else ())
            clear = sorted(self._judged - self._obstacles.keys())
            where = ", ".join(levels)
            if clear:
                ports = sorted({each.port for each in self._unreached if each.address in clear})
                tried = ", ".join(map(str, ports))
                text = f"nothing stops TCP {tried} to {', '.join(clear)} as far as this shows: {where}"
                notices.append(Notice("path-clear", text))
            if self._obstacles:
                text = f"why {', '.join(self._obstacles)} is not reached was looked for in {where}"
                notices.append(Notice("path-checked", text))
        lacks += self._unknown_connections(questions.answered if questions else ())
        if lacks:
            notices.append(Notice("path-not-checked", "; ".join(lacks)))
        return tuple(notices)
