"""A fleet's report by cause: hosts that ended alike, what was seen there, what is proven, and the risks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.core.codes import CODES
from agent.core.fleet_model import ANSWER_STEP, UNMET_OUTCOMES
from agent.render.fleet.humanize import FIXES, Counted, counted, from_here
from agent.render.text import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# worst first
OUTCOMES = ("failed", "unreachable", "silent", "degraded", "drifted", "at-work", "not-reached", "ok")
# Characters of one text: the output of a program has no limit.
_LONGEST = 500
# What hosts have of the agent where no package installed it.
NO_AGENT = "not installed"
# Warnings that are no risks.
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
class WarningGroup:
    """The warnings of one code: their texts, and their hosts."""

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


def risks(tree: Mapping[str, Any]) -> tuple[WarningGroup, ...]:
    """Return the warnings of all hosts by their code, the most frequent first."""
    found: dict[str, list[tuple[str, str]]] = {}
    for host in tree["hosts"]:
        for code, text in _warnings(host["report"] or {}):
            found.setdefault(code, []).append((_quotes(text), host["name"]))
    made = [
        WarningGroup(code, counted(text for text, _ in each), tuple(dict.fromkeys(name for _, name in each)))
        for code, each in found.items()
    ]
    return tuple(sorted(made, key=lambda each: (-len(each.hosts), each.code)))


def has_agent(report: Mapping[str, Any] | None) -> bool | None:
    """Return whether a host has the agent installed by its report; None where that does not say."""
    host = (report or {}).get("host") or {}
    return host["agent"] is not None if "agent" in host else None


def agents(tree: Mapping[str, Any]) -> tuple[Counted, ...]:
    """Return what hosts have of the agent, each with their number; empty where no report says."""
    found = [
        host["report"]["host"]["agent"] for host in tree["hosts"] if has_agent(host["report"]) is not None
    ]
    return counted(_agent(each) for each in found)


def _agent(agent: Mapping[str, Any] | None) -> str:
    if agent is None:
        return NO_AGENT
    return f"{agent['version']}, daily verify {'on' if agent['daily_verify'] else 'off'}"


def trusted(tree: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the hosts whose key was new and accepted."""
    return tuple(host for host in tree["hosts"] if host["trusted"])


def evidence(host: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what was seen where the host is not as wanted: at its steps, and at itself where no step has it."""
    report = host["report"] or {}
    bad = [step for step in report.get("steps", ()) if step["outcome"] in UNMET_OUTCOMES]
    seen = [_seen_at(step) for step in bad]
    if host.get("sentence"):
        return (_words(host),)
    if host["saw"] and not any(step["saw"] == host["saw"] for step in bad):
        seen.insert(0, _line(host["saw"]))
    return tuple(seen)


def _words(host: Mapping[str, Any]) -> str:
    """Return what failed on the way to a host: the sentence names the machine, which may be a jump host."""
    seen = ": ".join(_line(host[key]) for key in ("sentence", "saw") if host.get(key))
    return f"{seen}, wanted {_line(host['want'])}" if host.get("want") else seen


def _seen_at(step: Mapping[str, Any]) -> str:
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
    """Return the meaning of the code; "" where every host has a sentence of its own, which names its machine."""
    if all(host.get("sentence") for host in hosts):
        return ""
    known = CODES.get(hosts[0]["code"] or "")
    failure = (hosts[0]["report"] or {}).get("failure") or {}
    return known.meaning if known else quoted(failure["sentence"]) if failure else ""


def _title(host: Mapping[str, Any]) -> str:
    code, cause = host["code"] or "", (host["report"] or {}).get("cause")
    return f"{code}, after {cause}" if cause and cause != code else code


def _hints(host: Mapping[str, Any]) -> Iterator[str]:
    """Yield the hints: ours as they are, those of the host as quotations."""
    report = host["report"] or {}
    hints = [step["hint"] for step in report.get("steps", ()) if step["outcome"] == "failed"]
    for hint in (host["hint"], *hints):
        if hint:
            here = from_here(hint, has_agent=has_agent(report))
            yield here if hint in FIXES or not report else quoted(here)


def quoted(text: str) -> str:
    """Return a text of the host as a quotation: the host may be compromised, and its advice is not ours."""
    return f"the host says: {_quotes(text)}"


def _quotes(text: str) -> str:
    return '"' + _line(text).replace('"', "'") + '"'


def proofs(host: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the vendor's client answered there, and the version of the client."""
    report = host["report"] or {}
    answers = [step["saw"] for step in report.get("steps", ()) if step["id"] == ANSWER_STEP and step["saw"]]
    client = report.get("client") or {}
    if client.get("version"):
        answers.append(f"client {client['version'].split('-')[0]}")
    if answers:
        yield _line(", ".join(answers))


def _warnings(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for notice in report.get("warnings", ()):
        if notice["code"] not in _NOTES:
            yield notice["code"], _line(from_here(notice["text"], has_agent=has_agent(report)))
    programs = {(each["name"], each["component"]) for each in report.get("restart_needed", ())}
    for name, component in sorted(programs):
        yield "restart-needed", _line(f"{name} still uses the {component} configuration of before")


def _line(text: str) -> str:
    """Return a text on one line, truncated if it is too long."""
    shown = short(text[: 2 * _LONGEST])
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _rank(outcome: str) -> int:
    return OUTCOMES.index(outcome) if outcome in OUTCOMES else 0
