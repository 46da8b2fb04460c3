"""What somebody needs who helps from afar: the state of this host, without secrets, in one archive with an index."""

from __future__ import annotations

import contextlib
import io
import json
import ssl
import sys
import tarfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from agent import __version__
from agent.catalogue import load
from agent.cloudhsm.ca import find_certificates, written
from agent.cloudhsm.paths import client_paths
from agent.config.origins import effective_options
from agent.config.readers import configuration_files
from agent.core.errors import AgentError
from agent.core.plain import lines
from agent.core.redaction import redact, redact_tree
from agent.facts import gather
from agent.render.config import document
from agent.render.facts_json import facts_document

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterator, Mapping

    from agent.core.host import HostView

# of each file its end; a bundle has some thirty files
MOST_BYTES = 256 * 1024
MOST_FILES = 60
_JOURNAL_LINES = 500
_TIMEOUT = 20.0


@dataclass(frozen=True)
class BundlePart:
    """One file of the bundle: its `name` there, its `source` on this host, and its text; `fault` when it has none."""

    name: str
    source: str
    text: str = ""
    fault: str = ""


def bundle_parts(view: HostView, environ: Mapping[str, str]) -> Iterator[BundlePart]:
    """Yield each part as it is read. What cannot be read is a part with the reason: that is worth knowing too.

    Raises AgentError `interrupted` and `timed-out` alone.
    """
    for number, (name, source, read) in enumerate(_readers(view, environ)):
        if number == MOST_FILES:
            yield BundlePart(
                "more", source, fault=f"this one and later ones are left out: {MOST_FILES} are here"
            )
            return
        try:
            content = read()
        except AgentError as error:
            if error.ends_run:
                raise
            yield BundlePart(name, source, fault=f"{error.sentence}: {error.saw}".rstrip(": "))
            continue
        if content is not None:
            yield BundlePart(name, source, _public(content))


def _public(content: str | dict[str, Any]) -> str:
    """Return the text of a part; a JSON document stays one."""
    if isinstance(content, str):
        return redact(lines(content))
    return json.dumps(redact_tree(content), indent=2) + "\n"


def index(parts: tuple[BundlePart, ...]) -> list[dict[str, Any]]:
    """Return what is in the bundle, and what is not, and why."""
    return [
        {
            "name": each.name,
            "source": each.source,
            "bytes": len(each.text.encode()),
            "fault": each.fault or None,
        }
        for each in parts
    ]


def archive(parts: tuple[BundlePart, ...], folder: str, made: datetime.datetime) -> bytes:
    """Return the bundle as a .tar.gz: one folder with `index.json` and a file for each part that could be read."""
    packed = io.BytesIO()
    files = [("index.json", json.dumps(index(parts), indent=2) + "\n")]
    files += [(each.name, each.text) for each in parts if not each.fault]
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files:
            data = text.encode("utf-8", "replace")
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size, info.mtime, info.mode = len(data), int(made.timestamp()), 0o600
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


# a text, the tree of a JSON document, or None where there is nothing
_Reader = Callable[[], "str | dict[str, Any] | None"]


def _readers(view: HostView, environ: Mapping[str, str]) -> Iterator[tuple[str, str, _Reader]]:
    """Yield the name, the source and the reader of each part."""
    system, paths = view.system, client_paths(view.system)
    yield "versions.json", "this program", _versions
    yield "facts.json", "hsm-agent facts", lambda: facts_document(gather(view), load(), None)
    yield (
        "config.json",
        "hsm-agent config show",
        lambda: document(effective_options(view, {}, None, environ)),
    )
    yield "report.json", system.report, lambda: _end_of(view, system.report)
    yield "state.txt", system.state, lambda: _listing(view, system.state)
    for path in configuration_files(view):
        yield f"configuration/{_name(path)}", path, partial(_end_of, view, path)
    for path in paths.all_settings(view):
        yield f"client/{_name(path)}", path, partial(_end_of, view, path)
    yield "client/CA.txt", paths.ca, lambda: _ca(view, paths.ca)
    own = system.join(system.log, "hsm-agent.log")
    yield "log/hsm-agent.log", own, lambda: _end_of(view, own)
    if not system.is_windows:
        for name, match in (
            ("hsm-agent", "SYSLOG_IDENTIFIER=hsm-agent"),
            ("first-boot", "_SYSTEMD_UNIT=hsm-agent-first-boot.service"),
            ("cloudhsm-client", "_SYSTEMD_UNIT=cloudhsm-client.service"),
        ):
            yield f"log/journal-{name}.txt", f"journalctl {match}", partial(_journal, view, match)
    for path in _vendor_logs(view, paths.logs):
        yield f"log/vendor/{_name(path)}", path, partial(_end_of_log, view, path)


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _versions() -> dict[str, Any]:
    return {"hsm-agent": __version__, "python": sys.version, "openssl": ssl.OPENSSL_VERSION}


def _end_of(view: HostView, path: str) -> str | dict[str, Any] | None:
    """Return the end of a file, or the whole of a JSON document that fits; None where there is none."""
    stat = view.stat(path)
    if stat is None:
        return None
    start = max(0, stat.size - MOST_BYTES)
    # what is written meanwhile is not needed
    data = view.read(path, offset=start, limit=2 * MOST_BYTES)
    if data is None:
        return None
    text = data[:MOST_BYTES].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, RecursionError):
        tree = json.loads(text)
        return tree if isinstance(tree, dict) else text
    return text


def _end_of_log(view: HostView, path: str) -> str | dict[str, Any] | None:
    """Return the end of a log in a folder where every program of the client writes, whoever runs it.

    Another name of a file, which any user may make there, would bring what only root may read into the bundle.
    """
    stat = view.stat(path)
    if stat is not None and (stat.kind != "file" or stat.names > 1):
        saw = f"a {stat.kind}" if stat.kind != "file" else f"a file with {stat.names} names"
        raise AgentError("unreadable", "what lies here is no log of its own", saw=saw)
    return _end_of(view, path)


def _listing(view: HostView, folder: str, depth: int = 2) -> str:
    """Return what is in the agent's folder of state, a line each; contents are not shown."""
    found = []
    for name in view.list_dir(folder):
        path = view.system.join(folder, name)
        stat = view.stat(path)
        if stat is None:
            continue
        found.append(f"{stat.kind} {stat.mode:04o} {stat.size} {path}")
        if stat.kind == "directory" and depth > 1:
            found += _listing(view, path, depth - 1).splitlines()
    return "".join(f"{line}\n" for line in found[:1000])


def _ca(view: HostView, path: str) -> str | None:
    data = view.read(path)
    if data is None:
        return None
    found = find_certificates(data)
    return f"{written(found.fingerprints) if found.fingerprints else 'no certificate'}\n"


def _journal(view: HostView, match: str) -> str | None:
    argv = ("journalctl", match, f"--lines={_JOURNAL_LINES}", "--output=short-iso", "--no-pager")
    done = view.query(argv, timeout=_TIMEOUT)
    if not done.ok:
        raise AgentError(
            "unreadable", "the journal cannot be read", saw=done.tail(2) or f"status {done.status}"
        )
    return done.out[-MOST_BYTES:]


def _vendor_logs(view: HostView, pattern: str) -> tuple[str, ...]:
    """Return the logs that the vendor's clients write by default, and their rotated ones, the newest names last."""
    head, _, tail = pattern.rpartition(view.system.separator)
    prefix, _, ending = tail.partition("*")
    names = [each for each in view.list_dir(head) if each.startswith(prefix) and ending in each]
    return tuple(view.system.join(head, each) for each in names[-20:])
