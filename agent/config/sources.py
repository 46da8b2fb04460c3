"""Where options come from on this machine: flags, environment, configuration file, and standard input."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from agent.config.desired import Desired, RawOptions, resolve
from agent.config.input_errors import InputErrors
from agent.config.options import CaSource
from agent.config.readers import read_environment, read_file, read_files, read_flags, read_text
from agent.core.errors import AgentError
from agent.hosts.timed_input import read_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.codes import CodeName
    from agent.core.host import HostView

# Limits of standard input: bytes, and seconds until its end. A person may have to log in somewhere first.
_LARGEST = 1024 * 1024
_TIMEOUT = 120.0


def read_desired(
    view: HostView, given: Mapping[str, Any], config: str | None, found_options: list[RawOptions]
) -> Desired:
    """Return the request of all sources together. Raises AgentError `config-invalid` with all complaints.

    `found_options` receives every source that could be read, in any case.
    """
    input_errors = InputErrors()
    read_sources(view, given, config, input_errors, found_options)
    return resolve(found_options, input_errors)


def read_sources(
    view: HostView,
    given: Mapping[str, Any],
    config: str | None,
    input_errors: InputErrors,
    found_options: list[RawOptions] | None = None,
) -> list[RawOptions]:
    """Return the options of flags, environment and file, highest precedence first. A CA on standard input is read here.

    `found_options` receives each as soon as it is read. Raises AgentError where standard input does not end in time.
    """
    found_options = [] if found_options is None else found_options
    if config == "-" and given.get("ca_cert") == "-":
        input_errors.add("--config, --ca-cert", "only one of them can be standard input")
        input_errors.raise_any()
    found_options.append(read_flags(given, input_errors))
    found_options.append(read_environment(os.environ, input_errors))
    if config == "-":
        data = _standard_input(view, found_options, "--config", "config-invalid")
        found_options.append(read_text(data, "standard input", input_errors))
    elif config is not None:
        found = read_file(view, config, input_errors)
        if found is None:
            input_errors.add("--config", f"there is no file {config}")
        found_options.append(found or {})
    else:
        found_options.append(read_files(view, input_errors))
    winner = next((each for each in found_options if each.get("ca_cert") is not None), None)
    if winner is not None and winner["ca_cert"].kind == "stdin" and not input_errors.texts:
        text = _standard_input(view, found_options, "--ca-cert", "ca-unreadable").decode(
            "utf-8", "surrogateescape"
        )
        winner["ca_cert"] = CaSource("inline", text)
    return found_options


def _standard_input(view: HostView, found_options: list[RawOptions], option: str, code: CodeName) -> bytes:
    """Return standard input up to its end; `--timeout` or else a fixed limit bounds the wait.

    Raises AgentError `timed-out`, `interrupted`, and `code` where it is larger than such a file.
    """
    if sys.stdin is None:
        return b""
    asked = next((each["timeout"] for each in found_options if each.get("timeout") is not None), _TIMEOUT)
    limit = min(asked, _TIMEOUT)
    ends = view.monotonic() + limit

    def check_stopped() -> None:
        view.sleep(0)  # raises on an interrupt
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
