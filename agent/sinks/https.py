"""`https://…`, and `http://` to this machine itself: POST of the report, repeated where that can help."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.core.backoff import Backoff
from agent.core.errors import AgentError
from agent.core.urls import is_loopback, names_user, redact_url, split
from agent.http.client import MOVED, ResponseHead, RetryableError, stream_response
from agent.http.trust_store import unusable
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.sinks.message import DeliveryContext, OutgoingReport

TOKEN = "HSM_AGENT_REPORT_TOKEN"  # noqa: S105 -- the variable's name
ATTEMPTS = 4
BACKOFF = Backoff(first=1.0, cap=4.0)
# A server's own Retry-After is obeyed up to so many seconds.
RETRY_AFTER = 20.0

_HAVE_IT = 409
_AGAIN = (408, 425, 429)
# this report is at fault; every other refusal is about the sender, the address or the moment
_REFUSED = (400, 406, 413, 415, 422)
_CURABLE = {
    401: "HTTP 401: the token is missing or not accepted",
    403: "HTTP 403: the token does not allow this",
    404: "HTTP 404: nothing takes reports at this address",
    405: "HTTP 405: nothing takes reports at this address",
    407: "HTTP 407: the proxy wants a user and a password",
    410: "HTTP 410: nothing takes reports at this address",
}


def check(uri: str) -> None:
    """Require https, or http to this machine itself, and no password in the URL."""
    if names_user(uri):
        raise ValueError(
            f"{redact_url(uri)!r} was given with a user or a password, which everybody on this host could see: "
            f"put a bearer token into a file and name it with --report-token-file; in a path, @ is written as %40"
        )
    try:
        parts = split(uri)
    except ValueError:
        raise ValueError(f"{redact_url(uri)!r} is not a URL") from None
    if not parts.hostname or not uri.startswith(f"{parts.scheme}://"):
        raise ValueError(f"{redact_url(uri)!r} names no host: https://HOST/PATH is wanted")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(
            f"{redact_url(uri)!r}: a report goes over https; http is for this machine itself (127.0.0.1)"
        )


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    try:
        check(report.uri)  # an older, less strict version may have kept it
    except ValueError as error:
        raise UndeliveredError(str(error), refused=True) from None
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": report.key,
        **_authorization(context),
    }
    environ = _trusting(context)
    for attempt in range(1, ATTEMPTS + 1):
        again = _post(report, headers, environ, context)
        if again is None:
            return
        saw = f"{again}; attempt {attempt} of {ATTEMPTS}"
        wait = BACKOFF.pause(attempt) if again.after is None else again.after
        if attempt == ATTEMPTS or context.hurried or context.left() <= wait:
            raise UndeliveredError(saw)
        _pause(context, wait, saw)


def _pause(context: DeliveryContext, seconds: float, saw: str) -> None:
    try:
        context.machine.sleep(seconds)
    except AgentError:
        raise UndeliveredError(f"{saw}, then interrupted") from None


def _post(
    report: OutgoingReport, headers: Mapping[str, str], environ: Mapping[str, str], context: DeliveryContext
) -> RetryableError | None:
    """Send once; return why to send again, None when the report arrived. Raises UndeliveredError."""
    coming = stream_response(
        report.uri,
        headers,
        environ=environ,
        check_stopped=context.check_stopped,
        body=report.document.encode(),
    )
    try:
        with contextlib.closing(coming):
            head = next(item for item in coming if isinstance(item, ResponseHead))
    except RetryableError as again:
        return again
    except AgentError as error:
        reason = "interrupted" if error.code.name == "interrupted" else error.saw
        raise UndeliveredError(reason) from None
    status = head.status
    if 200 <= status < 300 or status == _HAVE_IT:
        return None
    if status in _AGAIN or status >= 500:
        return RetryableError(f"HTTP {status}", after=head.retry_after(RETRY_AFTER))
    if status in MOVED:
        raise UndeliveredError(f"HTTP {status}: it redirects, and a report is not sent elsewhere")
    if status in _REFUSED:
        raise UndeliveredError(f"HTTP {status}: the receiver refuses this report", refused=True)
    raise UndeliveredError(_CURABLE.get(status, f"HTTP {status}: that takes no report"))


def _authorization(context: DeliveryContext) -> dict[str, str]:
    """Return the header with the token, from its file or else the environment; empty when there is no token."""
    token = context.environ.get(TOKEN, "").strip()
    where = TOKEN
    if context.token_file is not None:
        where = context.token_file
        try:
            data = context.machine.read(where, limit=64 * 1024)
        except AgentError as error:
            raise UndeliveredError(f"the token file {where}: {error.saw}") from None
        if data is None:
            raise UndeliveredError(f"the token file {where} is not there")
        token = data.decode("utf-8", "replace").strip()
        if not token:
            raise UndeliveredError(f"the token file {where} is empty")
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UndeliveredError(f"what {where} holds is not a token: one line of plain ASCII is wanted")
    return {"Authorization": f"Bearer {token}"}


def _trusting(context: DeliveryContext) -> dict[str, str]:
    """Return the environment; if the receiver's CA is named, it replaces the host's own store."""
    ca = context.ca
    if ca is None:
        return dict(context.environ)
    if context.machine.stat(ca) is None:
        raise UndeliveredError(f"the CA file {ca} is not there")
    why = unusable(ca)
    if why is not None:
        raise UndeliveredError(f"the CA file {ca} that --report-ca names: {why}")
    return {**context.environ, "REQUESTS_CA_BUNDLE": ca}
