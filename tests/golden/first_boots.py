"""The commands whose user-data is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.user_data import AgentSource, user_data
from tests.fakes.vendor import Vendor
from tests.golden.runs import FOLDER as SCREENS
from tests.golden.runs import NOW

FOLDER = Path(__file__).parent / "user_data"
SHA256 = "5e" * 32
BUCKET = "https://bucket.s3.eu-central-1.amazonaws.com"
ENDINGS = {"shell": "sh", "cloud-config": "yaml", "powershell": "ps1"}


@dataclass(frozen=True)
class Case:
    """One call of `hsm-agent user-data`."""

    name: str
    form: str
    source: AgentSource
    desired: Desired

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.{ENDINGS[self.form]}"

    def text(self) -> str:
        return user_data(Vendor().machine(NOW), self.desired, self.source, self.form).decode("ascii")


def url(kind: str, name: str, base: str = BUCKET) -> AgentSource:
    return AgentSource(kind, name, url=f"{base}/{name}", sha256=SHA256)


LEAST = Desired(hsm_ip=("10.0.1.6",))
USUAL = Desired(
    hsm_ip=("10.0.1.6", "10.0.2.9"),
    ca_cert=CaSource.of((SCREENS / "customerCA.crt").read_text(encoding="ascii")),
    component=("cli", "pkcs11"),
    report_to=("https://desk.example/reports",),
    report_token_file="/etc/hsm-agent/token",
)
HOSTILE = Desired(
    hsm_ip=("fd77::a",),
    ca_cert=CaSource.of("https://desk.example/customerCA.crt"),
    package_source="/srv/'\"$(touch pwned)`touch pwned`\nEND\n</powershell>\n\x7f\u2019\u00e9",
    replace_ca=True,
    report_to=("file:/var/log/$(hostname)'.json", "cfn:web/Group?region=eu-central-1"),
    timeout=900.0,
)
CASES = (
    Case("package", "shell", AgentSource(), LEAST),
    Case("deb", "shell", url("deb", "hsm-agent_0.1.0_all.deb"), USUAL),
    Case("rpm_in_a_bucket", "shell", url("rpm", "hsm-agent-0.1.0-1.noarch.rpm", "s3://bucket/agent"), USUAL),
    Case("tree", "shell", url("tree", "hsm-agent-0.1.0-0123456789ab.tar.gz"), LEAST),
    Case("inline", "shell", AgentSource("tree", "small.tar.gz", data=b"not a real one"), LEAST),
    Case("hostile", "shell", url("deb", "hsm-agent_0.1.0_all.deb"), HOSTILE),
    Case("deb", "cloud-config", url("deb", "hsm-agent_0.1.0_all.deb"), USUAL),
    Case("hostile", "cloud-config", AgentSource(), HOSTILE),
    Case("msi", "powershell", url("msi", "hsm-agent-0.1.0.msi"), USUAL),
    Case("msi_in_a_bucket", "powershell", url("msi", "hsm-agent-0.1.0.msi", "s3://bucket/agent"), LEAST),
    Case("hostile", "powershell", url("msi", "hsm-agent-0.1.0.msi"), HOSTILE),
)
