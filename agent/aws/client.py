"""One call of AWS's API: encoded, signed, bounded, tried again where that helps; its failures are codes of exit 12."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from agent.aws.endpoints import configured_by, endpoint_url
from agent.aws.operations import S3
from agent.aws.protocols import Refusal, UnreadableAnswerError, decode, encode, refusal_of
from agent.aws.session import AwsSession, clock_words
from agent.aws.sigv4 import sign
from agent.core.backoff import Backoff
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.http.exchange import AnswerTooLargeError, ExchangeError, ExchangeLimits, exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from agent.aws.operations import Operation
    from agent.http.connection_pool import ConnectionPool
    from agent.http.exchange import ApiRequest, ApiResponse

# Seconds: to connect, of one try, and of a whole call with all its tries and waits.
CONNECT = 3.0
TRY = 5.0
WHOLE = 10.0
TRIES = 3
_BACKOFF = Backoff(first=1.0, cap=WHOLE)

# AWS's names for what went wrong. Those of the clock are sure; the signature's may be a wrong key as well, and EC2 says
# RequestExpired of credentials that ended too (aws/aws-sdk-ruby#143, jenkinsci/ec2-plugin#2011).
_CLOCK = ("RequestInTheFuture", "RequestTimeTooSkewed")
_OLD = "RequestExpired"
_SIGNATURE = (_OLD, "SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure")
# What is said of good credentials in a region that the account has not enabled, as well as of wrong ones.
_NOT_ENABLED = ("AuthFailure", "UnrecognizedClientException", "InvalidClientTokenId", "OptInRequired")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")
_CREDENTIALS = (
    *_SIGNATURE,
    *_EXPIRED,
    *_NOT_ENABLED,
    "InvalidAccessKeyId",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
)
DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "CloudHsmAccessDeniedException",
    "NotAuthorized",
    "AuthorizationError",
)
# what a service says when the key that a value is encrypted with is not there for it, or denied
_KEY_DENIED = ("InvalidKeyId", "DecryptionFailure")
_THROTTLED = (
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
)
_TRANSIENT = (
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "CloudHsmInternalFailureException",
)
# of a tree that lacks what it must have
_LACKING = (KeyError, ValueError, TypeError, AttributeError)
_Read = TypeVar("_Read")


class AwsRefusedError(AgentError):
    """AWS refuses this very request, for a reason that is the caller's to know: `refusal` has its code."""

    def __init__(self, refusal: Refusal, operation: Operation, region: str) -> None:
        super().__init__(
            "aws-refused",
            f"AWS refused {operation.permission} in {region}",
            saw=str(refusal),
            want="what was asked for",
        )
        self.refusal = refusal
        self.region = region


class AwsAnswerTooLargeError(AgentError):
    """The answer is larger than any that is taken for this operation."""


class _RetryableCallError(Exception):
    """This try failed and another may not; `error` is what it is when there is none."""

    def __init__(self, error: AgentError) -> None:
        super().__init__(error.sentence)
        self.error = error


