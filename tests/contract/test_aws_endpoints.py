"""Endpoints against botocore's own rules, for every service and partition."""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import Any

import pytest
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointProviderError
from botocore.loaders import Loader

from agent.aws.endpoints import DUAL_STACK, FIPS, IGNORED, PARTITIONS, URL, endpoint_url, partition_of
from agent.aws.operations import CLOUDFORMATION, CLOUDHSM, EC2, IAM, S3, SECRETS_MANAGER, SERVICES, Service
from agent.core.errors import AgentError

_LOADER = Loader()
_RULES: dict[str, Any] = _LOADER.load_data("partitions")
REGIONS = (
    "eu-central-1",
    "us-east-1",
    "cn-north-1",
    "us-gov-west-1",
    "eusc-de-east-1",
    "us-iso-east-1",
    "us-isob-east-1",
    "eu-isoe-west-1",
    "us-isof-south-1",
    "nowhere-new-9",
)


REGIONAL = [each for each in SERVICES if not each.hosts]


@cache
def provider_of(name: str) -> EndpointProvider:
    return EndpointProvider(_LOADER.load_service_model(name, "endpoint-rule-set-1"), _RULES)


def by_botocore(service: Service, region: str, *, fips: bool, dual_stack: bool) -> str:
    more = {"Bucket": "bucket", "ForcePathStyle": True} if service is S3 else {}
    endpoint = provider_of(service.name).resolve_endpoint(
        Region=region, UseFIPS=fips, UseDualStack=dual_stack, **more
    )
    return str(endpoint.url).removesuffix("/bucket")


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("service", REGIONAL, ids=lambda service: service.name)
def test_the_endpoint_is_the_one_that_botocore_finds(service: Service, region: str) -> None:
    for fips, dual_stack in itertools.product((False, True), repeat=2):
        if service is SECRETS_MANAGER and fips and dual_stack and region == "cn-north-1":
            continue  # a host name of a form of its own, and China has no FIPS endpoints
        environ = {FIPS: str(fips), DUAL_STACK: str(dual_stack)}
        try:
            wanted = by_botocore(service, region, fips=fips, dual_stack=dual_stack)
        except EndpointProviderError:
            with pytest.raises(AgentError) as caught:
                endpoint_url(service, region, environ)
            assert caught.value.code.name == "config-invalid"
        else:
            assert endpoint_url(service, region, environ) == wanted


@pytest.mark.parametrize("fips", [False, True])
@pytest.mark.parametrize(
    ("region", "whole"), [("eu-central-1", "aws-global"), ("us-gov-west-1", "aws-us-gov-global")]
)
def test_a_service_without_regions_has_one_host_for_a_partition(region: str, whole: str, fips: bool) -> None:
    assert endpoint_url(IAM, region, {FIPS: str(fips)}) == by_botocore(
        IAM, whole, fips=fips, dual_stack=False
    )
    assert endpoint_url(IAM, region, {f"{URL}_IAM": "https://vpce.example"}) == "https://vpce.example"


def test_the_partitions_are_those_of_botocore() -> None:
    theirs = {
        each["id"]: (
            each["outputs"]["dnsSuffix"],
            each["outputs"]["dualStackDnsSuffix"],
            each["regionRegex"].strip("^$").replace("\\-", "-"),
        )
        for each in _RULES["partitions"]
    }
    assert {each.name: (each.suffix, each.dual_stack, each.regions) for each in PARTITIONS} == {
        name: (suffix, dual, re.sub(r"\(de\)", "de", regions))
        for name, (suffix, dual, regions) in theirs.items()
    }
    assert partition_of("nowhere-new-9").name == "aws"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({URL: "https://vpce.example/"}, "https://vpce.example"),
        ({URL: "https://all.example", f"{URL}_CLOUDHSM_V2": "http://one.example:8080"}, "http://one.example:8080"),
        ({URL: "https://all.example", f"{URL}_EC2": "https://ec2.example"}, "https://all.example"),
        ({URL: "https://all.example", IGNORED: "true"}, "https://cloudhsmv2.eu-central-1.amazonaws.com"),
    ],
)  # fmt: skip
def test_a_variable_names_an_endpoint(environ: dict[str, str], wanted: str) -> None:
    assert endpoint_url(CLOUDHSM, "eu-central-1", environ) == wanted


@pytest.mark.parametrize(
    "environ",
    [
        {URL: "https://vpce.example", FIPS: "true"},
        {URL: "https://vpce.example", DUAL_STACK: "TRUE"},
        {URL: "vpce.example"},
        {URL: "ftp://vpce.example"},
        {URL: "https://user:s3cr3t@vpce.example"},
        {URL: "https://vpce.example:port"},
        {f"{URL}_CLOUDFORMATION": "https://vpce.example/?x=s3cr3t"},
    ],
)
def test_variables_that_cannot_be_followed_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(AgentError) as caught:
        endpoint_url(CLOUDFORMATION, "eu-central-1", environ)
    error = caught.value
    assert error.code.name == "config-invalid"
    assert "s3cr3t" not in f"{error} {error.saw} {error.want} {error.hint}"


def test_the_sdk_s_names_of_services_make_the_variables() -> None:
    for service in SERVICES:
        metadata = _LOADER.load_service_model(service.name, "service-2")["metadata"]
        assert service.variable == metadata["serviceId"].replace(" ", "_").upper()
        assert service.name == metadata["endpointPrefix"]
        assert service.signs_as == metadata.get("signingName", metadata["endpointPrefix"])
        assert service.version == metadata.get("targetPrefix", metadata["apiVersion"])
    assert EC2.variable == "EC2"
