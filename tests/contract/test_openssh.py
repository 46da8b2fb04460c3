"""Does our reading of ssh's files agree with OpenSSH's own? `ssh -G` and `ssh-keygen` are the judges."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.ssh.config import Hop, Route, SshConfig
from agent.ssh.known_hosts import HostKey, KnownHosts, parse
from tests.examples import examples
from tests.sshd import fingerprint, keygen

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="this machine has no OpenSSH client")

SETTINGS = """
Include {folder}/conf.d/*.conf
User everywhere
Host never
  ProxyJump none
Host bastion
  ProxyJump none
  HostName 192.0.2.1
  Port 2200
Host web-* !web-9
  User webmaster
  ProxyJump bastion
Host web-1
  HostName %h.example.com
  IdentityFile "{folder}/key one"
  IdentitiesOnly yes
Host db db-alias
  Include {folder}/inside
  User fallback
Match host 192.0.2.7 user root
  Port 77
Match originalhost seven
  ProxyCommand none
Host seven
  HostName 192.0.2.7
  User root
Match host 192.0.2.7 user root
  ConnectTimeout 7
  HostKeyAlias seven-key
Host *
  Port = 2022
  ProxyJump never
"""
NAMES = ("bastion", "web-1", "web-2", "web-9", "seven", "db", "db-alias", "odd", "10.0.0.1", "plain")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with all that people write, in several files."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/10-odd.conf").write_text('Host odd\n  Port 1010\n  User "odd"\n')
    (tmp_path / "conf.d/20-odd.conf").write_text("Host odd web-2\n  Port 2020\n  User second\n")
    (tmp_path / "conf.d/ignored.txt").write_text("Port 1\n")
    (tmp_path / "inside").write_text("Port 5432\nHost db-alias web-1\n  User inner\n")
    path = tmp_path / "config"
    path.write_text(SETTINGS.format(folder=tmp_path))
    return path


def said_by_ssh(file: Path, name: str, *options: str) -> dict[str, str]:
    done = subprocess.run(
        ["ssh", "-G", "-F", str(file), *options, name], capture_output=True, text=True, check=True, timeout=10
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def used_by_ssh(file: Path, name: str, *options: str) -> tuple[list[str], list[str], list[str]]:
    """The keys, the certificates and the commands that ssh comes to use, in its own words; no host is contacted."""
    if "proxycommand" not in said_by_ssh(file, name, *options):
        options = ("-o", "ProxyCommand=true", *options)
    words = ["ssh", "-v", "-T", "-o", "BatchMode=yes", "-F", str(file), *options, name]
    told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10).stderr
    return (
        re.findall(r"identity file (.*) type -?\d+", told),
        re.findall(r"certificate file (.*) type -?\d+", told),
        re.findall(r"Executing proxy command: exec (.*?)\r?\n", told),
    )


def route_of(file: Path, target: Target | str) -> Route:
    return SshConfig.read(file).route(Target(target, target) if isinstance(target, str) else target)


def same_as_ssh(file: Path, name: str, *, keys: bool = True) -> Hop:
    """Hold all that is read of a configuration against OpenSSH."""
    said = said_by_ssh(file, name)
    route = route_of(file, name)
    hop = route.target
    assert (hop.host, hop.port, hop.user) == (said["hostname"], int(said["port"]), said["user"])
    assert (hop.identities_only, hop.hash_known_hosts) == (
        said["identitiesonly"] == "yes",
        said["hashknownhosts"] == "yes",
    )
    assert hop.key_alias == said.get("hostkeyalias")
    assert hop.source == said.get("bindaddress")
    assert hop.family == said["addressfamily"]
    assert said["connecttimeout"] == ("none" if hop.timeout is None else f"{hop.timeout:g}")
    assert " ".join(hop.known_hosts) == said["userknownhostsfile"].replace("none", "")
    agent = said.get("identityagent")
    assert hop.agent == (
        os.environ.get("SSH_AUTH_SOCK")
        if agent in (None, "SSH_AUTH_SOCK")
        else None
        if agent == "none"
        else agent
    )
    if len(route.hops) > 1:
        last, jump = route.hops[-2], said["proxyjump"].rpartition(",")[2]
        assert re.fullmatch(rf"(.*@)?\[?{re.escape(last.name)}\]?(:\d+)?", jump)
        assert (last.host, last.user) == (route_of(file, last.name).target.host, last.user)
    else:
        assert "proxyjump" not in said
    if keys:
        files, certificates, commands = used_by_ssh(file, name)
        assert [
            each for each in files if not each.endswith("-cert") and (hop.keys_named or Path(each).is_file())
        ] == list(hop.keys)
        assert certificates == list(hop.certificates)
        assert commands == [hop.proxy_command or "true"]
    return hop


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_what_it_means_to_ssh(file: Path, name: str) -> None:
    same_as_ssh(file, name)


CORPUS = {
    "bare": "Host web1\n  HostName 192.0.2.7\n  User ec2-user\n",
    "quotes-and-comment": (
        'Host web1\n  HostName "192.0.2.7" # lab\n  User "ec2-user" # cloud image\n'
        '  IdentityFile "~/.ssh/my key" # laptop\n'
        '  UserKnownHostsFile "~/.ssh/known hosts" ~/.ssh/kh2 # both\n  Port "22" # default\n'
    ),
    "single-quotes": "Host web1\n  HostName 192.0.2.7\n  User 'ec2-user'\n  IdentityFile '~/.ssh/my key'\n",
    "backslash": "Host web1\n  HostName 192.0.2.7\n  IdentityFile ~/.ssh/my\\ key\n",
    "equals-signs": "Host=web1\n  HostName=192.0.2.7\n  User = ec2-user\n  IdentityFile =/k\n",
    "tabs-and-case": "HOST web1\n\tHOSTNAME\t192.0.2.7\n\tuSeR\tec2-user\t\n",
    "crlf": "Host web1\r\n  HostName 192.0.2.7\r\n  User ec2-user\r\n",
    "comments": "# all\n\n   # of\nHost web1 # mine\n  User x#y\n  HostName 192.0.2.7\n",
    "tokens": (
        "Host *\n  IdentityFile ${HOME}/.ssh/lab\n  IdentityFile ~/.ssh/lab-%i\n  IdentityAgent /run/user/%i/keyring/ssh\n"
        "  UserKnownHostsFile ~/.ssh/known_hosts.d/%k\n"
    ),
    "more-tokens": (
        "Host web1\n  HostName %h.example.com\n  User me\n  HostKeyAlias Alias\n  IdentityFile ~/%h-%n-%k-%r-%u-%p-%%\n"
        "  IdentityFile %d/%i/%L/%l\n  CertificateFile ~/%h-%r-cert.pub\n  UserKnownHostsFile ~/%h-%% %d/%r ~/%C\n"
    ),
    "digest": "Host web1\n  HostName 192.0.2.7\n  Port 2222\n  User me\n  IdentityFile ~/.ssh/%C\n  CertificateFile /c/%C\n",
    "seconds": "Host web1\n  ConnectTimeout 10s\n",
    "minutes": "Host web1\n  ConnectTimeout 1m\n",
    "mixed-times": "Host web1\n  ConnectTimeout 1m30s\n",
    "no-time": "Host web1\n  ConnectTimeout none\nHost *\n  ConnectTimeout 5\n",
    "two-certificates": "Host web1\n  CertificateFile ~/a-cert.pub\n  CertificateFile ~/b-cert.pub\n  IdentityFile ~/a\n",
    "match-equals": 'Host web1\n  HostName 192.0.2.7\nMatch host="192.0.2.7"\n  User ec2-user\n',
    "match-plain": "Host web1\n  HostName 192.0.2.7\nMatch originalhost=web1 user=*\n  User ec2-user\n  Port 7\n",
    "match-exec": 'Match originalhost web1 exec "test %n = web1"\n  HostName 192.0.2.7\n  User found\n',
    "match-final": "Match final host 192.0.2.7\n  User last\nHost web1\n  HostName 192.0.2.7\n",
    "match-all": "Match all\n  User everybody\nMatch !host web2\n  Port 222\n",
    "negated": "Host web* !web2\n  User web\nHost web2 other\n  Port 9\n",
    "first-wins": "Host web1\n  User a\n  User b\nHost *\n  User c\n  Port 1\nPort 2\n",
    "canonical": (
        "CanonicalizeHostname yes\nCanonicalDomains corp.example\nCanonicalizeMaxDots 0\nHost web1\n  HostName 192.0.2.7\n"
    ),
    "agents": "Host web1\n  IdentityAgent none\nHost web2\n  IdentityAgent SSH_AUTH_SOCK\nHost *\n  IdentityAgent ~/a/%i\n",
    "only-these": "Host web1\n  IdentitiesOnly yes\n  IdentityFile ~/.ssh/one\n  IdentityFile ~/.ssh/two\n",
    "no-keys": "Host web1\n  IdentityFile none\n",
    "known-hosts-none": "Host web1\n  UserKnownHostsFile none\nHost web2\n  UserKnownHostsFile /dev/null\n",
    "known-hosts-many": "Host web1\n  UserKnownHostsFile ~/a ~/b /c/d\n  GlobalKnownHostsFile /e /f\n  HashKnownHosts yes\n",
    "alias": "Host web1\n  HostName 192.0.2.7\n  HostKeyAlias WEB.example\n  CheckHostIP no\n",
    "strict": "Host web1\n  StrictHostKeyChecking accept-new\nHost web2\n  StrictHostKeyChecking no\n",
    "families": "Host web1\n  AddressFamily inet\n  BindAddress 127.0.0.1\nHost web2\n  AddressFamily inet6\n",
    "ipv6": "Host web1\n  HostName fd00::7\n  Port 2222\n",
    "jump": "Host web*\n  ProxyJump ops@bastion:2222\nHost bastion\n  HostName 192.0.2.1\n  User nobody\n",
    "jumps": "Host web1\n  ProxyJump one,you@two:3\nHost two\n  HostName 192.0.2.2\n",
    "jump-by-address": "Host web1\n  ProxyJump [fd00::1]:2200\nHost web2\n  ProxyJump ssh://you@192.0.2.1:2200\n",
    "jump-none": "Host web1 bastion\n  ProxyJump none\nHost *\n  ProxyJump bastion\n  User x\n",
    "command": "Host web1\n  HostName 192.0.2.7\n  User me\n  ProxyCommand true start-session --target %h:%p %n %r 100%% # x\n",
    "command-none": "Host web1\n  ProxyCommand none\nHost *\n  ProxyCommand true %h\n",
    "command-of-an-alias": (
        "Host web1\n  HostName 192.0.2.7\n  HostKeyAlias al\nHost *\n  ProxyCommand true %k %h 2>/dev/null\n"
    ),
    "called-none": "Host web1\n  HostName none\n  User none\n  HostKeyAlias none\n",
    "command-first": "Host web1\n  ProxyCommand true %h %p\n  ProxyJump bastion\n",
    "unknown-words": "IgnoreUnknown UseKeychain,AddKeys*\nUseKeychain yes\nHost web1\n  AddKeysToAgent yes\n  User mac\n",
    "forwarding": "Host web1\n  ForwardAgent yes\n  LocalForward 8080 localhost:80\n  ControlMaster auto\n  ControlPath ~/.ssh/%C\n",
    "sends": "Host *\n  SendEnv LANG LC_*\n  SetEnv A=b\n  HashKnownHosts yes\n  GSSAPIAuthentication yes\n",
    "algorithms": "Host web1\n  HostKeyAlgorithms +ssh-rsa\n  PubkeyAcceptedAlgorithms +ssh-rsa\n  Ciphers aes256-ctr\n",
}


@pytest.mark.parametrize("name", ["web1", "web2"])
@pytest.mark.parametrize("case", CORPUS)
def test_what_people_write_means_what_it_means_to_ssh(tmp_path: Path, case: str, name: str) -> None:
    path = tmp_path / "config"
    path.write_text(CORPUS[case])
    same_as_ssh(path, name)


def test_what_the_inventory_says_wins_as_options_of_ssh_do(file: Path) -> None:
    said = said_by_ssh(file, "192.0.2.7", "-o", "User=root", "-o", "Port=9", "-i", "/k", "-J", "odd")
    target = Target("x", "192.0.2.7", port=9, user="root", key="/k", jump="odd")
    route = SshConfig.read(file).route(target)
    assert (route.target.user, route.target.port, route.target.keys[0]) == ("root", 9, "/k")
    assert (said["user"], said["port"], said["proxyjump"]) == ("root", "9", "odd")
    assert route.target.timeout == float(said["connecttimeout"]) == 7  # `Match user root` sees it too
    assert [(hop.name, hop.port, hop.user) for hop in route.hops[:-1]] == [
        ("never", 2022, "everywhere"),
        ("odd", 1010, "odd"),
    ]


def test_a_key_of_the_inventory_is_expanded_as_that_of_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("User me\nIdentityFile /second\n")
    hop = route_of(path, Target("x", "web1", key="~/my key-%h-%%")).target
    files, _, _ = used_by_ssh(path, "web1", "-o", 'IdentityFile="~/my key-%h-%%"')
    assert [each for each in files if not each.endswith("-cert")] == list(hop.keys)
    assert len(hop.keys) == 2


words = st.text("ab1.-", min_size=1, max_size=4).map(lambda text: f"h{text}z")
patterns = st.lists(
    words | words.map(lambda w: f"{w[:2]}*") | words.map(lambda w: f"!{w}") | st.just("h?z"),
    min_size=1,
    max_size=3,
)
spelled = st.sampled_from(["{}", '"{}"', "'{}'", '"{}" # c', "{} # c", "{}\t", "{} "])
values = {
    "User": st.sampled_from(["anna", "bert", "a#b"]),
    "Port": st.integers(1, 65535).map(str),
    "HostName": st.sampled_from(["192.0.2.7", "%h.example", "a.example"]),
    "IdentityFile": st.sampled_from(["~/a b", "/k/%h", "${HOME}/k", "none", "%d/%r-%%"]),
    "CertificateFile": st.sampled_from(["~/c.pub", "/c/%n"]),
    "UserKnownHostsFile": st.sampled_from(["~/k", "/k/%k", "none", "/a b"]),
    "HostKeyAlias": st.sampled_from(["One", "two"]),
    "ConnectTimeout": st.sampled_from(["7", "2m", "none", "1h1s", "90S"]),
    "AddressFamily": st.sampled_from(["any", "inet", "inet6"]),
    "IdentitiesOnly": st.sampled_from(["yes", "no"]),
}
lines = st.sampled_from(sorted(values)).flatmap(
    lambda key: st.builds(lambda value, form: f"  {key} {form.format(value)}", values[key], spelled)
)
heads = patterns.map(lambda found: f"Host {' '.join(found)}") | words.map(lambda name: f"Match host={name}")
blocks = st.lists(st.tuples(heads, st.lists(lines, min_size=1, max_size=4)), max_size=3)


@examples(40, suppress=[HealthCheck.function_scoped_fixture])
@given(first=blocks, inner=blocks, name=words)
def test_any_configuration_means_what_it_means_to_ssh(
    tmp_path: Path, first: list[tuple[str, list[str]]], inner: list[tuple[str, list[str]]], name: str
) -> None:
    def written(parts: list[tuple[str, list[str]]]) -> str:
        return "".join(f"{head}\n" + "\n".join(body) + "\n" for head, body in parts)

    (tmp_path / "inner").write_text(written(inner))
    path = tmp_path / "config"
    path.write_text(f"{written(first)}Include {tmp_path}/inner\nHost *\n  User last\n  Port 9\n")
    ran = subprocess.run(["ssh", "-G", "-F", path, name], capture_output=True, check=False, timeout=10)
    if ran.returncode:  # single quotes, a blank without quotes: then ours is refused too
        with pytest.raises(AgentError) as caught:
            route_of(path, name)
        assert caught.value.code.name == "config-invalid"
    else:
        same_as_ssh(path, name)


# --- known hosts


def finds(path: Path, name: str) -> set[str]:
    """The lines of known_hosts that OpenSSH takes for this name."""
    done = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(path)], capture_output=True, text=True, check=False, timeout=10
    )
    return {
        number[0] for line in done.stdout.splitlines() if (number := re.findall(r"found: line (\d+)", line))
    }


def test_a_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path) -> None:
    for kind in ("ed25519", "ecdsa", "rsa"):
        key = keygen(tmp_path / kind, kind=kind)
        (entry,) = parse(f"x {Path(f'{key}.pub').read_text()}", "k")
        assert entry.key.fingerprint == fingerprint(key)


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx6ZP4pKiWv8p1P4B4p2Kd0lKpWcR1yq2m7K7ct0nTz"
KNOWN = f"""
# a comment
plain,192.0.2.1 {KEY} with a comment
[plain]:2222 {KEY}
*.example.com,!bad.example.com {KEY}
web-? {KEY}
[port-*]:2200 {KEY}
UPPER {KEY}
@cert-authority ca.example.org {KEY}
@revoked gone {KEY}
broken line
half {KEY[:40]}
@unknown marked {KEY}
"""


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "192.0.2.1",
        "[plain]:2222",
        "a.example.com",
        "bad.example.com",
        "web-1",
        "web-10",
        "[port-x]:2200",
        "[port-x]:2201",
        "upper",
        "ca.example.org",
        "gone",
        "broken",
        "none",
        "marked",
    ],
)
def test_a_line_is_for_the_hosts_that_it_is_for_to_ssh(tmp_path: Path, name: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(KNOWN)
    ours = {each.where.rpartition(":")[2] for each in parse(KNOWN, "k") if each.fits(name)}
    assert ours == finds(path, name)


def test_hashed_names_are_found(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"plain {KEY}\n[plain]:2222 {KEY}\n192.0.2.1 {KEY}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(path)], check=True, capture_output=True)
    assert "plain" not in path.read_text()
    for name in ("plain", "[plain]:2222", "192.0.2.1", "other"):
        ours = {each.where.rpartition(":")[2] for each in parse(path.read_text(), "k") if each.fits(name)}
        assert ours == finds(path, name)


@pytest.mark.parametrize("hashed", [False, True])
def test_what_is_added_is_found_by_ssh(tmp_path: Path, hashed: bool) -> None:
    path = tmp_path / "new/known_hosts"
    (entry,) = parse(f"x {KEY}", "k")
    hop = Hop("box", "Box.example", 2222, "u", known_hosts=(str(path),), hash_known_hosts=hashed)
    assert KnownHosts().check(hop, entry.key, trust_new=True) == entry.key.fingerprint
    assert finds(path, "[box.example]:2222") == {"1"}
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert ("box.example" in path.read_text()) is not hashed
    assert HostKey("ssh-ed25519", entry.key.blob) == entry.key


def test_many_writers_never_mix_their_lines(tmp_path: Path) -> None:
    """Each with files of its own in memory, as other processes have."""
    path = tmp_path / "known_hosts"
    path.write_text(f"old {KEY}")  # no newline at its end
    (entry,) = parse(f"x {KEY}", "k")

    def write(writer: int) -> None:
        known = KnownHosts()
        for number in range(20):
            hop = Hop("box", f"h{writer}-{number}", 22, "u", known_hosts=(str(path),))
            assert known.check(hop, entry.key, trust_new=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(parse(path.read_text(), "k")) == 161
    assert finds(path, "old") == {"1"}
