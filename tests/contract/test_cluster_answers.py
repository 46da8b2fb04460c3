"""The answers of DescribeClusters that the tests use, by botocore's model of that API."""

from __future__ import annotations

import re

import botocore.session
from botocore.stub import Stubber

from agent.cloudhsm.cluster import CLUSTER_ID
from tests.fakes import cluster_answers as aws


def test_botocore_takes_our_answers_for_aws_s() -> None:
    client = botocore.session.Session().create_client(
        "cloudhsmv2", "eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    hsms = [aws.hsm(1, EniIpV6="2001:db8::1"), aws.hsm(2, "CREATE_IN_PROGRESS", EniIp=None)]
    for state in aws.CLUSTER_STATES:
        with Stubber(client) as stub:
            answer = aws.page(aws.cluster(state, *hsms), token="more")
            stub.add_response("describe_clusters", answer, {"Filters": {"clusterIds": [aws.CLUSTER_ID]}})
            assert client.describe_clusters(Filters={"clusterIds": [aws.CLUSTER_ID]})["NextToken"] == "more"


def test_states_and_ids_are_those_of_the_model() -> None:
    model = botocore.session.Session().get_service_model("cloudhsmv2")
    assert set(model.shape_for("ClusterState").enum) == set(aws.CLUSTER_STATES)
    pattern = model.shape_for("ClusterId").metadata["pattern"]
    assert CLUSTER_ID.pattern == pattern
    assert re.fullmatch(pattern, aws.CLUSTER_ID)
