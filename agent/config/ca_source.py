"""The wanted trust anchor: read from its source, validated, with the strength of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cloudhsm.ca import read_ca
from agent.cloudhsm.key_strength import judge_keys
from agent.cloudhsm.paths import client_paths
from agent.config.input_errors import InputErrors
from agent.config.options import CaSource
from agent.core.codes import CODES, fix
from agent.core.errors import AgentError
from agent.core.urls import redact_url

if TYPE_CHECKING:
    from agent.aws.access import AwsAccess
    from agent.cloudhsm.ca import Ca
    from agent.config.desired import Desired
    from agent.core.host import HostView
    from agent.core.model import Notice
    from agent.core.timeouts import Timeouts

# a CA is at most 16 kB; a source that sends more than this is no CA
_SOURCE_LIMIT = 1024 * 1024


def load_ca(
    view: HostView, desired: Desired, limits: Timeouts, access: AwsAccess
) -> tuple[Ca, tuple[Notice, ...]]:
    """Return the wanted CA: from the source that was named, or else the one that is on the host already."""
    source = desired.ca_cert
    there = client_paths(view.system).ca
    if source is None and view.stat(there) is None:
        text = f"--ca-cert: customerCA.crt is needed, since there is none at {there} yet"
        raise InputErrors([text]).error()
    data = read_source(view, source or CaSource("file", there), limits, access)
    ca = read_ca(data, now=view.now(), fingerprint=desired.ca_fingerprint)
    return ca, judge_keys(ca.keys)


def read_source(view: HostView, source: CaSource, limits: Timeouts, access: AwsAccess) -> bytes:
    """Return the bytes that a `--ca-cert` names, read on that machine.

    Raises AgentError `ca-unreadable`, and where AWS cannot be asked for them a code of exit 12.
    """
    if source.kind == "inline":
        return source.value.encode("utf-8", "surrogateescape")
    if source.kind == "aws":
        from agent.config.ca_from_aws import read_from_aws  # noqa: PLC0415 -- only for a CA in AWS

        return read_from_aws(access, source.value)
    if source.kind == "https":
        try:
            return view.http_get(source.value, limit=_SOURCE_LIMIT, timeout=limits.download)
        except AgentError as error:
            if error.code.exit_status != CODES["download-failed"].exit_status:
                raise  # an interrupt, or the run's limit
            # the hint for a package names other sources of packages
            of_packages = (error.code.fix, fix(error.code.name, URL=redact_url(source.value)))
            own = None if error.hint in of_packages else error.hint
            raise AgentError(
                "ca-unreadable", error.sentence, saw=error.saw, want="a PEM file", hint=own
            ) from error
    try:
        data = view.read(source.value, limit=_SOURCE_LIMIT)
    except AgentError as error:
        if error.ends_run:
            raise
        raise AgentError(
            "ca-unreadable",
            "the CA source cannot be read",
            saw=f"{redact_url(source.value)}: {error.saw}",
            want="a PEM file",
        ) from error
    if data is None:
        raise AgentError(
            "ca-unreadable",
            "the CA source is not there",
            saw=f"no file {redact_url(source.value)}",
            want="a PEM file",
        )
    return data
