"""Why instances are not reached over SSH, as AWS has it: looked for after the waves, for some hosts, within a limit."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.fleet_model import HostResult, HostState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.aws.client import AwsClient
    from agent.aws.inventory import Instance
    from agent.aws.network import Network
    from agent.aws.path import Obstacle
    from agent.core.fleet_model import Target
    from agent.core.host import HostView
    from agent.fleet.shared_input import OpenAccess

# Seconds for all of it, and how many hosts are looked at: those that share a cause are many.
_LIMIT = 20.0
_MOST = 10
# What a network does to packets that it does not let through. Who refuses a connection has got them.
_STOPPED_ON_THE_WAY = ("ssh-timed-out", "ssh-no-route")
_RDP = 3389


class UnreachedInstances:
    """Explains why instances are not reached. `source_of` returns the address of this machine from which one was tried.

    It returns None where that is not this machine's: behind a jump host or a proxy command.
    """

    def __init__(
        self,
        view: HostView,
        open_access: OpenAccess,
        source_of: Callable[[str | None, Target], str | None],
    ) -> None:
        self._view = view
        self._open_access = open_access
        self._source_of = source_of

    def explain(
        self, ssh_config: str | None, unreached: Sequence[tuple[Target, HostResult]]
    ) -> list[HostResult]:
        """Return the results of those for which AWS shows a cause; codes and exit statuses stay."""
        ends = self._view.monotonic() + _LIMIT
        some = [
            (target, end)
            for target, end in unreached
            if target.instance_id and end.state is HostState.UNREACHABLE and end.code in _STOPPED_ON_THE_WAY
        ][:_MOST]
        found: list[HostResult] = []
        for region in dict.fromkeys(target.region for target, _ in some):
            if self._view.monotonic() >= ends:
                break
            here = [(target, end) for target, end in some if target.region == region]
            found += self._explained(ssh_config, region, here, ends)
        return found

    def _explained(
        self,
        ssh_config: str | None,
        region: str | None,
        unreached: Sequence[tuple[Target, HostResult]],
        ends: float,
    ) -> Iterator[HostResult]:
        from agent.aws.instance_search import find_instances  # noqa: PLC0415 -- only where AWS is asked

        try:
            client = self._open_access(region).client
            ids = tuple(str(target.instance_id) for target, _ in unreached)
            instances = {each.id: each for each in find_instances(client, (("instance-id", ids),))}
        except AgentError as error:
            if error.ends_run:
                raise
            for _, end in unreached:
                yield _with(end, f"AWS does not say why: {error.sentence} ({error.code.name})")
            return
        for target, end in unreached:
            instance = instances.get(str(target.instance_id))
            if instance is None:
                yield _with(
                    end,
                    f"EC2 has no {target.instance_id} any more",
                    "take the inventory again, without --resume",
                )
            elif instance.state != "running":
                start = f"aws ec2 start-instances --region {instance.region} --instance-ids {instance.id}"
                hint = f"`{start}`" if instance.state == "stopped" else None
                yield _with(end, f"{instance.id} is {instance.state}", hint)
            else:
                yield self._judged(client, instance, end, self._source_of(ssh_config, target), ends)

    def _judged(
        self, client: AwsClient, instance: Instance, end: HostResult, source: str | None, ends: float
    ) -> HostResult:
        """Return the result with what stops TCP on its way in."""
        from agent.aws.path import PathEnd, find_entry_obstacle, find_public_obstacle  # noqa: PLC0415 -- as above
        from agent.aws.path_questions import PathQuestions  # noqa: PLC0415 -- as above

        is_public = end.address == instance.public
        interface = next(
            (each for each in instance.interfaces if is_public or end.address in each.addresses), None
        )
        if source is None or interface is None:
            return end  # behind a jump host, or by a name: who knocks where is not known here
        host = PathEnd(interface, end.address)
        # from behind NAT, AWS sees an address that this machine does not know
        is_hidden = is_public and not ipaddress.ip_address(source).is_global

        def obstacle(network: Network, port: int) -> Obstacle | None:
            if is_hidden:
                return find_public_obstacle(network, host, port, region=instance.region)
            return find_entry_obstacle(network, source, host, port, region=instance.region)

        questions = PathQuestions(client, ends)
        for network in questions.networks([interface]):
            found = obstacle(network, end.port)
            if found is not None:
                has_rdp = instance.is_windows and obstacle(network, _RDP) is None
                also = f"; TCP {_RDP} (RDP) is let in" if has_rdp else ""
                return _with(end, f"{found.saw}{also}", found.hint)
        if questions.denied or questions.failure is not None:
            lack = ", ".join(f"{each} is denied" for each in questions.denied) or str(questions.failure)
            return _with(end, f"nothing in AWS is seen to stop it, but not all could be asked: {lack}")
        if is_hidden:
            return _with(
                end, f"AWS lets some public addresses in to TCP {end.port}: is this machine's one of them?"
            )
        own = (
            "its OpenSSH server and Windows' firewall"
            if instance.is_windows
            else "sshd and the host's own firewall"
        )
        return _with(end, f"nothing in AWS stops TCP {end.port} from {source}", f"look at {own}")


def _with(end: HostResult, saw: str, hint: str | None = None) -> HostResult:
    return replace(end, saw=f"{end.saw}; {saw}" if end.saw else saw, hint=hint or end.hint)
