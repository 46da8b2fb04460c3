"""Reads the host keys of instances on their consoles, with the credentials of the operator."""

from __future__ import annotations

import base64
import binascii
import contextlib
import threading
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.system import windows
from agent.ssh.console_keys import ConsoleKeys, read_console
from agent.ssh.known_hosts import PublishedKeys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from agent.aws.client import AwsClient
    from agent.core.fleet_model import Target
    from agent.fleet.shared_input import OpenAccess

# How many consoles are asked for at a time: EC2 throttles an account that asks for hundreds at once.
_AT_ONCE = 4
_ONCE = "cloud-init prints them once, at the first boot, and EC2 keeps the last 64 kB"
_OTHERWISE = "add the key to known_hosts by another way, or type `--trust-new-hosts`"


class InstanceConsoles:
    """The consoles of the instances of a run. Shared by all threads."""

    def __init__(self, open_access: OpenAccess) -> None:
        self._open_access = open_access
        self._slots = threading.Semaphore(_AT_ONCE)

    def host_keys(self, target: Target) -> PublishedKeys:
        """Return the host keys on the console of a target's instance; without any, why, which AWS's refusal is too."""
        name = target.instance_id
        if name is None:
            return PublishedKeys(
                f"{target.name}", lack="it is no instance of an EC2 inventory, so it has no console"
            )
        source = f"the console of {name}"
        if target.system == windows().kind:
            return PublishedKeys(source, lack="Windows prints no host keys there")
        try:
            with self._slots:
                return self._read(name, target.region, source)
        except AgentError as error:
            if error.ends_run:
                raise
            return PublishedKeys(source, lack=f"{error.sentence}: {error.saw} ({error.code.name})")

    def _read(self, name: str, region: str | None, source: str) -> PublishedKeys:
        from agent.aws.client import AwsRefusedError  # noqa: PLC0415 -- only where AWS is asked
        from agent.aws.instance_search import patient  # noqa: PLC0415 -- as above

        client = patient(self._open_access(region).client)
        found, posted = _answer(client, name, latest=False)
        if not found.keys:
            # what was posted may be older than the first boot's end; only Nitro instances have anything newer
            with contextlib.suppress(AwsRefusedError):
                found, posted = _answer(client, name, latest=True)
        return PublishedKeys(source, found.keys, _lack(found, posted))


def _answer(client: AwsClient, name: str, *, latest: bool) -> tuple[ConsoleKeys, str]:
    """Return the keys on a console, and when it was posted; no time means that nothing was.

    Raises AgentError `aws-refused` where the answer is about another instance.
    """
    from agent.aws.operations import GET_CONSOLE_OUTPUT  # noqa: PLC0415 -- as above

    wanted: dict[str, Any] = {"InstanceId": name, **({"Latest": True} if latest else {})}
    answer: Mapping[str, Any] = client.call(GET_CONSOLE_OUTPUT, wanted)
    if answer.get("instanceId") != name:
        raise AgentError(
            "aws-refused",
            f"AWS answers ec2:GetConsoleOutput for another instance than {name}",
            saw=str(answer.get("instanceId"))[:60],
            want=name,
        )
    try:
        output = base64.b64decode("".join(str(answer.get("output") or "").split()), validate=True)
    except (binascii.Error, ValueError):
        output = b""
    return read_console(output.decode("utf-8", "replace")), str(
        answer.get("timestamp") or ""
    ) if output else ""


def _lack(found: ConsoleKeys, posted: str) -> str:
    """Return why a console has no key; empty where it has one."""
    if found.keys:
        return ""
    if not posted:
        return f"nothing is there yet: EC2 posts it some minutes after the boot; {_OTHERWISE}"
    if found.is_there:
        return f"what was posted at {posted} has no whole key: {found.cut} of them cut by other lines; {_OTHERWISE}"
    return f"what was posted at {posted} has no host keys: {_ONCE}; {_OTHERWISE}"
