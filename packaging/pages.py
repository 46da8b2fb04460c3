"""python -I pages.py TREE DATE - what the agent in that tree says of itself, as JSON of three files for a package.

A program of its own, since what it describes is the command tree of the agent and the libraries that are shipped.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = (
    ("/etc/hsm-agent/config.toml, conf.d/*.toml", "the options of this host; a later file wins"),
    ("/var/lib/hsm-agent/", "the last report, what the last configure was asked for, snapshots"),
    ("/var/cache/hsm-agent/", "downloads, removed once installed"),
    ("/run/hsm-agent.lock", "held while this host is being changed"),
    ("/opt/cloudhsm/", "the vendor's client, its configuration and customerCA.crt"),
)
UNITS = (
    ("hsm-agent-verify.timer", "looks for drift once a day, on a host that was configured"),
    ("hsm-agent-verify.service", "that look"),
    ("hsm-agent-apply.service", "the last configure again; nothing starts it by itself"),
)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk a command tree: every command with the words that lead to it."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


def options(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "option" and not each.hidden]


def man(root: Any, version: str, date: str) -> str:
    from agent.core.errors import EXIT_STATUSES  # noqa: PLC0415 -- of the tree, whose path main sets
    from agent.options import OPTIONS  # noqa: PLC0415

    shared = {option.switch for option in OPTIONS}
    lines = [
        ".\\\" made from the command's own help",
        f'.TH HSM\\-AGENT 1 "{date}" "hsm-agent {version}" "User commands"',
        *(".SH NAME", f"hsm\\-agent \\- {roff(root.help[0].lower() + root.help[1:].rstrip('.'))}"),
        *(".SH SYNOPSIS", ".B hsm\\-agent", ".I COMMAND", ".RI [ OPTION ...]", ".SH COMMANDS"),
    ]
    for path, command in commands(root):
        if not path or hasattr(command, "commands"):
            continue
        lines += [".TP", f".B {roff(' '.join(path))}{_arguments(command)}", *_paragraphs(command.help)]
        own = [each for each in options(command) if each.opts[0] not in shared and each.name != "help"]
        for option in own:
            lines += [".RS", ".TP", _tag(option), roff(option.help or ""), ".RE"]
        if len(own) < len(options(command)) - 1:
            lines += [".RS", ".PP", "Takes the options below.", ".RE"]
    lines.append(".SH OPTIONS")
    for each in OPTIONS:
        value = "" if each.flag else f" \\fI{roff(each.metavar or 'VALUE')}\\fR"
        lines += [".TP", f".B {roff(each.switch)}{value}", _sentence(each)]
    lines += [".SH EXIT STATUS"]
    for status, meaning in EXIT_STATUSES.items():
        lines += [".TP", f".B {status}", roff(meaning)]
    for title, rows in (("FILES", FILES), ("UNITS", UNITS)):
        lines.append(f".SH {title}")
        for name, meaning in rows:
            lines += [".TP", f".I {roff(name)}", roff(meaning)]
    lines += [".SH SEE ALSO", ".BR systemctl (1),", ".BR journalctl (1)"]
    return "\n".join(lines) + "\n"


def _sentence(option: Any) -> str:
    also = [f"\\fB{option.variable}\\fR"] + ([f"\\fI{option.key}\\fR in the file"] if option.key else [])
    return f"{roff(option.help)}{'; repeatable' if option.many else ''} ({', '.join(also)})"


def _arguments(command: Any) -> str:
    found = [each for each in command.params if each.param_type_name == "argument"]
    return "".join(f" \\fI{roff(each.metavar or each.name.upper())}\\fR" for each in found)


def _tag(option: Any) -> str:
    value = "" if option.is_flag else f" \\fI{roff(option.metavar or 'VALUE')}\\fR"
    return f".B {roff(', '.join(option.opts))}{value}"


def _paragraphs(text: str) -> list[str]:
    first, *others = [" ".join(part.split()) for part in text.split("\n\n")]
    return [roff(first), *(line for each in others for line in (".IP", roff(each)))]


def roff(text: str) -> str:
    """Return plain text as roff reads it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


BASH = """\
# bash completion for hsm-agent, made from its own command tree
_hsm_agent()
{{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} path= word words
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
        case "$path $word" in
            {paths}) path="$path $word" ;;
        esac
    done
    case $prev in
{values}
        {others}) COMPREPLY=(); return ;;
    esac
    case $path in
{commands}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}} && complete -o default -F _hsm_agent hsm-agent
"""


def bash(root: Any) -> str:
    from agent.cloudhsm.layout import COMPONENTS  # noqa: PLC0415
    from agent.core.errors import CODES  # noqa: PLC0415

    known = {"--component": " ".join(COMPONENTS)}
    others: set[str] = set()
    paths, cases = [], []
    for path, command in commands(root):
        words = [*getattr(command, "commands", {})]
        if path == ("explain",):
            words += CODES
        for option in options(command):
            words += option.opts
            if option.is_flag:
                continue
            choices = (option.metavar or "").split("|")
            if len(choices) > 1 and choices[0] == choices[0].lower():
                known.update((each, " ".join(choices)) for each in option.opts)
            else:
                others.update(set(option.opts) - set(known))
        quoted = '"' + "".join(f" {word}" for word in path) + '"'
        paths += [quoted] * bool(path)
        cases.append(f'        {quoted}) words="{" ".join(words)}" ;;')
    rows = [
        f'        {switch}) COMPREPLY=($(compgen -W "{words}" -- "$cur")); return ;;'
        for switch, words in known.items()
    ]
    return BASH.format(
        paths=" | ".join(paths),
        values="\n".join(rows),
        others=" | ".join(sorted(others)),
        commands="\n".join(cases),
    )


CONFIG = """\
# Everything that /etc/hsm-agent/config.toml and conf.d/*.toml beside it can say.
"""


def config() -> str:
    from agent.options import OPTIONS  # noqa: PLC0415

    tables: dict[str, list[str]] = {}
    for option in OPTIONS:
        if option.key:
            table, _, key = option.key.partition(".")
            word = (
                "true" if option.flag else f'["{option.metavar}"]' if option.many else f'"{option.metavar}"'
            )
            tables.setdefault(table, []).append(f"\n# {option.help}\n#{key} = {word}\n")
    return CONFIG + "".join(f"\n#[{table}]\n{''.join(rows)}" for table, rows in tables.items())


def main() -> None:
    tree, date = sys.argv[1:]
    sys.path.insert(0, tree)
    sys.dont_write_bytecode = True
    import typer.main  # noqa: PLC0415

    from agent import __version__  # noqa: PLC0415
    from agent.cli.root import command_tree  # noqa: PLC0415

    root = typer.main.get_command(command_tree([]))
    print(json.dumps({"man": man(root, __version__, date), "bash": bash(root), "config": config()}))


if __name__ == "__main__":
    main()
