"""ssh's files as values: what is refused in a configuration, how jumps are written, and lines that are none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import AgentError
from agent.core.fleet import Target
from agent.hosts.ssh.login import Config, Hop
from agent.hosts.ssh.trust import Entry, HostKey, parse

if TYPE_CHECKING:
    from pathlib import Path

BOX = Target("box", "box")


def written(folder: Path, text: str) -> Config:
    path = folder / "config"
    path.write_text(text)
    return Config.read(path)


def complaint(folder: Path, text: str, target: Target = BOX) -> str:
    with pytest.raises(AgentError) as caught:
        written(folder, text).route(target)
    assert caught.value.code.name == "config-invalid"
    return caught.value.saw


@pytest.mark.parametrize(
    ("text", "saw"),
    [
        ("Port many", "port many"),
        ("Port 0", "Port 0"),
        ("Port 70000", "Port 70000"),
        ("Match tagged x\nPort 1", "Match tagged is not understood here"),
        ("Match host", "Match host needs a value"),
        ("Host 'x", "No closing quotation"),
        ("%%%", "%%%"),
        ("ProxyJump a@b@c:x:y", "ProxyJump a@b@c:x:y"),
        ("Host a\nProxyJump b\nHost b\nProxyJump a\nHost *\nProxyJump a", "in a circle: box > a > b > a"),
        ("ProxyJump box", "in a circle: box > box"),
        (f"Host box\nProxyJump {','.join(f'h{number}' for number in range(9))}\n", "more than 8 hosts"),
        ("ConnectTimeout soon", "connecttimeout soon"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, text: str, saw: str) -> None:
    assert saw in complaint(tmp_path, text)


def test_an_include_that_goes_in_a_circle_is_told(tmp_path: Path) -> None:
    assert "deeper than 16" in complaint(tmp_path, f"Include {tmp_path}/config")


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        Config.read(tmp_path / "none")
    assert (caught.value.code.name, "no such file" in caught.value.saw) == ("config-invalid", True)
    with pytest.raises(AgentError) as caught:
        Config.read(tmp_path)
    assert caught.value.code.name == "unreadable"


@pytest.mark.parametrize("value", ["x\nProxyCommand touch /tmp/y", 'x" y', "x\0"])
def test_the_inventory_cannot_write_into_the_configuration(tmp_path: Path, value: str) -> None:
    assert repr(value) in complaint(tmp_path, "", Target("box", "box", user=value))
    assert repr(value) in complaint(tmp_path, "", Target("box", "box", jump=value))


@pytest.mark.parametrize(
    ("jump", "hops"),
    [
        ("one", [("one", 22, "me")]),
        ("you@one:2200", [("one", 2200, "you")]),
        ("ssh://you@[fd00::1]:2200", [("fd00::1", 2200, "you")]),
        ("[fd00::1]", [("fd00::1", 22, "me")]),
        ("one, two:3", [("one", 22, "me"), ("two", 3, "me")]),
        ("you@realm@one", [("one", 22, "you@realm")]),
        ("none", []),
    ],
)
def test_jumps_as_people_write_them(tmp_path: Path, jump: str, hops: list[tuple[str, int, str]]) -> None:
    config = written(tmp_path, "User me\nHost box\nProxyJump configured\n")
    route = config.route(Target("box", "box", jump=jump))
    assert [(hop.host, hop.port, hop.user) for hop in route.hops[:-1]] == hops
    assert route.target.name == "box"


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
        assert "no name that a ProxyCommand" in complaint(tmp_path, "ProxyCommand run %h %r", target)
    assert written(tmp_path, "").route(Target("x", "box", user="a'b")).target.user == "a'b"


def test_a_lookup_asks_no_name_server(tmp_path: Path) -> None:
    def forbid(event: str, _: object) -> None:
        if event.startswith("socket.get") and watching:
            asked.append(event)

    asked: list[str] = []
    watching = [True]
    sys.addaudithook(forbid)
    assert written(tmp_path, "IdentityFile ~/key\nProxyCommand run %h\n").route(BOX).target.keys
    watching.clear()
    assert [event for event in asked if event != "socket.gethostname"] == []


def test_files_and_agents_are_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("OTHER", "/run/other")
    hop = (
        written(
            tmp_path,
            'IdentityFile ~/key-%r\nCertificateFile ~/key-%r-cert.pub\nUserKnownHostsFile ~/one "/a b"\n'
            "HostKeyAlias name-of-%h\nUser me\n",
        )
        .route(BOX)
        .target
    )
    assert hop.keys == (f"{tmp_path}/key-me",)
    assert hop.certificates == (f"{tmp_path}/key-me-cert.pub",)
    assert hop.known_hosts == (f"{tmp_path}/one", "/a b")
    assert (hop.known_as, hop.agent) == ("name-of-box", "/run/agent")
    for said, path in (
        ("none", None),
        ("$OTHER", "/run/other"),
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("~/a", f"{tmp_path}/a"),
    ):
        assert written(tmp_path, f"IdentityAgent {said}").route(BOX).target.agent == path
    assert written(tmp_path, "").route(BOX).target.keys == ()
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_rsa").write_text("")
    assert written(tmp_path, "").route(BOX).target.keys == (f"{tmp_path}/.ssh/id_rsa",)
    (tmp_path / ".ssh/config").write_text("Include sub/*\n")
    (tmp_path / ".ssh/sub").mkdir()
    (tmp_path / ".ssh/sub/file").write_text("Port 99 # as people write\n")
    assert Config.read().route(BOX).target.port == 99


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
    assert Entry("", names, key, "k").fits(name) in (True, False)
    assert not Entry("", f"!{name},{name}", key, "k").fits(name)
    assert Entry("", "*", key, "k").fits(name)
