"""The steps and probes of SDK 3: its one configure tool around its daemon, the daemon, the management utility."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from agent.cloudhsm.cli_output import diagnose
from agent.cloudhsm.disk_space import refuse_without_room
from agent.cloudhsm.paths import PORT
from agent.cloudhsm.prepare import FileAttributes, prepare, undo_damage
from agent.cloudhsm.protection import close_all, exposed, require_own
from agent.cloudhsm.sdk3.client_config import (
    parse_daemon_config,
    parse_utility_config,
    repaired_daemon_config,
    repaired_utility_config,
)
from agent.cloudhsm.sdk3.daemon import daemon_on
from agent.cloudhsm.sdk3.paths import PORT_CMU
from agent.cloudhsm.sdk3.service_managers import HALTED
from agent.core.errors import AgentError
from agent.core.links import require_target, resolve_link
from agent.core.model import Finding

if TYPE_CHECKING:
    from agent.cloudhsm.client_config import SavedConfig
    from agent.cloudhsm.paths import ClientPaths
    from agent.cloudhsm.protection import UnprotectedPath
    from agent.cloudhsm.sdk3.service_managers import ServiceStatus
    from agent.core.codes import CodeName
    from agent.core.host import CommandResult, Host, HostView
    from agent.core.timeouts import Timeouts

# How long a daemon must have run, in seconds, to be taken for one that stays; longer when it ended by itself before.
_STEADY = 5.0
_AFTER_RESTARTS = 60.0
_LOOK_AGAIN = 0.5
# A daemon began this much later, in seconds, than a file it read was written: clocks tick in hundredths.
_TICK = 0.02
_MOST_FAULTS = 3


@dataclass(frozen=True)
class ConfigureSdk3:
    """The daemon's and the management utility's configuration: one address each, the daemon learns the others.

    `kept` and `kept_utility` are the files as they were before this run, or the last copies that SDK 3 could read.
    """

    id: ClassVar[str] = "configure:cli"
    not_applied_code: ClassVar[CodeName] = "configure-not-applied"

    servers: tuple[str, ...]
    paths: ClientPaths = field(repr=False)
    limits: Timeouts = field(repr=False)
    kept: SavedConfig | None = field(default=None, repr=False)
    kept_utility: SavedConfig | None = field(default=None, repr=False)

    def check(self, view: HostView) -> Finding:
        """Compare the two parsed files with what is wanted. Any wanted HSM will do: each leads to the others."""
        open_to_others = self._exposed(view)
        for each in open_to_others:
            if not each.ours:
                raise each.refuse()
        daemon = self._check_daemon(view)
        utility, faults = self._utility(view)  # one that cannot be read is refused before any change
        if not daemon.met:
            return daemon
        differences = []
        if faults or not set(utility) & set(self.servers):
            names = " ".join(utility) or "not configured"
            differences.append("; ".join([f"management utility {names}", *faults]))
        differences += [f"{each.path}: {each.words}" for each in open_to_others]
        if not differences:
            return daemon
        hint = f"look at {self.paths.sdk3.utility_config}"
        return Finding.unmet("; ".join([daemon.saw, *differences]), daemon.want, hint=hint)

    def apply(self, host: Host) -> None:
        """In the vendor's order: stop the daemon, set its address, start it, wait; then the management utility's."""
        paths = self.paths.sdk3
        daemon = daemon_on(self.paths)
        close_all(host, lambda: self._exposed(host))
        address = self._answering(host)
        daemon.stop(host, self.limits.tool)
        files = {
            paths.daemon_config: (_DAEMON, self.kept),
            paths.utility_config: (_UTILITY, self.kept_utility),
        }
        try:
            for path, (form, kept) in files.items():
                prepare(host, self.paths, path, form, kept)
            before = {path: host.read(path) for path in files}
            done = host.run((paths.configure, "-a", address), timeout=self.limits.tool)
            for path, (form, _) in files.items():
                undo_damage(host, self.paths, path, form, before[path])
        finally:
            # also after a failure: a host whose daemon ran must not be left without it
            daemon.start(host, self.limits.tool)
        # a tool that failed may have done its work, and one that succeeded may not have: the file decides
        if not self._check_daemon(host).met:
            if not done.ok:
                raise self._failed(host, done, "-a", address)
            return
        daemon.wait_until_settled(host, None, self.limits.tool)
        done = host.run((paths.configure, "--cmu", address), timeout=self.limits.tool)
        if not done.ok and not self.check(host).met:
            raise self._failed(host, done, "--cmu", address)

    def _exposed(self, view: HostView) -> tuple[UnprotectedPath, ...]:
        """Return what others could change of the two files, the programs of SDK 3 and the folders they lie in."""
        paths = self.paths.sdk3
        programs = (paths.configure, paths.daemon, paths.utility)
        return exposed(view, self.paths, paths.configs, programs)

    def _check_daemon(self, view: HostView) -> Finding:
        """Compare the daemon's file with what is wanted."""
        path = self.paths.sdk3.daemon_config
        want = self.servers[0] if len(self.servers) == 1 else f"one of {' '.join(self.servers)}"
        data = view.read(path)
        if data is None:
            require_target(view, path)
            return Finding.unmet("no configuration file", want)
        try:
            settings = parse_daemon_config(data)
        except ValueError as error:
            return Finding.unmet(f"damaged: {error}", want, hint=f"look at {path}")
        if settings.placeholder:
            return Finding.unmet("not configured", want)
        saw, ca = settings.hostname or "no server", self.paths.ca
        if settings.ca_file not in (None, ca):
            # the tool has no option for it, so this is somebody's own change
            hint = f"put {ca} back as client.e2e_owner_crt_path in {path}"
            return Finding.unmet(f"{saw}; CA {settings.ca_file}", f"{want}; CA {ca}", hint=hint)
        if settings.faults:
            hint = f"{path} belongs to the package: reinstalling it brings a fresh one; then run this again"
            return Finding.unmet("; ".join([saw, *settings.faults[:_MOST_FAULTS]]), want, hint=hint)
        return Finding(settings.hostname in self.servers, saw, want)

    def _answering(self, host: Host) -> str:
        """Return the first address that answers, asked all at once: a daemon that starts has no other to try."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            reached = pool.map(
                lambda each: host.connect(each, PORT, timeout=self.limits.connect, tls=False), self.servers
            )
            return next((each.address for each in reached if each.cause is None), self.servers[0])

    def _utility(self, view: HostView) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the HSMs that the management utility's file names, and what is wrong with it."""
        try:
            found = parse_utility_config(view.read(self.paths.sdk3.utility_config) or b"")
        except ValueError:
            return (), ()
        return found.servers, found.faults[:_MOST_FAULTS]

    def _failed(self, host: Host, done: CommandResult, *arguments: str) -> AgentError:
        refuse_without_room(host, self.paths.sdk3.daemon_config, self.paths.root)
        line = " ".join((self.paths.sdk3.configure, *arguments))
        return AgentError(
            "configure-failed",
            f"`{line}` " + ("did not end" if done.timed_out else f"exited {done.status}"),
            saw=done.tail(4) or ("no answer" if done.timed_out else f"exit {done.status}"),
            want="exit 0",
            hint=f"run `{line}` by hand; reinstalling the package restores the tool",
        )


