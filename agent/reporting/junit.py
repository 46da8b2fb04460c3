"""`junit:PATH`: the report as JUnit XML, where a step is a test case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.reporting import file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    from agent.reporting.letter import Letter, Means

check = file.check
_FAILED = ("failed", "would-change")


def send(letter: Letter, means: Means) -> None:
    means.machine.write(file.path_of(letter.uri), suite(letter.tree).encode(), mode=0o644)


def suite(tree: Mapping[str, Any]) -> str:
    """Return the XML. A difference only looked at is a failure; a run that ended outside its steps is an error."""
    import xml.etree.ElementTree as ET  # noqa: PLC0415 -- 10 ms that only this pays

    name = f"hsm-agent.{tree['command']}"
    cases = [_case(step, name) for step in tree["steps"]]
    for number, case in enumerate(cases):  # what was put back stands at the end, under the name it had before
        if case.get("name") in {each.get("name") for each in cases[:number]}:
            case.set("name", f"{case.get('name')} (put back)")
    if tree["exit_status"] and not any(case.find("failure") is not None for case in cases):
        cases.append(_run(tree, name))
    root = ET.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{sum(float(case.get('time', 0)) for case in cases):.3f}",
        timestamp=tree["started"].rstrip("Z"),
        hostname=_clean(tree["host"]["name"]),
    )
    properties = ET.SubElement(root, "properties")
    for key in ("run_id", "agent_version", "outcome", "code", "exit_status", "changed"):
        ET.SubElement(properties, "property", name=key, value=_clean(_text(tree[key])))
    root.extend(cases)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _case(step: Mapping[str, Any], name: str) -> Element:
    import xml.etree.ElementTree as ET  # noqa: PLC0415

    case = ET.Element("testcase", name=_clean(step["id"]), classname=name, time=f"{step['seconds']:.3f}")
    outcome, saw, want = step["outcome"], step["saw"] or "", step["want"] or ""
    if outcome == "skipped":
        ET.SubElement(case, "skipped", message=_clean(step["hint"] or ""))
    elif outcome in _FAILED:
        said = f"{saw}, wanted {want}" if want else saw
        failure = ET.SubElement(case, "failure", type=step["code"] or "drift", message=_clean(said))
        failure.text = _clean(f"saw:  {saw}\nwant: {want}\nhint: {step['hint'] or ''}".rstrip())
    else:
        said = saw if outcome == "met" else f"{outcome}: {saw} -> {want}"
        ET.SubElement(case, "system-out").text = _clean(said)
    return case


def _run(tree: Mapping[str, Any], name: str) -> Element:
    import xml.etree.ElementTree as ET  # noqa: PLC0415

    case = ET.Element("testcase", name="run", classname=name, time="0.000")
    failure = tree["failure"] or {"sentence": "", "saw": "", "want": "", "hint": ""}
    error = ET.SubElement(case, "error", type=tree["code"] or "", message=_clean(failure["sentence"]))
    error.text = _clean(
        "\n".join(f"{key}: {failure[key]}" for key in ("saw", "want", "hint") if failure[key])
    )
    return case


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _clean(text: str) -> str:
    """Take out what no XML document may hold: control characters, halves of pairs, and two that mean nothing."""
    return "".join(
        char
        if char in "\t\n\r"
        or (char >= " " and not "\ud800" <= char <= "\udfff" and char not in "\ufffe\uffff")
        else "?"
        for char in text
    )
