"""What an undo does about SDK 3's daemon once its files are put back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.cloudhsm.sdk3.daemon import daemon_on
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.model import StepOutcome, StepResult
from agent.core.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.cloudhsm.paths import ClientPaths
    from agent.cloudhsm.sdk3.daemon import Daemon
    from agent.core.host import Host

_TIMEOUT = Timeouts().tool


def daemon_runs(host: Host, paths: ClientPaths) -> bool:
    """Tell whether the daemon runs before a change; true also where there is none, or where it cannot be known."""
    if host.stat(paths.sdk3.daemon) is not None:
        with contextlib.suppress(AgentError):
            return daemon_on(paths).status(host, _TIMEOUT).active not in ("inactive", "failed")
    return True


def restore_daemon(
    host: Host, paths: ClientPaths, restored: Collection[str], *, changed: bool, ran: bool
) -> StepResult | None:
    """Restart the daemon with the files of a snapshot, or stop it if it did not run before.

    `restored` are the paths in the snapshot, `changed` whether one of them differed. Returns None for nothing to do.
    """
    if paths.sdk3.daemon_config not in restored or host.stat(paths.sdk3.daemon) is None:
        return None
    daemon = daemon_on(paths)
    if _is_masked(host, daemon):
        return _left_alone(host, daemon) if changed else None
    return _revive(host, daemon, changed=changed) if ran else _stop(host, daemon)


def _is_masked(host: Host, daemon: Daemon) -> bool:
    with contextlib.suppress(AgentError):  # an interrupt, which refuses each query
        return daemon.status(host, _TIMEOUT).is_masked
    return False


def _left_alone(host: Host, daemon: Daemon) -> StepResult | None:
    """Leave a masked daemon as it is: stopped, it could not be started again. One that runs has the old files."""
    if not daemon.is_running(host, _TIMEOUT):
        return None
    hint = "restart it with what was put back: `systemctl unmask` it first"
    return StepResult(
        "service", StepOutcome.FAILED, "active, masked, not restarted", "active", "rollback-failed", hint
    )


def _revive(host: Host, daemon: Daemon, *, changed: bool) -> StepResult | None:
    """Restart the daemon; also where every file is as it was, if the failed run left it stopped."""
    was = "active" if daemon.is_running(host, _TIMEOUT) else "not running"
    if was == "active" and not changed:
        return None
    try:
        if daemon.restart(host, _TIMEOUT):
            return StepResult("service", StepOutcome.UNDONE, was, "active")
        saw = daemon.recent_log(host, _TIMEOUT) or "not running"
    except AgentError as error:
        saw = error.saw
    return StepResult(
        "service", StepOutcome.FAILED, saw, "active", "rollback-failed", CODES["service-failed"].fix
    )


def _stop(host: Host, daemon: Daemon) -> StepResult | None:
    """Stop the daemon again: it was masked, disabled or stopped by somebody before the run."""
    if not daemon.is_running(host, _TIMEOUT):
        return None
    daemon.stop(host, _TIMEOUT)
    ended = not daemon.is_running(host, _TIMEOUT)
    outcome, code = (StepOutcome.UNDONE, None) if ended else (StepOutcome.FAILED, "rollback-failed")
    return StepResult("service", outcome, "active", "not running", code)