@dataclass(frozen=True)
class DaemonService:
    """The daemon runs with the current configuration and CA, and is started at boot.

    It reads both when it starts. Only the clock shows which of them it has read, whoever changed them, and however a
    run ended before it restarted the daemon. A masked one is refused: it may run, and would not after it was stopped.
    """

    id: ClassVar[str] = "service"
    not_applied_code: ClassVar[CodeName] = "service-failed"

    paths: ClientPaths = field(repr=False)
    limits: Timeouts = field(repr=False)

    def check(self, view: HostView) -> Finding:
        want = "active, enabled"
        daemon = daemon_on(self.paths)
        now = daemon.status(view, self.limits.tool)
        saw = f"{now.active}, {now.enabled}"
        if now.is_masked:
            service = self.paths.sdk3.service
            raise AgentError(
                "service-failed", f"the unit {service} is masked, so that nothing can start it", saw=saw, want=want,
                hint=f"`systemctl unmask {service}` if it is to run; SDK 3 does not work without it",
            )  # fmt: skip
        changed = self._changed_since(view, now.started)
        if changed:
            saw, want = f"{saw}, started before {changed} changed", f"{want}, started after that"
        elif now.active == "failed":
            saw = ": ".join(filter(None, (saw, daemon.recent_log(view, self.limits.tool))))
        return Finding((now.active, now.enabled, changed) == ("active", "enabled", None), saw, want)

    def apply(self, host: Host) -> None:
        daemon = daemon_on(self.paths)
        daemon.enable(host, self.limits.tool)
        now = daemon.status(host, self.limits.tool)
        changed = self._changed_since(host, now.started)
        if now.active == "active" and changed is None:
            return
        is_stale = changed is not None or now.active == HALTED
        since = None if is_stale else daemon.connected_since(host)
        if is_stale:
            daemon.stop(host, self.limits.tool)
        daemon.start(host, self.limits.tool)
        daemon.wait_until_settled(host, since, self.limits.tool)

    def _changed_since(self, view: HostView, started: float | None) -> str | None:
        """Return the file that is newer than the running daemon. A date in the future says nothing."""
        now = view.now().timestamp()
        for path in (self.paths.sdk3.daemon_config, self.paths.ca) if started is not None else ():
            stat = view.stat(resolve_link(view, path))
            if stat is not None and (started or 0) + _TICK < stat.mtime <= now:
                return path
        return None


