"""The request of the last `configure`: it completes options without an address, and holds until one succeeds."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.aws.access import AwsAccess
from agent.cloudhsm.paths import client_paths
from agent.cloudhsm.pem import contains_private_key
from agent.config.ca_source import load_ca
from agent.config.desired import (
    CA,
    HSMS,
    NO_HSM_IP,
    Desired,
    from_json,
    is_about,
    options_of,
    to_json,
    with_options,
)
from agent.config.input_errors import InputErrors
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.core.model import ErrorDetails, Notice
from agent.core.timeouts import Timeouts
from agent.state import records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.cloudhsm.ca import Ca
    from agent.core.host import Host, HostView

# options of a run and not of a host, and options in a record that are not about the host itself
_OF_THE_RUN = {"timeout", "report_to", "report_ca", "report_token_file"}
_NOT_OF_THE_HOST = {*_OF_THE_RUN, "ca_cert", "ca_fingerprint", "package_source", "sha256"}


def resolve_desired(view: HostView, desired: Desired) -> Desired:
    """Return the present request, or without one, that of the last `configure`, whether it failed or not."""
    if desired.names_hsms:
        return desired
    given = options_of(desired)
    try:
        last = records.read_last(view)
    except AgentError as error:
        if error.code.name == "nothing-recorded" and given.keys() - _OF_THE_RUN:
            raise _incomplete(view, desired, error) from error
        if error.code.name != "unreadable" or view.is_root():
            raise
        raise AgentError(
            "not-root",
            "an ordinary user may not read what the last `configure` was asked for",
            saw="an ordinary user",
            want=f"{view.system.admin_role}, or options",
            hint="run it with sudo, or on Windows elevated, or give the options that `configure` was given",
        ) from error
    before = _of_record(view, last)
    if not set(desired.report_to) <= set(before.report_to):
        # a token is only for the receivers that it was named with
        before = replace(before, report_token_file=None, report_ca=None)
    return with_options(before, given)


def _incomplete(view: HostView, desired: Desired, error: AgentError) -> AgentError:
    """Return the error for options without an address on a host that has no record to complete them from."""
    return AgentError(
        "config-invalid", "the options are not complete", saw="\n".join(filter(None, _lacking(view, desired))),
        want="options that are complete, or an earlier `configure`",
        hint=f"{error.sentence}: name each HSM with `--hsm-ip`, and the CA with `--ca-cert`",
    )  # fmt: skip


def _lacking(view: HostView, desired: Desired) -> tuple[str, str]:
    """Return what is missing if no record completes it: text for the addresses, and for the CA."""
    if last_configure(view) is not None:
        return "", ""
    hsm = "" if desired.names_hsms else f"--hsm-ip: {NO_HSM_IP}"
    with contextlib.suppress(AgentError):
        if desired.ca_cert is None and view.stat(client_paths(view.system).ca) is None:
            return hsm, "--ca-cert: customerCA.crt is needed, since there is none on this host yet"
    return hsm, ""


def _of_record(view: HostView, last: records.LastConfigure) -> Desired:
    """Return the request in a record. Raises AgentError `nothing-recorded` for one that cannot be parsed."""
    with contextlib.suppress(TypeError):
        before = from_json(last.desired)
        if before.names_hsms:
            return before if last.ca_pem is None else replace(before, ca_cert=CaSource("inline", last.ca_pem))
    raise AgentError(
        "nothing-recorded",
        "the record is of another version",
        saw=view.system.desired,
        want="a record this version wrote",
    )


def _kept(wanted: Desired) -> Desired:
    """Return the part of a request that is recorded: without options of one run, and the CA, recorded separately."""
    return replace(wanted, ca_cert=None, replace_ca=False, timeout=None)


def record_of(machine: HostView, run_id: str, wanted: Desired) -> records.LastConfigure:
    """Return the record of a `configure` that begins. It names the source of the CA, and never contains a secret."""
    before = last_configure(machine)
    if (
        before is not None
        and before.ca_pem is not None
        and wanted.ca_cert == CaSource("inline", before.ca_pem)
    ):
        return records.LastConfigure(to_json(_kept(wanted)), before.ca_pem, run_id)
    source = wanted.ca_cert
    if source is not None and contains_private_key(source.value.encode("utf-8", "surrogateescape")):
        source = CaSource("inline")
    return records.LastConfigure(to_json(replace(_kept(wanted), ca_cert=source)), None, run_id)


def with_ca(run_id: str, wanted: Desired, ca: Ca) -> records.LastConfigure:
    """Return the record of a request, with the CA as it was read."""
    return records.LastConfigure(to_json(_kept(wanted)), ca.pem.decode(), run_id)


def accept(machine: Host, record: records.LastConfigure) -> records.LastConfigure:
    """Record the request before any change: it is in force from now on, however this run ends.

    Raises AgentError where it cannot be recorded, unless a `configure` with the same request has succeeded.
    """
    before = last_configure(machine)
    done = before.succeeded if before is not None else None
    record = replace(record, succeeded=done)
    if before is not None and before.asks == record.asks:
        return record
    try:
        records.write_last(machine, record)
    except AgentError:
        if done is None or _meant(done) != _meant(record) or record.ca_pem not in (None, done.ca_pem):
            raise
    return record


def save_success(machine: Host, record: records.LastConfigure) -> tuple[Notice, ...]:
    """Record that the request has succeeded. If that fails, the result of the run stands."""
    try:
        records.write_last(machine, replace(record, succeeded=record))
    except AgentError as error:
        text = f"that this run succeeded could not be kept: {error.saw or error.sentence}"
        return (Notice("record-not-kept", text),)
    return ()


def last_configure(view: HostView) -> records.LastConfigure | None:
    """Return the record of this host, None where there is none, or one that cannot be parsed."""
    with contextlib.suppress(AgentError, TypeError):
        last = records.read_last(view)
        for each in filter(None, (last, last.succeeded)):
            from_json(each.desired)
        return last
    return None


def record_remarks(view: HostView) -> tuple[Notice, ...]:
    """Return a notice of a record that cannot be used: the last request, and whether it succeeded, is lost."""
    if not view.is_root() or view.stat(view.system.desired) is None or last_configure(view) is not None:
        return ()
    saw = f"{view.system.desired}: a record of another version"
    try:
        records.read_last(view)
    except AgentError as error:
        saw = error.saw
    text = f"what the last `configure` was asked for cannot be read, and is ignored: {saw}"
    return (Notice("record-unread", text),)


def unfinished(
    view: HostView, checked: records.LastConfigure | None, environ: Mapping[str, str]
) -> ErrorDetails | None:
    """Return an error if the last `configure` has not succeeded, unless an equal request was checked or succeeded."""
    last = last_configure(view)
    if last is None or last.is_done:
        return None
    run = f"run {last.run_id}" if last.run_id else "it"
    same = [each for each in (last.succeeded, checked) if each is not None and _meant(each) == _meant(last)]
    sentence = "the last `configure` was asked for something else, and no success of it is recorded"
    saw = f"{run} was asked for {_named(last)}, and no run since is known to have succeeded"
    if same:
        try:
            if _ca_of(view, last, environ) in [each.ca_pem for each in same]:
                return None
        except AgentError as error:
            if error.ends_run:
                raise
            sentence = "the last `configure` did not succeed, and the CA that it asked for cannot be used"
            saw = f"{run}: {error.sentence}: {error.saw}"
    return ErrorDetails(
        "drift",
        sentence,
        saw,
        "a `configure` that succeeds",
        "run `hsm-agent configure`: without options it is that one again, with others they are what is wanted",
    )


def _named(last: records.LastConfigure) -> str:
    """Return which HSMs a record names, in words."""
    cluster = last.desired.get("cluster_id")
    hsms = " ".join(map(str, last.desired.get("hsm_ip", ())))
    return " and ".join([*([f"cluster {cluster}"] if cluster else ()), *([f"HSMs {hsms}"] if hsms else ())])


def _ca_of(view: HostView, last: records.LastConfigure, environ: Mapping[str, str]) -> str:
    """Return the CA of a record, from the place that it names. Raises AgentError as that read does."""
    if last.ca_pem is not None:
        return last.ca_pem
    desired = _of_record(view, last)
    return load_ca(view, desired, Timeouts(), AwsAccess(view, environ, desired.region))[0].pem.decode()


def _meant(last: records.LastConfigure) -> Desired:
    """Return what a record asks of the host itself but for the CA, in one spelling: defaults are filled in.

    Neither the sinks of reports, nor the source of packages, count.
    """
    desired = from_json({name: value for name, value in last.desired.items() if name not in _NOT_OF_THE_HOST})
    return replace(
        desired,
        hsm_ip=tuple(sorted(set(desired.hsm_ip))),
        component=tuple(sorted({"cli", *desired.component})),
        sdk=desired.sdk or 5,
    )


def with_what_lacks(view: HostView, error: AgentError, desired: Desired) -> AgentError:
    """Add to the complaints those that the next run would have: the user can correct the whole input at once."""
    lacking = zip((HSMS, CA), _lacking(view, desired))
    more = [text for options, text in lacking if text and not is_about(options, [error.saw])]
    if error.code.name != "config-invalid" or not more:
        return error
    input_errors = InputErrors([*error.saw.splitlines(), *more])
    return input_errors.error()


def receivers(desired: Desired) -> Desired:
    return Desired(
        region=desired.region,
        report_to=desired.report_to,
        report_ca=desired.report_ca,
        report_token_file=desired.report_token_file,
    )
