"""What hosts could say to a page."""

from __future__ import annotations

import copy

from tests.fakes.fleets import Tree, fleet, host, unreachable
from tests.golden import runs as one
from tests.golden.fleet_runs import made, ok

EVIL = (
    "x</script><script>window.hacked = 1</script>",
    'x"><img src="https://example.com/x.png" onerror="window.hacked = 1">',
    "x</style><style>@import url(https://example.com)</style>",
    "x' onmouseover='window.hacked = 1",
    "x{{ 7 * 7 }}{% raw %}<!--",
    "x\u202e\x00\x1b[2J\ud800&lt;b&gt;&#0;",
)


def saying(text: str) -> Tree:
    """Return a report in which everything that a host, a person or a file can name is that text."""
    report = copy.deepcopy(made(one.all_timed_out))
    report["host"]["title"] = report["host"]["os"] = report["host"]["arch"] = report["client"]["version"] = (
        text
    )
    report["ca"]["not_after"] = text
    report["warnings"] = [{"code": text, "text": text}]
    report["restart_needed"] = [{"pid": 1, "name": text, "component": text, "started": text}]
    for step in report["steps"]:
        step.update(id=text, saw=text, want=text, hint=text)
    report["failure"].update(sentence=text, saw=text, hint=text)
    report["code"] = text
    bad = {
        **host("x", "failed", report={**report, "code": None}),
        "name": text,
        "address": text,
        "code": text,
        "trusted": text,
    }
    well = {**ok("y"), "name": text, "saw": text}
    tree = fleet([bad, well, {**unreachable("z"), "name": text, "saw": text, "hint": text}])
    tree["failure"].update(sentence=text, saw=text, want=text, hint=text, code=text)
    named = dict.fromkeys(("inventory", "run_id", "resume", "agent_version", "tree", "code"), text)
    return {**tree, **named, "warnings": [{"code": text, "text": text}]}
