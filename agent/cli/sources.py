"""Where options come from on this machine: flags, environment, configuration file, and standard input."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from agent.desired import (
    Complaints,
    Desired,
    Said,
    read_environment,
    read_file,
    read_files,
    read_flags,
    read_text,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView

_STDIN_LIMIT = 1024 * 1024


def read_desired(view: HostView, given: Mapping[str, Any], config: str | None, said: list[Said]) -> Desired:
    """Return what all sources together ask for. Raises AgentError `config-invalid` with all complaints.

    `said` gets what could be read in any case.
    """
    complaints = Complaints()
    said.extend(read_sources(view, given, config, complaints))
    return settle(said, complaints)


def read_sources(
    view: HostView, given: Mapping[str, Any], config: str | None, complaints: Complaints
) -> tuple[Said, Said, Said]:
    """Return what flags, environment and file say, the strongest first. A CA on standard input is read here."""
    if config == "-" and given.get("ca_cert") == "-":
        complaints.add("--config, --ca-cert", "only one of them can be standard input")
        complaints.raise_any()
    flags = read_flags(given, complaints)
    environment = read_environment(os.environ, complaints)
    if config == "-":
        file = read_text(_standard_input(), "standard input", complaints)
    elif config is not None:
        found = read_file(view, config, complaints)
        if found is None:
            complaints.add("--config", f"there is no file {config}")
        file = found or {}
    else:
        file = read_files(view, complaints)
    sources = (flags, environment, file)
    winner = next((each for each in sources if each.get("ca_cert") is not None), None)
    if winner is not None and winner["ca_cert"] == "-" and not complaints.texts:
        text = _standard_input().decode("utf-8", "surrogateescape")
        winner["ca_cert"] = f"inline:{text}"
    return sources


def _standard_input() -> bytes:
    return sys.stdin.buffer.read(_STDIN_LIMIT) if sys.stdin is not None else b""
