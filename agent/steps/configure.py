"""The vendor's configure tools: run once with everything, then read the file back and compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from agent.cloudhsm.client_config import Server, parse_client_config, repaired
from agent.cloudhsm.client_options import ClientOptions
from agent.cloudhsm.disk_space import refuse_without_room
from agent.cloudhsm.paths import PORT
from agent.cloudhsm.prepare import FileAttributes, prepare, undo_damage
from agent.cloudhsm.protection import close_all, exposed, is_roots_alone
from agent.core.errors import AgentError
from agent.core.links import require_target, resolve_link
from agent.core.model import Finding, Notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.cloudhsm.client_config import ClientConfig, SavedConfig
    from agent.cloudhsm.client_options import ClientOption
    from agent.cloudhsm.paths import ClientPaths
    from agent.cloudhsm.protection import UnprotectedPath
    from agent.core.codes import CodeName
    from agent.core.host import Host, HostView
    from agent.core.timeouts import Timeouts

_MOST_FAULTS = 3


@dataclass(frozen=True)
class Configure:
    """One SDK 5 component, configured. Of an option that was not given, whatever the file holds is right.

    `kept` is the file as it was before this run, or the last copy of it that a client could read: when a package
    brings its fresh file, or the file is damaged, that one is put back before the tool adds to it.
    """

    not_applied_code: ClassVar[CodeName] = "configure-not-applied"

    component: str
    paths: ClientPaths = field(repr=False)
    servers: tuple[str, ...]
    accept_single_hsm: bool
    limits: Timeouts = field(repr=False)
    options: ClientOptions = field(default_factory=ClientOptions)
    kept: SavedConfig | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        return f"configure:{self.component}"

    def check(self, view: HostView) -> Finding:
        """Compare the parsed file with what is wanted; the tool's words and exit status are never asked."""
        want = " ".join(self.servers)
        path = self._path(view)
        open_to_others = self._exposed(view)
        for each in open_to_others:
            if not each.ours:
                raise each.refuse()
        data = view.read(path)
        if data is None:
            require_target(view, path)
            return Finding.unmet("no configuration file", want, hint=self._mend(path))
        try:
            settings = parse_client_config(data)
        except ValueError as error:
            lost = self._lost(path, "damaged")
            return Finding.unmet(f"damaged: {error}", want, hint=self._mend(path), notices=lost)
        if settings.clusters > 1:
            raise AgentError(
                "configure-not-applied",
                f"{path} holds {settings.clusters} clusters, and a configure tool does not act on such a file",
                saw=f"{settings.clusters} clusters",
                want=want,
                hint="remove the clusters that are not wanted with the tool's `remove-cluster`, then run this again",
            )
        self._refuse_single(settings)
        differences = self._differences(settings, open_to_others) + self._shut(view, path)
        saw = "not configured" if settings.placeholder else _addresses(settings)
        if not differences:
            return Finding.ok(saw, want, notices=self._notices())
        named = [(is_, should) for what, is_, should in differences if what != "servers"]
        return Finding.unmet(
            "; ".join([saw, *(is_ for is_, _ in named)]),
            "; ".join([want, *(should for _, should in named)]),
            hint=self._mend(path) if settings.faults else f"compare {path} with what is wanted",
            notices=(
                *self._notices(),
                *(self._lost(path, "; ".join(settings.faults[:_MOST_FAULTS])) if settings.faults else ()),
            ),
        )

    def apply(self, host: Host) -> None:
        close_all(host, lambda: self._exposed(host))
        path, form = self._path(host), self._form()
        prepare(host, self.paths, path, form, self.kept)
        argv = self.argv(host)
        before = host.read(path)
        done = host.run(argv, timeout=self.limits.tool)
        undo_damage(host, self.paths, path, form, before)
        if self._shut(host, path):
            _let_all_read(host, resolve_link(host, path))
        # A tool that failed may have done its work, and one that succeeded may not have: the file decides. Only what
        # left no trace in the file is reported in the tool's own words.
        if done.ok:
            return
        hint = f"run `{' '.join(argv)}` by hand; reinstalling the package restores the tool"
        try:
            after = self.check(host)
            if after.met:
                return
            if after.saw.startswith(("damaged", "no configuration")):
                hint = self._mend(self._path(host))
            refuse_without_room(host, self._path(host), self.paths.root)
        except AgentError as error:
            # a tool that would not even be ended used up the run's time: it is the cause, the limit the consequence
            if not (done.timed_out and error.code.name == "timed-out"):
                raise
        raise AgentError(
            "configure-failed",
            f"`{' '.join(argv)}` " + ("did not end" if done.timed_out else f"exited {done.status}"),
            saw=done.tail(4) or ("no answer" if done.timed_out else f"exit {done.status}"),
            want="exit 0",
            hint=hint,
        )

    def argv(self, view: HostView) -> tuple[str, ...]:
        """Return the one call that makes everything so: `-a` replaces the whole list of servers."""
        argv = [self.paths.tool(self.component), "-a", *self.servers, "--hsm-ca-cert", self.paths.ca]
        if self.accept_single_hsm:
            argv.append("--disable-key-availability-check")
        elif self._is_check_off(view):
            argv.append("--enable-key-availability-check")
        for option, value in self._options():
            if value is not None:
                argv += [option.flag, value]
        return tuple(argv)

    def _form(self) -> FileAttributes:
        return FileAttributes(_read, self._mended)

    def _mended(self, data: bytes) -> bytes:
        """Return a file without its faults, and without what is to be unset; as it is where it has neither.

        The tool has no flag that takes a key out of its file again.
        """
        without = [option.key for option, value in self._options() if value is None]
        if parse_client_config(data).faults or any(f'"{key}"'.encode() in data for key in without):
            fresh = self.paths.logging(self.component)
            return repaired(data, ca=self.paths.ca, logging=fresh, without=tuple(without))
        return data

    def _path(self, view: HostView) -> str:
        return self.paths.settings(self.component, view)

    def _is_check_off(self, view: HostView) -> bool:
        try:
            return parse_client_config(view.read(self._path(view)) or b"").key_availability_check_disabled
        except ValueError:
            return False

    def _options(self) -> Iterator[tuple[ClientOption, str | None]]:
        """Yield what was given, with the value that the file is to hold; None is for no such key."""
        return self.options.wanted(self.component, self.paths.logging(self.component))

    def _exposed(self, view: HostView) -> tuple[UnprotectedPath, ...]:
        """Return what others could change of the file, the programs of the component and the folders they lie in."""
        return exposed(view, self.paths, (self._path(view),), self.paths.programs(self.component, view))

    def _differences(
        self, settings: ClientConfig, open_to_others: tuple[UnprotectedPath, ...]
    ) -> list[tuple[str, str, str]]:
        """Return (what, is, should be) for everything that is not as wanted."""
        found: list[tuple[str, str, str]] = []
        wanted = [Server(each, PORT, enable=True) for each in self.servers]
        if settings.placeholder or sorted(settings.servers) != sorted(wanted):
            found.append(("servers", "", ""))
        if settings.ca_file != self.paths.ca:
            found.append(("ca", f"CA {settings.ca_file or 'not named'}", f"CA {self.paths.ca}"))
        if settings.key_availability_check_disabled != self.accept_single_hsm:
            words = {True: "key-availability check off", False: "key-availability check on"}
            found.append(
                ("check", words[settings.key_availability_check_disabled], words[self.accept_single_hsm])
            )
        for option, should in self._options():
            is_ = settings.options[option.name]
            if is_ != should:
                name = option.title
                found.append((name, f"{name} {is_ or 'not set'}", f"{name} {should or 'not set'}"))
        found += [("form", fault, "as the tool writes it") for fault in settings.faults[:_MOST_FAULTS]]
        found += [("rights", f"{each.path}: {each.words}", "root alone to write") for each in open_to_others]
        return found

    def _shut(self, view: HostView, path: str) -> list[tuple[str, str, str]]:
        """Return (what, is, should be) where root alone may read what programs of all users load a library with."""
        stat = view.stat(resolve_link(view, path))
        if self.component == "cli" or view.system.is_windows or stat is None or not is_roots_alone(stat):
            return []
        return [("readers", f"mode {stat.mode:04o}, for root alone to read", "its programs to read")]

    def _refuse_single(self, settings: ClientConfig) -> None:
        if settings.key_availability_check_disabled and not self.accept_single_hsm and len(self.servers) == 1:
            raise AgentError(
                "single-hsm-not-accepted",
                "this host accepts a single HSM, and this run would end that",
                saw="key-availability check off",
                want="--accept-single-hsm, or more addresses",
                hint="pass --accept-single-hsm to keep it so, or name every HSM with --hsm-ip",
            )

    def _notices(self) -> tuple[Notice, ...]:
        if not self.accept_single_hsm:
            return ()
        return (
            Notice(
                "single-hsm",
                "the key-availability check is off: a key that is on one HSM only is lost with that HSM",
            ),
        )

    def _lost(self, path: str, what: str) -> tuple[Notice, ...]:
        """Say what of a file that the client cannot read is kept, and what is not."""
        if self.kept is not None and what == "damaged":
            text = f"{path} is damaged: the last copy of it that was kept takes its place"
            return (Notice("settings-restored", text),)
        text = (
            f"{path} is {what}: of that, log settings, client certificate and keys of your own are not kept"
        )
        return (Notice("settings-not-kept", text),)

    def _mend(self, path: str) -> str:
        """Say how to get a file back that its own tool does not read any more, and that only the vendor writes."""
        back = "`hsm-agent rollback` puts back the last one that worked, " if self.kept is not None else ""
        return f"{path} belongs to the package: {back}reinstalling the package brings a fresh one; then run this again"


def _let_all_read(host: Host, path: str) -> None:
    stat = host.stat(path)
    if stat is not None:
        host.chmod(path, stat.mode | 0o444)


def _read(data: bytes) -> tuple[bool, tuple[str, ...]]:
    settings = parse_client_config(data)
    return bool(settings.servers) and not settings.placeholder, settings.faults


def _addresses(settings: ClientConfig) -> str:
    return " ".join(map(_address, settings.servers)) or "no servers"


def _address(server: Server) -> str:
    port = "" if server.port == PORT else f" port {server.port}"
    return server.hostname + port + ("" if server.enable else " (disabled)")
