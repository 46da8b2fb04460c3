"""The acts of `hsm-agent demo --aws`: a cluster by its id, a group that is not attached, its cure, an HSM replaced."""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import socket
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from agent.demo import aws
from agent.demo.hsm_server import PORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEFORE = (aws.DemoHsm("hsm-demo2demo3a", 1, "10.0.1.6"), aws.DemoHsm("hsm-demo2demo3b", 2, "10.0.2.9"))
AFTER = (BEFORE[0], aws.DemoHsm("hsm-demo2demo3c", 2, "10.0.2.31"))
# what a hint writes before the groups
_MODIFY = "aws ec2 modify-network-interface-attribute "


class ClosedPath:
    """What a missing group does to packets, without a firewall: listeners whose queues are full, so that none answers.

    A firewall would want a program or a kernel's module that this machine may lack.
    """

    def __init__(self, address: str) -> None:
        self._held = contextlib.ExitStack()
        for port in PORTS:
            listener = self._held.enter_context(socket.create_server((address, port), backlog=0))
            waiting = self._held.enter_context(socket.socket())
            waiting.connect(listener.getsockname())

    def open(self) -> None:
        """Let the address be another's."""
        self._held.close()


def acts(
    state: Path,
    url: str,
    full: tuple[str, ...],
    report: Path,
    start: Callable[[str], None],
    stop: Callable[[str], None],
) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield title, arguments and exit status of each call of `hsm-agent`.

    `full` are the arguments of a first configure, `report` is where the host keeps its last report; `start` and `stop`
    are those of an HSM, by its address.
    """
    closed = [ClosedPath(each.address) for each in BEFORE]
    yield "a host that knows its cluster's id, and is not in its security group", full, 40
    for each in closed:
        each.open()
    _attach(url, report)
    if aws.GROUP in aws.load(state).groups:
        for hsm in BEFORE:
            start(hsm.address)
    yield "somebody runs the command that the hint shows; the same call again", full, 0
    stop(BEFORE[1].address)
    start(AFTER[1].address)
    replace(aws.load(state), hsms=AFTER).save(state)
    yield f"an HSM is deleted and made again: {BEFORE[1].address} is now {AFTER[1].address}", ("verify",), 3
    yield "the configuration follows the cluster", full, 0


def _attach(url: str, report: Path) -> None:
    """Do what the command in the hint says, as `aws` would: this machine may have none."""
    steps = json.loads(report.read_text(encoding="utf-8"))["steps"]
    hints = [str(each.get("hint") or "") for each in steps]
    line = next((each for each in hints if _MODIFY in each), None)
    if line is None:
        return
    words = shlex.split(line[line.index(_MODIFY) :].partition("`")[0])
    groups = [word for word in words[words.index("--groups") + 1 :] if word.startswith("sg-")]
    form = {
        "Action": "ModifyNetworkInterfaceAttribute",
        "Version": "2016-11-15",
        "NetworkInterfaceId": words[words.index("--network-interface-id") + 1],
        **{f"SecurityGroupId.{number}": group for number, group in enumerate(groups, 1)},
    }
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("POST", "/", urlencode(form), {"Content-Type": "application/x-www-form-urlencoded"})
    connection.getresponse().read()
    connection.close()
