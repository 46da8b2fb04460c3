"""(Target, its resolved ssh configuration) -> Route: the hosts to go through, and how to log in at each."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.hosts import files
from agent.ssh.config_tokens import ConfigExpander
from agent.ssh.openssh import ResolvedConfig, SshProgram, SshQuery, wrong
from agent.ssh.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.core.fleet_model import Target

# ssh's own port, and how long to wait for a connection without ConnectTimeout, in seconds.
PORT, PATIENCE = 22, 15.0
# Tried without IdentityFile and without an ssh program, in ssh's order.
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_DEFAULT_KNOWN = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_SYSTEM = Path("/etc/ssh/ssh_config")
# The value for no configuration, as with ssh -F.
_NOTHING = ("none", os.devnull)
# The largest configuration, in bytes.
_SIZE = 1024 * 1024
# More hosts in a row than this are a mistake.
_HOPS = 8

# [user@]host[:port] with an address in brackets, or ssh://[user@]host[:port]
_JUMP = re.compile(r"(?:ssh://)?(?:(.+)@)?(\[[^\]\[@]+\]|[^:@\[\]]+)(?::(\d+))?/?")
# The start of the next file in a list that ssh prints without quotes: names may contain spaces.
_NEXT = re.compile(r" (?=[/~])")

# Characters that are special to a shell; ssh refuses these too since CVE-2023-51385.
_UNSAFE = re.compile(r"[\s'`\"$\\;&<>|(){}]")

# These decide which host is reached, or how either side authenticates, and are not implemented here.
_NOT_UNDERSTOOD = ("bindinterface", "knownhostscommand", "pkcs11provider", "revokedhostkeys")
# Since OpenSSH 10: the configuration itself forbids the connection, in these words.
_FORBIDDEN = "refuseconnection"


@dataclass(frozen=True)
class Algorithms:
    """The algorithms allowed, in order of preference; an empty list allows all that are implemented here.

    With `authorities`, those of certificates sign.
    """

    key_exchange: tuple[str, ...] = ()
    ciphers: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    host_keys: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()
    authorities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hop:
    """One login on a route. `name` is as given, `host` is what is connected to.

    `timeout` is None where ssh's configuration sets none; a host key of RSA has at least `rsa_bits`. `instance_id` is
    that of the EC2 instance which this is, None where nobody knows.
    """

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
    source: str | None = None
    timeout: float | None = None
    proxy_command: str | None = None
    algorithms: Algorithms = field(default_factory=Algorithms)
    rsa_bits: int = 0
    instance_id: str | None = None

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
        """The shell with which ssh would run a ProxyCommand."""
        return os.environ.get("SHELL") or "/bin/sh"


class SshConfig:
    """ssh's configuration as ssh itself reads it; the defaults where there is none."""

    def __init__(self, operator: Operator, client: SshProgram | None) -> None:
        self._operator = operator
        self._client = client

    @classmethod
    def read(cls, file: Path | None = None, environment: Mapping[str, str] = os.environ) -> SshConfig:
        """Find FILE, or the user's and the system's configuration, and the program that reads it.

        Raises AgentError `config-invalid` without the file or the program.
        """
        operator = Operator.of_this_process(environment)
        if file is not None and str(file) in _NOTHING:
            file = Path(os.devnull)
        elif file is not None and files.read(str(file), 0, _SIZE) is None:
            raise wrong(str(file), f"{file}: no such file")
        usual = (operator.home / ".ssh/config", _SYSTEM)
        there = [file] if file is not None else [each for each in usual if each.is_file()]
        if not there:
            return cls(operator, None)
        program = shutil.which("ssh", path=environment.get("PATH"))
        if program is None:
            raise AgentError(
                "config-invalid",
                f"ssh's configuration {there[0]} is there, and no ssh to read it",
                saw=f"no ssh in PATH {environment.get('PATH', '')}",
                want="OpenSSH's client, which says what its configuration means",
                hint="`apt-get install openssh-client`, or `dnf install openssh-clients`",
            )
        named = None if file is None else file.absolute()
        return cls(operator, SshProgram(program, named, environment, str(Path.cwd())))

    def route(self, target: Target, stopped: Callable[[], bool] = lambda: False) -> Route:
        """Resolve the target and all jump hosts before it. Raises AgentError `config-invalid`, `interrupted`."""
        asked = SshQuery(target.address, target.user, target.port, target.key, _without_itself(target))
        *before, last = self._hops(asked, (), stopped)
        return Route((*before, replace(last, instance_id=target.instance_id)))

    def _hops(
        self, asked: SshQuery, seen: tuple[SshQuery, ...], stopped: Callable[[], bool]
    ) -> tuple[Hop, ...]:
        """Resolve a host, then its last jump host as ssh does: the others before it are jump hosts of that one."""
        answer = self._answer(asked, stopped)
        jump = answer.get("proxyjump")
        if jump is None:
            return (self._hop(asked, answer),)
        first = seen[0].name if seen else asked.name
        hop = self._hop(asked, answer)
        before = _last(_tokens(self._operator, asked.name, answer).command(jump), asked.name)
        if before in (*seen, asked):
            names = [each.name for each in (*seen, asked, before)]
            raise wrong(first, f"ProxyJump goes in a circle: {' > '.join(names)}")
        if len(seen) >= _HOPS - 1:
            raise wrong(first, f"ProxyJump has more than {_HOPS} hosts")
        return (*self._hops(before, (*seen, asked), stopped), hop)

    def _answer(self, asked: SshQuery, stopped: Callable[[], bool]) -> ResolvedConfig:
        if self._client is not None:
            return self._client.ask(asked, stopped)
        user = asked.user or self._operator.name
        if user is None:
            raise AgentError(
                "config-invalid",
                f"there is no user to log in to {asked.name} as",
                saw=f"uid {self._operator.uid} has no name on this machine",
                want="a user",
                hint="name it in the inventory",
            )
        options = {
            "hostname": (asked.name,),
            "port": (str(asked.port or PORT),),
            "user": (user,),
            "userknownhostsfile": (" ".join(_DEFAULT_KNOWN),),
            "globalknownhostsfile": (" ".join(_GLOBAL_KNOWN),),
            "identityfile": (asked.key,) if asked.key else (),
            "proxyjump": (asked.jump,) if asked.jump else (),
        }
        return ResolvedConfig(
            {keyword: tuple(each for each in values if each) for keyword, values in options.items()}
        )

    def _hop(self, asked: SshQuery, answer: ResolvedConfig) -> Hop:
        name = asked.name
        _check_understood(name, answer)
        tokens = _tokens(self._operator, name, answer)
        keys, named = self._keys(answer, tokens)
        command = answer.get("proxycommand")
        if command and any(_UNSAFE.search(word) for word in (tokens.host, tokens.user, name)):
            raise wrong(name, f"{tokens.user}@{tokens.host} is no name that a ProxyCommand is given")
        timeout = answer.get("connecttimeout")
        certificates = (each for each in answer.all("certificatefile") if each.lower() != "none")
        return Hop(
            name=name,
            host=tokens.host,
            port=tokens.port,
            user=tokens.user,
            keys=keys,
            keys_named=named,
            certificates=tuple(tokens.path(each) for each in certificates),
            identities_only=answer.get("identitiesonly") == "yes",
            agent=self._agent(answer, tokens),
            key_alias=tokens.key_alias,
            known_hosts=self._known_hosts(answer, tokens),
            known_hosts_global=tuple(
                tokens.home(each) for each in _files(answer.get("globalknownhostsfile"))
            ),
            hash_known_hosts=answer.get("hashknownhosts") == "yes",
            family=answer.get("addressfamily") or "any",
            source=answer.get("bindaddress"),
            timeout=float(timeout) if timeout and timeout != "0" else None,
            proxy_command=tokens.command(command) if command else None,
            algorithms=_algorithms(answer),
            rsa_bits=int(bits) if (bits := answer.get("requiredrsasize") or "").isdecimal() else 0,
        )

    def _keys(self, answer: ResolvedConfig, tokens: ConfigExpander) -> tuple[tuple[str, ...], bool]:
        """Return the key files, and whether they were named; of the default ones only those that exist.

        An agent may hold a key of which only the public part is a file.
        """
        named = answer.all("identityfile")
        usual = self._client.default_keys if self._client else ()
        if named and named != usual:
            return tuple(tokens.path(each) for each in named if each.lower() != "none"), True
        paths = [tokens.home(each) for each in usual or (f"~/.ssh/{each}" for each in _DEFAULT_KEYS)]
        there = (path for path in paths if Path(path).is_file() or Path(f"{path}.pub").is_file())
        return tuple(there), False

    def _agent(self, answer: ResolvedConfig, tokens: ConfigExpander) -> str | None:
        environment = self._operator.environment
        agent = next(iter(answer.all("identityagent")), "SSH_AUTH_SOCK")
        if agent.lower() == "none":
            return None
        if agent == "SSH_AUTH_SOCK":
            return environment.get("SSH_AUTH_SOCK") or None
        if re.fullmatch(r"\$\w+", agent):  # the old form of a variable
            return environment.get(agent[1:]) or None
        return agent if self._is_expanded("identityagent") else tokens.path(agent)

    def _known_hosts(self, answer: ResolvedConfig, tokens: ConfigExpander) -> tuple[str, ...]:
        files = answer.get("userknownhostsfile")
        if self._is_expanded("userknownhostsfile"):
            return _files(files)
        if files and re.search(r"%|\$\{", files):  # OpenSSH 8.3 and older
            raise wrong(tokens.name, f"UserKnownHostsFile {files}: this ssh knows no tokens there")
        return tuple(tokens.home(each) for each in _files(files))

    def _is_expanded(self, keyword: str) -> bool:
        return self._client is not None and keyword in self._client.expanded


