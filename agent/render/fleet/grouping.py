"""A fleet's report by cause: which hosts share how they ended, what was seen there, what is proven, what will bite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.core.errors import CODES
from agent.core.fleet_model import ANSWER_STEP, UNMET_OUTCOMES
from agent.render.fleet.humanize import FIXES, Counted, counted, from_here
from agent.render.text import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# worst first
OUTCOMES = ("failed", "unreachable", "degraded", "drifted", "at-work", "not-reached", "ok")
# characters of one text: a program may say anything at any length
_LONGEST = 500
# good news, and what is worth knowing: no risks
_NOTES = ("previous-works", "kept")


@dataclass(frozen=True)
class HostGroup:
    """Hosts that ended alike. `title` is the code, with the cause where that is another; "" where there is none."""

    outcome: str
    code: str | None
    title: str
    sentence: str
    saw: tuple[Counted, ...]
    hints: tuple[Counted, ...]
    proven: tuple[Counted, ...]
    hosts: tuple[Mapping[str, Any], ...]

    @property
    def changed(self) -> int:
        return sum(1 for host in self.hosts if host["changed"])


@dataclass(frozen=True)
class Risk:
    """What does not fail today: a code, what was said of it, and where."""

    code: str
    texts: tuple[Counted, ...]
    hosts: tuple[str, ...]


def groups(tree: Mapping[str, Any]) -> tuple[HostGroup, ...]:
    """Return the hosts by outcome and cause: the worst outcome first, of one outcome the most frequent cause first."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for host in tree["hosts"]:
        found.setdefault((host["outcome"], _title(host)), []).append(host)
    made = [_group(outcome, title, hosts) for (outcome, title), hosts in found.items()]
    return tuple(sorted(made, key=lambda each: (_rank(each.outcome), -len(each.hosts), each.title)))


def risks(tree: Mapping[str, Any]) -> tuple[Risk, ...]:
    """Return the warnings of all hosts by their code, the most frequent first."""
    found: dict[str, list[tuple[str, str]]] = {}
    for host in tree["hosts"]:
        for code, text in _warnings(host["report"] or {}):
            found.setdefault(code, []).append((_quotes(text), host["name"]))
    made = [
        Risk(code, counted(text for text, _ in said), tuple(dict.fromkeys(name for _, name in said)))
        for code, said in found.items()
    ]
    return tuple(sorted(made, key=lambda each: (-len(each.hosts), each.code)))


def trusted(tree: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the hosts whose key was new and accepted."""
    return tuple(host for host in tree["hosts"] if host["trusted"])


def evidence(host: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what was seen where the host is not as wanted: of its steps, and of itself where no step says it."""
    report = host["report"] or {}
    bad = [step for step in report.get("steps", ()) if step["outcome"] in UNMET_OUTCOMES]
    told = [_said(step) for step in bad]
    if host.get("sentence"):
        return (_words(host),)
    if host["saw"] and not any(step["saw"] == host["saw"] for step in bad):
        told.insert(0, _line(host["saw"]))
    return tuple(told)


def _words(host: Mapping[str, Any]) -> str:
    """Return what was met on the way to a host: its sentence names the machine, which may be a jump host."""
    said = ": ".join(_line(host[key]) for key in ("sentence", "saw") if host.get(key))
    return f"{said}, wanted {_line(host['want'])}" if host.get("want") else said


def _said(step: Mapping[str, Any]) -> str:
    saw, want = _line(step["saw"] or ""), _line(step["want"] or "")
    if step["outcome"] == "would-change":
        return f"{step['id']}: {saw} -> {want}"
    return f"{step['id']}: {saw}, wanted {want}" if want else f"{step['id']}: {saw}"


def _group(outcome: str, title: str, hosts: list[Mapping[str, Any]]) -> HostGroup:
    return HostGroup(
        outcome=outcome,
        code=hosts[0]["code"],
        title=title,
        sentence=_sentence(hosts),
        saw=counted(text for host in hosts for text in dict.fromkeys(evidence(host))),
        hints=counted(text for host in hosts for text in dict.fromkeys(_hints(host))),
        proven=counted(text for host in hosts for text in proofs(host)) if outcome == "ok" else (),
        hosts=tuple(hosts),
    )


def _sentence(hosts: list[Mapping[str, Any]]) -> str:
    """Say what the code means, except where every host has words of its own: they name the machine they are about."""
    if all(host.get("sentence") for host in hosts):
        return ""
    known = CODES.get(hosts[0]["code"] or "")
    failure = (hosts[0]["report"] or {}).get("failure") or {}
    return known.meaning if known else quoted(failure["sentence"]) if failure else ""


def _title(host: Mapping[str, Any]) -> str:
    code, cause = host["code"] or "", (host["report"] or {}).get("cause")
    return f"{code}, after {cause}" if cause and cause != code else code


def _hints(host: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is to be done: in our words as they are, in those of the host quoted as the host's."""
    report = host["report"] or {}
    said = [step["hint"] for step in report.get("steps", ()) if step["outcome"] == "failed"]
    for hint in (host["hint"], *said):
        if hint:
            yield from_here(hint) if hint in FIXES or not report else quoted(from_here(hint))


def quoted(text: str) -> str:
    """Return what a host says as the host's: it may be in wrong hands, and what it advises is no advice of ours."""
    return f"the host says: {_quotes(text)}"


def _quotes(text: str) -> str:
    return '"' + _line(text).replace('"', "'") + '"'


def proofs(host: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the vendor's client answered there, and which client it is."""
    report = host["report"] or {}
    said = [step["saw"] for step in report.get("steps", ()) if step["id"] == ANSWER_STEP and step["saw"]]
    client = report.get("client") or {}
    if client.get("version"):
        said.append(f"client {client['version'].split('-')[0]}")
    if said:
        yield _line(", ".join(said))


def _warnings(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for notice in report.get("warnings", ()):
        if notice["code"] not in _NOTES:
            yield notice["code"], _line(from_here(notice["text"]))
    programs = {(each["name"], each["component"]) for each in report.get("restart_needed", ())}
    for name, component in sorted(programs):
        yield "restart-needed", _line(f"{name} still uses the {component} configuration of before")


def _line(text: str) -> str:
    """Return a text on one line, and what is too long cut."""
    shown = short(text[: 2 * _LONGEST])
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _rank(outcome: str) -> int:
    return OUTCOMES.index(outcome) if outcome in OUTCOMES else 0
