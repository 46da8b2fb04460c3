"""`hsm-agent iam-policy` as a script calls it: what it prints, what it asks, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.aws import KEYS, says
from tests.fakes.iam import actions
from tests.fakes.imds import imds
from tests.fakes.receiver import receiver

ROOT = Path(__file__).parents[2]
CLUSTER = "--cluster-id cluster-2abcdefghij"


def typed(options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HSM_AGENT_"))}
    return subprocess.run(
        [sys.executable, "-m", "agent", "iam-policy", *options.split()],
        cwd=ROOT, env={**kept, **environ}, capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_aws_is_not_asked_nor_the_metadata_service() -> None:
    with imds() as service, receiver(says("{}")) as server:
        place = f"http://127.0.0.1:{server.server_port}"
        environ = {**KEYS, "AWS_ENDPOINT_URL": place, "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}
        done = typed(f"{CLUSTER} --region eu-central-1", **environ)
        unknown = typed(CLUSTER, **environ)
        assert (server.requests, service.requests) == ([], [])
    assert (done.returncode, done.stderr) == (0, "")
    assert "cloudhsm:DescribeClusters" in actions(json.loads(done.stdout))
    assert unknown.returncode == 12
    assert "aws-region-unknown" in unknown.stderr


def test_the_same_options_give_the_same_bytes() -> None:
    options = f"{CLUSTER} --report-to cfn:b/R?region=eu-west-1 --report-to cfn:a/R?region=eu-west-1"
    first, second = (typed(options, AWS_REGION="eu-central-1", PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first.stdout == second.stdout
    assert json.loads(first.stdout)["Statement"][-1]["Sid"] == "SignalStack"


def test_without_a_question_to_aws_there_is_no_statement_and_a_note() -> None:
    done = typed("--hsm-ip 10.0.1.6")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"Version": "2012-10-17", "Statement": []}
    assert done.stderr.startswith("note: ")


def test_a_profile_gives_its_region(tmp_path: Path) -> None:
    pytest.importorskip("botocore")
    (tmp_path / "config").write_text("[profile china]\nregion = cn-north-1\n")
    done = typed(f"{CLUSTER} --profile china", AWS_CONFIG_FILE=str(tmp_path / "config"))
    assert '"aws:RequestedRegion": "cn-north-1"' in done.stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--for root", "--for"),
        ("--account 1", "--account"),
        ("--kms-key alias/mine", "--kms-key"),
        ("--agent s3://[", "--agent"),
        ("--agent S3://bucket", "--agent"),
        ("--cluster-id nonsense", "nonsense"),
    ],
)
def test_what_is_wrong_is_named(options: str, complaint: str) -> None:
    done = typed(f"{options} --region eu-central-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
