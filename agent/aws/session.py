"""Who asks AWS, where, and by which clock: credentials as AWS's SDKs find them on a host, region, clock skew.

No file of a person (`~/.aws`) is read: a host is asked about, not whoever is logged in to it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from agent.aws.sigv4 import Credentials
from agent.core.errors import AgentError
from agent.core.urls import is_loopback
from agent.http.exchange import ApiRequest, ExchangeError, ExchangeLimits, exchange
from agent.http.imds import ask_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.core.host import HostView

# the SDKs' own names
KEY_ID, SECRET, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
FULL_URI, RELATIVE_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
CONTAINER_TOKEN, CONTAINER_TOKEN_FILE = (
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
WEB_IDENTITY = "AWS_WEB_IDENTITY_TOKEN_FILE"
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_REGION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# Credentials that end sooner are read again.
RENEWED = dt.timedelta(minutes=5)
# Beyond this AWS refuses a signature (5 minutes) or nearly does.
SKEW = dt.timedelta(minutes=4)
_CONTAINER = ExchangeLimits(connect=2.0, total=4.0, answer=16 * 1024)
_ROLE = "iam/security-credentials"
# where the agents of ECS and EKS listen: plain HTTP is taken from nowhere else but this machine itself
_AGENTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23")


class CredentialsProvider(Protocol):
    """Where credentials come from. It keeps what it found, and finds others before those end."""

    def credentials(self, now: dt.datetime, region: str, /) -> Credentials:
        """Return credentials that do not end within minutes of `now`, if there are such.

        `region` is where AWS is asked for them, if it has to be. Raises AgentError `aws-no-credentials`, and what else
        keeps it from finding them.
        """

    def renew(self) -> bool:
        """Give up what AWS calls expired; tell whether there may be others."""

    def region(self) -> str | None:
        """Return the region that is configured beside them, for whoever named none."""


class HostCredentials:
    """The credentials that a host has: of its environment, its container's platform, or its instance's role.

    `check_stopped` as AwsAccess has it.
    """

    def __init__(
        self, view: HostView, environ: Mapping[str, str], check_stopped: Callable[[], None] | None = None
    ) -> None:
        self._view = view
        self._environ = environ
        self._check_stopped = check_stopped or (lambda: view.sleep(0))
        self._found: Credentials | None = None

    def credentials(self, now: dt.datetime, _region: str, /) -> Credentials:
        """Look for them when they are first needed, and again when they end."""
        found = self._found
        if found is None or (found.ends is not None and found.ends - now < RENEWED):
            found = self._found = find_credentials(self._view, self._environ, self._check_stopped)
        return found

    def renew(self) -> bool:
        """Forget those that end, as another thread may have done; the ones of the environment never change."""
        if self._found is not None and self._found.ends is None:
            return False
        self._found = None
        return True

    def region(self) -> str | None:
        """Return None: on a host, variables and the metadata service name the region."""
        return None


class AwsSession:
    """Who asks AWS in a region, and how far this host's clock is from AWS's: the client corrects that.

    `provider` is asked for credentials at each signature; without one they are those of this host.
    """

    def __init__(
        self,
        view: HostView,
        environ: Mapping[str, str],
        region: str,
        provider: CredentialsProvider | None = None,
        check_stopped: Callable[[], None] | None = None,
    ) -> None:
        self.view = view
        self.environ = environ
        self.region = region
        self.skew = dt.timedelta()
        self._provider = provider or HostCredentials(view, environ, check_stopped)
        self._used: Credentials | None = None

    def now(self) -> dt.datetime:
        """Return AWS's time, as far as it is known."""
        return self.view.now() + self.skew

    def credentials(self) -> Credentials:
        """Return credentials that do not end within minutes, if there are such. Raises `aws-no-credentials`."""
        self._used = self._provider.credentials(self.now(), self.region)
        return self._used

    def renew(self) -> bool:
        """Give up credentials that AWS calls expired; tell whether there may be others."""
        return self._provider.renew()

    def mask(self, text: str) -> str:
        """Return a text without the secrets of the credentials in use, should it hold them."""
        used = self._used
        for secret in (used.secret, used.token) if used else ():
            text = text.replace(secret, "…") if secret else text
        return text

    def correct_clock(self, date: float | None) -> bool:
        """Take the time of an answer (epoch seconds) for AWS's; tell whether this host's is too far from it."""
        if date is None:
            return False
        skew = dt.datetime.fromtimestamp(date, dt.timezone.utc) - self.view.now()
        if abs(skew) < SKEW or abs(skew - self.skew) < SKEW:
            return False
        self.skew = skew
        return True


def open_session(
    view: HostView,
    environ: Mapping[str, str],
    region: str | None = None,
    provider: CredentialsProvider | None = None,
    check_stopped: Callable[[], None] | None = None,
) -> AwsSession:
    """Return a session for a region; none is ever guessed.

    It is the one given, that of the variables, the one beside the provider's credentials, or this instance's. Raises
    AgentError `aws-region-unknown`. Credentials are looked for when they are first needed.
    """
    named = _named_region(environ)
    name, value = ("--region", region) if region else named or ("the profile", provider and provider.region())
    why = ""
    if not value:
        answer = ask_metadata(view, environ, "placement/region", check_stopped or (lambda: view.sleep(0)))
        name, value, why = "instance metadata", answer.text, answer.why
    if value is not None and _REGION.fullmatch(value):
        return AwsSession(view, environ, value, provider, check_stopped)
    raise AgentError(
        "aws-region-unknown",
        "the AWS region is not known",
        saw=f"{name} names no region" if value else f"neither {' nor '.join(REGIONS)}; {why}",
        want="a region such as eu-central-1",
    )