def _tokens(operator: Operator, name: str, answer: ResolvedConfig) -> ConfigExpander:
    host, user, port = answer.name("hostname") or name, answer.name("user"), answer.name("port") or ""
    if user is None or not port.isdecimal() or not 0 < int(port) < 65536:
        raise wrong(name, f"User {user}, Port {port}")
    digest = (answer.get("controlpath") or "").lstrip("/") or None
    jump = answer.get("proxyjump")
    return ConfigExpander(
        operator,
        host,
        name,
        int(port),
        user,
        answer.name("hostkeyalias"),
        digest,
        jump=_last(jump, name).name if jump else "",
    )


def _without_itself(target: Target) -> str | None:
    """Return the jump hosts of a target, without the last one where that is the target itself.

    A group's jump host may be a member of the group; ssh refuses that as a loop.
    """
    if target.jump is None or target.jump.lower() == "none":
        return target.jump
    hops = [each.strip() for each in target.jump.split(",")]
    last = _last(hops[-1], target.address)
    same_port = (last.port or PORT) == (target.port or PORT)
    if last.name.lower() == target.address.lower() and same_port and last.user in (None, target.user):
        hops.pop()
    return ",".join(hops) or None


def _last(jump: str, name: str) -> SshQuery:
    """Return the last host of a ProxyJump, with the others as its own."""
    others, _, last = jump.rpartition(",")
    spelled = _JUMP.fullmatch(last.strip())
    if spelled is None:
        raise wrong(name, f"ProxyJump {jump}")
    port = int(spelled[3]) if spelled[3] else None
    return SshQuery(spelled[2].strip("[]"), spelled[1], port, jump=others or None)


