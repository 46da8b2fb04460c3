"""ssh's files as values: what is refused in a configuration, how jumps are written, and lines that are none."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.ssh.config import Hop, SshConfig
from agent.ssh.connector import SshConnector
from agent.ssh.known_hosts import HostKey, KnownHostsEntry, parse
from agent.ssh.openssh import SshProgram, SshQuery
from agent.ssh.operator import Operator

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="this machine has no OpenSSH client")

BOX = Target("box", "box")


def written(folder: Path, text: str) -> SshConfig:
    path = folder / "config"
    path.write_text(text)
    return SshConfig.read(path)


def complaint(folder: Path, text: str, target: Target = BOX) -> str:
    with pytest.raises(AgentError) as caught:
        written(folder, text).route(target)
    assert caught.value.code.name == "config-invalid"
    return caught.value.saw


@pytest.mark.parametrize(
    ("text", "saw"),
    [
        ("Port many", "Bad port"),
        ("Port 0", "Bad port"),
        ("Port 70000", "Bad port"),
        ("Match nonsense x\nPort 1", "Unsupported Match attribute"),
        ("Match host", "config line 1"),
        ('IdentityFile "x', "config line 1"),
        ("%%% x", "Bad configuration option: %%%"),
        ("ProxyJump a@b@c:x:y", "config line 1"),
        ("Host a\nProxyJump b\nHost b\nProxyJump a\nHost *\nProxyJump a", "in a circle: box > a > b > a"),
        ("ProxyJump box", "jumphost loop via box"),
        (f"Host box\nProxyJump {','.join(f'h{number}' for number in range(9))}\n", "more than 8 hosts"),
        ("ConnectTimeout soon", "invalid time value"),
        ("UserKnownHostsFile ${NO_SUCH_VARIABLE}/x", "NO_SUCH_VARIABLE"),
        ("IdentityFile ${NO_SUCH_VARIABLE}/x", "${NO_SUCH_VARIABLE} has no value"),
        ("IdentityFile /x-%Z", "%Z has no value"),
        ("IdentityFile /x-%", "% has no value"),
        ("IdentityFile ~no-such-user-here/x", "no-such-user-here"),
        ("ProxyCommand nc %h %d", "%d has no value"),
        ("Host box\n  Include {folder}/config", "recursive"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, text: str, saw: str) -> None:
    assert saw in complaint(tmp_path, text.replace("{folder}", str(tmp_path)))


@pytest.mark.parametrize(
    "line",
    [
        "KnownHostsCommand /bin/true %H",
        "RevokedHostKeys /etc/ssh/revoked",
        "PKCS11Provider /usr/lib/softhsm.so",
        "BindInterface lo",
        "ProxyUseFdpass yes",
        "PubkeyAuthentication no",
        "PreferredAuthentications password,keyboard-interactive",
        "ProxyCommand -",
    ],
)
def test_what_is_not_understood_and_changes_the_way_or_the_login_is_refused_by_name(
    tmp_path: Path, line: str
) -> None:
    keyword = line.split(maxsplit=1)[0].lower()
    assert keyword in complaint(tmp_path, line)
    jumped = f"Host box\nProxyJump via\nHost via\n{line}\n"  # at a jump host just as well
    assert keyword in complaint(tmp_path, jumped)


def test_a_connection_that_the_configuration_itself_forbids_is_not_made(tmp_path: Path) -> None:
    """RefuseConnection, which OpenSSH 10 knows: `ssh -G` prints it as any other."""
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\n{shutil.which("ssh")} "$@" && echo "refuseconnection use the bastion"\n')
    program.chmod(0o755)
    file = tmp_path / "config"
    file.write_text("")
    config = SshConfig.read(file, {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    with pytest.raises(AgentError) as caught:
        config.route(Target("box", "box"))
    assert "use the bastion" in caught.value.saw


def test_the_words_of_ssh_cannot_drive_a_terminal(tmp_path: Path) -> None:
    told = complaint(tmp_path, "Strange\x1b[31mword yes")
    assert told.isprintable()
    assert "strange" in told


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        SshConfig.read(tmp_path / "none")
    assert (caught.value.code.name, "no such file" in caught.value.saw) == ("config-invalid", True)
    with pytest.raises(AgentError) as caught:
        SshConfig.read(tmp_path)
    assert caught.value.code.name == "unreadable"


@pytest.mark.parametrize("name", ["/dev/null", "none"])
def test_no_configuration_at_all_can_be_named_as_for_ssh(name: str) -> None:
    hop = SshConfig.read(Path(name)).route(Target("box", "box", user="me")).target
    assert (hop.host, hop.port, hop.user) == ("box", 22, "me")


def test_a_configuration_without_ssh_to_read_it_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("Host box\n  HostName 192.0.2.7\n")
    with pytest.raises(AgentError) as caught:
        SshConfig.read(path, {"PATH": str(tmp_path)})
    assert caught.value.code.name == "config-invalid"
    assert str(path) in caught.value.sentence


def test_without_any_configuration_the_defaults_hold(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_rsa").write_text("")
    operator = Operator(1000, "me", tmp_path, {"SSH_AUTH_SOCK": "/run/agent"})
    target = Target("x", "box", port=7, key="~/my key", jump="you@one:2,two")
    first, second, last = SshConfig(operator, None).route(target).hops
    assert [(hop.host, hop.port, hop.user, hop.keys) for hop in (first, second)] == [
        ("one", 2, "you", (f"{tmp_path}/.ssh/id_rsa",)),
        ("two", 22, "me", (f"{tmp_path}/.ssh/id_rsa",)),
    ]
    assert (last.host, last.port, last.user, last.keys, last.agent) == (
        "box", 7, "me", (f"{tmp_path}/my key",), "/run/agent",
    )  # fmt: skip
    assert last.known_hosts == (f"{tmp_path}/.ssh/known_hosts", f"{tmp_path}/.ssh/known_hosts2")


def test_somebody_whom_no_database_knows_says_who_logs_in(tmp_path: Path) -> None:
    config = SshConfig(Operator(4242, None, tmp_path, {}), None)
    with pytest.raises(AgentError) as caught:
        config.route(BOX)
    assert (caught.value.code.name, "4242" in caught.value.saw) == ("config-invalid", True)
    assert config.route(Target("box", "box", user="me")).target.user == "me"
    assert Operator.of_this_process({}).home == Path(pwd.getpwuid(os.getuid()).pw_dir)


@pytest.mark.parametrize("value", ["x\nProxyCommand touch /tmp/y", 'x" y', "x\0"])
def test_the_inventory_cannot_write_into_the_configuration(tmp_path: Path, value: str) -> None:
    for target in (replace(BOX, user=value), replace(BOX, key=value), replace(BOX, jump=value)):
        assert repr(value) in complaint(tmp_path, "", target)


def test_an_option_is_no_name(tmp_path: Path) -> None:
    for target in (Target("x", "-oProxyCommand=x"), Target("x", "box", user="-oProxyCommand=x")):
        complaint(tmp_path, "User me\n", target)


@pytest.mark.parametrize(
    ("jump", "hops"),
    [
        ("one", [("one", 22, "me")]),
        ("you@one:2200", [("one", 2200, "you")]),
        ("[fd00::1]", [("fd00::1", 22, "me")]),
        ("[fd00::1]:2200", [("fd00::1", 2200, "me")]),
        ("one, two:3", [("one", 22, "me"), ("two", 3, "me")]),
        ("you@realm@one", [("one", 22, "you@realm")]),
        ("none", []),
        ("box", [("configured", 22, "me")]),
        ("one,box", [("one", 22, "me")]),
        ("you@box", [("configured", 22, "me"), ("box", 22, "you")]),
        ("box:2200", [("configured", 22, "me"), ("box", 2200, "me")]),
    ],
)
def test_jumps_as_people_write_them(tmp_path: Path, jump: str, hops: list[tuple[str, int, str]]) -> None:
    """A host of a group may be the group's own jump host: ssh itself calls that a loop."""
    config = written(tmp_path, "User me\nHost box\nProxyJump configured\n")
    route = config.route(Target("box", "box", jump=jump))
    assert [(hop.host, hop.port, hop.user) for hop in route.hops[:-1]] == hops
    assert route.target.name == "box"


