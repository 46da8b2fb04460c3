"""SDK 3: its one configure tool around its daemon, and the daemon itself (configure-sdk-3)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.cloudhsm.cli_output import diagnose
from agent.cloudhsm.client_config import (
    parse_daemon_config,
    parse_utility_config,
    repaired_daemon_config,
    repaired_utility_config,
)
from agent.cloudhsm.paths import PORT, client_paths
from agent.cloudhsm.protection import close, exposed
from agent.cloudhsm.sdk3 import daemon
from agent.cloudhsm.sdk3.service_managers import HALTED
from agent.core.errors import CODES, AgentError, CodeName
from agent.core.links import require_whole
from agent.core.model import Finding
from agent.steps.disk_space import refuse_without_room
from agent.steps.prepare import FileAttributes, prepare, undo_damage

if TYPE_CHECKING:
    from agent.cloudhsm.client_config import SavedConfig
    from agent.cloudhsm.protection import UnprotectedPath
    from agent.core.host import CommandResult, Host, HostView
    from agent.core.timeouts import Timeouts

# How long a daemon must have run, in seconds, to be taken for one that stays; longer when it ended by itself before.
_STEADY = 5.0
_AFTER_RESTARTS = 60.0
_LOOK_AGAIN = 0.5
# A daemon began this much later, in seconds, than a file it read was written: clocks tick in hundredths.
_TICK = 0.02


@dataclass(frozen=True)
class ConfigureSdk3:
    """The daemon's and the management utility's configuration: one address each, the daemon learns the others."""

    servers: tuple[str, ...]
    ca: str
    limits: Timeouts = field(repr=False)
    kept: SavedConfig | None = field(default=None, repr=False)
    kept_utility: SavedConfig | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        return "configure:cli"

    @property
    def not_applied_code(self) -> CodeName:
        return "configure-not-applied"

    def check(self, view: HostView) -> Finding:
        """Compare the two parsed files with what is wanted. Any wanted HSM will do: each leads to the others."""
        here = client_paths(view.system).sdk3
        open_to_others = self._exposed(view)
        for each in open_to_others:
            if not each.ours:
                raise each.refuse()
        client = self._client(view)
        utility, faults = _utility(view)
        told = []
        if not client.met:
            return client
        if faults or not set(utility) & set(self.servers):
            told.append("; ".join(["management utility " + (" ".join(utility) or "not configured"), *faults]))
        told += [f"{each.path}: {each.words}" for each in open_to_others]
        if not told:
            return client
        return Finding(
            False, "; ".join([client.saw, *told]), client.want, hint=f"look at {here.cmu_settings}"
        )

    def apply(self, host: Host) -> None:
        """In the vendor's order: the daemon stopped, its address, started, up; then the management utility's."""
        here = client_paths(host.system)
        configure = here.sdk3.configure
        for each in self._exposed(host):
            close(host, each)
        address = self._answering(host)
        daemon.stop(host, self.limits.tool)
        files = {
            here.sdk3.client_settings: (_CLIENT, self.kept),
            here.sdk3.cmu_settings: (_UTILITY, self.kept_utility),
        }
        try:
            for path, (form, kept) in files.items():
                prepare(host, here, path, form, kept)
            before = {path: host.read(path) for path in files}
            done = host.run((configure, "-a", address), timeout=self.limits.tool)
            for path, (form, _) in files.items():
                undo_damage(host, here, path, form, before[path])
        finally:
            # also after a failure: a host whose daemon ran must not be left without it
            daemon.start(host, self.limits.tool)
        # a tool that failed may have done its work, and one that succeeded may not have: the file decides
        if not self._client(host).met:
            if not done.ok:
                raise _failed(host, done, "-a", address)
            return
        daemon.wait_until_settled(host, None, self.limits.tool)
        done = host.run((configure, "--cmu", address), timeout=self.limits.tool)
        if not done.ok and not self.check(host).met:
            raise _failed(host, done, "--cmu", address)

    def _exposed(self, view: HostView) -> tuple[UnprotectedPath, ...]:
        """Return what others could change of the two files, the programs of SDK 3 and the folders they lie in."""
        here = client_paths(view.system)
        files = (here.sdk3.client_settings, here.sdk3.cmu_settings)
        return exposed(view, here, files, (here.sdk3.configure, here.sdk3.daemon, here.sdk3.cmu))

    def _client(self, view: HostView) -> Finding:
        """Look at the daemon's file."""
        path = client_paths(view.system).sdk3.client_settings
        want = self.servers[0] if len(self.servers) == 1 else f"one of {' '.join(self.servers)}"
        data = view.read(path)
        if data is None:
            require_whole(view, path)
            return Finding(met=False, saw="no configuration file", want=want)
        try:
            settings = parse_daemon_config(data)
        except ValueError as error:
            return Finding(met=False, saw=f"damaged: {error}", want=want, hint=f"look at {path}")
        if settings.placeholder:
            return Finding(met=False, saw="not configured", want=want)
        saw = settings.hostname or "no server"
        if settings.ca_file not in (None, self.ca):
            # the tool has no option for it, so this is somebody's own change
            hint = f"put {self.ca} back as client.e2e_owner_crt_path in {path}"
            return Finding(False, f"{saw}; CA {settings.ca_file}", f"{want}; CA {self.ca}", hint=hint)
        if settings.faults:
            hint = f"{path} belongs to the package: reinstalling it brings a fresh one; then run this again"
            return Finding(False, "; ".join([saw, *settings.faults[:3]]), want, hint=hint)
        return Finding(settings.hostname in self.servers, saw, want)

    def _answering(self, host: Host) -> str:
        """Return the first address that answers, asked all at once: a daemon that starts has no other to try."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            reached = pool.map(
                lambda each: host.connect(each, PORT, timeout=self.limits.connect, tls=False), self.servers
            )
            return next((each.address for each in reached if each.cause is None), self.servers[0])


@dataclass(frozen=True)
class DaemonService:
    """The SDK 3 daemon runs, with the configuration and the CA of now, and is started at boot.

    It reads both when it starts. Which of them it has read is told by the clock alone, whoever changed them and
    however a run ended before the daemon was started anew.
    """

    ca: str
    limits: Timeouts = field(repr=False)

    @property
    def id(self) -> str:
        return "service"

    @property
    def not_applied_code(self) -> CodeName:
        return "service-failed"

    def check(self, view: HostView) -> Finding:
        want = "active, enabled"
        now = daemon.status(view, self.limits.tool)
        saw = f"{now.active}, {now.enabled}"
        changed = self._changed_since(view, now.started)
        if changed:
            saw, want = f"{saw}, started before {changed} changed", f"{want}, started after that"
        elif now.active == "failed":
            saw = ": ".join(filter(None, (saw, daemon.recent_log(view, self.limits.tool))))
        return Finding((now.active, now.enabled, changed) == ("active", "enabled", None), saw, want)

    def apply(self, host: Host) -> None:
        daemon.enable(host, self.limits.tool)
        now = daemon.status(host, self.limits.tool)
        changed = self._changed_since(host, now.started)
        if now.active == "active" and changed is None:
            return
        anew = changed is not None or now.active == HALTED
        since = None if anew else daemon.connected_since(host)
        if anew:
            daemon.stop(host, self.limits.tool)
        daemon.start(host, self.limits.tool)
        daemon.wait_until_settled(host, since, self.limits.tool)

    def _changed_since(self, view: HostView, started: float | None) -> str | None:
        """Return the file that is newer than the running daemon. One that is dated in the future says nothing."""
        now = view.now().timestamp()
        for path in (client_paths(view.system).sdk3.client_settings, self.ca) if started is not None else ():
            stat = view.stat(path)
            if stat is not None and (started or 0) + _TICK < stat.mtime <= now:
                return path
        return None


@dataclass(frozen=True)
class DaemonConnected:
    """The daemon has met its cluster. The management utility does not need it, the libraries of SDK 3 all do."""

    limits: Timeouts = field(repr=False)
    requires: tuple[str, ...] = ()
    depends_on: str | None = None

    @property
    def id(self) -> str:
        return "client:daemon"

    def check(self, view: HostView) -> Finding:
        """Look for what this run of it writes down when it is connected, and whether it then stays.

        One that connects slowly is waited for. One that ends and is started anew by itself is seen connected, now and
        then, for ever: it counts when it has run for a while. Its own last words are the cause of a failure.
        """
        begun = view.monotonic()
        first = now = daemon.status(view, self.limits.tool)
        while now.is_up and now.run == first.run:
            age = view.monotonic() - begun if now.started is None else view.now().timestamp() - now.started
            if daemon.has_connected(view, now) and age >= (_AFTER_RESTARTS if now.restarts else _STEADY):
                return Finding(met=True, saw="connected", want="connected")
            if view.monotonic() - begun >= self.limits.client:
                break
            view.sleep(_LOOK_AGAIN)
            now = daemon.status(view, self.limits.tool)
        said = daemon.recent_log(view, self.limits.tool)
        known = diagnose(said)
        saw = (known.saw if known else said) or "not connected"
        if now.run != first.run or now.restarts:
            saw = f"it ends and is started anew again and again: {saw}"
        return Finding(False, saw, "connected", "service-failed", CODES["service-failed"].fix)


def _utility(view: HostView) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the HSMs that the management utility's file names, and what is wrong with it."""
    try:
        found = parse_utility_config(view.read(client_paths(view.system).sdk3.cmu_settings) or b"")
    except ValueError:
        return (), ()
    return found.servers, found.faults[:3]


def _read_client(data: bytes) -> tuple[bool, tuple[str, ...]]:
    settings = parse_daemon_config(data)
    return settings.hostname is not None and not settings.placeholder, settings.faults


def _read_utility(data: bytes) -> tuple[bool, tuple[str, ...]]:
    found = parse_utility_config(data)
    return bool(found.servers), found.faults


_CLIENT = FileAttributes(
    _read_client, lambda data: repaired_daemon_config(data) if parse_daemon_config(data).faults else data
)
_UTILITY = FileAttributes(
    _read_utility, lambda data: repaired_utility_config(data) if parse_utility_config(data).faults else data
)


def _failed(host: Host, done: CommandResult, *words: str) -> AgentError:
    here = client_paths(host.system)
    refuse_without_room(host, here.sdk3.client_settings, here.root)
    line = " ".join((here.sdk3.configure, *words))
    return AgentError(
        "configure-failed",
        f"`{line}` " + ("did not end" if done.timed_out else f"exited {done.status}"),
        saw=done.tail(4) or ("no answer" if done.timed_out else f"exit {done.status}"),
        want="exit 0",
        hint=f"run `{line}` by hand; reinstalling the package restores the tool",
    )
