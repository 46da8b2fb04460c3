"""A person's credentials: real botocore over real files, programs and servers on the loopback, with our own client behind."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.aws.access import AwsAccess
from agent.aws.operations import DESCRIBE_CLUSTERS
from agent.aws.operator import OperatorCredentials, operator_access
from agent.core.errors import AgentError
from agent.hosts.local import local_host
from tests.fakes.aws import KEYS, SECRET, RealTime, answers, says
from tests.fakes.aws_cluster import seed_aws_cluster
from tests.fakes.imds import CREDENTIALS, imds
from tests.fakes.moto_server import CLUSTER, REGION, client, enforced, moto_server
from tests.fakes.receiver import receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.aws.sigv4 import Credentials
    from agent.core.host import HostView

pytest.importorskip("botocore")

ROOT = Path(__file__).parents[2]
PROFILE_SECRET = "pr0file/s3cret"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write `~/.aws/config` of a person who has nothing else of AWS."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    file = tmp_path / ".aws" / "config"

    def write(text: str) -> None:
        file.write_text(text, encoding="utf-8")

    return write


@pytest.fixture(autouse=True)
def no_secret_is_logged_by_us(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG, logger="agent")
    yield
    assert not any(secret in caplog.text for secret in (SECRET, PROFILE_SECRET, CREDENTIALS["Token"]))


def access(profile: str | None = None, view: HostView | None = None, **more: Any) -> AwsAccess:
    return operator_access(view or RealTime(), os.environ, profile=profile, **more)


def found(profile: str | None = None) -> Credentials:
    return access(profile, region=REGION).client.session.credentials()


def failure(profile: str | None = None, view: HostView | None = None, **more: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        access(profile, view, region=REGION, **more).client.session.credentials()
    said = f"{caught.value} {caught.value.saw} {caught.value.hint} {caught.value.__cause__!r}"
    assert PROFILE_SECRET not in said
    return caught.value


STATIC = f"""
[profile static]
region = ap-southeast-2
aws_access_key_id = AKIAPROFILE
aws_secret_access_key = {PROFILE_SECRET}
"""


def test_a_profile_that_is_named_counts_more_than_the_environment(
    config: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config(STATIC)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    named = found("static")
    assert (named.id, named.secret, named.token) == ("AKIAPROFILE", PROFILE_SECRET, None)
    assert found().secret == SECRET


def test_the_region_is_the_option_s_the_variables_or_the_profile_s(
    config: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config(STATIC)
    assert access("static").client.session.region == "ap-southeast-2"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert access("static").client.session.region == "eu-west-1"
    assert access("static", region="eu-west-3").client.session.region == "eu-west-3"


def test_a_profile_without_a_region_guesses_none(config: Callable[[str], None]) -> None:
    config("[profile bare]\noutput = json\n")
    with pytest.raises(AgentError) as caught:
        _ = access("bare").client
    assert caught.value.code.name == "aws-region-unknown"


def test_a_role_is_assumed_and_asks_aws_through_our_own_client(
    config: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto_server() as url:
        seed_aws_cluster(url)
        iam = client(url, "iam")
        trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=document)["Role"]["Arn"]
        iam.put_role_policy(
            RoleName="reader", PolicyName="reader", PolicyDocument=policy("cloudhsm:DescribeClusters")
        )
        iam.create_user(UserName="person")
        iam.put_user_policy(UserName="person", PolicyName="person", PolicyDocument=policy("sts:AssumeRole"))
        key = iam.create_access_key(UserName="person")["AccessKey"]
        config(
            f"[profile person]\naws_access_key_id = {key['AccessKeyId']}\n"
            f"aws_secret_access_key = {key['SecretAccessKey']}\n"
            f"[profile reader]\nrole_arn = {role}\nsource_profile = person\n"
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with enforced(url):
            (page,) = access("reader", region=REGION).client.pages(DESCRIBE_CLUSTERS, {})
            assert [each["ClusterId"] for each in page["Clusters"]] == [CLUSTER]
            with pytest.raises(AgentError) as caught:
                access("person", region=REGION).client.call(DESCRIBE_CLUSTERS, {})
        assert caught.value.code.name == "aws-denied"


def policy(action: str) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_a_role_that_may_not_be_assumed_names_the_action(
    config: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config(f"{STATIC}[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = static\n")
    refusal = (
        "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>"
    )
    with receiver(says(refusal, 403)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_port}")
        error = failure("role")
    assert error.code.name == "aws-denied"
    assert "sts:AssumeRole" in error.sentence
    assert "not you" in error.saw
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    assert failure("role").code.name == "aws-unreachable"


def program(folder: Path, text: str) -> str:
    file = folder / "credentials"
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)
    return f"[default]\ncredential_process = {file}\n"


def test_a_program_gives_credentials_and_is_asked_again_when_aws_calls_them_expired(
    config: Callable[[str], None], tmp_path: Path
) -> None:
    given = {"Version": 1, "AccessKeyId": "ASIA1", "SecretAccessKey": PROFILE_SECRET, "SessionToken": "t"}
    config(program(tmp_path, f"echo x >>{tmp_path}/asked; echo '{json.dumps(given)}'"))
    session = access(region=REGION).client.session
    assert (session.credentials().id, session.credentials().token) == ("ASIA1", "t")
    assert session.renew()
    assert session.credentials().secret == PROFILE_SECRET
    assert (tmp_path / "asked").read_text() == "x\n" * 2


def test_what_one_region_found_is_used_in_others(config: Callable[[str], None], tmp_path: Path) -> None:
    given = {"Version": 1, "AccessKeyId": "ASIA1", "SecretAccessKey": PROFILE_SECRET}
    config(program(tmp_path, f"echo x >>{tmp_path}/asked; echo '{json.dumps(given)}'"))
    person = OperatorCredentials(RealTime(), os.environ)
    for region in (REGION, "eu-west-1"):
        client = AwsAccess(RealTime(), os.environ, region, person).client
        assert client.session.credentials().id == "ASIA1"
    assert (tmp_path / "asked").read_text() == "x\n"


@pytest.mark.parametrize(
    ("text", "saw"),
    [
        ("echo no session >&2; exit 3", "no session"),
        ("echo '{'", "JSONDecodeError"),
        ("echo '{\"Version\": 2}'", "Unsupported version"),
    ],
)
def test_a_program_that_gives_none_is_quoted(
    config: Callable[[str], None], tmp_path: Path, text: str, saw: str
) -> None:
    config(program(tmp_path, text))
    error = failure()
    assert error.code.name == "aws-no-credentials"
    assert saw in error.saw


class Hurried(RealTime):
    """Its minutes pass at each look at the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.looks * 60.0


