"""SSH over a real network: two jump hosts in a row, what firewalls do, a host that stops, and the watchdog's cut."""

from __future__ import annotations

import socket
import sys
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Callable

import pytest

from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.ssh.config import SshConfig
from agent.ssh.connection import (
    ConnectionLostError,
    SocketCancelToken,
    SshChannel,
    SshConnection,
    SshTimeouts,
    connect,
)
from agent.ssh.identities import IdentityStore
from agent.ssh.known_hosts import KnownHosts
from agent.ssh.login_limit import LoginLimiter
from tests.sshd import run
from tests.threads import InThread, assert_cut, nothing_left

from .kernel import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab
    from .network import Place


@dataclass(frozen=True)
class Ground:
    """An operator, two jump hosts, a target that is known by an alias, and ssh's configuration for all of them."""

    lab: Lab
    folder: Path
    outer: LabHost
    inner: LabHost
    target: LabHost

    def config(self, *lines: str) -> SshConfig:
        """The user's configuration in two files; `lines` come first in it."""
        (self.folder / "conf.d").mkdir(exist_ok=True)
        (self.folder / "conf.d/hosts").write_text(
            f"Host outer\n  HostName {self.outer.ip}\n  ProxyJump none\n"
            f"Host inner\n  HostName {self.inner.ip}\n  ProxyJump outer\n"
            f"Host web-*\n  HostName {self.target.ip}\n  ProxyJump inner\n"
            f"Host direct\n  HostName {self.target.ip}\n"
        )
        path = self.folder / "config"
        path.write_text(
            "\n".join(lines) + f"\nHost *\n  User ec2-user\n  IdentityFile {self.lab.ssh_key}\n"
            "  IdentityAgent none\n  GlobalKnownHostsFile none\n  ConnectTimeout 2\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\nInclude {self.folder}/conf.d/*\n"
        )
        return SshConfig.read(path)

    def trust(self) -> None:
        lines = [
            f"{host.ip} {host.get('/etc/ssh/ssh_host_ed25519_key.pub').decode()}"
            for host in (self.outer, self.inner, self.target)
        ]
        (self.folder / "known_hosts").write_text("".join(lines))

    def seated(self, act: Callable[[], object]) -> InThread:
        """Do it at the operator's seat: this process stays where it is, one thread of it goes."""
        return InThread(act, self.lab.operator.net.file)

    def connect(
        self,
        name: str,
        *lines: str,
        cancel_token: SocketCancelToken | None = None,
        gate: LoginLimiter | None = None,
        patience: SshTimeouts | None = None,
    ) -> SshConnection:
        return connect(
            self.config(*lines).route(Target(name, name)),
            known=KnownHosts(),
            identity_store=IdentityStore(),
            trust_new=False,
            cancel_token=cancel_token or SocketCancelToken(),
            login_limiter=gate or LoginLimiter(),
            timeouts=patience or SshTimeouts(),
        )

    def cause(self, name: str, *lines: str, patience: SshTimeouts | None = None) -> AgentError:
        """The error of a connection that must fail."""
        waiting = self.seated(lambda: self.connect(name, *lines, patience=patience).close())
        error = waiting.ended(15)
        assert isinstance(error, AgentError), repr(error)
        return error


