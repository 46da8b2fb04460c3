"""The documents of Systems Manager that are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.ssm_document import AgentSources, configure_document, content_of, rollout_document
from agent.user_data import FirstBootOptions
from tests.golden.first_boots import HOSTILE, LEAST, USUAL, url

FOLDER = Path(__file__).parent / "ssm_documents"
S3 = "s3://bucket/agent"
PROXY = FirstBootOptions("http://proxy.corp:3128", "localhost,.corp")


@dataclass(frozen=True)
class Case:
    """One document."""

    name: str
    document: dict[str, Any]

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.json"

    @property
    def text(self) -> str:
        return content_of(self.document) + "\n"

    def script(self, number: int) -> str:
        """Return the script of a step as its host runs it: 0 is that of Linux."""
        return "\n".join(self.document["mainSteps"][number]["inputs"]["runCommand"]) + "\n"


DEB, RPM = url("deb", "hsm-agent_0.1.0_all.deb"), url("rpm", "hsm-agent-0.1.0-1.noarch.rpm", S3)
TREE, MSI = url("tree", "hsm-agent-0.1.0-0123456789ab.tar.gz"), url("msi", "hsm-agent-0.1.0.msi", S3)
CASES = (
    Case("package", configure_document(LEAST, AgentSources())),
    Case("deb_by_proxy", configure_document(USUAL, AgentSources(DEB, network=PROXY))),
    Case("rpm_and_msi", configure_document(LEAST, AgentSources(RPM, MSI))),
    Case("hostile", configure_document(HOSTILE, AgentSources(DEB, MSI))),
    Case("any_options", configure_document(replace(LEAST, hsm_ip=()), AgentSources(TREE))),
    Case("rollout", rollout_document(AgentSources(TREE, MSI))),
)
