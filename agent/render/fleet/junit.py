"""A roll-out as JUnit XML: a suite for each host, a case for each step; a host that was not reached is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.core.codes import CODES
from agent.sinks import junit as one

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element


def suites(tree: Mapping[str, Any]) -> str:
    """Return the XML, given the tree of a fleet's report.

    A run that failed without a failed case, such as one with an invalid inventory, gets a suite of its own with one.
    Jenkins merges cases of the same class and name, so a class is named after its host.
    """
    import xml.etree.ElementTree as ET  # noqa: PLC0415 -- 10 ms that only this pays

    made = [_suite(tree, host) for host in tree["hosts"]]
    if tree["code"] and not any(int(suite.get(key, 0)) for suite in made for key in ("failures", "errors")):
        failure = tree["failure"] or {}
        case = one.error("run", _name(tree), tree["code"], failure.get("sentence", ""), failure)
        made.append(one.gathered(_name(tree), "localhost", tree["started"], {}, [case]))
    sums = {
        key: str(sum(int(suite.get(key, 0)) for suite in made)) for key in ("tests", "failures", "errors")
    }
    time = sum(float(suite.get("time", 0)) for suite in made)
    root = ET.Element("testsuites", {"name": _name(tree), **sums, "time": f"{time:.3f}"})
    root.extend(made)
    return one.document(root)


def _suite(tree: Mapping[str, Any], host: Mapping[str, Any]) -> Element:
    name, report = host["name"], host["report"]
    classname = f"hsm-agent.{name.replace('.', '_')}"
    if report is not None:
        well = host["outcome"] == "ok"  # also when a sink did not get its report, which is a warning
        suite = one.element({**report, "exit_status": 0} if well else report, name, classname, name)
        if well or int(suite.get("failures", 0)) + int(suite.get("errors", 0)):
            return suite
    # the roll-out reports it, since no step does
    if host["outcome"] in ("not-reached", "at-work"):
        case = one.skipped(
            "run", classname, "not reached" if host["outcome"] == "not-reached" else host["saw"]
        )
    elif host["outcome"] == "ok":
        case = one.skipped("run", classname, "there is no report of this host")
    else:
        known = CODES.get(host["code"] or "")
        message = host.get("sentence") or (known.meaning if known else host["outcome"])
        case = one.error("run", classname, host["code"] or host["outcome"], message, host, host["seconds"])
    keys = ("outcome", "code", "exit_status", "changed", "wave")
    return one.gathered(name, name, tree["started"], {key: host[key] for key in keys}, [case])


def _name(tree: Mapping[str, Any]) -> str:
    return f"hsm-agent.{tree['command'].replace(' ', '.')}"
