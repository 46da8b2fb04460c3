"""Is this a task as Microsoft's schema of the Task Scheduler has them? Only what we use is known; all else is a complaint.

Copied by hand from `Task Scheduler Schema` (taskschd) and [MS-TSCH] 2.5: which children an element may have, and, where
the schema says `sequence` and not `all`, in which order.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_BOOLEAN, _DURATION = r"true|false", r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?"
_TRIGGER = ("Enabled", "StartBoundary", "EndBoundary", "Repetition", "ExecutionTimeLimit")
# element -> its children; an element that is not here has none, and holds a value
_CHILDREN = {
    "Task": ("RegistrationInfo", "Triggers", "Settings", "Data", "Principals", "Actions"),
    "RegistrationInfo": (
        "URI", "SecurityDescriptor", "Source", "Date", "Author", "Version", "Description", "Documentation",
    ),
    "Triggers": ("BootTrigger", "CalendarTrigger"),
    "BootTrigger": (*_TRIGGER, "Delay"),
    "CalendarTrigger": (*_TRIGGER, "RandomDelay", "ScheduleByDay"),
    "ScheduleByDay": ("DaysInterval",),
    "Principals": ("Principal",),
    "Principal": ("UserId", "LogonType", "GroupId", "DisplayName", "RunLevel"),
    "Settings": (
        "AllowStartOnDemand", "MultipleInstancesPolicy", "DisallowStartIfOnBatteries", "StopIfGoingOnBatteries",
        "AllowHardTerminate", "StartWhenAvailable", "RunOnlyIfNetworkAvailable", "WakeToRun", "Enabled", "Hidden",
        "ExecutionTimeLimit", "Priority", "RunOnlyIfIdle",
    ),
    "Actions": ("Exec",),
    "Exec": ("Command", "Arguments", "WorkingDirectory"),
}  # fmt: skip
_IN_ORDER = ("BootTrigger", "CalendarTrigger")
_ATTRIBUTES = {"Task": {"version"}, "Principal": {"id"}, "Actions": {"Context"}}
_VALUES = {
    **dict.fromkeys(
        (
            "Enabled", "DisallowStartIfOnBatteries", "StopIfGoingOnBatteries", "AllowHardTerminate", "Hidden",
            "StartWhenAvailable", "RunOnlyIfNetworkAvailable", "WakeToRun", "AllowStartOnDemand", "RunOnlyIfIdle",
        ),
        _BOOLEAN,
    ),
    **dict.fromkeys(("ExecutionTimeLimit", "RandomDelay", "Delay"), _DURATION),
    "StartBoundary": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)?",
    "DaysInterval": r"[1-9]\d?",
    "MultipleInstancesPolicy": r"Parallel|Queue|IgnoreNew|StopExisting",
    "Priority": r"\d|10",
    "RunLevel": r"LeastPrivilege|HighestAvailable",
    # of the system; with it a LogonType would be wrong
    "UserId": r"S-1-5-18",
    "URI": r"\\[\w-]+",
    "Command": r"(?s).{1,260}",
}  # fmt: skip


def input_errors(text: str | bytes) -> list[str]:
    """Return what the Task Scheduler would refuse, or we have no business to use."""
    top = ET.fromstring(text)
    found = _input_errors(top)
    if top.tag != f"{{{NAMESPACE}}}Task":
        found.append(f"{top.tag} is no task")
    principals = [each.get("id") for each in top.iter(f"{{{NAMESPACE}}}Principal")]
    found += [
        "Actions are of nobody"
        for each in top.iter(f"{{{NAMESPACE}}}Actions")
        if each.get("Context") not in principals
    ]
    return found


def _input_errors(element: ET.Element) -> list[str]:
    name = _name(element)
    children = [_name(each) for each in element]
    allowed = _CHILDREN.get(name, ())
    found = [f"{name} has no {child}" for child in children if child not in allowed]
    found += [f"{name} has two of {child}" for child in set(children) if children.count(child) > 1]
    found += [
        f"{name} has no attribute {each}" for each in set(element.attrib) - _ATTRIBUTES.get(name, set())
    ]
    if name in _IN_ORDER and not found and children != sorted(children, key=allowed.index):
        found.append(f"the parts of {name} are in another order")
    if name in _VALUES and not re.fullmatch(_VALUES[name], element.text or ""):
        found.append(f"{name} is not {element.text!r}")
    if name == "Task" and element.get("version") not in ("1.2", "1.3", "1.4"):
        found.append(f"there is no version {element.get('version')}")
    return found + [each for child in element for each in _input_errors(child)]


def _name(element: ET.Element) -> str:
    return element.tag.removeprefix(f"{{{NAMESPACE}}}")
