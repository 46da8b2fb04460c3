"""The client of AWS's API against servers on the loopback that fail as AWS, proxies and networks do."""

from __future__ import annotations

import datetime as dt
import gc
import json
import logging
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from agent.aws import client as module
from agent.aws.client import AwsClient, AwsRefusedError
from agent.aws.operations import DESCRIBE_CLUSTERS, DESCRIBE_SUBNETS, GET_OBJECT, GET_PARAMETER
from agent.aws.session import find_credentials, open_session
from agent.core.errors import AgentError
from agent.http import imds as metadata
from tests.fakes.aws import (
    KEYS,
    SECRET,
    TOKEN,
    RealTime,
    answers,
    half,
    minds_the_clock,
    refuses,
    says,
)
from tests.fakes.imds import CREDENTIALS, imds
from tests.fakes.receiver import Answer, Exchange, only, receiver, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.fakes.imds import Imds

REGION = "eu-central-1"
CLUSTERS = {"Clusters": [{"ClusterId": "cluster-2abcdefghij"}]}
HOST = "cloudhsmv2.eu-central-1.amazonaws.com"
HOUR = dt.timedelta(hours=1)


@contextmanager
def asking(
    *server: Answer,
    environ: Mapping[str, str] | None = None,
    machine: RealTime | None = None,
    **options: Any,
) -> Iterator[tuple[AwsClient, list[tuple[str, dict[str, str]]]]]:
    """Yield a client of a server that gives these answers, and what that was asked."""
    with receiver(*server) as double:
        names = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{double.server_port}", **(environ or {})}
        session = open_session(machine or RealTime(), names, REGION)
        yield AwsClient(session, **options), double.requests


def failure(client: AwsClient, operation: Any = DESCRIBE_CLUSTERS) -> AgentError:
    """Return how a call fails; nothing that it says or logs may hold a secret."""
    with pytest.raises(AgentError) as caught:
        client.call(operation, {})
    error = caught.value
    said = f"{error!r} {error} {error.sentence} {error.saw} {error.want} {error.hint} {error.__cause__!r} {client!r}"
    for secret in (SECRET, TOKEN, CREDENTIALS["SecretAccessKey"], CREDENTIALS["Token"]):
        assert secret not in said
    assert error.code.exit_status == 12
    return error


@pytest.fixture(autouse=True)
def no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET not in caplog.text
    assert TOKEN not in caplog.text


def test_what_is_asked_is_answered() -> None:
    with asking(answers(CLUSTERS)) as (client, requests):
        assert client.call(DESCRIBE_CLUSTERS, {}) == CLUSTERS
    ((path, headers),) = requests
    assert (path, headers["x-amz-target"]) == ("/", "BaldrApiService.DescribeClusters")
    assert "/eu-central-1/cloudhsm/aws4_request" in headers["Authorization"]


def test_pages_are_read_to_their_end_and_no_further() -> None:
    with asking(answers({"NextToken": "2"}), answers({"NextToken": ""}), answers({"NextToken": "never"})) as (
        client,
        requests,
    ):
        assert list(client.pages(DESCRIBE_CLUSTERS, {})) == [{"NextToken": "2"}, {"NextToken": ""}]
        assert len(requests) == 2
        with pytest.raises(AgentError) as caught:
            list(client.pages(DESCRIBE_CLUSTERS, {}))
        assert caught.value.code.name == "aws-refused"
        assert len(requests) == 2 + DESCRIBE_CLUSTERS.pages


@pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_clock_that_is_wrong_by_an_hour_is_corrected_once_for_all(off: dt.timedelta) -> None:
    with asking(minds_the_clock(CLUSTERS), machine=RealTime(off)) as (client, requests):
        assert client.call(DESCRIBE_CLUSTERS, {}) == CLUSTERS
        assert client.call(DESCRIBE_CLUSTERS, {}) == CLUSTERS
        assert len(requests) == 3
        assert abs(client.session.skew + off) < dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("off", "said"),
    [(HOUR, "60 minutes ahead of AWS's"), (-HOUR, "60 minutes behind AWS's")],
    ids=["ahead", "behind"],
)
def test_the_minutes_are_said_where_even_the_right_time_does_not_help(off: dt.timedelta, said: str) -> None:
    refusal = refuses("RequestTimeTooSkewed", "The difference is too large", 403)
    with asking(refusal, machine=RealTime(off)) as (client, requests):
        error = failure(client)
        assert (error.code.name, len(requests)) == ("aws-clock", 2)
        assert said in error.saw


