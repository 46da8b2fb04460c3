"""`junit:PATH`: the report as JUnit XML, where a step is a test case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.core.plain import lines
from agent.sinks import file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from xml.etree.ElementTree import Element

    from agent.sinks.message import DeliveryContext, OutgoingReport

check = file.check
_FAILED = ("failed", "would-change")


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    file.put(context.machine, file.path_of(report.uri), suite(report.tree))


def suite(tree: Mapping[str, Any]) -> str:
    """Return the XML. A difference found by a check is a failure; a run that ended outside its steps is an error."""
    name = f"hsm-agent.{tree['command']}"
    return document(element(tree, name, name, tree["host"]["name"]))


def element(tree: Mapping[str, Any], name: str, classname: str, hostname: str) -> Element:
    """Return the suite of one host's report, for its own document or for that of a fleet."""
    cases = [_case(step, classname) for step in tree["steps"]]
    before: set[str | None] = set()
    for case in cases:  # a restored step comes last, under the name that it had before
        name_of = case.get("name")
        if name_of in before:
            case.set("name", f"{name_of} (put back)")
        before.add(name_of)
    if tree["exit_status"] and not any(case.find("failure") is not None for case in cases):
        failure = tree["failure"] or {}
        cases.append(error("run", classname, tree["code"], failure.get("sentence", ""), failure))
    keys = ("run_id", "agent_version", "outcome", "code", "exit_status", "changed")
    return gathered(name, hostname, tree["started"], {key: tree[key] for key in keys}, cases)


def gathered(
    name: str, hostname: str, started: str, properties: Mapping[str, object], cases: Iterable[Element]
) -> Element:
    """Return a suite of these cases, with its totals."""
    import xml.etree.ElementTree as ET  # noqa: PLC0415 -- 10 ms that only this pays

    cases = list(cases)
    root = ET.Element(
        "testsuite",
        name=clean(name),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{sum(float(case.get('time', 0)) for case in cases):.3f}",
        timestamp=clean(started.rstrip("Z")),
        hostname=clean(hostname),
    )
    shown = ET.SubElement(root, "properties")
    for key, value in properties.items():
        ET.SubElement(shown, "property", name=key, value=clean(_text(value)))
    root.extend(cases)
    return root


def document(root: Element) -> str:
    import xml.etree.ElementTree as ET  # noqa: PLC0415

    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def error(
    name: str,
    classname: str,
    code: str | None,
    message: str,
    details: Mapping[str, Any],
    seconds: float = 0.0,
) -> Element:
    """Return a case without a result: what went wrong, and what is known about it."""
    case = _empty(name, classname, seconds)
    found = _child(case, "error", type=code or "", message=message)
    found.text = clean(
        "\n".join(f"{key}: {details[key]}" for key in ("saw", "want", "hint") if details.get(key))
    )
    return case


def skipped(name: str, classname: str, message: str) -> Element:
    """Return a case that was not checked."""
    case = _empty(name, classname, 0.0)
    _child(case, "skipped", message=message)
    return case


def _case(step: Mapping[str, Any], classname: str) -> Element:
    outcome, saw, want = step["outcome"], step["saw"] or "", step["want"] or ""
    case = _empty(step["id"], classname, step["seconds"])
    if outcome == "skipped":
        _child(case, "skipped", message=step["hint"] or "")
    elif outcome in _FAILED:
        text = f"{saw}, wanted {want}" if want else saw
        failure = _child(case, "failure", type=step["code"] or "drift", message=text)
        failure.text = clean(f"saw:  {saw}\nwant: {want}\nhint: {step['hint'] or ''}".rstrip())
    else:
        text = saw if outcome == "met" else f"{outcome}: {saw} -> {want}"
        _child(case, "system-out").text = clean(text)
    return case


def _empty(name: str, classname: str, seconds: float) -> Element:
    import xml.etree.ElementTree as ET  # noqa: PLC0415

    return ET.Element("testcase", name=clean(name), classname=clean(classname), time=f"{seconds:.3f}")


def _child(case: Element, tag: str, **attributes: str) -> Element:
    import xml.etree.ElementTree as ET  # noqa: PLC0415

    return ET.SubElement(case, tag, {key: clean(value) for key, value in attributes.items()})


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def clean(text: str) -> str:
    """Remove characters that XML or a report may not contain."""
    return lines(text)
