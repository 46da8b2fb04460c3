"""`--trust-console` over a real sshd: its host keys are taken from the console that moto shows for the instance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.aws.access import AwsAccess
from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.fleet.ec2_console import InstanceConsoles
from agent.ssh.connector import SshConnector
from agent.ssh.sockets import SocketCancelToken
from tests.fakes.aws import KEYS, RealTime
from tests.fakes.aws_cluster import seed_aws_cluster
from tests.fakes.moto_server import REGION, aws_server, policy, user_with
from tests.sshd import PROGRAM, Sshd, fingerprint, keygen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.fakes.aws_cluster import AwsCluster
    from tests.fakes.aws_server import AwsServer

pytest.importorskip("moto")
pytest.importorskip("flask")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no sshd")

ADDRESSES = iter(range(60, 250))


@pytest.fixture(scope="module")
def aws() -> Iterator[tuple[AwsServer, AwsCluster]]:
    with aws_server() as server:
        yield server, seed_aws_cluster(server.url)


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd(kinds=("ed25519", "ecdsa")) as running:
        yield running


@pytest.fixture
def target(aws: tuple[AwsServer, AwsCluster], server: Sshd) -> Target:
    """A new instance, of which the only known host is that at its address: nobody."""
    server.known.write_text("")
    made = aws[1].add_instance(f"10.77.20.{next(ADDRESSES)}", "console")
    aws[0].calls.clear()
    return Target(made.id, "box", instance_id=made.id, region=REGION)


def connect(
    aws: tuple[AwsServer, AwsCluster],
    server: Sshd,
    target: Target,
    keys: Mapping[str, str] = KEYS,
    *,
    trust_new: bool = False,
) -> str | None:
    """Connect with a new connector, and return what is trusted from now on."""
    environ = {**keys, "AWS_ENDPOINT_URL": aws[0].url}
    consoles = InstanceConsoles(lambda region: AwsAccess(RealTime(), environ, region))
    server.config()
    path = str(server.folder / "ssh_config")
    connector = SshConnector(path, trust_new=trust_new, host_keys=consoles.host_keys)
    with connector.open(target, SocketCancelToken()) as connection:
        return connection.trusted


def refused(aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target, **more: object) -> AgentError:
    before = server.known.read_text()
    with pytest.raises(AgentError) as caught:
        connect(aws, server, target, **more)  # type: ignore[arg-type]
    assert server.known.read_text() == before
    return caught.value


def console(*keys: Path) -> str:
    lines = "".join(Path(f"{each}.pub").read_text() for each in keys)
    text = f"boot\n-----BEGIN SSH HOST KEY KEYS-----\n{lines}-----END SSH HOST KEY KEYS-----\nlogin:\n"
    return text.replace("\n", "\r\n")


def test_the_keys_on_the_console_are_known_from_then_on(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target
) -> None:
    aws[1].put_console(target.name, console(*server.host_keys))
    trusted = connect(aws, server, target)
    assert trusted in [fingerprint(key) for key in server.host_keys]
    names = [line.split()[0] for line in server.known.read_text().splitlines()]
    assert names == [target.name]
    assert aws[0].permissions() == ["ec2:GetConsoleOutput"]
    # by the instance's id: whoever has the address next is another one
    assert connect(aws, server, target) is None
    assert len(aws[0].calls) == 1
    other = Target("i-0123456789abcdef9", "box", instance_id="i-0123456789abcdef9", region=REGION)
    assert refused(aws, server, other).code.name == "host-key-unknown"


def test_a_key_of_one_type_is_enough(aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target) -> None:
    aws[1].put_console(target.name, console(server.host_keys[1]))
    assert connect(aws, server, target) == fingerprint(server.host_keys[1])


def test_an_address_that_was_another_instances_is_no_obstacle(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target
) -> None:
    old = keygen(server.folder / f"old-{target.name}")
    server.known.write_text(f"[127.0.0.1]:{server.port} {Path(f'{old}.pub').read_text()}")
    aws[1].put_console(target.name, console(*server.host_keys))
    assert connect(aws, server, target) is not None
    assert connect(aws, server, target) is None


def test_a_host_whose_key_is_known_needs_no_console(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target
) -> None:
    server.trust()
    assert connect(aws, server, target) is None
    assert aws[0].calls == []


def test_keys_of_another_boot_are_a_failure_that_shows_both(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target
) -> None:
    old = keygen(server.folder / f"boot-{target.name}")
    aws[1].put_console(target.name, console(old))
    error = refused(aws, server, target)
    assert error.code.name == "host-key-unknown"
    assert f"the console of {target.name} shows {fingerprint(old)}" in str(error.saw)


def test_a_key_that_changed_on_an_instance_stays_a_failure(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target
) -> None:
    old = keygen(server.folder / f"before-{target.name}")
    server.known.write_text(f"{target.name} {Path(f'{old}.pub').read_text()}")
    aws[1].put_console(target.name, console(*server.host_keys))
    for trust_new in (False, True):
        assert refused(aws, server, target, trust_new=trust_new).code.name == "host-key-changed"


def test_a_revoked_key_is_refused_whatever_the_console_shows(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target
) -> None:
    server.known.write_text(
        "".join(f"@revoked * {Path(f'{key}.pub').read_text()}" for key in server.host_keys)
    )
    aws[1].put_console(target.name, console(*server.host_keys))
    assert "revoked" in refused(aws, server, target).sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing is there yet: EC2 posts it some minutes after the boot"),
        ("login:\n", "has no host keys: cloud-init prints them once"),
        (
            "-----BEGIN SSH HOST KEY KEYS-----\nssh-ed25519 AAAA[ 1.2] x\n",
            "has no whole key: 1 of them cut by other lines",
        ),
    ],
)
def test_what_is_not_there_is_a_failure_with_the_reason(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target, text: str, words: str
) -> None:
    aws[1].put_console(target.name, text)
    error = refused(aws, server, target)
    assert (error.code.name, words in str(error.saw)) == ("host-key-unknown", True), error.saw
    # what was posted first, and what Nitro has now
    assert [call.params.get("Latest") for call in aws[0].calls[:2]] == [None, "true"]


def test_windows_and_hosts_of_another_inventory_have_no_console(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target
) -> None:
    windows = Target("win", "box", instance_id=target.name, region=REGION, system="windows")
    assert "Windows prints no host keys" in str(refused(aws, server, windows).saw)
    assert "no instance of an EC2 inventory" in str(refused(aws, server, Target("box", "box")).saw)
    assert aws[0].calls == []


def test_a_denied_console_is_a_reason_and_new_keys_may_be_trusted_all_the_same(
    aws: tuple[AwsServer, AwsCluster], server: Sshd, target: Target
) -> None:
    keys = user_with(aws[0].url, policy("ec2:DescribeInstances"))
    with aws[0].enforcing():
        error = refused(aws, server, target, keys=keys)
        assert "AWS denies ec2:GetConsoleOutput" in str(error.saw)
        assert connect(aws, server, target, keys, trust_new=True) is not None