def test_a_wrong_key_is_not_taken_for_a_wrong_clock() -> None:
    words = f"The signature does not match.\n\nThe Canonical String was: x-amz-security-token:{TOKEN}"
    with asking(refuses("SignatureDoesNotMatch", words, 403)) as (client, requests):
        error = failure(client)
        assert (error.code.name, len(requests)) == ("aws-no-credentials", 1)
        assert error.saw == "SignatureDoesNotMatch: The signature does not match."


def test_a_sentence_that_repeats_a_secret_is_shown_without_it() -> None:
    with asking(refuses("UnrecognizedClientException", f"token {TOKEN} of {SECRET}", 403)) as (client, _):
        assert failure(client).saw == "UnrecognizedClientException: token … of …"


@pytest.mark.parametrize(
    "code",
    ["AccessDeniedException", "CloudHsmAccessDeniedException", "AccessDenied", "UnauthorizedOperation"],
)
def test_a_denial_names_the_action_in_aws_s_own_words(code: str) -> None:
    words = "User: arn:aws:sts::1:assumed-role/web/i-1 is not authorized, with an explicit deny in a policy"
    with asking(refuses(code, words, 403)) as (client, requests):
        error = failure(client)
        assert (error.code.name, error.saw, len(requests)) == ("aws-denied", f"{code}: {words}", 1)
        assert "cloudhsm:DescribeClusters" in error.sentence + error.want + (error.hint or "")


@pytest.mark.parametrize("status", [400, 429, 503])
def test_throttling_for_ever_ends(status: int) -> None:
    machine = RealTime()
    code = "ThrottlingException" if status == 400 else "SlowDown"
    with asking(refuses(code, "Rate exceeded", status), machine=machine) as (client, requests):
        error = failure(client)
        assert (error.code.name, len(requests), len(machine.waits)) == ("aws-throttled", 3, 2)
        assert error.saw == f"{code}: Rate exceeded; 3 tries"
        assert all(0 <= wait <= 2**number for number, wait in enumerate(machine.waits))


def test_what_passes_is_tried_again() -> None:
    with asking(
        refuses("InternalFailure", status=500), refuses("ThrottlingException"), answers(CLUSTERS)
    ) as (client, _):
        assert client.call(DESCRIBE_CLUSTERS, {}) == CLUSTERS


def test_no_wait_goes_beyond_the_time_of_the_call() -> None:
    with asking(refuses("ThrottlingException"), seconds=0.0) as (client, requests):
        assert failure(client).code.name == "aws-throttled"
        assert len(requests) == 1


def test_another_refusal_is_the_caller_s_to_know() -> None:
    with asking(refuses("ParameterNotFound", "")) as (client, requests):
        error = failure(client, GET_PARAMETER)
        assert isinstance(error, AwsRefusedError)
        assert (error.code.name, error.refusal.code, len(requests)) == ("aws-refused", "ParameterNotFound", 1)


def test_an_endpoint_that_is_silent_is_given_up() -> None:
    with asking(silent, seconds=0.4) as (client, _):
        began = client.session.view.monotonic()
        error = failure(client)
        assert client.session.view.monotonic() - began < 3
        assert error.code.name == "aws-unreachable"
        assert "was silent for 0." in error.saw


def test_an_endpoint_that_sends_a_byte_now_and_then_is_given_up() -> None:
    def drips(exchange: Exchange) -> None:
        exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not exchange.server.over.wait(0.05):
            exchange.wfile.write(b"y")
            exchange.wfile.flush()

    with asking(drips, seconds=0.4) as (client, _):
        began = client.session.view.monotonic()
        assert failure(client).code.name == "aws-unreachable"
        assert client.session.view.monotonic() - began < 3


def test_an_endpoint_that_refuses_is_named_with_the_variable_that_chose_it() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        session = open_session(RealTime(), {**KEYS, "AWS_ENDPOINT_URL_CLOUDHSM_V2": url}, REGION)
        error = failure(AwsClient(session))
    assert error.code.name == "aws-unreachable"
    assert "refused" in error.saw
    assert "AWS_ENDPOINT_URL_CLOUDHSM_V2" in (error.hint or "")