def test_a_key_may_be_named_after_the_jump_host(tmp_path: Path) -> None:
    """%j, which OpenSSH has since 9.6."""
    config = written(
        tmp_path, "User me\nHost box\nProxyJump first,you@gate:2200\nHost box plain\nIdentityFile /k/%j\n"
    )
    keys = {name: config.route(Target(name, name)).target.keys for name in ("box", "plain")}
    assert keys == {"box": ("/k/gate",), "plain": ("/k/",)}


def test_the_jumps_of_a_jump_host_are_those_that_ssh_takes(tmp_path: Path) -> None:
    config = written(
        tmp_path,
        "Host last\nProxyJump one,two\nHost two\nProxyJump not-this\nPort 2\nHost one\nProxyJump first\n"
        "Host first\nProxyCommand true %h\nHost *\nUser me\n",
    )
    hops = config.route(Target("last", "last")).hops
    assert [hop.name for hop in hops] == ["first", "one", "two", "last"]
    assert [hop.proxy_command for hop in hops] == ["true first", None, None, None]


def test_the_first_of_jump_and_command_wins(tmp_path: Path) -> None:
    command = "ProxyCommand nc %h %p as %r\n"
    route = written(tmp_path, f"Port 7\n{command}ProxyJump one\n").route(Target("box", "box", user="me"))
    assert [hop.proxy_command for hop in route.hops] == ["nc box 7 as me"]
    route = written(tmp_path, f"Host box\nProxyJump one\nHost *\n{command}").route(BOX)
    assert [hop.proxy_command is None for hop in route.hops] == [False, True]  # the way to the jump host
    route = written(tmp_path, "ProxyCommand none\nProxyJump one\n").route(BOX)
    assert [(hop.name, hop.proxy_command) for hop in route.hops] == [("box", None)]


