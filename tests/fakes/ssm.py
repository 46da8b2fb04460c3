"""Run Command of AWS Systems Manager, behind `tests.fakes.aws_server`: documents, commands, and nodes that run scripts.

It does what AWS's documents say of it (aws-docs: send-commands-multiple, send-commands-reboot, the API reference), and
misbehaves on demand. botocore's models judge each request and each answer. `tests/FAKES.md` has what it cannot prove.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import json
import re
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ACTIONS = (
    "CreateDocument",
    "GetDocument",
    "SendCommand",
    "CancelCommand",
    "ListCommands",
    "ListCommandInvocations",
    "GetCommandInvocation",
    "DescribeInstanceInformation",
)
# Characters that are kept: of a step's output and errors, and of a plug-in in a list.
STDOUT, STDERR, LISTED = 24_000, 8_000, 2_500
# Agents from here on put a parameter into a variable where its document says so.
_VARIABLES = (3, 3, 2746, 0)
# Exit statuses by which a script asks for a restart, and to be run again.
_RESTARTS = {"Linux": 194, "Windows": 3010}


class Ran(NamedTuple):
    """How a script ended; `status` is None when its time was over."""

    status: int | None
    stdout: str
    stderr: str


# Runs a script with these variables more, for so many seconds at most.
Runner = Callable[[str, "Mapping[str, str]", float], Ran]


@dataclass
class Node:
    """A managed node. `is_deaf`: its agent has lost the network, and SSM has not noticed."""

    run: Runner
    platform: str = "Linux"
    ping: str = "Online"
    version: str = "3.3.3050.0"
    is_deaf: bool = False
    restarts: int = 0
    scripts: list[str] = field(default_factory=list)


@dataclass
class _Invocation:
    instance: str
    status: str = "Pending"
    details: str = "Pending"
    outputs: dict[str, Ran] = field(default_factory=dict)

    def becomes(self, status: str, details: str = "") -> None:
        self.status, self.details = status, details or status


@dataclass
class SentOne:
    """A command that was sent: what was asked, and its invocations by instance."""

    id: str
    params: Mapping[str, Any]
    at: dt.datetime
    invocations: dict[str, _Invocation]
    cancelled: threading.Event = field(default_factory=threading.Event)
    looks: int = 0


class RefusedError(Exception):
    """AWS's name for a refusal, and its words."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


