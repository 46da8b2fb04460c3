"""Where hosts get the agent, and what they are to do -> the document of AWS Systems Manager that has it done. Pure.

Its two steps have the scripts for Linux and Windows. What is requested arrives as a parameter in Base64: SSM writes the
values of parameters into scripts as they are, and nothing in Base64 means anything to a shell.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.core.errors import AgentError
from agent.hosts.windows.acl import descriptor
from agent.render.templates import render
from agent.user_data import PATIENCE, TIMEOUT, AgentSource, FirstBootOptions, config_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.config.desired import Desired

# SSM's limit, in bytes
MOST_BYTES = 64 * 1024
REQUEST, LIMIT = "request", "executionTimeout"
# without a counted repetition: where the agent of SSM checks it, in Go, more than 1,000 are an error
BASE64 = "^[A-Za-z0-9+/]*={0,2}$"
SECONDS = "^[1-9][0-9]{1,5}$"
# The names of the steps, which are what GetCommandInvocation calls a plug-in: it takes 4 characters or more.
LINUX_STEP, WINDOWS_STEP = "linux", "windows"
# Written as SSM has it; a template of ours cannot spell it.
_PARAMETER = "{{ request }}"
# beside the waits for the network and for locks, and the run: the delivery of its report, in seconds
_DELIVERY = 300


@dataclass(frozen=True)
class AgentSources:
    """Where hosts of each system get the agent, and the proxy by which they do. `windows` is None: it is there."""

    linux: AgentSource = field(default_factory=AgentSource)
    windows: AgentSource | None = None
    network: FirstBootOptions = field(default_factory=FirstBootOptions)


def configure_document(desired: Desired, sources: AgentSources) -> dict[str, Any]:
    """Return the document that performs `configure`; with other options too, if they are given as its parameter.

    Without an HSM or a cluster in `desired` the parameter has no default. Raises AgentError `user-data-too-large`.
    """
    timeout = int(desired.timeout or TIMEOUT)
    words = f'configure --config "-" --output json --quiet --timeout {timeout}s'
    words += " --replace-ca" if desired.replace_ca else ""
    default = encoded(config_json(desired)) if desired.hsm_ip or desired.cluster_id else None
    return _document("hsm-agent configure", sources, words, timeout, default)


def rollout_document(sources: AgentSources) -> dict[str, Any]:
    """Return the document by which a roll-out has its requests answered."""
    return _document("hsm-agent fleet, --via ssm", sources, "", TIMEOUT, None)


def encoded(text: str) -> str:
    """Return options, as a configuration file in JSON, as the parameter of a document has them."""
    return base64.b64encode(text.encode()).decode("ascii")


def content_of(document: dict[str, Any]) -> str:
    """Return a document as SSM stores it."""
    return json.dumps(document, indent=1)


def name_of(document: dict[str, Any]) -> str:
    """Return the name of a document, which says what is in it: two that differ never have the same."""
    return f"hsm-agent-{hashlib.sha256(content_of(document).encode()).hexdigest()[:16]}"


def association_of(
    document: dict[str, Any], targets: Sequence[tuple[str, Sequence[str]]], schedule: str, parallel: int
) -> dict[str, Any]:
    """Return what `aws ssm create-association --cli-input-json` takes, so that State Manager keeps hosts proven.

    SSM starts as many hosts as there are unless it is told how many at a time, and a cluster takes so many connections.
    """
    name = name_of(document)
    return {
        "Name": name,
        "AssociationName": name,
        "Targets": [{"Key": key, "Values": list(values)} for key, values in targets],
        "ScheduleExpression": schedule,
        "MaxConcurrency": str(parallel),
        "MaxErrors": "10%",
        "ComplianceSeverity": "HIGH",
    }


def _document(
    purpose: str, sources: AgentSources, words: str, timeout: int, default: str | None
) -> dict[str, Any]:
    limit = 3 * min(PATIENCE, timeout) + timeout + _DELIVERY
    meaning = "Base64 of the options as a configuration file in JSON" if words else "What is requested"
    document = {
        "schemaVersion": "2.2",
        "description": f"{purpose}, made by hsm-agent {__version__}",
        "parameters": {
            REQUEST: {
                "type": "String",
                "description": meaning,
                "allowedPattern": BASE64,
                "interpolationType": "ENV_VAR",
                **({} if default is None else {"default": default}),
            },
            LIMIT: {
                "type": "String",
                "description": "Seconds that a host may take",
                "allowedPattern": SECONDS,
                "default": str(limit),
            },
        },
        "mainSteps": [
            _step("aws:runShellScript", LINUX_STEP, "Linux", _script("run.sh", sources.linux, sources, words, timeout)),
            _step(
                "aws:runPowerShellScript",
                WINDOWS_STEP,
                "Windows",
                _script("run.ps1", sources.windows or AgentSource("msi"), sources, words, timeout),
            ),
        ],
    }  # fmt: skip
    size = len(content_of(document))
    if size > MOST_BYTES:
        raise AgentError(
            "user-data-too-large",
            "this does not fit into a document of Systems Manager",
            saw=f"{size} bytes",
            want=f"at most {MOST_BYTES} bytes",
            hint="name an https:, s3: or ssm: source with --ca-cert, and leave out what the image can have",
        )
    return document


def _step(action: str, name: str, platform: str, script: str) -> dict[str, Any]:
    return {
        "action": action,
        "name": name,
        "precondition": {"StringEquals": ["platformType", platform]},
        "inputs": {"timeoutSeconds": f"{{{{ {LIMIT} }}}}", "runCommand": script.splitlines()},
    }


def _script(name: str, source: AgentSource, sources: AgentSources, words: str, timeout: int) -> str:
    return render(
        f"ssm/{name}",
        version=__version__,
        source=source,
        network=sources.network,
        patience=min(PATIENCE, timeout),
        parameter=_PARAMETER,
        run=words,
        closed=descriptor(0o711, folder=True),
    )