@pytest.mark.parametrize("kind", ["length", "chunks", "headers", "json"])
def test_half_an_answer_is_none(kind: str) -> None:
    with asking(half(json.dumps(CLUSTERS), kind)) as (client, requests):
        assert failure(client).code.name == "aws-unreachable"
        assert len(requests) == 3


@pytest.mark.parametrize("length", ["told", "not told"])
def test_an_answer_of_more_than_4_megabytes_is_not_read(length: str) -> None:
    def endless(exchange: Exchange) -> None:
        size = 1 << 40
        exchange.answer(200, Content_Length=size if length == "told" else None)
        while True:
            exchange.wfile.write(b" " * 65536)

    with asking(endless) as (client, requests):
        error = failure(client)
        assert (error.code.name, len(requests)) == ("aws-unreachable", 1)
        assert "more than 4194304 bytes" in error.saw


def test_xml_with_entities_is_not_read() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><DescribeSubnetsResponse>&a;</DescribeSubnetsResponse>'
    with asking(says(bomb)) as (client, _):
        error = failure(client, DESCRIBE_SUBNETS)
        assert (error.code.name, "document type" in error.saw) == ("aws-unreachable", True)


def test_an_object_is_its_bytes() -> None:
    with asking(says(b"\x00PEM\xff")) as (client, requests):
        assert client.call(GET_OBJECT, {"Bucket": "b", "Key": "a b"})["Body"] == b"\x00PEM\xff"
        assert requests[0][0] == "/b/a%20b"


def test_an_interrupt_ends_the_wait() -> None:
    class StoppedError(Exception):
        pass

    def mind() -> None:
        raise StoppedError

    with asking(silent, check_stopped=mind) as (client, _), pytest.raises(StoppedError):
        client.call(DESCRIBE_CLUSTERS, {})


# --- who asks, and where


def test_no_credentials_anywhere() -> None:
    with asking(answers(CLUSTERS), environ=dict.fromkeys(KEYS, "")) as (client, requests):
        error = failure(client)
        assert (error.code.name, requests) == ("aws-no-credentials", [])
        assert "by its firmware" in error.saw


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("v1-only", "no token of version 2 (HTTP 404)"),
        ("disabled", "no token of version 2 (HTTP 403)"),
        ("hop-limit", "did not answer within 2 s"),
    ],
)
def test_a_metadata_service_that_gives_no_role_is_described(mode: str, said: str) -> None:
    with imds(mode, role="web-role") as service:
        environ = {
            **dict.fromkeys(KEYS, ""),
            metadata.ENDPOINT: service.url,
            "http_proxy": "http://127.0.0.1:1",
        }
        with asking(environ=environ) as (client, _):
            error = failure(client)
        assert (error.code.name, said in error.saw) == ("aws-no-credentials", True)
        assert "HttpPutResponseHopLimit" in (error.hint or "")


def test_an_instance_without_a_role_has_no_credentials() -> None:
    with imds() as service:
        environ = {metadata.ENDPOINT: service.url, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}
        with asking(environ={**dict.fromkeys(KEYS, ""), **environ}) as (client, _):
            error = failure(client)
        assert "(HTTP 404); AWS_WEB_IDENTITY_TOKEN_FILE is set, and is not used on hosts" in error.saw


def reads(service: Imds) -> int:
    return sum(path.endswith("/web-role") for path in service.requests)


def test_credentials_of_a_role_are_read_again_when_they_end() -> None:
    with imds(role="web-role") as service:
        environ = {**dict.fromkeys(KEYS, ""), metadata.ENDPOINT: service.url}
        expired = refuses("ExpiredTokenException", "The security token has expired", 403)
        with asking(answers(CLUSTERS), answers(CLUSTERS), expired, answers(CLUSTERS), environ=environ) as (
            client,
            _,
        ):
            client.call(DESCRIBE_CLUSTERS, {})
            client.call(DESCRIBE_CLUSTERS, {})
            assert reads(service) == 1
            assert client.call(DESCRIBE_CLUSTERS, {}) == CLUSTERS
            assert reads(service) == 2
            client.session.skew = dt.timedelta(days=40_000 - 13_149)  # 2099, when those of the double end
            client.session.credentials()
            assert reads(service) == 3


