"""A person's AWS credentials as botocore finds them: profiles, SSO, roles, programs; on an operator's machine alone.

botocore looks for credentials and for a profile's region, and asks AWS nothing else: that is `agent.aws.client`'s. The
extra `hsm-agent[aws]` brings it. Without it there are the credentials that a host has.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Callable

from agent.aws.access import AwsAccess
from agent.aws.client import DENIED
from agent.aws.session import KEY_ID, SECRET, TOKEN, HostCredentials
from agent.aws.sigv4 import Credentials
from agent.core.errors import AgentError, is_exhaustion
from agent.core.plain import cut, printable

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from agent.core.host import HostView

PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
INSTALL = "install botocore beside hsm-agent: `pip install 'hsm-agent[aws]'`"
# Seconds: of a person who types a code or a program that opens a browser; and to connect to AWS, and for its answer.
_WHOLE = 120.0
_CONNECT, _READ, _TRIES = 3, 5, 3
_TURN = 0.1
_LONGEST = 500
# source profiles that are followed; botocore refuses a circle of them
_CHAIN = 10
# the actions that botocore asks for, by the names in its errors
_ACTIONS = {
    "AssumeRole": "sts:AssumeRole",
    "AssumeRoleWithWebIdentity": "sts:AssumeRoleWithWebIdentity",
    "GetRoleCredentials": "sso:GetRoleCredentials",
}


def operator_access(
    view: HostView,
    environ: Mapping[str, str],
    region: str | None = None,
    profile: str | None = None,
    *,
    has_terminal: bool = False,
) -> AwsAccess:
    """Return AWS as a person asks it, by a profile or else as AWS's SDKs choose; nothing is loaded before it is asked.

    `environ` is the process's own environment, which botocore reads. Only with `has_terminal` a code is asked for.
    """
    provider = OperatorCredentials(view, environ, profile, has_terminal=has_terminal)
    return AwsAccess(view, environ, region, provider)


class OperatorCredentials:
    """The credentials of a person: of a profile, or else of the environment, the container, the instance's role."""

    def __init__(
        self,
        view: HostView,
        environ: Mapping[str, str],
        profile: str | None = None,
        *,
        has_terminal: bool = False,
    ) -> None:
        self._view = view
        self._environ = environ
        self._profile = profile
        self._has_terminal = has_terminal
        # whoever names a profile does not mean the keys of the environment
        keys = (KEY_ID, SECRET, TOKEN) if profile else ()
        own = {name: value for name, value in environ.items() if name not in keys}
        self._host = HostCredentials(view, own)
        self._lock = threading.Lock()
        self._session: Any = None
        self._found: Any = None

    def credentials(self, now: dt.datetime, region: str, /) -> Credentials:
        """Return credentials that botocore keeps from ending. Raises `aws-no-credentials`, -denied, -unreachable."""
        if self._profile is None and any(self._environ.get(name) for name in (KEY_ID, SECRET)):
            return self._host.credentials(now, region)
        with self._lock:
            frozen = self._ask(lambda: self._frozen(region))
        if frozen is not None:
            return Credentials(frozen.access_key, frozen.secret_key, frozen.token or None)
        try:
            return self._host.credentials(now, region)
        except AgentError as error:
            if error.code.name == "aws-no-credentials" and self._session is None:
                error.hint = f"{INSTALL}, which reads profiles; or {error.hint}"
            raise

    def renew(self) -> bool:
        """Look everywhere again: a person may have logged in meanwhile."""
        with self._lock:
            was_found, self._found = self._found is not None, None
        return self._host.renew() or was_found

    def region(self) -> str | None:
        """Return the profile's region. Raises `aws-no-credentials` where there is no such profile."""
        with self._lock:
            found: str | None = self._ask(self._configured_region)
            return found

    def _configured_region(self) -> Any:
        session = self._open()
        return session.get_scoped_config().get("region") if session is not None else None

    def _frozen(self, region: str) -> Any:
        session = self._open()
        if session is None:
            return None
        if self._found is None:
            self._found = self._look(session, region)
        return self._found.get_frozen_credentials() if self._found is not None else None

    def _open(self) -> Any:
        """Return botocore's session, None where botocore is not installed and nobody names a profile."""
        if self._session is not None:
            return self._session
        try:
            from botocore.config import Config  # noqa: PLC0415 -- an extra, and 150 ms
            from botocore.session import Session  # noqa: PLC0415 -- as above
        except ModuleNotFoundError as missing:
            named = next((name for name in PROFILES if self._environ.get(name)), None)
            if self._profile is None and named is None:
                return None
            raise AgentError(
                "aws-no-credentials",
                "profiles are read by botocore, which is not installed",
                saw=f"{'--profile' if self._profile else named}, and no {missing.name}",
                want="hsm-agent[aws]",
                hint=f"{INSTALL}; or set {KEY_ID}, {SECRET} and {TOKEN}",
            ) from None
        session = Session(profile=self._profile)
        # botocore's own limits are 60 s for each of three tries
        retries = {"total_max_attempts": _TRIES, "mode": "standard"}
        session.set_default_client_config(
            Config(connect_timeout=_CONNECT, read_timeout=_READ, retries=retries)
        )
        self._session = session
        return session

    def _look(self, session: Any, region: str) -> Any:
        """Return what botocore finds in profiles, None where there is nothing.

        Its providers of containers and instances are left out: it asks the metadata service through a proxy and falls
        back to version 1, and HostCredentials does neither.
        """
        from botocore.credentials import create_credential_resolver  # noqa: PLC0415 -- as above

        self._refuse_what_cannot_be_asked(session)
        resolver = create_credential_resolver(session, region_name=region)
        for name in ("container-role", "iam-role"):
            resolver.remove(name)
        return resolver.load_credentials()

    def _refuse_what_cannot_be_asked(self, session: Any) -> None:
        from botocore.utils import get_environ_proxies  # noqa: PLC0415 -- as above

        chain = _chain(session)
        if not self._has_terminal and any("mfa_serial" in each for each in chain):
            raise _none(
                "the profile asks for a code of a second factor, and there is no terminal to type it",
                f"type the command on a terminal; or give it what ends later: `eval $(aws configure "
                f"export-credentials --format env{self._option})`",
            )
        endpoint = self._environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        by_metadata = any(each.get("credential_source") == "Ec2InstanceMetadata" for each in chain)
        if by_metadata and get_environ_proxies(endpoint):
            raise _none(
                "the profile takes the role of this instance, and botocore would ask a proxy for it",
                "add 169.254.169.254 to NO_PROXY",
            )

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Return the answer of botocore, of which nothing is bounded: a program of a profile may never end."""
        inbox: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                inbox.put((question(), None))
            except Exception as error:  # noqa: BLE001 -- passed to the waiting thread
                inbox.put((None, error))

        threading.Thread(target=work, name="hsm-agent-credentials", daemon=True).start()
        ends = self._view.monotonic() + _WHOLE
        while True:
            self._view.sleep(0)  # raises where the run is interrupted or its time is over
            try:
                answer, error = inbox.get(timeout=_TURN)
            except queue.Empty:
                if self._view.monotonic() < ends:
                    continue
                raise _none(f"the profile gave none within {_WHOLE:g} s", self._profile_hint) from None
            if error is None:
                return answer
            raise (error if isinstance(error, AgentError) else self._explained(error)) from None

    def _explained(self, error: Exception) -> Exception:
        """Return what a failure of botocore is here; a defect stays what it is."""
        from botocore import exceptions  # noqa: PLC0415 -- as above
        from botocore.parsers import ResponseParserError  # noqa: PLC0415 -- as above

        saw = _said(error)
        if isinstance(error, exceptions.ClientError):
            action = _ACTIONS.get(error.operation_name, error.operation_name)
            if error.response.get("Error", {}).get("Code") in (*DENIED, "ForbiddenException"):
                want = f"a policy that allows {action}"
                hint = f"allow {action} to whom the profile starts from, and trust them in the role's trust policy"
                return AgentError("aws-denied", f"AWS denies {action}", saw=saw, want=want, hint=hint)
            return _none(saw, self._hint(error))
        unreachable = (exceptions.ConnectionError, exceptions.HTTPClientError, ResponseParserError)
        if isinstance(error, unreachable):
            return AgentError(
                "aws-unreachable", "AWS could not be asked for credentials", saw=saw, want="an answer"
            )
        if isinstance(error, exceptions.ProfileNotFound):
            there = ", ".join(sorted(self._session.available_profiles)) or "none"
            return AgentError(
                "aws-no-credentials",
                saw,
                saw=f"profiles: {cut(printable(there), _LONGEST)}",
                want="a profile of ~/.aws/config or ~/.aws/credentials",
                hint="name one of them; AWS_CONFIG_FILE names another file",
            )
        # what botocore lets through: of files, of answers, of a program and its output, of a terminal that closed
        known = (OSError, ValueError, KeyError, RuntimeError, EOFError)
        if is_exhaustion(error) or not isinstance(error, (exceptions.BotoCoreError, *known)):
            return error
        kind = "" if isinstance(error, exceptions.BotoCoreError) else f"{type(error).__name__}: "
        return _none(kind + saw, self._hint(error))

    def _hint(self, error: Exception) -> str:
        name = type(error).__name__
        if name.startswith("Login"):
            return f"log in again: `aws login{self._option}`"
        if "SSO" in name or "Token" in name or "UnauthorizedException" in str(error):
            return f"log in again: `aws sso login{self._option}`"
        return self._profile_hint

    @property
    def _profile_hint(self) -> str:
        return (
            f"correct the profile: `aws sts get-caller-identity{self._option}` fails alike; or name another "
            "with --profile"
        )

    @property
    def _option(self) -> str:
        name = self._profile or next(
            (self._environ[each] for each in PROFILES if self._environ.get(each)), ""
        )
        return f" --profile {name}" if name else ""


def _chain(session: Any) -> list[Mapping[str, Any]]:
    """Return the profile of a session and those that it starts from."""
    profiles = session.full_config.get("profiles", {})
    name = session.profile or "default"
    chain: list[Mapping[str, Any]] = []
    while name in profiles and len(chain) < _CHAIN:
        chain.append(profiles[name])
        name = profiles[name].get("source_profile")
    return chain


def _said(error: Exception) -> str:
    """Return the first line of an error's text, which a program of the user's may have written."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return cut(printable(lines[0] if lines else type(error).__name__), _LONGEST)


def _none(saw: str, hint: str) -> AgentError:
    want = "credentials with which AWS can be asked"
    return AgentError("aws-no-credentials", "there are no AWS credentials", saw=saw, want=want, hint=hint)
