"""The JSON of `facts`: what a host is, which client fits it, and what is installed and configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.catalogue import components, fit_host, life_cycle, newest
from agent.core.errors import AgentError
from agent.core.plain import carried

if TYPE_CHECKING:
    from agent.catalogue import Catalogue, PlatformMatch
    from agent.facts import Facts


def facts_document(known: Facts, catalogue: Catalogue, platform: str | None) -> dict[str, Any]:
    """Return the facts as plain JSON values; `refusal` says why no client fits.

    `platform` is the row that `--platform` names.
    """
    fit: PlatformMatch | None = None
    refusal = None
    try:
        fit = fit_host(known, platform, catalogue)
    except AgentError as error:
        refusal = {"code": error.code.name, "sentence": error.sentence, "saw": error.saw, "hint": error.hint}
    fits = components(catalogue, fit, known.arch) if fit else ()
    installed = {each.package: each.version for each in known.installed}
    advice = (*fit.notices, *life_cycle(catalogue, fit, installed)) if fit else ()
    found = {
        "schema_version": 1,
        "host": {
            "name": known.name,
            "os": known.os,
            "os_version": known.os_version,
            "title": known.title,
            "arch": known.arch,
            "package_format": known.format,
            "init": known.init,
            "platform": fit.row.name if fit else None,
            "platform_forced": bool(fit and fit.forced),
        },
        "fits": {each: newest(catalogue, fit, known.arch, each) for each in fits if fit},
        "installed": {
            each.package: {"version": each.version, "broken": each.remark} for each in known.installed
        },
        "configured": {
            each.component: {"servers": list(each.servers), "ca": each.ca} for each in known.configured
        },
        "ca_present": known.has_ca,
        "advice": [{"code": each.code, "text": each.text} for each in advice],
        "refusal": refusal,
    }
    return carried(found)