class SystemsManager:
    """SSM of one account and region, over `nodes` by their ids.

    `lag` is how many looks at a command find no invocation yet; `hidden` how many lists of commands lack the newest;
    `speed` divides the times of deliveries; `on_send` is called with each command that was taken, before its id is
    answered, and may raise.
    """

    def __init__(self, nodes: Mapping[str, Node] | None = None) -> None:
        self.nodes: dict[str, Node] = dict(nodes or {})
        self.documents: dict[str, dict[str, Any]] = {}
        self.commands: list[SentOne] = []
        self.creating = 0
        self.lag = 0
        self.hidden = 0
        self.speed = 1.0
        self.on_send: Callable[[SentOne], None] = lambda _command: None
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []

    def answer(self, action: str, params: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an answer."""
        _judge(action, "input", params)
        try:
            with self._lock:
                body = getattr(self, re.sub(r"(?<=.)([A-Z])", r"_\1", action).lower())(params)
        except RefusedError as error:
            return 400, {"__type": error.code, "message": error.message}
        _judge(action, "output", body)
        return 200, body

    def settle(self) -> None:
        """Wait until all that was begun is over."""
        for thread in self._threads:
            thread.join(60)

    # --- documents

    def create_document(self, params: Mapping[str, Any]) -> dict[str, Any]:
        name = params["Name"]
        if name in self.documents:
            raise RefusedError("DocumentAlreadyExists", name)
        content = json.loads(params["Content"])
        if content.get("schemaVersion") != "2.2" or len(params["Content"]) > 64 * 1024:
            raise RefusedError("InvalidDocumentContent", "schema")
        self.documents[name] = content
        return {"DocumentDescription": {"Name": name, "Status": "Creating"}}

    def get_document(self, params: Mapping[str, Any]) -> dict[str, Any]:
        name = params["Name"]
        if name not in self.documents:
            raise RefusedError("InvalidDocument", f"Document with name {name} does not exist.")
        self.creating -= 1
        status = "Creating" if self.creating >= 0 else "Active"
        content = json.dumps(self.documents[name])
        return {"Name": name, "DocumentVersion": "1", "Status": status, "Content": content}

    # --- commands

    def send_command(self, params: Mapping[str, Any]) -> dict[str, Any]:
        document = self.documents.get(params["DocumentName"])
        if document is None:
            raise RefusedError("InvalidDocument")
        wrong = [
            each
            for each in params["InstanceIds"]
            if each not in self.nodes or self.nodes[each].ping != "Online"
        ]
        if wrong:
            raise RefusedError("InvalidInstanceId", f"Instances {wrong} not in a valid state for account")
        values = _parameters(document, params.get("Parameters", {}))
        invocations = {each: _Invocation(each) for each in params["InstanceIds"]}
        command = SentOne(str(uuid.uuid4()), params, _now(), invocations)
        self.commands.append(command)
        thread = threading.Thread(target=self._deliver, args=(command, document, values), daemon=True)
        self._threads.append(thread)
        thread.start()
        self.on_send(command)
        return {"Command": self._described(command)}

    def cancel_command(self, params: Mapping[str, Any]) -> dict[str, Any]:
        command = self._command(params["CommandId"])
        command.cancelled.set()
        for each in command.invocations.values():
            if each.status in ("Pending", "InProgress", "Delayed"):
                each.becomes("Cancelled")
        return {}

    def list_commands(self, params: Mapping[str, Any]) -> dict[str, Any]:
        wanted = {each["key"]: each["value"] for each in params.get("Filters", ())}
        after = dt.datetime.strptime(
            wanted.get("InvokedAfter", "1970-01-01T00:00:00Z"), "%Y-%m-%dT%H:%M:%SZ"
        ).replace(tzinfo=dt.timezone.utc)
        name = wanted.get("DocumentName", "*")
        self.hidden -= 1
        found = [
            self._described(each)
            for each in (self.commands[:-1] if self.hidden >= 0 else self.commands)
            if each.at >= after and fnmatch.fnmatchcase(each.params["DocumentName"], name)
        ]
        return _page("Commands", found[::-1], params)

    def list_command_invocations(self, params: Mapping[str, Any]) -> dict[str, Any]:
        command = self._command(params["CommandId"])
        command.looks += 1
        shown = [] if command.looks <= self.lag else list(command.invocations.values())
        found = [
            {
                "CommandId": command.id,
                "InstanceId": each.instance,
                "Comment": command.params.get("Comment", ""),
                "Status": each.status,
                "StatusDetails": each.details,
                **({"CommandPlugins": _plugins(each)} if params.get("Details") else {}),
            }
            for each in shown
        ]
        return _page("CommandInvocations", found, params)

    def get_command_invocation(self, params: Mapping[str, Any]) -> dict[str, Any]:
        command = self._command(params["CommandId"])
        found = command.invocations.get(params["InstanceId"])
        if found is None or command.looks <= self.lag:
            raise RefusedError("InvocationDoesNotExist")
        name = params.get("PluginName", "")
        if not name and len(found.outputs) > 1:
            raise RefusedError("InvalidPluginName")
        ran = found.outputs.get(name, Ran(-1, "", ""))
        return {
            "CommandId": command.id, "InstanceId": found.instance, "PluginName": name,
            "Status": found.status, "StatusDetails": found.details,
            "ResponseCode": -1 if ran.status is None else ran.status,
            "StandardOutputContent": ran.stdout[:STDOUT], "StandardErrorContent": ran.stderr[:STDERR],
        }  # fmt: skip

    def describe_instance_information(self, params: Mapping[str, Any]) -> dict[str, Any]:
        filters = {each["Key"]: each["Values"] for each in params.get("Filters", ())}
        ids = filters.get("InstanceIds", self.nodes)
        found = [
            {
                "InstanceId": each,
                "PingStatus": self.nodes[each].ping,
                "PlatformType": self.nodes[each].platform,
                "AgentVersion": self.nodes[each].version,
                "LastPingDateTime": 1_764_500_000.0,
            }
            for each in self.nodes
            if each in ids
        ]
        return _page("InstanceInformationList", found, params)

    # --- what happens on nodes

    def _deliver(self, command: SentOne, document: Mapping[str, Any], values: Mapping[str, str]) -> None:
        """Run the command on its nodes, so many at a time as it says."""
        slots = threading.Semaphore(int(command.params["MaxConcurrency"]))

        def one(each: _Invocation) -> None:
            with slots:
                self._invoke(command, each, document, values)

        threads = [threading.Thread(target=one, args=(each,)) for each in command.invocations.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _invoke(
        self, command: SentOne, each: _Invocation, document: Mapping[str, Any], values: Mapping[str, str]
    ) -> None:
        node = self.nodes[each.instance]
        end = time.monotonic() + command.params["TimeoutSeconds"] / self.speed
        while node.is_deaf and not command.cancelled.is_set():
            if time.monotonic() >= end:
                each.becomes("TimedOut", "DeliveryTimedOut")
                return
            command.cancelled.wait(0.02)
        if command.cancelled.is_set():
            return
        each.becomes("InProgress")
        for step in document["mainSteps"]:
            ran = self._step(node, each.instance, document, step, values)
            if command.cancelled.is_set():
                return
            if ran is None:  # its precondition is not met
                each.outputs[step["name"]] = Ran(0, "", "")
                continue
            each.outputs[step["name"]] = ran
            if ran.status is None:
                each.becomes("TimedOut", "ExecutionTimedOut")
                return
            if ran.status:
                each.becomes("Failed")
                return
        each.becomes("Success")

    def _step(
        self,
        node: Node,
        instance: str,
        document: Mapping[str, Any],
        step: Mapping[str, Any],
        values: Mapping[str, str],
    ) -> Ran | None:
        variable, wanted = step["precondition"]["StringEquals"]
        assert variable == "platformType"
        if node.platform != wanted:
            return None
        lines = "\n".join(step["inputs"]["runCommand"])
        env = {"AWS_SSM_INSTANCE_ID": instance}
        knows = tuple(map(int, node.version.split("."))) >= _VARIABLES
        for name, value in values.items():
            if knows and document["parameters"][name].get("interpolationType") == "ENV_VAR":
                env[f"SSM_{name}"] = value
            else:
                lines = lines.replace(f"{{{{ {name} }}}}", value)
        limit = step["inputs"]["timeoutSeconds"]
        for name, value in values.items():
            limit = limit.replace(f"{{{{ {name} }}}}", value)
        while True:
            node.scripts.append(lines)
            ran = node.run(lines, env, float(limit))
            if ran.status != _RESTARTS[node.platform] or node.restarts:
                return ran
            node.restarts += 1

    def _command(self, command_id: str) -> SentOne:
        for each in self.commands:
            if each.id == command_id:
                return each
        raise RefusedError("InvalidCommandId")

    def _described(self, command: SentOne) -> dict[str, Any]:
        return {
            "CommandId": command.id, "DocumentName": command.params["DocumentName"],
            "Comment": command.params.get("Comment", ""), "RequestedDateTime": command.at.timestamp(),
            "InstanceIds": list(command.params["InstanceIds"]), "Status": "InProgress",
        }  # fmt: skip


def in_process(script: str, env: Mapping[str, str], seconds: float) -> Ran:
    """Run a script on this machine, as the user of the tests: for scripts that change nothing outside their folder."""
    words = ["sh", "-c", script]
    try:
        done = subprocess.run(
            words, env={**env, "PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Ran(None, "", "")
    return Ran(done.returncode, done.stdout, done.stderr)


def _parameters(document: Mapping[str, Any], given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the values of a document's parameters, which SSM holds to their patterns."""
    known = document["parameters"]
    if set(given) - set(known):
        raise RefusedError("InvalidParameters", f"unknown: {sorted(set(given) - set(known))}")
    values = {}
    for name, one in known.items():
        if name not in given and "default" not in one:
            raise RefusedError("InvalidParameters", f"missing: {name}")
        values[name] = given[name][0] if name in given else one["default"]
        if not re.search(one["allowedPattern"], values[name]):
            raise RefusedError("InvalidParameters", f"{name} does not match its pattern")
    return values


def _plugins(each: _Invocation) -> list[dict[str, Any]]:
    return [
        {"Name": name, "Output": ran.stdout[:LISTED], "ResponseCode": ran.status or 0}
        for name, ran in each.outputs.items()
    ]


def _page(name: str, found: list[dict[str, Any]], params: Mapping[str, Any]) -> dict[str, Any]:
    begin = int(params.get("NextToken") or 0)
    end = begin + int(params.get("MaxResults") or 50)
    more = {"NextToken": str(end)} if end < len(found) else {}
    return {name: found[begin:end], **more}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


@cache
def _model() -> Any:
    import botocore.session

    return botocore.session.Session().get_service_model("ssm")


def _judge(action: str, side: str, values: Mapping[str, Any]) -> None:
    """Hold a request or an answer to botocore's model. Raises ParamValidationError's words as AssertionError."""
    from botocore.validate import ParamValidator

    operation = _model().operation_model(action)
    shape = operation.input_shape if side == "input" else operation.output_shape
    report = ParamValidator().validate(values, shape)
    assert not report.has_errors(), f"{action}: {report.generate_report()}"