@pytest.fixture(scope="module")
def whole(lab: Lab, make_shared_host: MakeHost, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    outer, inner, target = (make_shared_host("ubuntu22.04") for _ in range(3))
    return Ground(lab, tmp_path_factory.mktemp("ssh"), outer, inner, target)


@pytest.fixture
def ground(whole: Ground) -> Iterator[Ground]:
    whole.trust()
    with nothing_left():
        yield whole
    for host in (whole.outer, whole.inner, whole.target):
        host.run(["pkill", "-CONT", "sshd"])
        host.seat.faults.clear()


def test_two_jump_hosts_an_alias_a_wildcard_and_an_include(ground: Ground) -> None:
    def work() -> tuple[object, ...]:
        with ground.connect("web-1") as link:
            user, name, *connection = run(link, "id -u; cat /etc/hostname; echo $SSH_CONNECTION").out.split()
            return user != b"0", name.decode(), connection[0].decode()

    waiting = ground.seated(work)
    assert waiting.ended() is None
    assert waiting.returned == (True, ground.target.name, ground.inner.ip)


def test_8_mb_on_both_outputs_through_two_jump_hosts(ground: Ground) -> None:
    def work() -> tuple[object, ...]:
        script = "head -c 8000000 /dev/zero >&2 & head -c 8000000 /dev/zero; wait"
        with ground.connect("web-1") as link, link.open_command(script) as talk:
            talk.close_stdin()
            return sum(len(piece) for piece in iter(talk.receive, b"")), talk.status(), len(talk.errors())

    waiting = ground.seated(work)
    assert waiting.ended(40) is None
    assert waiting.returned == (8_000_000, 0, 64 * 1024)


def test_thirty_two_at_once_behind_one_bastion_are_not_dropped(ground: Ground) -> None:
    """With sshd's own MaxStartups, which drops at random from the 11th on that is not logged in."""
    ground.outer.must(
        ["/usr/sbin/sshd", "-p", "2222", "-o", "MaxStartups=10:30:100", "-o", "PidFile=/run/second.pid"]
    )
    known = ground.folder / "known_hosts"
    known.write_text(f"{known.read_text()}[{ground.outer.ip}]:2222 {known.read_text().split(' ', 1)[1]}")
    route = ground.config("Host outer", "  Port 2222").route(Target("web-1", "web-1"))
    shared, identity_store, gate = KnownHosts(), IdentityStore(), LoginLimiter()

    def work() -> int | None:
        with connect(
            route,
            known=shared,
            identity_store=identity_store,
            trust_new=False,
            cancel_token=SocketCancelToken(),
            login_limiter=gate,
        ) as link:
            return run(link, "exit 3").status

    try:
        waiting = [ground.seated(work) for _ in range(32)]
        assert [each.ended(60) for each in waiting] == [None] * 32
        assert [each.returned for each in waiting] == [3] * 32
    finally:
        ground.outer.must(["sh", "-c", "kill $(cat /run/second.pid)"])


# --- what is in the way, and at which host


def test_firewalls_and_routes_are_told_apart(ground: Ground) -> None:
    faults = ground.target.seat.faults
    for arrange, code in (
        (faults.drop, "ssh-timed-out"),
        (faults.reset, "ssh-refused"),
        (faults.unreachable, "ssh-no-route"),
        (faults.drop_after_connect, "ssh-timed-out"),
    ):
        arrange([22])
        error = ground.cause("direct", patience=SshTimeouts(banner=1, handshake=1))
        assert (error.code.name, ground.target.ip in error.sentence) == (code, True)
        faults.clear()
    operator = ground.lab.operator.faults
    for forbid in (operator.no_route, operator.prohibit, operator.black_hole):
        forbid(ground.target.ip)
        assert ground.cause("direct").code.name == "ssh-no-route"
        operator.clear()


def test_what_a_jump_host_meets_is_told_with_its_name(ground: Ground) -> None:
    inner = f"the jump host inner ({ground.inner.ip})"
    faults = ground.target.seat.faults
    for arrange, code in (
        (faults.reset, "ssh-refused"),
        (faults.unreachable, "ssh-no-route"),
        (faults.drop, "ssh-timed-out"),
    ):
        arrange([22])
        error = ground.cause("web-1")
        assert error.code.name == code, (error.sentence, error.saw)
        assert ground.target.ip in error.sentence
        faults.clear()
    error = ground.cause("web-1", "Host web-1", "  HostName no-such-host.invalid")
    assert (error.code.name, error.sentence) == (
        "host-name-unknown",
        f"{inner} cannot connect to no-such-host.invalid port 22",
    )
    error = ground.cause("web-1", "Host inner", "  User nobody-here")
    assert error.code.name == "login-refused"
    assert error.sentence == f"{inner} refuses the login"
    faults = ground.outer.seat.faults
    faults.drop([22])
    error = ground.cause("web-1")
    assert (error.code.name, error.sentence) == (
        "ssh-timed-out",
        f"the jump host outer ({ground.outer.ip}): {ground.outer.ip} port 22 did not answer",
    )


def test_a_jump_host_that_forwards_nothing_is_told(ground: Ground) -> None:
    ground.outer.must(
        ["/usr/sbin/sshd", "-p", "2223", "-o", "AllowTcpForwarding=no", "-o", "PidFile=/run/third.pid"]
    )
    try:
        key = ground.outer.get("/etc/ssh/ssh_host_ed25519_key.pub").decode()
        known = ground.folder / "known_hosts"
        known.write_text(f"{known.read_text()}[{ground.outer.ip}]:2223 {key}")
        error = ground.cause("web-1", "Host outer", "  Port 2223")
        assert error.code.name == "ssh-failed"
        assert "AllowTcpForwarding" in error.hint
        assert error.sentence.startswith("the jump host outer")
    finally:
        ground.outer.must(["sh", "-c", "kill $(cat /run/third.pid)"])


def test_a_changed_key_of_a_jump_host_is_told_with_its_name(ground: Ground) -> None:
    known = ground.folder / "known_hosts"
    known.write_text(
        known.read_text()
        .replace(f"{ground.target.ip} ", "x ")
        .replace(f"{ground.inner.ip} ", f"{ground.target.ip} ")
    )
    error = ground.cause("web-1")
    assert error.code.name == "host-key-unknown"
    assert error.sentence.startswith(f"the jump host inner ({ground.inner.ip}): ")
    error = ground.cause("direct")
    assert error.code.name == "host-key-changed"


# --- the watchdog


def test_a_cut_ends_what_waits_for_a_firewall(ground: Ground) -> None:
    operator = ground.lab.operator
    for name, host, knocks in (
        ("direct", ground.target, operator),
        ("web-1", ground.target, ground.inner),
        ("web-1", ground.inner, ground.outer),
    ):
        host.seat.faults.drop([22])
        cancel_token = SocketCancelToken()
        waiting = ground.seated(partial(ground.connect, name, "ConnectTimeout 60", cancel_token=cancel_token))
        until(partial(syn_sent, knocks, host.ip), "a connect to be under way")
        assert_cut(cancel_token, waiting)
        host.seat.faults.clear()


def syn_sent(place: Place | LabHost, ip: str) -> bool:
    """Whether a connect to port 22 there has no answer yet (state 02)."""
    wanted = f"{int.from_bytes(socket.inet_aton(ip), sys.byteorder):08X}:0016"
    rows = [line.split() for line in place.run(["cat", "/proc/net/tcp"]).stdout.splitlines()[1:]]
    return any(row[2:4] == [wanted, "02"] for row in rows)


@pytest.mark.parametrize("stopped", ["target", "inner", "outer"])
def test_a_cut_ends_a_command_whose_host_or_jump_host_is_stopped(ground: Ground, stopped: str) -> None:
    host: LabHost = getattr(ground, stopped)
    acts: tuple[tuple[str, Callable[[SshChannel], object]], ...] = (
        ("yes", drain),
        ("echo ready; sleep 60", drain),
        ("echo ready; sleep 60", lambda talk: talk.send(b"x" * 50_000_000)),
    )
    for command, act in acts:
        cancel_token, heard = SocketCancelToken(), threading.Event()

        def work(
            cancel_token: SocketCancelToken = cancel_token,
            heard: threading.Event = heard,
            command: str = command,
            act: Callable[[SshChannel], object] = act,
        ) -> None:
            with (
                ground.connect("web-1", cancel_token=cancel_token) as link,
                link.open_command(command) as talk,
            ):
                talk.receive()
                heard.set()
                act(talk)

        waiting = ground.seated(work)
        assert heard.wait(20)
        host.must(["pkill", "-STOP", "sshd"])
        assert_cut(cancel_token, waiting)
        host.must(["pkill", "-CONT", "sshd"])


def drain(talk: SshChannel) -> None:
    while talk.receive():
        pass


def test_a_cable_that_is_out_ends_by_the_cut(ground: Ground) -> None:
    cancel_token, heard = SocketCancelToken(), threading.Event()

    def work() -> None:
        with ground.connect("direct", cancel_token=cancel_token) as link, link.open_command("yes") as talk:
            talk.receive()
            heard.set()
            drain(talk)

    waiting = ground.seated(work)
    assert heard.wait(20)
    ground.target.seat.faults.unplug()
    assert_cut(cancel_token, waiting)


@pytest.mark.parametrize("name", ["direct", "web-1"])
def test_a_host_that_loses_its_sshd_is_a_lost_link(ground: Ground, name: str) -> None:
    heard = threading.Event()

    def work() -> None:
        with ground.connect(name) as link, link.open_command("echo ready; sleep 60") as talk:
            talk.receive()
            heard.set()
            drain(talk)

    waiting = ground.seated(work)
    assert heard.wait(20)
    ground.target.must(["pkill", "-KILL", "-u", "ec2-user", "sshd"])
    error = waiting.ended(10)
    assert isinstance(error, ConnectionLostError), repr(error)
