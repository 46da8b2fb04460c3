"""The kinds of places a report can go to, by the scheme of their URI."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Callable

from agent.core import urls
from agent.reporting import cfn, cloudwatch, file, https, junit, prometheus
from agent.reporting.letter import UndeliveredError

if TYPE_CHECKING:
    from agent.reporting.letter import Letter, Means

# places of a later release; refused now, rather than forgotten when a report is due
_NOT_YET = ("ssm-inventory",)
# these name a path, in which a space is a letter as any other: C:/Program Files/windows_exporter
_OF_FILES = ("file", "junit", "prometheus")


@dataclass(frozen=True)
class Place:
    """One kind: `check` raises ValueError with a complaint about a URI, `send` UndeliveredError or AgentError."""

    check: Callable[[str], None]
    send: Callable[[Letter, Means], None]
    form: str


PLACES = {
    "file": Place(file.check, file.send, "file:PATH"),
    "https": Place(https.check, https.send, "https://HOST/PATH"),
    "http": Place(https.check, https.send, "http://127.0.0.1:PORT/PATH"),
    "prometheus": Place(prometheus.check, prometheus.send, "prometheus:DIR"),
    "junit": Place(junit.check, junit.send, "junit:PATH"),
    "cloudwatch": Place(cloudwatch.check, cloudwatch.send, "cloudwatch:GROUP/STREAM"),
    "cfn": Place(cfn.check, cfn.send, "cfn:STACK/RESOURCE?region=REGION"),
}


def check(uri: str) -> None:
    """Raise ValueError with a complaint when no report can go to this URI; it shows no secret."""
    scheme, colon, _ = uri.partition(":")
    if colon and scheme in _NOT_YET:
        raise ValueError(f"{scheme}: is not built yet; there are {_forms()}")
    if not colon or scheme not in PLACES:
        near = get_close_matches(scheme, PLACES, 1)
        meant = f"; did you mean {near[0]}:?" if near and colon else ""
        raise ValueError(f"{shown(uri)!r} is no place for a report{meant}; there are {_forms()}")
    if any(ord(char) < 32 or (char == " " and scheme not in _OF_FILES) for char in uri):
        raise ValueError(f"{shown(uri)!r} has a blank or a control character in it")
    PLACES[scheme].check(uri)


def send(letter: Letter, means: Means) -> None:
    """Deliver a report once. Raises UndeliveredError, or AgentError when the machine refuses something."""
    scheme = letter.uri.partition(":")[0]
    if scheme not in PLACES:  # it was kept by a newer agent, which knows such places
        raise UndeliveredError(f"this agent knows no {scheme}:, only {_forms()}")
    PLACES[scheme].send(letter, means)


def shown(uri: str) -> str:
    """Return a URI as it may be shown and logged."""
    scheme = uri.partition(":")[0]
    return uri if scheme in PLACES and scheme not in ("https", "http") else urls.shown(uri)


def _forms() -> str:
    return ", ".join(place.form for place in PLACES.values())
