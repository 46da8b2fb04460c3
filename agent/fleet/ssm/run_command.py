"""AWS Systems Manager's Run Command as a roll-out uses it: documents, commands, and what hosts print. No state."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.aws.client import AwsRefusedError
from agent.aws.operations import (
    CREATE_DOCUMENT,
    DESCRIBE_INSTANCE_INFORMATION,
    GET_COMMAND_INVOCATION,
    GET_DOCUMENT,
    LIST_COMMAND_INVOCATIONS,
    LIST_COMMANDS,
    SEND_COMMAND,
)
from agent.core.errors import AgentError
from agent.ssm_document import LIMIT, LINUX_STEP, REQUEST, WINDOWS_STEP, content_of, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.aws.client import AwsClient

# Instance ids in one command; and characters of standard output that AWS keeps of one step.
MOST_INSTANCES = 50
MOST_OUTPUT = 24_000
# The least that SSM takes as the time in which a command must reach its hosts, in seconds.
LEAST_DELIVERY = 30
_ONLINE = "Online"
# of an invocation that is not at its end
_OPEN = ("Pending", "InProgress", "Delayed", "Cancelling")
# How far the clocks of this machine and of AWS may differ where commands are looked for by their time.
_CLOCKS = dt.timedelta(minutes=10)
_ABSENT = ("InvalidDocument", "InvalidDocumentVersion")


@dataclass(frozen=True)
class ManagedNode:
    """A host as SSM knows it. `ping` is Online, ConnectionLost or Inactive; `seen` is when its agent was heard last."""

    ping: str
    platform: str
    seen: str

    @property
    def is_online(self) -> bool:
        return self.ping == _ONLINE

    @property
    def step(self) -> str:
        """The step of the document that this host runs."""
        return WINDOWS_STEP if self.platform == "Windows" else LINUX_STEP


@dataclass(frozen=True)
class Invocation:
    """One host's part of a command. `status` and `details` are AWS's words, without blanks."""

    status: str
    details: str

    @property
    def is_open(self) -> bool:
        return self.status in _OPEN


@dataclass(frozen=True)
class StepOutput:
    """What a step printed, as far as AWS keeps it, and its exit status."""

    stdout: str
    stderr: str
    status: int


@dataclass(frozen=True)
class CommandToSend:
    """One command: what is requested of which instances. Times are in seconds."""

    document: str
    instances: Sequence[str]
    request: str
    comment: str
    delivery: int
    limit: int


@dataclass(frozen=True)
class RunCommand:
    """Asks SSM in one region. Each method raises AgentError as `AwsClient.call` does."""

    client: AwsClient

    def managed(self, instances: Sequence[str]) -> dict[str, ManagedNode]:
        """Return those of these instances that SSM knows."""
        filters = [{"Key": "InstanceIds", "Values": list(instances)}]
        return {
            each["InstanceId"]: ManagedNode(
                str(each.get("PingStatus", "")),
                str(each.get("PlatformType", "")),
                _time(each.get("LastPingDateTime")),
            )
            for page in self.client.pages(DESCRIBE_INSTANCE_INFORMATION, {"Filters": filters})
            for each in page.get("InstanceInformationList", ())
        }

    def ensure_document(self, document: dict[str, Any]) -> bool:
        """Create the document unless it is there, and return whether it can be used yet.

        Its name says what is in it, and commands name its first version, which nobody can change. One of that name with
        another content is nobody's mistake. Raises AgentError `ssm-document-differs`.
        """
        name = name_of(document)
        try:
            found = self.client.call(
                GET_DOCUMENT, {"Name": name, "DocumentVersion": "1", "DocumentFormat": "JSON"}
            )
        except AwsRefusedError as error:
            if error.refusal.code not in _ABSENT:
                raise
        else:
            if _json(found.get("Content")) != document:
                raise AgentError(
                    "ssm-document-differs",
                    "the document that has this name has another content",
                    saw=f"another document named {name}",
                    want="what `hsm-agent` put there",
                )
            return str(found.get("Status", "Active")) == "Active"
        content = {"Content": content_of(document), "DocumentType": "Command", "DocumentFormat": "JSON"}
        try:
            self.client.call(CREATE_DOCUMENT, {"Name": name, **content})
        except AwsRefusedError as error:  # another controller was faster
            if error.refusal.code != "DocumentAlreadyExists":
                raise
        return False

    def send(self, command: CommandToSend) -> str:
        """Send a command once, and return its id. After AgentError `aws-unreachable` it may have been sent."""
        # a second try could send it twice: SendCommand knows no client token
        answer = replace(self.client, tries=1).call(
            SEND_COMMAND,
            {
                "DocumentName": command.document,
                "DocumentVersion": "1",
                "InstanceIds": list(command.instances),
                "Parameters": {REQUEST: [command.request], LIMIT: [str(command.limit)]},
                "Comment": command.comment,
                # no more hosts than may run at a time are in AWS's hands, and the stop rule is the roll-out's
                "MaxConcurrency": str(len(command.instances)),
                "MaxErrors": "100%",
                "TimeoutSeconds": max(LEAST_DELIVERY, command.delivery),
            },
        )
        return str(answer["Command"]["CommandId"])

    def find(self, document: str, comment: str, since: dt.datetime) -> str | None:
        """Return the id of the command with this comment, sent since then; None if there is none."""
        after = f"{since - _CLOCKS:%Y-%m-%dT%H:%M:%SZ}"
        filters = [{"key": "InvokedAfter", "value": after}, {"key": "DocumentName", "value": document}]
        for page in self.client.pages(LIST_COMMANDS, {"Filters": filters}):
            for each in page.get("Commands", ()):
                if each.get("Comment") == comment:
                    return str(each["CommandId"])
        return None

    def invocations(self, command_id: str) -> dict[str, Invocation]:
        """Return the invocations of a command by instance; right after it was sent there is none yet."""
        return {
            each["InstanceId"]: Invocation(
                str(each.get("Status", "")), str(each.get("StatusDetails", "")).replace(" ", "")
            )
            for page in self.client.pages(LIST_COMMAND_INVOCATIONS, {"CommandId": command_id})
            for each in page.get("CommandInvocations", ())
        }

    def output(self, command_id: str, instance: str, step: str) -> StepOutput:
        """Return what a step printed on an instance."""
        answer = self.client.call(
            GET_COMMAND_INVOCATION, {"CommandId": command_id, "InstanceId": instance, "PluginName": step}
        )
        return StepOutput(
            str(answer.get("StandardOutputContent", "")),
            str(answer.get("StandardErrorContent", "")),
            int(answer.get("ResponseCode", -1)),
        )


def _time(value: object) -> str:
    """Return a time of SSM, which is in seconds since 1970, as text; empty without one."""
    if not isinstance(value, (int, float)):
        return ""
    return f"{dt.datetime.fromtimestamp(value, dt.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def _json(text: object) -> Any:
    try:
        return json.loads(str(text))
    except ValueError:
        return None