def test_a_proxy_command_is_given_names_only(tmp_path: Path) -> None:
    route = written(tmp_path, "ProxyCommand run %n 100%% of %h:%p\nHostName %h.example\n").route(BOX)
    assert route.target.proxy_command == "run box 100% of box.example:22"
    for target in (Target("x", "box;reboot"), Target("x", "box", user="$(id)")):
        complaint(tmp_path, "ProxyCommand run %h %r", target)
    assert written(tmp_path, "").route(Target("x", "box", user="a b")).target.user == "a b"


def test_a_match_that_runs_a_program_runs_it_once_and_leaves_what_it_left(tmp_path: Path) -> None:
    """As a helper that opens a tunnel does: ssh goes on at once, and the tunnel stays."""
    config = written(
        tmp_path,
        f'Match originalhost box exec "echo x >>{tmp_path}/count; sleep 25 & echo $! >{tmp_path}/pid; true"\n'
        "  HostName 192.0.2.7\n",
    )
    start = time.monotonic()
    assert [config.route(BOX).target.host for _ in range(3)] == ["192.0.2.7"] * 3
    assert time.monotonic() - start < 20
    assert (tmp_path / "count").read_text() == "x\n"
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_match_that_hangs_is_bounded_and_killed_with_its_children(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(f'Match exec "sleep 300 & echo $! >{tmp_path}/pid; wait"\n  User x\n')
    client = SshProgram("ssh", path, os.environ, str(tmp_path), limit=0.5)
    with pytest.raises(AgentError) as caught:
        client.ask(SshQuery("box"), lambda: False)
    assert (caught.value.code.name, "Match exec" in caught.value.saw) == ("config-invalid", True)
    # one that has ended may still wait for its parent
    state = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] in ("Z", "X")


