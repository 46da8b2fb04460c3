"""moto behind a door of ours: calls are recorded, refusals have AWS's shapes, clocks are judged, and it can misbehave.

moto alone answers a denied JSON call in XML, takes any clock, and is always well; see `tests/FAKES.md`. Its insides
are used, so it is pinned. It lives in this process: tests read and change what it describes without another protocol.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Callable, cast
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.ec2.models import ec2_backends
from moto.iam.access_control import IAMRequest
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from typing_extensions import Self
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from tests.fakes.moto_lessons import ACCOUNT, signal_resource, teach
from tests.fakes.ssm import ACTIONS, SystemsManager

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping

    from tests.fakes.receiver import Answer, Exchange

FIVE_MINUTES = dt.timedelta(minutes=5)
# Services that speak JSON, by the names in their signatures.
_JSON = ("cloudhsm", "ssm", "secretsmanager")
# What moto calls a refusal -> status and code as the services have them (API references, "Common Errors").
_AS_JSON = {
    "AccessDenied": (403, "AccessDeniedException"),
    "SignatureDoesNotMatch": (403, "InvalidSignatureException"),
    "InvalidClientTokenId": (403, "UnrecognizedClientException"),
}
_AS_EC2 = {"AccessDenied": (403, "UnauthorizedOperation")}
_OF_S3 = {
    "GET": ("GetObject", "ListBucket"),
    "HEAD": ("GetObject", "ListBucket"),
    "PUT": ("PutObject", "CreateBucket"),
    "POST": ("PutObject", "DeleteObject"),
    "DELETE": ("DeleteObject", "DeleteBucket"),
}


@cache
def _moto() -> DomainDispatcherApplication:
    """Return moto as WSGI has it: one for all servers, since each of its services takes a second to begin."""
    return DomainDispatcherApplication(create_backend_app)


def _forget() -> None:
    """Begin anew. moto's reset would make each EC2 once more before it drops it, which takes seconds."""
    ec2_backends.clear()
    BackendDict.reset()
    reset_model_data()


def _let_admin_in() -> None:
    """Make the keys of `moto_server.client` those of a user who may do everything."""
    iam = iam_backends[ACCOUNT]["aws"]
    if "admin" in iam.users:
        return
    iam.create_user("us-east-1", "admin")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy("admin", "everything", json.dumps(policy))
    key = iam.create_access_key("admin")
    key.access_key_id = key.secret_access_key = "admin"


@dataclass(frozen=True)
class Call:
    """One call that arrived, whatever came of it. `params` are those of the request, as it was sent."""

    permission: str
    region: str
    key_id: str
    params: Mapping[str, Any] = field(default_factory=dict)
    status: int = 0

    @property
    def service(self) -> str:
        """The service's name in signatures and policies."""
        return self.permission.partition(":")[0]


