"""A cluster by its id on Windows: AWS and the metadata service are stand-ins on loopback, and no key is anywhere else."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes import cluster_answers
from tests.fakes.imds import CREDENTIALS, imds, place_texts
from tests.fakes.receiver import receiver
from tests.windows.cluster import FIRST, NEW_TYPE, SECOND
from tests.windows.found import CLUSTER
from tests.windows.job import (
    OWN,
    SETTINGS,
    a_virgin_host,  # noqa: F401 -- pytest takes it from here for every test
    configure,
    hsm_agent,
    installed,
    servers,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.receiver import Exchange

assert sys.platform == "win32"

REGION = "eu-central-1"
SECRETS = (CREDENTIALS["SecretAccessKey"], CREDENTIALS["Token"], cluster_answers.SECRET)


class Aws:
    """DescribeClusters as AWS answers it; a test changes what it says, and reads who asked."""

    def __init__(self) -> None:
        self.addresses = [FIRST, SECOND]
        self.certificate = "hsm.crt"
        self.refuses = ""
        self.askers: list[str] = []

    def answer(self, exchange: Exchange) -> None:
        self.askers.append(exchange.headers["Authorization"])
        hsms = [cluster_answers.hsm(number, EniIp=each) for number, each in enumerate(self.addresses)]
        certificate = (CLUSTER.folder / self.certificate).read_text(encoding="ascii")
        tree = cluster_answers.page(
            cluster_answers.cluster(
                "ACTIVE", *hsms, HsmType="hsm1.medium", Certificates={"ClusterCertificate": certificate}
            )
        )
        if self.refuses:
            tree = {"__type": self.refuses, "message": "No."}
        body = json.dumps(tree).encode()
        exchange.answer(400 if self.refuses else 200, Content_Length=len(body))
        exchange.wfile.write(body)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    made = Aws()
    with receiver(made.answer) as server, imds(role="web-role") as metadata:
        metadata.texts.update(place_texts(REGION, f"{REGION}a"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.origin)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        yield made


def test_a_host_is_configured_by_the_id_and_asks_again_without_options(aws: Aws) -> None:
    first = configure(f"--cluster-id={cluster_answers.CLUSTER_ID}", ips=())
    assert (first.status, first.report["code"]) == (0, None), first
    assert {first.steps[f"cluster:{name}"] for name in ("state", "addresses", "ca")} == {"met"}
    assert servers() == [FIRST, SECOND]
    assert all(f"Credential={CREDENTIALS['AccessKeyId']}/" in each for each in aws.askers)
    asked = len(aws.askers)
    written = SETTINGS.stat().st_mtime_ns
    looked = hsm_agent("verify")
    assert (looked.status, set(looked.steps.values())) == (0, {"met"}), looked
    assert len(aws.askers) == asked + 1
    again = hsm_agent("configure")
    assert (again.status, again.report["changed"], SETTINGS.stat().st_mtime_ns) == (0, False, written), again
    kept = b"".join(each.read_bytes() for each in OWN.rglob("*") if each.is_file())
    for secret in SECRETS:
        assert secret.encode() not in kept
        assert secret not in json.dumps([first.report, looked.report, again.report])


def test_an_hsm_that_was_replaced_is_drift_and_the_next_configure_follows(aws: Aws) -> None:
    assert configure(f"--cluster-id={cluster_answers.CLUSTER_ID}", ips=()).status == 0
    aws.addresses = [FIRST, NEW_TYPE]
    looked = hsm_agent("verify")
    assert (looked.status, looked.steps["configure:cli"]) == (3, "would-change"), looked
    assert any(NEW_TYPE in each["text"] and SECOND in each["text"] for each in looked.report["warnings"]), (
        looked
    )
    assert servers() == [FIRST, SECOND]


def test_another_cluster_and_a_denial_end_the_run_before_any_change(aws: Aws) -> None:
    aws.certificate = "other-hsm.crt"
    refused = configure(f"--cluster-id={cluster_answers.CLUSTER_ID}", ips=())
    assert (refused.status, refused.report["code"]) == (31, "ca-not-of-cluster"), refused
    aws.refuses = "CloudHsmAccessDeniedException"
    denied = configure(f"--cluster-id={cluster_answers.CLUSTER_ID}", ips=())
    assert (denied.status, denied.report["code"]) == (12, "aws-denied"), denied
    assert "cloudhsm:DescribeClusters" in json.dumps(denied.report)
    assert installed() == {}