def test_expired_credentials_of_the_environment_are_said_to_be() -> None:
    with asking(refuses("ExpiredTokenException", "The security token has expired", 403)) as (
        client,
        requests,
    ):
        error = failure(client)
        assert (error.code.name, len(requests)) == ("aws-no-credentials", 1)
        assert error.saw == "ExpiredTokenException: The security token has expired"


@pytest.mark.parametrize("lack", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_pair_of_keys_is_refused(lack: str) -> None:
    with asking(environ={lack: ""}) as (client, _):
        assert failure(client).saw.endswith(f"{lack} is not")


CONTAINER = {
    "AccessKeyId": "ASIACONTAINER",
    "SecretAccessKey": SECRET,
    "Token": TOKEN,
    "Expiration": "2099-01-01T00:00:00Z",
}


@pytest.mark.parametrize("token", ["", "variable", "file"])
def test_a_container_s_credentials_come_from_its_platform_without_a_proxy(token: str) -> None:
    machine = RealTime()
    machine.place("/var/run/token", b"from-file\n")
    with receiver(answers(CONTAINER)) as double:
        environ = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{double.server_port}/role",
            "http_proxy": "http://127.0.0.1:1",
        }
        if token:
            environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "from-variable"
        if token == "file":
            environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = "/var/run/token"
        found = find_credentials(machine, environ)
    assert (found.id, found.secret, found.token, found.ends and found.ends.year) == (
        "ASIACONTAINER",
        SECRET,
        TOKEN,
        2099,
    )
    assert [path for path, _ in double.requests] == ["/role"]


@pytest.mark.parametrize(
    "environ",
    [
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://10.0.0.1/role"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://metadata.example/role"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "ftp://127.0.0.1/role"},
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "@10.0.0.1/role"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/none"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a\r\nb"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/x"},
    ],
)  # fmt: skip
def test_a_token_is_sent_nowhere_else(environ: dict[str, str]) -> None:
    with pytest.raises(AgentError) as caught:
        find_credentials(RealTime(), environ)
    assert caught.value.code.name == "aws-no-credentials"


@pytest.mark.parametrize("answer", [only(404), says("{"), says("[]"), says('{"AccessKeyId": "A"}')])
def test_a_platform_without_credentials_is_no_source(answer: Answer) -> None:
    with receiver(answer) as double:
        url = f"http://127.0.0.1:{double.server_port}/role"
        with pytest.raises(AgentError) as caught:
            find_credentials(RealTime(), {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url})
    assert caught.value.code.name == "aws-no-credentials"


def test_the_region_is_never_guessed() -> None:
    with pytest.raises(AgentError) as caught:
        open_session(RealTime(), {})
    assert caught.value.code.name == "aws-region-unknown"
    with pytest.raises(AgentError) as caught:
        open_session(RealTime(), {"AWS_REGION": "Frankfurt, Germany"})
    assert caught.value.code.name == "aws-region-unknown"
    both = {"AWS_DEFAULT_REGION": "eu-west-2", "AWS_REGION": "eu-west-1"}
    assert open_session(RealTime(), both).region == "eu-west-1"
    assert open_session(RealTime(), both, "eu-west-3").region == "eu-west-3"


def test_an_instance_knows_its_region() -> None:
    with imds() as service:
        service.texts["placement/region"] = "ap-southeast-2"
        assert open_session(RealTime(), {metadata.ENDPOINT: service.url}).region == "ap-southeast-2"


# --- proxies


