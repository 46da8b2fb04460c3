"""The proof: the vendor's own client, without a login, says which HSMs answer and whether the cluster is activated."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from agent.cloudhsm.cli_output import (
    activated,
    diagnose,
    hsm_serials,
    inconsistent,
    parse_response,
)
from agent.cloudhsm.client_config import parse_client_config
from agent.cloudhsm.protection import require_own
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.links import resolve_link
from agent.core.model import Finding, Notice

if TYPE_CHECKING:
    from agent.cloudhsm.cli_output import CliResponse
    from agent.cloudhsm.paths import ClientPaths
    from agent.core.host import HostView
    from agent.core.timeouts import Timeouts

# The first connection to a cluster may fail under load or on a cold start (ki-hsm2m-11), so one refusal is no proof.
_FEWER = (
    "the client sees fewer HSMs than were asked for, which are those of this cluster? Compare `--hsm-ip` with"
    " `aws cloudhsmv2 describe-clusters --query 'Clusters[].Hsms[].EniIp'`; keys may be unavailable until it is fixed"
)
_TRIES = 3
_PAUSE = 2.0
# 128 and the number of the signal that ended a program; what Windows says of a crash is far above
_SIGNALS = 128


@dataclass(frozen=True)
class HsmInfo:
    """`cluster hsm-info`: at least one HSM answers. Fewer than were asked for is a remark, not a failure."""

    id: ClassVar[str] = "client:hsm-info"

    paths: ClientPaths = field(repr=False)
    asked: int
    accept_single_hsm: bool
    limits: Timeouts = field(repr=False)
    requires: tuple[str, ...] = ()
    depends_on: str | None = None
    tries: int = _TRIES

    def check(self, view: HostView) -> Finding:
        want = f"{self.asked} of {self.asked} HSMs answer"
        answer = _asked(view, self.paths, ("cluster", "hsm-info"), self.limits, want, self.tries)
        serials = hsm_serials(answer)
        saw = f"{len(serials)} of {max(self.asked, len(serials))} HSMs answer"
        if not serials:
            raise AgentError("client-failed", "no HSM answers the client", saw=saw, want=want)
        if len(serials) == 1 and not self.accept_single_hsm and self.asked == 1:
            want = "2 HSMs or --accept-single-hsm"
            return Finding.unmet("the cluster has 1 HSM", want, "single-hsm-not-accepted")
        detail = {"answers": len(serials)}
        if len(serials) < self.asked:
            return Finding(True, saw, want, "hsm-degraded", _FEWER, detail=detail)
        return Finding.ok(saw, want, detail=detail)


@dataclass(frozen=True)
class ClusterActivated:
    """`user list`: an initialised cluster has an unactivated admin until `cluster activate` was run.

    It is asked together with `hsm-info`: a real client takes a second or more to connect, each time.
    """

    id: ClassVar[str] = "client:activated"

    paths: ClientPaths = field(repr=False)
    limits: Timeouts = field(repr=False)
    requires: tuple[str, ...] = ()
    depends_on: str | None = "client:hsm-info"

    def check(self, view: HostView) -> Finding:
        answer = _asked(view, self.paths, ("user", "list"), self.limits, "activated")
        is_activated = activated(answer)
        if is_activated is None:
            raise AgentError("client-failed", "the client lists no users", saw="no users", want="activated")
        if not is_activated:
            return Finding.unmet("unactivated-admin", "activated", "cluster-not-activated")
        differing = inconsistent(answer)
        notices = (
            Notice("users-inconsistent", f"not on every HSM of the cluster: {', '.join(differing)}"),
        ) if differing else ()  # fmt: skip
        return Finding.ok("activated", "activated", notices=notices)


def _asked(
    view: HostView,
    layout: ClientPaths,
    command: tuple[str, ...],
    limits: Timeouts,
    want: str,
    tries: int = _TRIES,
) -> CliResponse:
    """Ask the client until it answers, a few times; raise AgentError with the cause when it does not.

    Only a failure without a known cause is worth another try: a cold start has none.
    """
    require_own(view, layout, layout.cli)
    deadline = view.monotonic() + limits.client
    log = _log_in_use(view, layout)
    before = _size(view, log)
    for attempt in range(tries):
        if attempt:
            view.sleep(min(_PAUSE * attempt, max(0.0, deadline - view.monotonic())))
        done = view.query((layout.cli, *command), timeout=max(1.0, deadline - view.monotonic()))
        answer = parse_response(done.out)
        # what its exit status means is not documented; that it crashed, or had to be ended, is no answer of a sound one
        crashed = done.status is not None and done.status > _SIGNALS
        answered = answer is not None and answer.ok
        if answer is not None and answered and not (crashed or done.timed_out):
            return answer
        reported = answer.data if answer is not None and isinstance(answer.data, str) else ""
        _raise_known(reported, done.out + "\n" + done.err, _logged(view, log, before), want=want)
        if done.timed_out:
            raise _hung(limits, "no end after its answer" if answered else "no answer")
        if done.status == 127:
            raise AgentError(
                "client-failed", "the client is not there", saw=done.tail(1), want=want,
                hint="the package is installed and this file of it is gone: reinstalling the package restores it",
            )  # fmt: skip
        if view.monotonic() >= deadline:
            break
    shown = [
        line.strip()[:300] for line in (reported or f"{done.out}\n{done.err}").splitlines() if line.strip()
    ]
    raise AgentError(
        "client-failed",
        "the client could not talk to the HSMs",
        saw=f"exit {done.status} after its answer"
        if answered
        else " / ".join(shown[-2:]) or f"exit {done.status} without a word",
        want=want,
    )


def _raise_known(*texts: str, want: str) -> None:
    """Raise the cause that a text names: first what the client answered, then what it printed, then its log."""
    for text in texts:
        known = diagnose(text)
        if known is not None:
            raise AgentError(known.code, CODES[known.code].meaning, saw=known.saw, want=want, hint=known.hint)


def _log_in_use(view: HostView, layout: ClientPaths) -> str:
    """Return the log file that the client's configuration names; causes may stand there alone."""
    with contextlib.suppress(AgentError, ValueError):
        named = parse_client_config(view.read(layout.settings("cli", view)) or b"").options["log_file"]
        if named:
            return named
    return layout.log("cli")


def _size(view: HostView, log: str) -> int:
    """Return how many bytes a log has, behind a link too; 0 when it cannot be seen, or is not there yet."""
    stat = None
    with contextlib.suppress(AgentError):
        stat = view.stat(resolve_link(view, log))
    return stat.size if stat else 0


def _logged(view: HostView, log: str, seen: int) -> str:
    """Return what was added to the client's log since it had `seen` bytes; nothing when it cannot be read."""
    try:
        data = view.read(log, offset=seen)
    except AgentError:
        return ""
    return (data or b"").decode("utf-8", "replace")


def _hung(limits: Timeouts, what: str = "no answer") -> AgentError:
    return AgentError(
        "client-hung", "the client did not answer", saw=f"{what} in {limits.client:g} s", want="an answer"
    )
