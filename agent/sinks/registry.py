"""The kinds of sinks that a report can go to, by the scheme of their URI."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Callable

from agent.core import urls
from agent.sinks import cloudformation, cloudwatch, file, https, junit, prometheus, s3, ssm_inventory
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from agent.sinks.message import DeliveryContext, OutgoingReport

# these name a path, which may contain spaces: C:/Program Files/windows_exporter
_OF_FILES = ("file", "junit", "prometheus")


@dataclass(frozen=True)
class ReportSink:
    """One kind: `check` raises ValueError with a complaint about a URI, `send` UndeliveredError or AgentError."""

    check: Callable[[str], None]
    send: Callable[[OutgoingReport, DeliveryContext], None]
    form: str


SINKS = {
    "file": ReportSink(file.check, file.send, "file:PATH"),
    "https": ReportSink(https.check, https.send, "https://HOST/PATH"),
    "http": ReportSink(https.check, https.send, "http://127.0.0.1:PORT/PATH"),
    "prometheus": ReportSink(prometheus.check, prometheus.send, "prometheus:DIR"),
    "junit": ReportSink(junit.check, junit.send, "junit:PATH"),
    "cloudwatch": ReportSink(cloudwatch.check, cloudwatch.send, "cloudwatch:GROUP/STREAM"),
    "s3": ReportSink(s3.check, s3.send, "s3://BUCKET/PREFIX/"),
    "ssm-inventory": ReportSink(ssm_inventory.check, ssm_inventory.send, "ssm-inventory:"),
    "cfn": ReportSink(cloudformation.check, cloudformation.send, "cfn:STACK/RESOURCE?region=REGION"),
}


def check(uri: str) -> None:
    """Raise ValueError with a complaint when no report can go to this URI; it contains no secret."""
    scheme, colon, _ = uri.partition(":")
    if not colon or scheme not in SINKS:
        near = get_close_matches(scheme, SINKS, 1)
        meant = f"; did you mean {near[0]}:?" if near and colon else ""
        raise ValueError(f"{shown(uri)!r} is no place for a report{meant}; there are {_forms()}")
    if any(ord(char) < 32 or (char == " " and scheme not in _OF_FILES) for char in uri):
        raise ValueError(f"{shown(uri)!r} contains a space or a control character")
    SINKS[scheme].check(uri)


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    """Deliver a report once. Raises UndeliveredError, or AgentError when the machine refuses something."""
    scheme = report.uri.partition(":")[0]
    if scheme not in SINKS:  # a newer agent kept it, which knows such sinks
        raise UndeliveredError(f"this agent knows no {scheme}:, only {_forms()}")
    SINKS[scheme].send(report, context)


def shown(uri: str) -> str:
    """Return a URI as it may be shown and logged."""
    scheme = uri.partition(":")[0]
    return uri if scheme in SINKS and scheme not in ("https", "http") else urls.shown(uri)


def _forms() -> str:
    return ", ".join(place.form for place in SINKS.values())
