"""The agent's folder on the host: versioned JSON, written atomically, and not trusted when read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agent.core.codes import EXIT_STATUSES
from agent.core.errors import AgentError
from agent.state.exposure import exposed
from agent.state.identity import identity, is_foreign
from agent.state.sealed import opened, seal

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_VERSION = 1
# the keys of records before they had a checksum
_BEFORE = {"schema_version", "identity", "run_id", "desired", "ca_pem", "succeeded"}


@dataclass(frozen=True)
class LastConfigure:
    """What a `configure` was asked for: its options and its CA, normalised.

    `ca_pem` is None until the CA is read from where the options name it. `succeeded` is the request of the last
    `configure` that succeeded, None where none has: it can be this one or an earlier one.
    """

    desired: dict[str, Any]
    ca_pem: str | None
    run_id: str | None = None
    succeeded: LastConfigure | None = None

    @property
    def asks(self) -> tuple[dict[str, Any], str | None]:
        """The request itself, whichever run made it."""
        return self.desired, self.ca_pem

    @property
    def is_done(self) -> bool:
        """Whether a `configure` with this request has succeeded."""
        return self.succeeded is not None and self.succeeded.asks == self.asks


@dataclass(frozen=True)
class AttachedGroup:
    """The security group that a run attached to an interface of this instance, and that `remove` detaches."""

    interface: str
    group: str
    region: str
    run_id: str


def read_last(view: HostView) -> LastConfigure:
    """Return the last request. Raises AgentError `nothing-recorded`, also for a record that cannot be parsed."""
    tree = _record(
        view, view.system.desired, "this host has no record of a `configure`", "an earlier run, or options"
    )
    last = _last(tree)
    if last is None:
        raise _nothing(
            view.system.desired, "this host has no record of a `configure`", "an earlier run, or options"
        )
    if is_foreign(view, tree):
        raise _foreign(view.system.desired, "what was asked for here was asked of another host")
    if "succeeded" not in tree:  # written by an older version, which recorded successful runs alone
        return LastConfigure(last.desired, last.ca_pem, None, last)
    return LastConfigure(last.desired, last.ca_pem, last.run_id, _last(tree["succeeded"]))


def write_last(host: Host, last: LastConfigure) -> None:
    """Record the last request, the identity of its host, and the request that last succeeded."""
    done = last.succeeded
    tree = {
        "schema_version": _VERSION,
        "identity": identity(host),
        **_tree(last),
        "succeeded": None if done is None else _tree(done),
    }
    host.write(host.system.desired, seal(tree), mode=0o600)


def read_receivers(view: HostView) -> dict[str, Any]:
    """Return the sinks of the last `remove`, as options. Raises AgentError `nothing-recorded`."""
    path = _receivers(view)
    tree = _record(view, path, "no `remove` recorded its sinks", "an earlier one")
    if is_foreign(view, tree) or not isinstance(tree.get("desired"), dict):
        raise _nothing(path, "no `remove` recorded its sinks", "an earlier one")
    found: dict[str, Any] = tree["desired"]
    return found


def write_receivers(host: Host, desired: dict[str, Any]) -> None:
    """Record the sinks of a `remove`, which removes the recorded request."""
    tree = {"schema_version": _VERSION, "identity": identity(host), "desired": desired}
    host.write(_receivers(host), seal(tree), mode=0o600)


def _receivers(view: HostView) -> str:
    return view.system.join(view.system.state, "receivers.json")


def read_attached(view: HostView) -> tuple[AttachedGroup, ...]:
    """Return what is attached here; nothing of another host.

    Raises AgentError `nothing-recorded` for a record that cannot be believed: nothing is detached by it.
    """
    path = _attached(view)
    if view.stat(path) is None:
        return ()
    sentence = "the record of the security groups that were attached cannot be used"
    tree = _record(view, path, sentence, "a record this version wrote")
    if is_foreign(view, tree):
        return ()
    found = tree.get("attached")
    rows = [
        [
            row.get(name) if isinstance(row, dict) else None
            for name in ("interface", "group", "region", "run_id")
        ]
        for row in (found if isinstance(found, list) else [None])
    ]
    if not all(isinstance(each, str) and each for row in rows for each in row):
        raise _nothing(path, sentence, "a record this version wrote")
    return tuple(AttachedGroup(*map(str, row)) for row in rows)


def add_attached(host: Host, attached: AttachedGroup) -> None:
    """Record what is about to be attached: a run that is killed meanwhile leaves nothing that nobody knows of.

    What was attached before stays recorded: `configure` may name another cluster, or lead to it by another interface.
    """
    try:
        before = read_attached(host)
    except AgentError as error:
        if error.code.name != "nothing-recorded":  # one that cannot be believed is of no use
            raise
        before = ()
    place = (attached.interface, attached.group)
    _write_attached(host, (*(each for each in before if (each.interface, each.group) != place), attached))


def forget_attached(host: Host, *gone: AttachedGroup) -> None:
    """Record that these are not attached any more."""
    rest = tuple(each for each in read_attached(host) if each not in gone)
    if rest:
        _write_attached(host, rest)
    else:
        host.remove(_attached(host))


def _write_attached(host: Host, attached: tuple[AttachedGroup, ...]) -> None:
    rows = [asdict(each) for each in attached]
    tree = {"schema_version": _VERSION, "identity": identity(host), "attached": rows}
    host.write(_attached(host), seal(tree), mode=0o600)


def _attached(view: HostView) -> str:
    return view.system.join(view.system.state, "attached-group.json")


def read_report(view: HostView) -> dict[str, Any]:
    """Return the last report of this host as it was written. Raises AgentError `nothing-recorded`."""
    tree = _read(view, view.system.report, "this host has no report yet", "an earlier run")
    host = tree.get("host")
    if isinstance(host, dict) and is_foreign(view, host):
        raise _foreign(view.system.report, "this host has no report yet: the one here is of another host")
    status = tree.get("exit_status")
    if (
        type(status) is not int or status not in EXIT_STATUSES
    ):  # `status` ends with it, and scripts go by that
        raise _nothing(view.system.report, "the last report is damaged", "an earlier run")
    return tree


def write_report(host: Host, document: str) -> None:
    host.write(host.system.report, document.encode(), mode=host.system.report_mode)


def _tree(last: LastConfigure) -> dict[str, Any]:
    return {"run_id": last.run_id, "desired": last.desired, "ca_pem": last.ca_pem}


def _last(tree: Any) -> LastConfigure | None:
    if not isinstance(tree, dict) or not isinstance(tree.get("desired"), dict):
        return None
    ca_pem, run_id = tree.get("ca_pem"), tree.get("run_id")
    if "ca_pem" not in tree or not all(each is None or isinstance(each, str) for each in (ca_pem, run_id)):
        return None
    if not (ca_pem or "").isascii():
        return None
    return LastConfigure(tree["desired"], ca_pem, run_id)


def _record(view: HostView, path: str, sentence: str, want: str) -> dict[str, Any]:
    """Return the values of a record. Its checksum must match, unless an older version wrote it."""
    tree = _read(view, path, sentence, want)
    if tree.keys() <= _BEFORE:
        return tree
    try:
        return opened(tree)
    except ValueError as error:
        raise AgentError("nothing-recorded", sentence, saw=f"{path}: {error}", want=want) from None


def _read(view: HostView, path: str, sentence: str, want: str) -> dict[str, Any]:
    fault = exposed(view, view.system.state, path)
    if fault is not None:
        raise AgentError(
            "nothing-recorded",
            f"{path} is not believed: others than {view.system.admin_role} could have written it",
            saw=fault,
            want=f"a directory and a file that {view.system.admin_role} alone can change",
            hint=f"run `hsm-agent configure` with all options: it closes {view.system.state}, and records the request",
        )
    try:
        tree = json.loads(view.read(path) or b"")
    except (ValueError, RecursionError):
        tree = None
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if isinstance(version, int) and version > _VERSION:
        raise AgentError(
            "nothing-recorded",
            f"{path} was written by a newer hsm-agent",
            saw=f"version {version}",
            want=f"version {_VERSION}",
            hint="use that hsm-agent again, or run `hsm-agent configure` of this one with all options",
        )
    if not isinstance(tree, dict) or version != _VERSION:
        raise _nothing(path, sentence, want)
    return tree


def _nothing(path: str, sentence: str, want: str) -> AgentError:
    return AgentError("nothing-recorded", sentence, saw=f"no usable {path}", want=want)


def _foreign(path: str, sentence: str) -> AgentError:
    return AgentError(
        "nothing-recorded",
        sentence,
        saw=f"{path} of the host that this one is a copy of",
        want="a `configure` of this host",
    )
