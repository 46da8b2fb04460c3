"""python packaging/reference.py - write agent/docs/reference/*.md from the tables of this checkout.

Run it after a change to a table of options, codes, warnings, platforms or paths; tests/architecture compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer.main
from completions import commands, options

from agent.catalogue import components, load, match_platform, newest
from agent.cli.root import command_tree
from agent.config.options import OPTIONS
from agent.core.codes import CODES, EXIT_STATUSES
from agent.core.errors import AgentError
from agent.core.notices import WARNINGS
from agent.core.system import LINUX, windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.catalogue import Catalogue

REFERENCE = Path(__file__).parents[1] / "agent" / "docs" / "reference"
_WINDOWS = windows()
_OF_ALL = {option.switch for option in OPTIONS} | {"--help", "--version", "--output", "--quiet", "--config"}
_PLACES = (
    ("Configuration", LINUX.configuration, _WINDOWS.configuration),
    ("Parts of it, in the order of their names; a later one wins",
     f"{LINUX.configuration_folder}/*.toml", rf"{_WINDOWS.configuration_folder}\*.toml"),
    ("Environment of the units: a proxy, a file of certificates", "/etc/hsm-agent/environment", ""),
    ("State: last report, last desired state, snapshots", f"{LINUX.state}/", f"{_WINDOWS.state}\\"),
    ("The last report, which `status` shows without root", LINUX.report, _WINDOWS.report),
    ("Reports that are still to be delivered", f"{LINUX.spool}/", f"{_WINDOWS.spool}\\"),
    ("Downloads, removed once installed", f"{LINUX.cache}/", f"{_WINDOWS.cache}\\"),
    ("The agent as a roll-out brought it, a directory for each version",
     f"{LINUX.state}/trees/", f"{_WINDOWS.data}\\hsm-agent\\trees\\"),
    ("What a first boot is to configure, until the host is proven", "",
     rf"{_WINDOWS.data}\hsm-agent\first-boot.json"),
    ("Lock of a run; `.holder` beside it names the process", LINUX.lock, _WINDOWS.lock),
    ("Lock of the delivery of reports", LINUX.delivery_lock, _WINDOWS.delivery_lock),
    ("Log, where there is no journal or Event Log", f"{LINUX.log}/", f"{_WINDOWS.log}\\"),
    ("The vendor's client and its configuration", "/opt/cloudhsm/",
     f"{_WINDOWS.programs}\\Amazon\\CloudHSM\\"),
    ("The cluster's CA", "/opt/cloudhsm/etc/customerCA.crt", rf"{_WINDOWS.data}\Amazon\CloudHSM\customerCA.crt"),
    ("On the operator's machine: runs of a fleet", "~/.local/state/hsm-agent/runs/", ""),
    ("On the operator's machine: packages on their way to hosts", "~/.cache/hsm-agent/packages/", ""),
)  # fmt: skip


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {
        "options.md": _page("Options", _OPTIONS, _options(), "## Options of single commands", _others()),
        "codes.md": _page(
            "Codes and exit statuses", _CODES, _statuses(), "## Codes of errors", _codes(),
            "## Codes of warnings", _warnings(),
        ),
        "platforms.md": _page("Platforms", _PLATFORMS, _platforms(load())),
        "files.md": _page("Files", _FILES, _files()),
    }  # fmt: skip


_OPTIONS = """\
Every option, with its environment variable and its key in the configuration file.

`plan`, `configure`, `verify`, `user-data`, `iam-policy` and `fleet` share these. [configuration](../configuration.md)
says which of several values counts."""
_CODES = """\
Exit statuses, codes of errors and codes of warnings.

Scripts can rely on them: none is re-used, and none changes its meaning. `hsm-agent explain CODE` gives the usual
causes and the fix, offline."""
_PLATFORMS = """\
The rows of the catalogue, and the newest client of each platform.

`--platform` takes the name of a row. CentOS 7 is an `el7`. The rows are copied from AWS's pages. Each row of
`agent/catalogue/platforms.toml` names its page and the date on which it was read."""
_FILES = """\
Where the agent and the vendor's client keep their files.

- **State** has mode 0711, so that `status` works without root. All files in it but `report.json` have mode 0600. On
  Windows, only administrators can read state and locks.
- **A configuration file** is refused when others than root can change it, a directory above it, or a link on its
  path. The same holds for `--config FILE`.
- **State that others could have written** is not used. A `configure` with all options closes the directory
  (`state-closed`).
- **The log** is the journal (`journalctl -t hsm-agent`), on Windows the Event Log (`Application`, source `hsm-agent`:
  1 information, 2 warning, 3 error).
- **Of the vendor's files** the agent changes only the CA and the `cloudhsm-COMPONENT.cfg` of the six components: the CA
  by itself, the others by the vendor's tools."""


def _page(title: str, *parts: str) -> str:
    made = "<!-- Made by packaging/reference.py. Change the tables of the agent, and run it. -->"
    return "\n\n".join([f"# {title}", *parts, made]) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _options() -> str:
    rows = []
    for option in OPTIONS:
        shown = option.switch if option.flag else f"{option.switch} {option.metavar}"
        name = f"`{shown}`" + (" (repeatable)" if option.many else "")
        rows.append([name, f"`{option.variable}`", f"`{option.key}`" if option.key else "", option.help])
    return _table(["option", "variable", "key in the file", "meaning"], rows)


def _others() -> str:
    takers: dict[tuple[str, str], list[str]] = {}
    for path, command in commands(typer.main.get_command(command_tree([]))):
        for each in options(command) if path else ():
            if each.opts[0] not in _OF_ALL:
                shown = each.opts[0] if each.is_flag else f"{each.opts[0]} {each.metavar}"
                takers.setdefault((shown, each.help or ""), []).append(" ".join(path))
    rows = ([f"`{shown}`", f"`{'`, `'.join(names)}`", text] for (shown, text), names in takers.items())
    return _table(["option", "of", "meaning"], rows)


def _statuses() -> str:
    return _table(["exit", "class"], ([str(status), meaning] for status, meaning in EXIT_STATUSES.items()))


def _codes() -> str:
    rows = ([str(code.exit_status), f"`{code.name}`", code.meaning] for code in CODES.values())
    return _table(["exit", "code", "meaning"], rows)


def _warnings() -> str:
    rows = ([f"`{each.name}`", each.meaning, each.fix] for each in WARNINGS.values())
    return _table(["warning", "meaning", "what to do"], rows)


def _platforms(catalogue: Catalogue) -> str:
    rows = []
    for row in catalogue.rows:
        made = [_newest(catalogue, row.name, row.format, arch) for arch in ("x86_64", "aarch64")]
        if made != ["none", "none"]:
            rows.append([f"`{row.name}`", row.title, *made])
    return _table(["row", "system", "x86_64", "aarch64"], rows)


def _newest(catalogue: Catalogue, name: str, form: str, arch: str) -> str:
    os = "windows" if form == "msi" else ""
    try:
        fit = match_platform(catalogue, os=os, os_version="", arch=arch, id_like=(), platform=name)
    except AgentError:
        return "none"
    found = components(catalogue, fit, arch)
    versions = sorted({newest(catalogue, fit, arch, each).split("-")[0] for each in found})
    return f"{', '.join(found)}: {', '.join(versions)}" if found else "none"


def _files() -> str:
    def shown(path: str) -> str:
        return f"`{path}`" if path else ""

    return _table(
        ["what", "Linux", "Windows"], ([what, shown(on), shown(there)] for what, on, there in _PLACES)
    )


def main() -> None:
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
