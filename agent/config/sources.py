"""Where options come from on this machine: flags, environment, configuration file, and standard input."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from agent.config.desired import (
    Desired,
    InputErrors,
    RawOptions,
    read_environment,
    read_file,
    read_files,
    read_flags,
    read_text,
    resolve,
)
from agent.core.errors import AgentError, CodeName
from agent.hosts.timed_input import read_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView

# Of standard input: bytes, and how long it is waited for, in seconds. A person may have to log in somewhere first.
_LARGEST = 1024 * 1024
_PATIENCE = 120.0


def read_desired(
    view: HostView, given: Mapping[str, Any], config: str | None, said: list[RawOptions]
) -> Desired:
    """Return what all sources together ask for. Raises AgentError `config-invalid` with all complaints.

    `said` gets what could be read in any case.
    """
    input_errors = InputErrors()
    read_sources(view, given, config, input_errors, said)
    return resolve(said, input_errors)


def read_sources(
    view: HostView,
    given: Mapping[str, Any],
    config: str | None,
    input_errors: InputErrors,
    said: list[RawOptions] | None = None,
) -> list[RawOptions]:
    """Return what flags, environment and file say, the strongest first. A CA on standard input is read here.

    `said` gets each as soon as it is read. Raises AgentError where standard input cannot be waited for any longer.
    """
    said = [] if said is None else said
    if config == "-" and given.get("ca_cert") == "-":
        input_errors.add("--config, --ca-cert", "only one of them can be standard input")
        input_errors.raise_any()
    said.append(read_flags(given, input_errors))
    said.append(read_environment(os.environ, input_errors))
    if config == "-":
        data = _standard_input(view, said, "--config", "config-invalid")
        said.append(read_text(data, "standard input", input_errors))
    elif config is not None:
        found = read_file(view, config, input_errors)
        if found is None:
            input_errors.add("--config", f"there is no file {config}")
        said.append(found or {})
    else:
        said.append(read_files(view, input_errors))
    winner = next((each for each in said if each.get("ca_cert") is not None), None)
    if winner is not None and winner["ca_cert"] == "-" and not input_errors.texts:
        text = _standard_input(view, said, "--ca-cert", "ca-unreadable").decode("utf-8", "surrogateescape")
        winner["ca_cert"] = f"inline:{text}"
    return said


def _standard_input(view: HostView, said: list[RawOptions], option: str, code: CodeName) -> bytes:
    """Return what is written to us until its end, which `--timeout` or else a limit of ours waits for.

    Raises AgentError `timed-out`, `interrupted`, and `code` where there is more than such a file has.
    """
    if sys.stdin is None:
        return b""
    asked = next((each["timeout"] for each in said if each.get("timeout") is not None), _PATIENCE)
    limit = min(asked, _PATIENCE)
    ends = view.monotonic() + limit

    def check_stopped() -> None:
        view.sleep(0)  # an interrupt
        if view.monotonic() >= ends:
            raise AgentError(
                "timed-out", "standard input did not end", saw=f"no end within {limit:g} s",
                want=f"what `{option} -` reads, and its end",
                hint=f"whatever writes to it must end, as in `cat FILE | hsm-agent …`; `{option} FILE` reads a file",
            )  # fmt: skip

    data = read_all(sys.stdin.fileno(), _LARGEST + 1, check_stopped)
    if len(data) > _LARGEST:
        raise AgentError(
            code, "there is too much on standard input", saw=f"more than {_LARGEST} bytes",
            want=f"at most {_LARGEST} bytes",
            hint=f"`{option} -` reads one file, to its end: look at what writes to it",
        )  # fmt: skip
    return data