@contextmanager
def proxy(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the address of a proxy that answers CONNECT with this, and what it was asked."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def work() -> None:
            for _ in range(module.TRIES):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heads.append(connection.recv(4096))
                    connection.sendall(answer)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}", heads
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("status", "user", "saw", "hint", "asked"),
    [
        ("403 Forbidden", "", "HTTP 403: the proxy {place} does not connect to {host}", "allow CONNECT to {host}", 1),
        ("407 Who", "", "HTTP 407: the proxy {place} wants a user and a password", "put them in https_proxy", 1),
        ("407 Who", "me:p4ss@", "HTTP 407: the proxy {place} does not accept", "correct them in https_proxy", 1),
        ("503 Busy", "", "HTTP 503: the proxy {place} does not connect to {host}; 3 tries", "allow CONNECT", 3),
    ],
)  # fmt: skip
def test_a_proxy_that_refuses_is_named(status: str, user: str, saw: str, hint: str, asked: int) -> None:
    with proxy(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as (place, heads):
        session = open_session(RealTime(), {**KEYS, "https_proxy": f"http://{user}{place}"}, REGION)
        error = failure(AwsClient(session))
    assert error.code.name == "aws-unreachable"
    assert error.saw.startswith(saw.format(place=place, host=HOST))
    assert hint.format(host=HOST) in (error.hint or "")
    assert "p4ss" not in f"{error.saw} {error.hint}"
    assert len(heads) == asked
    assert heads[0].startswith(f"CONNECT {HOST}:443 ".encode())
    assert (b"Proxy-Authorization: Basic bWU6cDRzcw==" in heads[0]) is bool(user)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_proxy_s_refusal_leaves_no_connection_open(answer: bytes) -> None:
    with proxy(answer) as (place, _):
        session = open_session(RealTime(), {**KEYS, "https_proxy": f"http://{place}"}, REGION)
        gc.collect()
        gc.disable()
        try:
            failure(AwsClient(session))
            connections = psutil.Process().net_connections("tcp")
            assert [each for each in connections if ":".join(map(str, each.raddr)) == place] == []
        finally:
            gc.enable()


def test_an_endpoint_behind_a_proxy_that_closes_names_the_vpc_endpoint_service() -> None:
    with proxy(b"") as (place, _):
        session = open_session(RealTime(), {**KEYS, "https_proxy": f"http://{place}"}, REGION)
        error = failure(AwsClient(session))
    assert error.code.name == "aws-unreachable"
    assert "com.amazonaws.eu-central-1.cloudhsmv2" in (error.hint or "")


@pytest.mark.parametrize(
    "environ", [{"https_proxy": "socks5://127.0.0.1:1"}, {"AWS_CA_BUNDLE": "/etc/hostname"}]
)
def test_a_variable_that_cannot_be_used_is_named(environ: dict[str, str]) -> None:
    session = open_session(RealTime(), {**KEYS, "https_proxy": "http://127.0.0.1:1", **environ}, REGION)
    error = failure(AwsClient(session))
    assert error.code.name == "aws-unreachable"
    assert next(iter(environ)) in error.saw


# --- TLS, direct and through proxies


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """Return what a server of the endpoint's name shows, and the file that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=aws", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1", "-keyout", str(key), "-out", str(cert),
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, str(cert)


def test_tls_is_verified_by_the_bundle_that_is_named(certificate: tuple[ssl.SSLContext, str]) -> None:
    context, file = certificate
    with receiver(answers(CLUSTERS), context=context) as double:
        environ = {**KEYS, "AWS_ENDPOINT_URL": f"https://127.0.0.1:{double.server_port}"}
        trusting = AwsClient(open_session(RealTime(), {**environ, "AWS_CA_BUNDLE": file}, REGION))
        assert trusting.call(DESCRIBE_CLUSTERS, {}) == CLUSTERS
        error = failure(AwsClient(open_session(RealTime(), environ, REGION)))
    assert error.code.name == "aws-unreachable"
    assert "certificate" in error.saw
    assert "AWS_CA_BUNDLE" in (error.hint or "")


@contextmanager
def tunnel(goal: int, context: ssl.SSLContext | None) -> Iterator[str]:
    """Yield the address of a proxy that connects to this port of the loopback, whatever name it is given."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def work() -> None:
        connection, _ = server.accept()
        with context.wrap_socket(connection, server_side=True) if context else connection as near:
            assert near.recv(4096).startswith(f"CONNECT {HOST}:443 ".encode())
            near.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            with socket.create_connection(("127.0.0.1", goal)) as far:
                back = threading.Thread(target=pump, args=(far, near))
                back.start()
                pump(near, far)
                far.shutdown(socket.SHUT_RDWR)
                back.join()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=work)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_endpoint_is_reached_through_a_proxy(
    scheme: str, certificate: tuple[ssl.SSLContext, str]
) -> None:
    context, file = certificate
    with (
        receiver(answers(CLUSTERS), context=context) as double,
        tunnel(double.server_port, context if scheme == "https" else None) as place,
    ):
        environ = {**KEYS, "AWS_CA_BUNDLE": file, "https_proxy": f"{scheme}://{place}"}
        assert AwsClient(open_session(RealTime(), environ, REGION)).call(DESCRIBE_CLUSTERS, {}) == CLUSTERS
    ((_, headers),) = double.requests
    assert headers["host"] == HOST
