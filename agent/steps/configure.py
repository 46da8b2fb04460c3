"""The vendor's configure tools: run once with everything, then read the file back and compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.cloudhsm.settings import parse_settings
from agent.core.errors import AgentError
from agent.core.words import Finding, Notice
from agent.steps.room import refuse_without_room

if TYPE_CHECKING:
    from agent.cloudhsm.layout import Layout
    from agent.cloudhsm.settings import Settings
    from agent.core.host import Host, HostView
    from agent.core.limits import Limits


@dataclass(frozen=True)
class Configure:
    """One SDK 5 component, configured. None means: not said, so whatever the file holds is right."""

    component: str
    layout: Layout = field(repr=False)
    servers: tuple[str, ...]
    ca: str
    accept_single_hsm: bool
    limits: Limits = field(repr=False)
    log_level: str | None = None
    log_file: str | None = None
    log_type: str | None = None
    log_rotation: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    @property
    def id(self) -> str:
        return f"configure:{self.component}"

    @property
    def unproven(self) -> str:
        return "configure-not-applied"

    def check(self, view: HostView) -> Finding:
        """Compare the parsed file with what is wanted; the tool's words and exit status are never asked."""
        want = " ".join(self.servers)
        path = self._path(view)
        data = view.read(path)
        if data is None:
            return Finding(met=False, saw="no configuration file", want=want)
        try:
            settings = parse_settings(data)
        except ValueError as error:
            return Finding(False, f"damaged: {error}", want, hint=_mend(path))
        if settings.clusters > 1:
            raise AgentError(
                "configure-not-applied",
                f"{path} holds {settings.clusters} clusters, and a configure tool does not act on such a file",
                saw=f"{settings.clusters} clusters",
                want=want,
                hint="remove the clusters that are not wanted with the tool's `remove-cluster`, then run this again",
            )
        self._refuse_single(settings)
        differences = self._differences(settings)
        saw = "not configured" if settings.placeholder else _addresses(settings)
        if not differences:
            return Finding(met=True, saw=saw, want=want, notices=self._notices())
        told = [(is_, should) for what, is_, should in differences if what != "servers"]
        return Finding(
            met=False,
            saw="; ".join([saw, *(is_ for is_, _ in told)]),
            want="; ".join([want, *(should for _, should in told)]),
            hint=f"compare {path} with what is wanted",
            notices=self._notices(),
        )

    def apply(self, host: Host) -> None:
        argv = self.argv(host)
        done = host.do(argv, timeout=self.limits.tool)
        # A tool that failed may have done its work, and one that succeeded may not have: the file decides. Only what
        # left no trace in the file is told in the tool's own words.
        if done.ok:
            return
        hint = f"run `{' '.join(argv)}` by hand; reinstalling the package restores the tool"
        try:
            after = self.check(host)
            if after.met:
                return
            if after.saw.startswith(("damaged", "no configuration")):
                hint = _mend(self._path(host))
            refuse_without_room(host, self._path(host), self.layout.root)
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
        argv = [self.layout.tool(self.component), "-a", *self.servers, "--hsm-ca-cert", self.ca]
        if self.accept_single_hsm:
            argv.append("--disable-key-availability-check")
        elif self._is_check_off(view):
            argv.append("--enable-key-availability-check")
        for flag, value in (
            ("--log-type", self.log_type),
            ("--log-file", self.log_file),
            ("--log-level", self.log_level),
            ("--log-rotation", self.log_rotation),
            ("--client-cert-hsm-tls-file", self.client_cert),
            ("--client-key-hsm-tls-file", self.client_key),
        ):
            if value is not None:
                argv += [flag, value]
        return tuple(argv)

    def _path(self, view: HostView) -> str:
        return self.layout.settings(self.component, view)

    def _is_check_off(self, view: HostView) -> bool:
        try:
            return parse_settings(view.read(self._path(view)) or b"").key_availability_check_disabled
        except ValueError:
            return False

    def _differences(self, settings: Settings) -> list[tuple[str, str, str]]:
        """Return (what, is, should be) for everything in the file that is not as wanted."""
        found: list[tuple[str, str, str]] = []
        enabled = [server.hostname for server in settings.servers if server.enable]
        if (
            settings.placeholder
            or sorted(enabled) != sorted(self.servers)
            or len(enabled) != len(settings.servers)
        ):
            found.append(("servers", "", ""))
        if settings.ca_file != self.ca:
            found.append(("ca", f"CA {settings.ca_file or 'not named'}", f"CA {self.ca}"))
        if settings.key_availability_check_disabled != self.accept_single_hsm:
            words = {True: "key-availability check off", False: "key-availability check on"}
            found.append(
                ("check", words[settings.key_availability_check_disabled], words[self.accept_single_hsm])
            )
        for name, is_, should in (
            ("log level", settings.log_level, self.log_level),
            ("log file", settings.log_file, self.log_file),
            ("log type", settings.log_type, self.log_type),
            ("log rotation", settings.log_interval, self.log_rotation),
            ("client certificate", settings.client_cert, self.client_cert),
            ("client key", settings.client_key, self.client_key),
        ):
            if should is not None and is_ != should:
                found.append((name, f"{name} {is_ or 'not set'}", f"{name} {should}"))
        return found

    def _refuse_single(self, settings: Settings) -> None:
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


def _mend(path: str) -> str:
    """Say how to get a file back that its own tool does not read any more, and that only the vendor writes."""
    return (
        f"{path} belongs to the package: `hsm-agent rollback` puts back the last one that was kept,"
        " reinstalling the package brings a fresh one; then run this again"
    )


def _addresses(settings: Settings) -> str:
    return (
        " ".join(server.hostname + ("" if server.enable else " (disabled)") for server in settings.servers)
        or "no servers"
    )
