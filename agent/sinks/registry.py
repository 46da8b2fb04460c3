"""The kinds of sinks that a report can go to, by the scheme of their URI."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Callable

from agent.core import urls
from agent.hosts import ready
from agent.sinks import cloudformation, cloudwatch, file, https, junit, prometheus, s3, ssm_inventory
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.sinks.message import DeliveryContext, OutgoingReport


def _load_nothing() -> None:
    pass


def _load_xml() -> None:
    import xml.etree.ElementTree  # noqa: F401, PLC0415 -- 10 ms that only this pays


def _load_aws() -> None:
    import agent.aws.access  # noqa: PLC0415 -- 30 ms that only these pay
    import agent.sinks.aws  # noqa: F401, PLC0415 -- as above

    ready.load_for_aws()


@dataclass(frozen=True)
class ReportSink:
    """One kind: `check` raises ValueError with a complaint about a URI, `send` UndeliveredError or AgentError.

    `load` loads what `send` needs beside this package. `names_path`: the URI is a path on the host, which may contain
    spaces, such as C:/Program Files/windows_exporter.
    """

    check: Callable[[str], None]
    send: Callable[[OutgoingReport, DeliveryContext], None]
    form: str
    load: Callable[[], None] = _load_nothing
    names_path: bool = False
    is_linux_only: bool = False


SINKS = {
    "file": ReportSink(file.check, file.send, "file:PATH", names_path=True),
    "https": ReportSink(https.check, https.send, "https://HOST/PATH", ready.load_for_web),
    "http": ReportSink(https.check, https.send, "http://127.0.0.1:PORT/PATH", ready.load_for_web),
    "prometheus": ReportSink(prometheus.check, prometheus.send, "prometheus:DIR", names_path=True),
    "junit": ReportSink(junit.check, junit.send, "junit:PATH", _load_xml, names_path=True),
    "cloudwatch": ReportSink(
        cloudwatch.check, cloudwatch.send, "cloudwatch:GROUP/STREAM", is_linux_only=True
    ),
    "s3": ReportSink(s3.check, s3.send, "s3://BUCKET/PREFIX/", _load_aws),
    "ssm-inventory": ReportSink(ssm_inventory.check, ssm_inventory.send, "ssm-inventory:", _load_aws),
    "cfn": ReportSink(
        cloudformation.check, cloudformation.send, "cfn:STACK/RESOURCE?region=REGION", _load_aws
    ),
}


def check(uri: str) -> None:
    """Raise ValueError with a complaint when no report can go to this URI; it contains no secret."""
    scheme, colon, _ = uri.partition(":")
    if not colon or scheme not in SINKS:
        near = get_close_matches(scheme, SINKS, 1)
        meant = f"; did you mean {near[0]}:?" if near and colon else ""
        raise ValueError(f"{shown(uri)!r} is no place for a report{meant}; there are {_forms()}")
    if any(ord(char) < 32 or (char == " " and not SINKS[scheme].names_path) for char in uri):
        raise ValueError(f"{shown(uri)!r} contains a space or a control character")
    SINKS[scheme].check(uri)


def load(uris: Iterable[str] | None) -> None:
    """Load what delivery to these URIs needs, None for any: later the agent may be gone from the disk."""
    schemes = SINKS if uris is None else {uri.partition(":")[0] for uri in uris}
    for scheme, sink in SINKS.items():
        if scheme in schemes:
            sink.load()


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    """Deliver a report once. Raises UndeliveredError, or AgentError when the machine refuses something."""
    scheme = report.uri.partition(":")[0]
    if scheme not in SINKS:  # a newer agent kept it, which knows such sinks
        raise UndeliveredError(f"this agent knows no {scheme}:, only {_forms()}")
    SINKS[scheme].send(report, context)


def shown(uri: str) -> str:
    """Return a URI as it may be shown and logged."""
    scheme = uri.partition(":")[0]
    return uri if scheme in SINKS and scheme not in ("https", "http") else urls.redact_url(uri)


def _forms() -> str:
    return ", ".join(place.form for place in SINKS.values())
