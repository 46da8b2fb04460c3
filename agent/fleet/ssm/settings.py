"""What `--via ssm` was asked for, as a RunSpec keeps it: the region, and where hosts get the agent."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from agent.fleet.package_offer import is_here
from agent.ssm_document import AgentSources
from agent.user_data import AgentSource, FirstBootOptions, read_agent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.config.desired import Desired
    from agent.config.input_errors import InputErrors
    from agent.core.fleet_model import Target
    from agent.core.host import HostView

_INSTANCE = re.compile(r"m?i-([0-9a-f]{8}|[0-9a-f]{17})")
# what a source is kept as: all but its bytes, which no document has room for
_KEPT = tuple(field.name for field in fields(AgentSource) if field.name != "data")


def instance_of(target: Target) -> str | None:
    """Return the id of a target's instance or managed node: as EC2 said, or its address, or its name."""
    named = (each for each in (target.address, target.name) if _INSTANCE.fullmatch(each))
    return target.instance_id or next(named, None)


def region_of(targets: Sequence[Target], input_errors: InputErrors) -> str | None:
    """Return the region of the targets, where the inventory says it; a run has one."""
    regions = sorted({each.region for each in targets if each.region})
    if len(regions) > 1:
        input_errors.add("--via", f"ssm reaches hosts of one region in a run, not of {', '.join(regions)}")
    return regions[0] if regions else None


def settings_of(
    view: HostView,
    region: str,
    agent: tuple[str | None, str | None],
    windows_agent: tuple[str | None, str | None],
    input_errors: InputErrors,
) -> dict[str, Any]:
    """Return the settings; each agent is a source and its SHA-256, as the command line has them."""
    linux = read_agent(view, agent[0] or "package", agent[1], "shell", input_errors)
    if linux.data:
        input_errors.add("--agent", "hosts get it by themselves: a URL or s3://BUCKET/KEY is wanted")
    windows = None
    if windows_agent[0] is not None:
        windows = read_agent(
            view, windows_agent[0], windows_agent[1], "powershell", input_errors, "--windows-agent"
        )
    elif windows_agent[1] is not None:
        input_errors.add("--windows-agent-sha256", "it needs --windows-agent")
    return {"region": region, "agent": _kept(linux), "windows_agent": windows and _kept(windows)}


def check_targets(
    targets: Sequence[Target], desired: Mapping[str, Desired], input_errors: InputErrors
) -> None:
    """Report hosts that SSM has no name for, and what no host could fetch by itself."""
    nameless = [target for target in targets if instance_of(target) is None]
    for target in nameless[:5]:
        input_errors.add(
            target.where or target.name,
            f"{target.name} has no instance id: --via ssm needs i-… or mi-… as its address, not {target.address}",
        )
    if len(nameless) > 5:
        input_errors.add("--inventory", f"{len(nameless)} of {len(targets)} hosts have no instance id")
    folders = {each.package_source for each in desired.values() if is_here(each.package_source)}
    for folder in sorted(str(each) for each in folders):
        input_errors.add(
            "--package-source",
            f"{folder} is a directory of this machine, which --via ssm cannot send: https:// or s3:// is wanted",
        )


def sources_from(settings: Mapping[str, Any]) -> AgentSources:
    """Return where hosts get the agent."""
    windows = settings["windows_agent"]
    return AgentSources(
        AgentSource(**settings["agent"]), AgentSource(**windows) if windows else None, FirstBootOptions()
    )


def _kept(source: AgentSource) -> dict[str, str]:
    return {name: getattr(source, name) for name in _KEPT}