def test_an_interrupt_ends_the_questions_to_ssh(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text('Match exec "sleep 300"\n  User x\n')
    door = SshConnector(str(path), trust_new=False)
    with pytest.raises(AgentError) as caught:
        door.endpoints([Target(f"web{number}", f"web{number}") for number in range(100)], lambda: True)
    assert caught.value.code.name == "interrupted"


TWINS = """
Host a
  HostName 192.0.2.7
Host b
  HostName 192.0.2.7
  User other
Host six
  HostName fd00:0::7
Host six-again
  HostName fd00::7
Host inside
  HostName 192.0.2.7
  ProxyJump bastion
Host inside-again
  HostName 192.0.2.7
  ProxyJump 192.0.2.1
Host bastion
  HostName 192.0.2.1
Host other-port
  HostName 192.0.2.7
  Port 23
Host tunnel-*
  HostName 127.0.0.1
  ProxyCommand true %n
"""


@pytest.mark.parametrize(
    ("names", "are_one"),
    [
        ("a b", True),
        ("a 192.0.2.7", True),
        ("six six-again", True),
        ("inside inside-again", True),
        ("localhost 127.0.0.1", True),  # a name and what it resolves to
        ("a inside", False),  # seen from elsewhere, a private address is another machine
        ("a other-port", False),
        ("tunnel-1 tunnel-2", False),
        ("a no-such-name.invalid also-none.invalid", False),
    ],
)
def test_two_names_of_one_machine_are_refused_before_it_is_contacted(
    tmp_path: Path, names: str, are_one: bool
) -> None:
    (tmp_path / "config").write_text(TWINS)
    door = SshConnector(str(tmp_path / "config"), trust_new=False)
    targets = [Target(name, name, where=f"fleet:{number}") for number, name in enumerate(names.split(), 1)]
    if not are_one:
        assert set(door.endpoints(targets, lambda: False)) == set(names.split())
        return
    with pytest.raises(AgentError) as caught:
        door.endpoints(targets, lambda: False)
    assert caught.value.code.name == "inventory-invalid"
    first, second = names.split()
    assert f"fleet:2: {second} is the same machine as {first} at fleet:1" in (caught.value.saw or "")


def test_agents_are_those_of_ssh(tmp_path: Path) -> None:
    path = tmp_path / "config"
    environment = {**os.environ, "SSH_AUTH_SOCK": "/run/agent", "OTHER": "/run/other"}
    home = pwd.getpwuid(os.getuid()).pw_dir
    for said, agent in (
        ("none", None),
        ("$OTHER", "/run/other"),
        ("${OTHER}/x", "/run/other/x"),
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("~/a-%%", f"{home}/a-%"),
    ):
        path.write_text(f"IdentityAgent {said}\n")
        assert SshConfig.read(path, environment).route(BOX).target.agent == agent
    path.write_text("User me\n")
    assert SshConfig.read(path, environment).route(BOX).target.agent == "/run/agent"


def test_the_name_in_known_hosts() -> None:
    assert Hop("x", "Box", 22, "u").known_as == "box"
    assert Hop("x", "Box", 23, "u").known_as == "[box]:23"
    assert Hop("x", "Box", 23, "u", key_alias="Other").known_as == "other"


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader_of_known_hosts(text: str) -> None:
    for entry in parse(text, "k"):
        entry.fits("box")


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=30), st.text("ab.*?[]:", max_size=10))
def test_any_pattern_can_be_asked(names: str, name: str) -> None:
    key = HostKey("ssh-ed25519", b"")
    assert KnownHostsEntry("", names, key, "k").fits(name) in (True, False)
    assert not KnownHostsEntry("", f"!{name},{name}", key, "k").fits(name)
    assert KnownHostsEntry("", "*", key, "k").fits(name)