def test_a_program_that_never_ends_is_not_waited_for(config: Callable[[str], None], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    config(program(tmp_path, f"exec cat {tmp_path}/never"))
    error = failure(view=Hurried())
    assert (error.code.name, error.saw) == ("aws-no-credentials", "the profile gave none within 120 s")
    (tmp_path / "never").write_text("")  # ends the program


# botocore chooses the folder of its tokens when it is imported, so that a home of a test's own takes a process
_WITH = """
import os, sys
from agent.aws.operator import operator_access
from agent.core.errors import AgentError
from agent.hosts.local import local_host
try:
    found = operator_access(local_host(), os.environ, "eu-central-1", *sys.argv[1:]).client.session.credentials()
    print(found.id)
except AgentError as error:
    print(error.code.name, error.hint)
"""
_WITHOUT = f"""
import sys
sys.modules["botocore"] = sys.modules["botocore.config"] = None
{_WITH}"""


def in_a_process(code: str, *argv: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def sso(folder: Path, expires: str) -> str:
    start = "https://example.awsapps.com/start"
    cache = folder / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    token = {"startUrl": start, "region": REGION, "accessToken": "s3cr3t-token", "expiresAt": expires}
    (cache / f"{hashlib.sha1(start.encode()).hexdigest()}.json").write_text(json.dumps(token))
    return (
        f"[profile sso]\nsso_start_url = {start}\nsso_region = {REGION}\nsso_account_id = 123456789012\n"
        "sso_role_name = reader\n"
    )


def test_single_sign_on_gives_the_credentials_of_its_role(
    config: Callable[[str], None], tmp_path: Path
) -> None:
    config(sso(tmp_path, "2099-01-01T00:00:00Z"))
    role = {
        "accessKeyId": "ASIASSO",
        "secretAccessKey": PROFILE_SECRET,
        "sessionToken": "t",
        "expiration": 4070908800000,
    }
    with receiver(answers({"roleCredentials": role})) as server:
        place = f"http://127.0.0.1:{server.server_port}"
        assert in_a_process(_WITH, "sso", AWS_ENDPOINT_URL_SSO=place) == "ASIASSO"


def test_a_session_of_single_sign_on_that_ended_says_how_to_log_in(
    config: Callable[[str], None], tmp_path: Path
) -> None:
    config(sso(tmp_path, "2020-01-01T00:00:00Z"))
    said = in_a_process(_WITH, "sso")
    assert said == "aws-no-credentials log in again: `aws sso login --profile sso`"


def test_a_profile_that_is_not_there_is_answered_with_those_that_are(config: Callable[[str], None]) -> None:
    config(STATIC)
    error = failure("statik")
    assert error.code.name == "aws-no-credentials"
    assert "statik" in error.sentence
    assert error.saw == "profiles: static"


@pytest.mark.parametrize(
    "text",
    [
        "[profile own",
        "[profile own]\ncredential_process = false\n",
        "[profile own]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = own\n",
        "[profile own]\naws_access_key_id = AKIAOWN\n",
    ],
    ids=["no file of profiles", "a program that fails", "a circle", "half a key"],
)
def test_a_profile_that_fails_is_what_to_correct(config: Callable[[str], None], text: str) -> None:
    """An instance's role, of which the table of codes speaks, would not help whoever names a profile."""
    config(text)
    error = failure("own")
    assert error.code.name == "aws-no-credentials"
    assert error.hint.startswith("correct the profile: `aws sts get-caller-identity --profile own`")


def test_a_second_factor_is_asked_for_on_a_terminal_alone(config: Callable[[str], None]) -> None:
    config(
        f"{STATIC}mfa_serial = arn:aws:iam::1:mfa/p\n[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = static\n"
    )
    error = failure("role")
    assert error.code.name == "aws-no-credentials"
    assert "second factor" in error.saw
    assert "--profile role" in error.hint


def test_the_metadata_service_is_never_asked_through_a_proxy(
    config: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config("[profile role]\nrole_arn = arn:aws:iam::1:role/r\ncredential_source = Ec2InstanceMetadata\n")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with imds(role="host") as service, receiver(says("{}")) as proxy:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        assert found().id == CREDENTIALS["AccessKeyId"]
        error = failure("role")
        assert error.code.name == "aws-no-credentials"
        assert "NO_PROXY" in error.hint
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("argv", "environ"),
    [(("static",), {}), ((), {"AWS_PROFILE": "static"}), (("static",), KEYS), ((), {})],
    ids=["option", "variable", "option and keys", "nothing"],
)
def test_without_the_extra_a_profile_is_answered_with_its_name(
    config: Callable[[str], None], argv: tuple[str, ...], environ: dict[str, str]
) -> None:
    config(STATIC)
    said = in_a_process(_WITHOUT, *argv, **environ)
    assert said.startswith("aws-no-credentials ")
    assert "pip install 'hsm-agent[aws]'" in said


def test_without_the_extra_the_environment_s_credentials_are_used(config: Callable[[str], None]) -> None:
    config(STATIC)
    assert in_a_process(_WITHOUT, **KEYS) == KEYS["AWS_ACCESS_KEY_ID"]


def test_what_is_in_the_environment_costs_no_import_of_botocore(config: Callable[[str], None]) -> None:
    code = f"{_WITH}\nprint('botocore' in sys.modules)"
    assert in_a_process(code, **KEYS).split() == [KEYS["AWS_ACCESS_KEY_ID"], "False"]


def test_an_interrupt_ends_the_wait(config: Callable[[str], None], tmp_path: Path) -> None:
    import threading

    os.mkfifo(tmp_path / "never")
    config(program(tmp_path, f"exec cat {tmp_path}/never"))
    stop = threading.Event()
    stop.set()
    assert failure(view=local_host(stop)).code.name == "interrupted"
    (tmp_path / "never").write_text("")  # ends the program
