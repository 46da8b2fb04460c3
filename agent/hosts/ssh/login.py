"""(Target, ssh's configuration) -> Route: the hosts to go through, and with what to log in at each."""

from __future__ import annotations

import getpass
import io
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko

from agent.core.errors import AgentError
from agent.hosts.ssh.include import Expansion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.fleet import Target

# ssh's own port, and how long to wait for a connection where ConnectTimeout says nothing, in seconds.
PORT, PATIENCE = 22, 15.0
# Tried where no IdentityFile is named, in ssh's order of what is common today.
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_DEFAULT_KNOWN = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_SYSTEM = Path("/etc/ssh/ssh_config")
# More hosts in a row than this are a mistake.
_HOPS = 8

# [user@]host[:port] with an IPv6 address in brackets, or ssh://[user@]host[:port]
_JUMP = re.compile(r"(?:ssh://)?(?:(.+)@)?(\[[^\]]+\]|[^:@\[\]]+)(?::(\d+))?/?")


# What a shell would take for more than a name; ssh refuses these too since a CVE (2023-51385).
_UNSAFE = re.compile(r"[\s'`\"$\\;&<>|(){}]")


@dataclass(frozen=True)
class Hop:
    """One login on the way. `name` is what was said, `host` what is connected to."""

    name: str
    host: str
    port: int
    user: str
    keys: tuple[str, ...] = ()
    keys_named: bool = False
    certificates: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str | None = None
    key_alias: str | None = None
    known_hosts: tuple[str, ...] = ()
    known_hosts_global: tuple[str, ...] = ()
    hash_known_hosts: bool = False
    family: str = "any"
    timeout: float = PATIENCE
    proxy_command: str | None = None

    @property
    def known_as(self) -> str:
        """The name in known_hosts: HostKeyAlias, or the host, with its port when that is not 22."""
        if self.key_alias:
            return self.key_alias.lower()
        return self.host.lower() if self.port == PORT else f"[{self.host.lower()}]:{self.port}"


@dataclass(frozen=True)
class Route:
    """The jump hosts in order, then the target itself."""

    hops: tuple[Hop, ...]

    @property
    def target(self) -> Hop:
        return self.hops[-1]

    @property
    def shell(self) -> str:
        """The shell that ssh would have run a ProxyCommand."""
        return os.environ.get("SHELL") or "/bin/sh"


class _Settings(paramiko.SSHConfig):
    """paramiko's, which leaves tokens to us.

    For an IdentityFile it asks DNS for this machine's own name at every lookup, whether `%l` is in it or not, and in a
    ProxyCommand it knows neither `%%` nor `%n`.
    """

    def __init__(self) -> None:
        super().__init__()
        ours: dict[str, list[str]] = {"identityfile": [], "proxycommand": []}
        self.TOKENS_BY_CONFIG_KEY = {**self.TOKENS_BY_CONFIG_KEY, **ours}


