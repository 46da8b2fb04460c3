"""Does our reading of ssh's files agree with OpenSSH's own? `ssh -G` and `ssh-keygen` are the judges."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.fleet import Target
from agent.hosts.ssh.login import Config, Hop
from agent.hosts.ssh.trust import HostKey, Known, parse
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


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_what_it_means_to_ssh(file: Path, name: str) -> None:
    said = said_by_ssh(file, name)
    route = Config.read(file).route(Target(name, name))
    hop = route.target
    assert (hop.host, hop.port, hop.user) == (said["hostname"], int(said["port"]), said["user"])
    assert hop.identities_only is (said["identitiesonly"] == "yes")
    assert hop.key_alias == said.get("hostkeyalias")
    timeout = said["connecttimeout"]
    assert timeout in ("none", f"{hop.timeout:g}")
    jumps = [each.name for each in route.hops[:-1]]
    assert jumps[-1:] == ([said["proxyjump"]] if "proxyjump" in said else [])


def test_what_the_inventory_says_wins_as_options_of_ssh_do(file: Path) -> None:
    said = said_by_ssh(file, "192.0.2.7", "-o", "User=root", "-o", "Port=9", "-i", "/k", "-J", "odd")
    target = Target("x", "192.0.2.7", port=9, user="root", key="/k", jump="odd")
    route = Config.read(file).route(target)
    assert (route.target.user, route.target.port, route.target.keys[0]) == ("root", 9, "/k")
    assert (said["user"], said["port"], said["proxyjump"]) == ("root", "9", "odd")
    assert route.target.timeout == float(said["connecttimeout"]) == 7  # `Match user root` sees it too
    assert [(hop.name, hop.port, hop.user) for hop in route.hops[:-1]] == [
        ("never", 2022, "everywhere"),
        ("odd", 1010, "odd"),
    ]


words = st.text("ab1.-", min_size=1, max_size=4).map(lambda text: f"h{text}z")
patterns = st.lists(
    words | words.map(lambda w: f"{w[:2]}*") | words.map(lambda w: f"!{w}") | st.just("h?z"),
    min_size=1,
    max_size=3,
)
blocks = st.lists(st.tuples(patterns, st.integers(1, 65535), st.sampled_from(["anna", "bert"])), max_size=4)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=blocks, name=words, inner=blocks)
def test_any_nest_of_blocks_means_the_same(
    tmp_path: Path,
    blocks: list[tuple[list[str], int, str]],
    inner: list[tuple[list[str], int, str]],
    name: str,
) -> None:
    def written(parts: list[tuple[list[str], int, str]], field: int) -> str:
        return "".join(
            f"Host {' '.join(part[0])}\n  {('Port', 'User')[field - 1]} {part[field]}\n" for part in parts
        )

    (tmp_path / "inner").write_text(f"{written(inner, 1)}{written(inner, 2)}")
    path = tmp_path / "config"
    path.write_text(f"{written(blocks, 1)}Include {tmp_path}/inner\n{written(blocks, 2)}User last\nPort 9\n")
    said = said_by_ssh(path, name)
    hop = Config.read(path).route(Target(name, name)).target
    assert (hop.port, hop.user) == (int(said["port"]), said["user"])


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
    assert Known().check(hop, entry.key, trust_new=True) == entry.key.fingerprint
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
        known = Known()
        for number in range(20):
            hop = Hop("box", f"h{writer}-{number}", 22, "u", known_hosts=(str(path),))
            assert known.check(hop, entry.key, trust_new=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(parse(path.read_text(), "k")) == 161
    assert finds(path, "old") == {"1"}