@dataclass(frozen=True)
class DaemonConnected:
    """The daemon is connected to its cluster. The management utility does not need it, the libraries of SDK 3 do."""

    id: ClassVar[str] = "client:daemon"

    paths: ClientPaths = field(repr=False)
    limits: Timeouts = field(repr=False)
    requires: tuple[str, ...] = ()
    depends_on: str | None = None

    def check(self, view: HostView) -> Finding:
        """Look for the file that this run of it writes when it is connected, and whether it then stays.

        A daemon that connects slowly is waited for. One that ends and is restarted by its service manager is seen
        connected now and then, for ever: it counts when it has run for a while. Its last log lines name the cause.
        """
        daemon = daemon_on(self.paths)
        begun = view.monotonic()
        first = now = daemon.status(view, self.limits.tool)
        while now.is_up and now.run == first.run:
            if daemon.has_connected(view, now) and _has_stayed(view, now, begun):
                return Finding.ok("connected", "connected")
            if view.monotonic() - begun >= self.limits.client:
                break
            view.sleep(_LOOK_AGAIN)
            now = daemon.status(view, self.limits.tool)
        log = daemon.recent_log(view, self.limits.tool)
        known = diagnose(log)
        saw = (known.saw if known else log) or "not connected"
        if now.run != first.run or now.restarts:
            saw = f"it ends and restarts repeatedly: {saw}"
        return Finding.unmet(saw, "connected", "service-failed")