class Config:
    """ssh's configuration as one text, and the questions that are asked of it."""

    def __init__(self, text: str, *, home: Path, environment: Mapping[str, str]) -> None:
        self._text = text
        self._home = home
        self._environment = environment
        # keyed by what the inventory adds; a whole group says the same, so there are few
        self._parsed: dict[str, _Settings] = {}

    @classmethod
    def read(cls, file: Path | None = None) -> Config:
        """Read FILE, or the user's and the system's configuration as ssh does when none is named."""
        home = Path.home()
        user = Expansion(home / ".ssh", home)
        if file is not None:
            user.add(file)
        elif (home / ".ssh/config").is_file():
            user.add(home / ".ssh/config")
        lines = user.lines
        if file is None and _SYSTEM.is_file():
            system = Expansion(_SYSTEM.parent, home)
            system.add(_SYSTEM)
            lines = [*lines, *system.lines]
        return cls("\n".join(lines), home=home, environment=os.environ)

    def route(self, target: Target) -> Route:
        """Resolve the target and all jump hosts before it. Raises AgentError `config-invalid`."""
        said = _said(target)
        found = self._lookup(target.address, said)
        jump = _jump(found)
        before = self._jumps(jump, (target.address,)) if jump else ()
        last = self._hop(target.address, found, proxied=not before)
        return Route((*before, last))

    def _jumps(self, value: str, seen: tuple[str, ...]) -> tuple[Hop, ...]:
        """Resolve a ProxyJump: its first host may have jumps of its own, the others follow from there, as in ssh."""
        hops: list[Hop] = []
        for number, each in enumerate(value.split(",")):
            spelled = _JUMP.fullmatch(each.strip())
            if spelled is None:
                raise _wrong(seen[-1], f"ProxyJump {value}")
            user, host, port = spelled[1], spelled[2].strip("[]"), spelled[3]
            if host in seen or len(seen) > _HOPS:
                raise _wrong(seen[0], f"ProxyJump goes in a circle: {' > '.join((*seen, host))}")
            found = self._lookup(host, _prefix(user=user, port=port))
            own = _jump(found) if number == 0 else None
            if own:
                hops += self._jumps(own, (*seen, host))
            hops.append(self._hop(host, found, proxied=number == 0 and not own))
        if len(hops) > _HOPS:
            raise _wrong(seen[0], f"ProxyJump has more than {_HOPS} hosts")
        return tuple(hops)

    def _lookup(self, name: str, said: str) -> dict[str, str | list[str]]:
        """Ask paramiko, with what the inventory says before everything else, so that it wins as options of ssh do."""
        config = self._parsed.get(said)
        try:
            if config is None:
                config = self._parsed[said] = _Settings()
                config.parse(io.StringIO(f"{said}\nHost *\n{self._text}"))
            return dict(config.lookup(name))
        except (paramiko.ConfigParseError, paramiko.ssh_exception.CouldNotCanonicalize, ValueError) as error:
            raise _wrong(name, str(error)) from None

    def _hop(self, name: str, found: dict[str, str | list[str]], *, proxied: bool) -> Hop:
        host, user = _text(found, "hostname", name), _text(found, "user", getpass.getuser())
        port = _number(name, found, "port", str(PORT))
        if not 0 < port < 65536 or port != int(port):
            raise _wrong(name, f"Port {found['port']}")
        expand = _Tokens(self._home, host, name, user, int(port))
        named = found.get("identityfile", [])
        keys = tuple(expand.path(each) for each in named if each.lower() != "none")
        if not named:
            defaults = (self._home / ".ssh" / each for each in _DEFAULT_KEYS)
            keys = tuple(str(path) for path in defaults if path.is_file())
        certificate = _text(found, "certificatefile", "none")
        alias = _text(found, "hostkeyalias", "")
        first = _first(found)
        command = found.get("proxycommand") if proxied and first == "proxycommand" else None
        if command and any(_UNSAFE.search(word) for word in (host, user, name)):
            raise _wrong(name, f"{user}@{host} is no name that a ProxyCommand is given")
        return Hop(
            name=name,
            host=host,
            port=int(port),
            user=user,
            keys=keys,
            keys_named=bool(named),
            certificates=() if certificate.lower() == "none" else (expand.path(certificate),),
            identities_only=_text(found, "identitiesonly", "no").lower() == "yes",
            agent=self._agent(_text(found, "identityagent", "SSH_AUTH_SOCK"), expand),
            key_alias=expand.text(alias) or None,
            known_hosts=_files(found, "userknownhostsfile", _DEFAULT_KNOWN, expand),
            known_hosts_global=_files(found, "globalknownhostsfile", _GLOBAL_KNOWN, expand),
            hash_known_hosts=_text(found, "hashknownhosts", "no").lower() == "yes",
            family=_text(found, "addressfamily", "any").lower(),
            timeout=_number(name, found, "connecttimeout", "0") or PATIENCE,
            proxy_command=expand.text(command) if isinstance(command, str) else None,
        )

    def _agent(self, said: str, expand: _Tokens) -> str | None:
        if said.lower() == "none":
            return None
        if said == "SSH_AUTH_SOCK":
            return self._environment.get("SSH_AUTH_SOCK") or None
        if said.startswith("$"):
            return self._environment.get(said[1:].strip("{}")) or None
        return expand.path(said)


@dataclass(frozen=True)
class _Tokens:
    """What ssh writes for ~ and % in the values that paramiko leaves as they are."""

    home: Path
    host: str
    name: str
    user: str
    port: int

    def text(self, value: str) -> str:
        known = {
            "%": "%",
            "d": str(self.home),
            "h": self.host,
            "n": self.name,
            "p": str(self.port),
            "r": self.user,
            "u": getpass.getuser(),
        }
        return re.sub(r"%(.)", lambda found: known.get(found[1], found[0]), value)

    def path(self, value: str) -> str:
        value = self.text(value)
        if value == "~" or value.startswith("~/"):
            value = f"{self.home}{value[1:]}"
        return value


def _said(target: Target) -> str:
    port = None if target.port is None else str(target.port)
    return _prefix(user=target.user, port=port, identityfile=target.key, proxyjump=target.jump)


def _prefix(**said: str | None) -> str:
    lines = []
    for key, value in said.items():
        if value is None:
            continue
        if not value.isprintable() or '"' in value:
            raise _wrong(key, repr(value))
        lines.append(f'{key} "{value}"' if " " in value else f"{key} {value}")
    return "\n".join(lines)


def _first(found: dict[str, str | list[str]]) -> str | None:
    """Return which of ProxyJump and ProxyCommand was said first: ssh lets that one win, `none` too."""
    return next((key for key in found if key in ("proxyjump", "proxycommand")), None)


def _jump(found: dict[str, str | list[str]]) -> str | None:
    value = found.get("proxyjump")
    if _first(found) != "proxyjump" or not isinstance(value, str) or value.lower() == "none":
        return None
    return value


def _text(found: dict[str, str | list[str]], key: str, default: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else default


def _number(name: str, found: dict[str, str | list[str]], key: str, default: str) -> float:
    value = _text(found, key, default)
    try:
        return float(value)
    except ValueError:
        raise _wrong(name, f"{key} {value}") from None


def _files(
    found: dict[str, str | list[str]], key: str, default: tuple[str, ...], expand: _Tokens
) -> tuple[str, ...]:
    value = found.get(key)
    said = shlex.split(value) if isinstance(value, str) else default
    return tuple(expand.path(each) for each in said if each.lower() != "none")


def _wrong(name: str, saw: str) -> AgentError:
    return AgentError("config-invalid", f"ssh's configuration for {name} cannot be used", saw=saw)
