"""Where a service is asked: the region's endpoint, or the one that AWS's own variables name; pure.

The rules are those of AWS's SDKs (sdkref, "Service-specific endpoints" and "Dual-stack and FIPS endpoints"). An unknown
region resolves all the same, so that a typing error in it shows as a name that DNS does not have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.aws.operations import S3
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.aws.operations import Service

URL = "AWS_ENDPOINT_URL"
IGNORED = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"
FIPS = "AWS_USE_FIPS_ENDPOINT"
DUAL_STACK = "AWS_USE_DUALSTACK_ENDPOINT"


@dataclass(frozen=True)
class Partition:
    """A part of AWS with accounts of its own: what its regions are called, and how its host names end."""

    name: str
    regions: str
    suffix: str
    dual_stack: str


_AWS = Partition("aws", r"(us|eu|ap|sa|ca|me|af|il|mx)-\w+-\d+", "amazonaws.com", "api.aws")
PARTITIONS = (
    _AWS,
    Partition("aws-cn", r"cn-\w+-\d+", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    Partition("aws-us-gov", r"us-gov-\w+-\d+", "amazonaws.com", "api.aws"),
    Partition("aws-eusc", r"eusc-de-\w+-\d+", "amazonaws.eu", "api.amazonwebservices.eu"),
    Partition("aws-iso", r"us-iso-\w+-\d+", "c2s.ic.gov", "api.aws.ic.gov"),
    Partition("aws-iso-b", r"us-isob-\w+-\d+", "sc2s.sgov.gov", "api.aws.scloud"),
    Partition("aws-iso-e", r"eu-isoe-\w+-\d+", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    Partition("aws-iso-f", r"us-isof-\w+-\d+", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
)


def partition_of(region: str) -> Partition:
    """Return the partition of a region; of one that no row knows, the commercial one, as the SDKs have it."""
    return next((each for each in PARTITIONS if re.fullmatch(each.regions, region)), _AWS)


def endpoint_url(service: Service, region: str, environ: Mapping[str, str]) -> str:
    """Return the URL of a service, without a slash at its end.

    Raises AgentError `config-invalid` for variables that exclude each other or name no URL.
    """
    fips, dual_stack = (environ.get(each, "").lower() == "true" for each in (FIPS, DUAL_STACK))
    variable = configured_by(service, environ)
    if variable is not None:
        return _configured(variable, environ, fips=fips, dual_stack=dual_stack)
    partition = partition_of(region)
    if service.hosts:
        return f"https://{_host_without_region(service, partition, region, fips=fips)}"
    if fips and service is S3 and partition.name == "aws-cn":
        raise _contradiction(f"{FIPS} is true", f"S3 has no FIPS endpoint in {region}")
    plain = fips and service.plain_fips_in_gov and partition.name == "aws-us-gov" and not dual_stack
    name = f"{service.name}-fips" if fips and not plain else service.name
    special = dual_stack and partition.name not in service.plain_dual_stack
    form = service.dual_stack if special else "{name}.{region}.{suffix}"
    host = form.format(name=name, region=region, suffix=partition.suffix, api=partition.dual_stack)
    return f"https://{host}"


def _host_without_region(service: Service, partition: Partition, region: str, *, fips: bool) -> str:
    """Return the host of a service that is one for a whole partition, by its plain name also where IPv6 is asked for.

    In a partition that no row names, where there is no CloudHSM either, it is that of any other service.
    """
    host = dict(service.hosts).get(partition.name, f"{service.name}.{region}.{partition.suffix}")
    return host.replace(service.name, f"{service.name}-fips", 1) if fips and partition.name == "aws" else host


def configured_by(service: Service, environ: Mapping[str, str]) -> str | None:
    """Return the variable that names the endpoint of a service, None where its region's is asked."""
    if environ.get(IGNORED, "").lower() == "true":
        return None
    return next((each for each in (f"{URL}_{service.variable}", URL) if environ.get(each)), None)


def _configured(variable: str, environ: Mapping[str, str], *, fips: bool, dual_stack: bool) -> str:
    for wanted, name in ((fips, FIPS), (dual_stack, DUAL_STACK)):
        if wanted:
            raise _contradiction(f"{variable} and {name}", "an endpoint that is named is taken as it is")
    url = environ[variable]
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or "@" in url or "?" in url or "#" in url:
        raise AgentError(
            "config-invalid",
            f"the variable {variable} names no endpoint",
            saw="what is not https://HOST[:PORT]",
            want="https://HOST[:PORT]",
            hint=f"correct {variable}, or unset it: then the region's own endpoint is asked",
        )
    return url.rstrip("/")


def _contradiction(saw: str, why: str) -> AgentError:
    return AgentError(
        "config-invalid",
        "AWS's variables exclude each other",
        saw=f"{saw}: {why}",
        want="one of them",
        hint="unset one of them",
    )