@dataclass(frozen=True)
class ManagementUtil:
    """The management utility connects. That it does not connect to each server of its configuration is a remark."""

    id: ClassVar[str] = "client:hsm-info"

    paths: ClientPaths = field(repr=False)
    limits: Timeouts = field(repr=False)
    requires: tuple[str, ...] = ()
    depends_on: str | None = None

    def check(self, view: HostView) -> Finding:
        require_own(view, self.paths, self.paths.sdk3.utility)
        argv = (self.paths.sdk3.utility, self.paths.sdk3.utility_config)
        done = view.query(argv, stdin=b"info server 0\nquit\n", timeout=self.limits.client)
        connected = connected_servers(done.out + done.err)
        if connected:
            return self._connected(connected, self._servers(view))
        if done.timed_out:
            raise AgentError(
                "client-hung",
                "the client did not answer",
                saw=f"no answer in {self.limits.client:g} s",
                want="an answer",
            )
        raise AgentError(
            "client-failed", "the management utility does not connect", saw=done.tail(3), want="connected"
        )

    def _servers(self, view: HostView) -> tuple[str, ...]:
        """Return the HSMs that its configuration names; whether they are the wanted ones is another step's."""
        try:
            return parse_utility_config(view.read(self.paths.sdk3.utility_config) or b"").servers
        except ValueError:
            return ()

    def _connected(self, connected: tuple[str, ...], servers: tuple[str, ...]) -> Finding:
        saw = f"connected to {' '.join(connected)}"
        missing = [each for each in servers if each not in connected]
        if len(connected) >= len(servers) or not missing:
            return Finding.ok(saw, "connected")
        want = f"connected to {' '.join(servers)}"
        hint = f"see why {' '.join(missing)} does not answer on TCP {PORT_CMU}"
        return Finding(True, saw, want, "hsm-degraded", hint)


@dataclass(frozen=True)
class WorkingConfiguration:
    """The present configuration works: the management utility connects, and a daemon that runs stays.

    Beside a daemon that ends and is restarted for ever the utility connects all the same. A daemon that somebody
    stopped says nothing about the configuration. One that stays is not waited for until it is connected: that takes up
    to a minute and a half, and the change that follows may be what cures it.
    """

    id: ClassVar[str] = ManagementUtil.id

    paths: ClientPaths = field(repr=False)
    limits: Timeouts = field(repr=False)
    requires: tuple[str, ...] = ()
    depends_on: str | None = None

    def check(self, view: HostView) -> Finding:
        connects = ManagementUtil(self.paths, self.limits).check(view)
        if connects.met and self._daemon_ends(view):
            return Finding.unmet("the daemon ends and restarts repeatedly", "connected", "service-failed")
        return connects

    def _daemon_ends(self, view: HostView) -> bool:
        daemon = daemon_on(self.paths)
        begun = view.monotonic()
        first = now = daemon.status(view, self.limits.tool)
        while now.is_up and now.run == first.run:
            if _has_stayed(view, now, begun):
                return False
            if now.restarts:
                return True
            if view.monotonic() - begun >= _STEADY:
                return False
            view.sleep(_LOOK_AGAIN)
            now = daemon.status(view, self.limits.tool)
        return first.is_up


def _has_stayed(view: HostView, now: ServiceStatus, begun: float) -> bool:
    """Tell whether a daemon has run for long enough; `begun` stands in where nothing says since when it runs."""
    age = view.monotonic() - begun if now.started is None else view.now().timestamp() - now.started
    return age >= (_AFTER_RESTARTS if now.restarts else _STEADY)


def connected_servers(text: str) -> tuple[str, ...]:
    """Return the addresses that the management utility says it connected to (`Connected to server '…'`)."""
    found = re.findall(
        r"^Connected to server '?([^'\s]+?)'?(?:: hostname '([^'\n]+)'.*|[:.]? *)$", text, re.MULTILINE
    )
    return tuple(dict.fromkeys(hostname or server for server, hostname in found))


def _read_daemon(data: bytes) -> tuple[bool, tuple[str, ...]]:
    settings = parse_daemon_config(data)
    return settings.hostname is not None and not settings.placeholder, settings.faults


def _read_utility(data: bytes) -> tuple[bool, tuple[str, ...]]:
    found = parse_utility_config(data)
    return bool(found.servers), found.faults


_DAEMON = FileAttributes(
    _read_daemon, lambda data: repaired_daemon_config(data) if parse_daemon_config(data).faults else data
)
_UTILITY = FileAttributes(
    _read_utility, lambda data: repaired_utility_config(data) if parse_utility_config(data).faults else data
)
