"""Loads what a run may still need before it changes anything: a run can remove the agent's own package."""

from __future__ import annotations

import importlib

# for a traceback, threads of probes, an instance's id, and a name to resolve
_RUN = (
    "traceback",
    "linecache",
    "urllib.parse",
    "concurrent.futures.thread",
    "agent.http.imds",
    "encodings.idna",
    "unicodedata",
)
# also removes the folder that a download left, and reads a jar that it brought
_WEB = (
    "shutil",
    "zipfile",
    "ssl",
    "requests",
    "idna",
    "email.utils",
    "agent.http.download",
    "agent.http.transport",
)
# the client of AWS's API with all that it loads for an answer
_AWS = ("html", "xml.etree.ElementTree", "agent.aws.objects")
# what finds out why an HSM is not reached
_DIAGNOSIS = ("agent.aws.own_interface", "agent.aws.path", "agent.aws.path_questions", "agent.aws.session")


def load_for_run() -> None:
    """Load what any run that changes a host may need; not psutil: running programs are found without it too."""
    for name in _RUN:
        importlib.import_module(name)


def load_for_web() -> None:
    """Load what a download needs, or a report that goes over the network."""
    for name in _WEB:
        importlib.import_module(name)


def load_for_aws() -> None:
    """Load what a call of AWS's API needs."""
    for name in _AWS:
        importlib.import_module(name)


def load_for_diagnosis() -> None:
    """Load what it takes to find out why an HSM is not reached."""
    load_for_aws()
    for name in _DIAGNOSIS:
        importlib.import_module(name)