def _check_understood(name: str, answer: ResolvedConfig) -> None:
    """Refuse options, by name, that would reach another host or log in differently than is done here."""
    if reason := answer.get(_FORBIDDEN):
        raise wrong(name, f"RefuseConnection {reason}")
    for keyword in _NOT_UNDERSTOOD:
        if value := answer.get(keyword):
            raise wrong(name, f"{keyword} {value} is not understood here")
    if answer.get("proxyusefdpass") == "yes":
        raise wrong(name, "proxyusefdpass yes is not understood here")
    if answer.get("proxycommand") == "-":
        raise wrong(name, "proxycommand - is not understood here")
    if answer.get("pubkeyauthentication") in ("no", "false"):
        raise wrong(name, "pubkeyauthentication no: only keys log in here")
    ways = answer.get("preferredauthentications")
    if ways and "publickey" not in ways.split(","):
        raise wrong(name, f"preferredauthentications {ways}: only keys log in here")


def _algorithms(answer: ResolvedConfig) -> Algorithms:
    def names(keyword: str) -> tuple[str, ...]:
        return tuple(each for each in (answer.get(keyword) or "").split(",") if each)

    return Algorithms(
        names("kexalgorithms"),
        names("ciphers"),
        names("macs"),
        names("hostkeyalgorithms"),
        # up to OpenSSH 8.4 it had another name
        names("pubkeyacceptedalgorithms") or names("pubkeyacceptedkeytypes"),
        names("casignaturealgorithms"),
    )


def _files(value: str | None) -> tuple[str, ...]:
    return tuple(each for each in _NEXT.split(value or "") if each and each.lower() != "none")