def region_of(environ: Mapping[str, str]) -> str | None:
    """Return the region that the variables name, None where they name none that could be one."""
    named = _named_region(environ)
    return named[1] if named is not None and _REGION.fullmatch(named[1]) else None


def _named_region(environ: Mapping[str, str]) -> tuple[str, str] | None:
    return next(((name, environ[name]) for name in REGIONS if environ.get(name)), None)


def find_credentials(
    view: HostView, environ: Mapping[str, str], check_stopped: Callable[[], None] = lambda: None
) -> Credentials:
    """Return the credentials of the environment, else of the container, else of the instance's role.

    Raises AgentError `aws-no-credentials` with where they were looked for, and what `check_stopped` raises.
    """
    given = [bool(environ.get(name)) for name in (KEY_ID, SECRET)]
    if all(given):
        return Credentials(environ[KEY_ID], environ[SECRET], environ.get(TOKEN) or None)
    if any(given):
        have, lack = (KEY_ID, SECRET) if given[0] else (SECRET, KEY_ID)
        raise _none(f"{have} is set and {lack} is not", want="both, or neither")
    if environ.get(FULL_URI) or environ.get(RELATIVE_URI):
        return _container_credentials(view, environ, check_stopped)
    return _role_credentials(view, environ, check_stopped)


def clock_words(skew: dt.timedelta) -> str:
    """Say how far this host's clock is from AWS's, `skew` being what has to be added to it."""
    minutes = round(abs(skew).total_seconds() / 60)
    return f"this host's clock is {minutes} minutes {'behind' if skew > dt.timedelta() else 'ahead of'} AWS's"


def _role_credentials(
    view: HostView, environ: Mapping[str, str], check_stopped: Callable[[], None]
) -> Credentials:
    role = ask_metadata(view, environ, f"{_ROLE}/", check_stopped)
    why = role.why
    if role.text is not None:
        name = role.text.split("\n")[0].strip()
        if not re.fullmatch(r"[\w+=,.@-]{1,64}", name):
            raise _none("the metadata service names no role")
        found = ask_metadata(view, environ, f"{_ROLE}/{name}", check_stopped)
        if found.text is not None:
            return _parsed(found.text, "the metadata service")
        why = found.why
    others = f"; {WEB_IDENTITY} is set, and is not used on hosts" if environ.get(WEB_IDENTITY) else ""
    raise _none(f"neither in the environment nor a role of this instance: {why}{others}")


def _container_credentials(
    view: HostView, environ: Mapping[str, str], check_stopped: Callable[[], None]
) -> Credentials:
    """Ask the agent of the container's platform; no proxy comes between, and no other source after it."""
    name = RELATIVE_URI if environ.get(RELATIVE_URI) else FULL_URI
    url = environ[name] if name == FULL_URI else f"http://{_AGENTS[0]}{environ[name]}"
    if not _may_be_asked(url):
        raise _none(f"{name} is neither https nor of this machine or its container platform")
    token = _container_token(view, environ)
    headers = {"Accept": "application/json", **({"Authorization": token} if token else {})}
    try:
        request = ApiRequest("GET", url, headers)
        response = exchange(request, _CONTAINER, environ=environ, proxied=False, check_stopped=check_stopped)
    except ExchangeError as error:
        raise _none(f"{name}: {error.saw}") from None
    if response.status != 200:
        raise _none(f"{name}: HTTP {response.status}")
    return _parsed(response.body.decode("utf-8", "replace"), name)


def _may_be_asked(url: str) -> bool:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return bool(host)
        if is_loopback(host):
            return parts.scheme == "http"
        return parts.scheme == "http" and str(ipaddress.ip_address(host)) in _AGENTS
    return False


def _container_token(view: HostView, environ: Mapping[str, str]) -> str:
    """Return the token of its file, which the platform renews, or of the variable; empty where none is named."""
    path = environ.get(CONTAINER_TOKEN_FILE)
    token = environ.get(CONTAINER_TOKEN, "")
    if path:
        try:
            token = (view.read(path, limit=64 * 1024) or b"").decode("ascii", "replace").strip()
        except AgentError as error:
            raise _none(f"{CONTAINER_TOKEN_FILE}: {error.saw}") from None
    if (path and not token) or not re.fullmatch(r"[ -~]*", token):
        raise _none(f"{CONTAINER_TOKEN_FILE if path else CONTAINER_TOKEN} holds no token")
    return token


def _parsed(text: str, source: str) -> Credentials:
    try:
        tree: Any = json.loads(text)
        ends = tree.get("Expiration")
        return Credentials(
            str(tree["AccessKeyId"]),
            str(tree["SecretAccessKey"]),
            str(tree["Token"]) if tree.get("Token") else None,
            _moment(ends) if ends else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _none(f"what {source} answers holds no credentials") from None


def _moment(text: str) -> dt.datetime:
    # fromisoformat of Python before 3.11 knows no Z, nor every fraction of a second
    return dt.datetime.fromisoformat(text[:19]).replace(tzinfo=dt.timezone.utc)


def _none(saw: str, want: str = "credentials with which AWS can be asked") -> AgentError:
    return AgentError("aws-no-credentials", "there are no AWS credentials", saw=saw, want=want)