class Door(WSGIRequestHandler):
    """One request: moto's, or that of the misbehaviour whose turn it is."""

    protocol_version = "HTTP/1.1"
    server: Any

    def run_wsgi(self) -> None:
        answer = self.server.aws.next_answer()
        if answer is None:
            super().run_wsgi()
            return
        self.document = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.aws.record(self.command, self.path, dict(self.headers), self.document)
        self.close_connection = True
        with suppress(OSError):
            answer(cast("Exchange", self))

    def answer(self, status: int, **headers: object) -> None:
        """Send status and headers, as `tests.fakes.receiver.Exchange` does."""
        self.send_response(status)
        for name, value in {"Content_Length": 0, "Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log(self, *_words: object) -> None:
        pass


class AwsServer:
    """AWS's API in a thread of this process.

    `calls` are all that arrived; `clock` is how far AWS's clock is from this machine's; `expired` are ids of keys whose
    time is over; `ssm` is Run Command, which moto lacks; `listeners` hear of each call that was answered, before who made
    it does. `listener` is a socket that listens already, wherever it was made; by default the loopback's.
    """

    def __init__(self, listener: socket.socket | None = None, context: ssl.SSLContext | None = None) -> None:
        teach()
        _forget()
        self.calls: list[Call] = []
        self.clock = dt.timedelta()
        self.is_enforcing = False
        self.expired: set[str] = set()
        self.listeners: list[Callable[[Call], None]] = []
        self.ssm = SystemsManager()
        self._turns: list[Answer | None] = []
        self._lock = threading.Lock()
        self._moto = _moto()
        self._serving: list[tuple[Any, threading.Thread]] = []
        self.url = self.also_listen(listener or socket.create_server(("127.0.0.1", 0)), context)

    def also_listen(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> str:
        """Serve at a socket that listens already, and return the URL of it."""
        host, port = listener.getsockname()[:2]
        with listener:
            server: Any = make_server(
                host,
                port,
                self,
                threaded=True,
                request_handler=Door,
                ssl_context=context,
                fd=listener.fileno(),
            )
        server.aws = self
        server.over = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self._serving.append((server, thread))
        return f"{'https' if context else 'http'}://{host}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for server, thread in self._serving:
            server.over.set()
            server.shutdown()
            thread.join()
            server.server_close()

    # --- what tests say to it

    def misbehave(self, *answers: Answer | None) -> None:
        """Give these answers in turn, the last one again and again; None is moto's own. Without any, behave."""
        with self._lock:
            self._turns = list(answers)

    @contextmanager
    def enforcing(self) -> Iterator[None]:
        """Check signatures, their time, and policies; whoever sets things up keeps all rights."""
        _let_admin_in()
        self._enforce(0.0)
        try:
            yield
        finally:
            self._enforce(float("inf"))

    def _enforce(self, unchecked: float) -> None:
        settings.INITIAL_NO_AUTH_ACTION_COUNT = unchecked
        ActionAuthenticatorMixin.request_count = 0
        self.is_enforcing = not unchecked

    def permissions(self) -> list[str]:
        """Return the actions that were called, in order."""
        return [each.permission for each in self.calls]

    # --- what arrives

    def next_answer(self) -> Answer | None:
        """Return the misbehaviour whose turn it is, None where moto answers."""
        with self._lock:
            return self._turns.pop(0) if len(self._turns) > 1 else next(iter(self._turns), None)

    def record(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
        """Keep a call that the door answers itself."""
        call = read_call(method, path, {name.lower(): value for name, value in headers.items()}, body)
        if call is not None:
            self.calls.append(call)
        return call

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request as WSGI has it: moto does, but for what it cannot judge."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        headers = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        target = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        call = read_call(environ["REQUEST_METHOD"], target, headers, body)
        response = self._refusal(call, headers) if call else None
        if response is None and call and call.service == "cloudformation":
            response = self._signal(call, environ, headers, body)
        if response is None and call and call.service == "ssm" and _action(call) in ACTIONS:
            response = self._run_command(call, environ, headers, body)
        if response is None:
            response = Response.from_app(self._moto, environ, buffered=True)
            if call:
                response = as_aws_refuses(call, response)
        response.headers["Date"] = f"{self.now():%a, %d %b %Y %H:%M:%S GMT}"
        if call:
            done = Call(call.permission, call.region, call.key_id, call.params, response.status_code)
            self.calls.append(done)
            for listener in self.listeners:
                listener(done)
        return response(environ, start_response)

    def now(self) -> dt.datetime:
        """Return AWS's time."""
        return dt.datetime.now(dt.timezone.utc) + self.clock

    def _refusal(self, call: Call, headers: Mapping[str, str]) -> Response | None:
        """Refuse what moto takes: a wrong clock and credentials whose time is over."""
        if call.key_id in self.expired:
            return expired_token(call)
        stamp = headers.get("x-amz-date")
        if not self.is_enforcing or not stamp:
            return None
        late = self.now() - dt.datetime.strptime(f"{stamp}+0000", "%Y%m%dT%H%M%SZ%z")
        return None if abs(late) < FIVE_MINUTES else wrong_time(call, stamp, late, self.now())

    def _signal(
        self, call: Call, environ: Mapping[str, Any], headers: Mapping[str, str], body: bytes
    ) -> Response:
        """Take a signal for a stack: moto's CloudFormation has no such thing, and wants half of moto to start."""
        refused = self._policy(call, environ, headers, body, "*")
        if refused is not None:
            return refused
        status, text = signal_resource(call.params)
        return Response(text, status, content_type="text/xml")

    def _run_command(
        self, call: Call, environ: Mapping[str, Any], headers: Mapping[str, str], body: bytes
    ) -> Response:
        name = call.params.get("DocumentName") or call.params.get("Name")
        resource = f"arn:aws:ssm:{call.region}:{ACCOUNT}:document/{name}" if name else "*"
        refused = self._policy(call, environ, headers, body, resource)
        if refused is not None:
            return refused
        status, answer = self.ssm.answer(_action(call), call.params)
        return Response(json.dumps(answer), status, content_type="application/x-amz-json-1.1")

    def _policy(
        self, call: Call, environ: Mapping[str, Any], headers: Mapping[str, str], body: bytes, resource: str
    ) -> Response | None:
        """Refuse what the policies of the caller do not allow."""
        if self.is_enforcing:
            names = {
                "-".join(word.title() for word in name.split("-")): text for name, text in headers.items()
            }
            names.setdefault("Content-Type", str(environ.get("CONTENT_TYPE", "")))
            try:
                asked = IAMRequest(
                    ACCOUNT, "POST", "/", dict(call.params), body, names, call.permission.partition(":")[2]
                )
                asked.check_signature()
                asked.check_action_permitted(resource)
            except HTTPException as error:
                return as_aws_refuses(call, Response(str(error.description), 403))
        return None


def read_call(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
    """Return which action of which service a signed request is; None for what is not signed."""
    scope = re.search(
        r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request", headers.get("authorization", "")
    )
    if scope is None:
        return None
    key_id, region, service = scope.groups()
    if service == "s3":
        return Call(f"s3:{_s3_action(method, path)}", region, key_id, {"path": path.partition("?")[0]})
    if "x-amz-target" in headers:
        action = headers["x-amz-target"].rpartition(".")[2]
        return Call(f"{service}:{action}", region, key_id, json.loads(body or b"{}"))
    form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    action = form.pop("Action", "")
    form.pop("Version", None)
    return Call(f"{service}:{action}", region, key_id, form)


def _action(call: Call) -> str:
    return call.permission.partition(":")[2]


def _s3_action(method: str, path: str) -> str:
    place, _, query = path.partition("?")
    _, _, key = place.lstrip("/").partition("/")
    action = _OF_S3.get(method, (method, method))[0 if key else 1]
    return "GetObjectVersion" if action == "GetObject" and "versionId=" in query else action


# --- refusals in the shapes of the services


def as_aws_refuses(call: Call, response: Response) -> Response:
    """Return moto's refusal as the real service words it."""
    if response.status_code not in (401, 403) or call.service == "s3":
        return response
    text = response.get_data(as_text=True)
    code, message = (
        found[1] if (found := re.search(rf"<{name}>([^<]*)</{name}>", text)) else ""
        for name in ("Code", "Message")
    )
    if code == "AccessDenied":
        message += f" because no identity-based policy allows the {call.permission} action"
    if call.service in _JSON and code in _AS_JSON:
        return refusal(call, *_AS_JSON[code], message)
    if call.service == "ec2" and code in _AS_EC2:
        return refusal(call, *_AS_EC2[code], f"You are not authorized to perform this operation. {message}")
    return refusal(call, response.status_code, code, message) if code else response


def refusal(call: Call, status: int, code: str, message: str) -> Response:
    """Return a refusal in the form of the service: JSON, EC2's XML, S3's, or that of the query services."""
    if call.service in _JSON:
        body = json.dumps({"__type": code, "Message": message})
        return Response(body, status, content_type="application/x-amz-json-1.1")
    error = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    body = {
        "ec2": f"<Response><Errors><Error>{error}</Error></Errors><RequestID>1</RequestID></Response>",
        "s3": f"<Error>{error}<RequestId>1</RequestId></Error>",
    }.get(call.service, f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error></ErrorResponse>")
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', status, content_type="text/xml")


def expired_token(call: Call) -> Response:
    """EC2 has no word of its own for credentials whose time is over: it says what it says of an old request."""
    if call.service == "ec2":
        return refusal(call, 400, "RequestExpired", "Request has expired.")
    if call.service == "s3":
        return refusal(call, 400, "ExpiredToken", "The provided token has expired.")
    code = "ExpiredTokenException" if call.service in _JSON else "ExpiredToken"
    return refusal(call, 403, code, "The security token included in the request is expired")


def wrong_time(call: Call, stamp: str, late: dt.timedelta, now: dt.datetime) -> Response:
    """Refuse a request that was signed at another time; EC2 and S3 have words of their own for it."""
    if call.service == "ec2":
        return refusal(call, 400, "RequestExpired", "Request has expired.")
    if call.service == "s3":
        words = "The difference between the request time and the current time is too large."
        return refusal(call, 403, "RequestTimeTooSkewed", words)
    edge = now - FIVE_MINUTES if late > dt.timedelta() else now + FIVE_MINUTES
    words, way, sign = (
        ("Signature expired", "earlier", "-")
        if late > dt.timedelta()
        else ("Signature not yet current", "still later", "+")
    )
    code = "InvalidSignatureException" if call.service in _JSON else "SignatureDoesNotMatch"
    shown = f"{edge:%Y%m%dT%H%M%SZ} ({now:%Y%m%dT%H%M%SZ} {sign} 5 min.)"
    return refusal(call, 403, code, f"{words}: {stamp} is now {way} than {shown}")