@dataclass(frozen=True)
class AwsClient:
    """Asks AWS for one session.

    `check_stopped` is called often while AWS is waited for and may raise; `seconds` bounds a call with all its tries,
    `try_seconds` one of them. A `pool` keeps connections for the next call.
    """

    session: AwsSession
    check_stopped: Callable[[], None] = lambda: None
    tries: int = TRIES
    seconds: float = WHOLE
    try_seconds: float = TRY
    pool: ConnectionPool | None = None

    def call(self, operation: Operation, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what AWS answers, as the API reference has it; texts, where the service speaks XML.

        Raises AgentError `aws-no-credentials`, `aws-denied`, `aws-throttled`, `aws-clock`, `aws-unreachable`, for
        contradicting variables `config-invalid`, and AwsRefusedError for all else that AWS does not do.
        """
        view = self.session.view
        ends = view.monotonic() + self.seconds
        url = endpoint_url(operation.service, self.session.region, self.session.environ)
        request = encode(operation, url, params)
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._try(operation, request, ends)
            except _RetryableCallError as failure:
                wait = _BACKOFF.pause(attempt)
                if attempt >= self.tries or view.monotonic() + wait >= ends:
                    raise _after(failure.error, attempt) from None
                view.sleep(wait)

    def pages(self, operation: Operation, params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the answers of an operation that has pages, each a call of its own; what `call` raises."""
        token = ""
        for _ in range(operation.pages):
            more = {"NextToken": token} if token else {}
            page = self.call(operation, {**params, "MaxResults": operation.page, **more})
            yield page
            token = str(page.get("NextToken") or page.get("nextToken") or "")
            if not token:
                return
        raise AgentError(
            "aws-refused",
            f"AWS has more to say to {operation.permission} than is read",
            saw=f"more than {operation.pages} pages of {operation.page}",
            want=f"at most {operation.pages} pages",
        )

    def read(
        self,
        operation: Operation,
        params: Mapping[str, Any],
        read: Callable[[Iterable[Mapping[str, Any]]], _Read],
    ) -> _Read:
        """Return what `read` makes of all pages; where they lack what it needs, that is `aws-unreachable`.

        Else it raises what `call` raises.
        """
        try:
            return read(self.pages(operation, params))
        except _LACKING as lack:
            raise AgentError(
                "aws-unreachable",
                f"what AWS answers to {operation.permission} cannot be used",
                saw=f"{type(lack).__name__}: {lack}",
                want="what the API reference shows",
            ) from None

    def _try(self, operation: Operation, request: ApiRequest, ends: float) -> Mapping[str, Any]:
        """Ask once; once more where the clock was found wrong, or the credentials ended and there are others."""
        response = self._send(operation, request, ends)
        if response.status >= 300:
            refusal = refusal_of(response)
            if self._is_cured(refusal, response):
                response = self._send(operation, request, ends)
                refusal = refusal_of(response)
            if response.status >= 300:
                raise self._failure(operation, replace(refusal, message=self.session.mask(refusal.message)))
        try:
            return decode(operation, response)
        except UnreadableAnswerError as error:
            raise _RetryableCallError(self._unreachable(operation, request, str(error), "")) from None

    def _send(self, operation: Operation, request: ApiRequest, ends: float) -> ApiResponse:
        session = self.session
        service = operation.service.signs_as
        signed = sign(
            request,
            region=session.region,
            service=service,
            credentials=session.credentials(),
            now=session.now(),
        )
        left = max(0.1, ends - session.view.monotonic())
        limits = ExchangeLimits(min(CONNECT, left), min(self.try_seconds, left), operation.answer)
        try:
            return exchange(
                signed,
                limits,
                environ=session.environ,
                check_stopped=self.check_stopped,
                pool=self.pool,
            )
        except ExchangeError as error:
            kind = AwsAnswerTooLargeError if isinstance(error, AnswerTooLargeError) else AgentError
            failure = self._unreachable(operation, request, error.saw, error.hint, kind)
            if error.retryable:
                raise _RetryableCallError(failure) from None
            raise failure from None

    def _is_cured(self, refusal: Refusal, response: ApiResponse) -> bool:
        if refusal.code in (*_CLOCK, *_SIGNATURE) and self.session.correct_clock(response.date):
            return True
        return refusal.code in (_OLD, *_EXPIRED) and self.session.renew()

    def _failure(self, operation: Operation, refusal: Refusal) -> Exception:
        """Return what a refusal is for the caller, by AWS's code or else by the status."""
        code, status, region = refusal.code, refusal.status, self.session.region
        saw, action = str(refusal), operation.permission
        if code in _CLOCK or (code in _SIGNATURE and self.session.skew):
            return AgentError(
                "aws-clock",
                "AWS refuses the time of this host",
                saw=f"{clock_words(self.session.skew)}; {saw}" if self.session.skew else saw,
                want="a clock that is right within 5 minutes",
            )
        if code in _CREDENTIALS:
            want = "credentials that AWS takes"
            hint = f"{CODES['aws-no-credentials'].fix}; is {region} enabled in this account?"
            return AgentError(
                "aws-no-credentials",
                "AWS does not take these credentials",
                saw=saw,
                want=want,
                hint=hint if code in _NOT_ENABLED else None,
            )
        if code in (*DENIED, *_KEY_DENIED) or (status in (401, 403) and not code):
            return _denied(operation, refusal, region)
        if code in _THROTTLED or status == 429:
            error = AgentError(
                "aws-throttled", f"AWS throttles {action} in {region}", saw=saw, want="an answer"
            )
            return _RetryableCallError(error)
        if code in _TRANSIENT or status >= 500:
            return _RetryableCallError(
                AgentError(
                    "aws-unreachable", f"AWS failed at {action} in {region}", saw=saw, want="an answer"
                )
            )
        return AwsRefusedError(refusal, operation, region)

    def _unreachable(
        self,
        operation: Operation,
        request: ApiRequest,
        saw: str,
        hint: str,
        kind: type[AgentError] = AgentError,
    ) -> AgentError:
        region, service = self.session.region, operation.service
        host = request.url.split("/")[2]
        variable = configured_by(service, self.session.environ)
        hint = hint or (
            f"is {host} right? {variable} names it"
            if variable
            else f"let this host reach {host}:443: by NAT, by a proxy in https_proxy, or by the VPC endpoint "
            f"com.amazonaws.{region}.{service.name}, with private DNS and a group that lets this host in; "
            f"is {region} the region?"
        )
        return kind(
            "aws-unreachable",
            f"AWS could not be asked for {operation.permission} in {region}",
            saw=saw,
            want=f"an answer of {host}",
            hint=hint,
        )


def _denied(operation: Operation, refusal: Refusal, region: str) -> AgentError:
    """Return the error for a denial, with the action that AWS names: it may be that of a key, or of another service."""
    named = re.search(r"not authorized to perform:? ([a-z0-9-]{1,40}:[A-Za-z]{1,80})", refusal.message)
    action = named[1] if named else operation.permission
    if not named and (refusal.code in _KEY_DENIED or "KMS" in refusal.message):
        action = "kms:Decrypt"
    hint = f"allow {action} to the role of this host; a policy of the organisation may forbid it all the same"
    if action.startswith("kms:"):
        hint = (
            f"allow {action} to the role of this host, in the key's own policy too; the key must be enabled"
        )
    elif operation.service is S3 and operation.name == "GetObject":
        hint += "; without s3:ListBucket an object that is not there is denied as well"
    want = f"a policy that allows {action}"
    return AgentError(
        "aws-denied", f"AWS denies {action} in {region}", saw=str(refusal), want=want, hint=hint
    )


def _after(error: AgentError, tries: int) -> AgentError:
    """Say how often it was tried."""
    if tries > 1:
        error.saw = f"{error.saw}; {tries} tries"
    return error
