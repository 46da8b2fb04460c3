"""python -I pages.py TREE DATE - print what that tree documents of itself, as JSON of the files for a package.

A separate program, since it describes the command tree of the shipped agent with the shipped libraries.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from completions import bash, commands, fish, options, words_of, zsh
from roff import page_name, roff, topic_page

UNITS = (
    ("hsm-agent-verify.timer", "looks for drift once a day, on a host that was configured"),
    ("hsm-agent-verify.service", "that look"),
    ("hsm-agent-apply.service", "the last configure again"),
    ("hsm-agent-apply.timer", "starts that once an hour; off until you enable it"),
)


_ASKED = "--hsm-ip 10.0.1.6 --hsm-ip 10.0.2.9 --ca-cert customerCA.crt"
EXAMPLES = (
    (f"hsm-agent plan {_ASKED}", "what configure would do; changes nothing"),
    (f"sudo hsm-agent configure {_ASKED}", "install, configure, prove"),
    ("sudo hsm-agent verify", "what differs from the last configure, and why"),
    ("hsm-agent status --wait 10m --output json", "the report of the current run"),
    ("hsm-agent cluster --html cluster.html", "what AWS says of this host's cluster, with a picture"),
    ("sudo hsm-agent rollback", "the CA and the configuration of before the last change"),
    ("hsm-agent fleet rollout --inventory hosts.ini --waves 1,10%", "one host, then a tenth, then all"),
    ("hsm-agent explain hsm-timed-out", "what a code means, and the way out"),
)


def man(root: Any, version: str, date: str) -> str:
    from agent.render import manual  # noqa: PLC0415 -- of the tree, whose path main sets

    lines = [
        ".\\\" made from the command's own help",
        f'.TH HSM\\-AGENT 1 "{date}" "hsm-agent {version}" "User commands"',
        *(".SH NAME", f"hsm\\-agent \\- {roff(root.help[0].lower() + root.help[1:].rstrip('.'))}"),
        *(".SH SYNOPSIS", ".B hsm\\-agent", ".I COMMAND", ".RI [ OPTION ...]", ".SH COMMANDS"),
        *_commands(root),
        ".SH GENERAL OPTIONS",
        *(line for each in options(root) for line in (".TP", _tag(each), roff(each.help or ""))),
        *_tables(),
    ]
    for title, rows in (("EXAMPLES", EXAMPLES), ("FILES", _files()), ("UNITS", UNITS)):
        lines += [
            f".SH {title}",
            *(line for row in rows for line in (".TP", f".B {roff(row[0])}", roff(row[1]))),
        ]
    topics = [f".BR {roff(page_name(topic))} (7)," for topic in manual.topics()]
    lines += [".SH SEE ALSO", *topics, ".BR systemctl (1),", ".BR journalctl (1)"]
    return "\n".join(lines) + "\n"


def _files() -> list[tuple[str, str]]:
    """Return the paths on Linux and their contents, as the manual lists them."""
    from agent.render import manual  # noqa: PLC0415 -- of the tree, whose path main sets

    (table,) = (each for each in manual.blocks(manual.page("files")) if each.kind == "table")
    return [(row[1].strip("`"), row[0]) for row in table.rows[1:] if row[1]]


def _commands(root: Any) -> list[str]:
    from agent.config.options import OPTIONS  # noqa: PLC0415 -- of the tree, whose path main sets

    shared = {option.switch for option in OPTIONS}
    lines = []
    for path, command in commands(root):
        if not path or hasattr(command, "commands"):
            continue
        lines += [".TP", f".B {roff(' '.join(path))}{_arguments(command)}", *_paragraphs(command.help)]
        own = [each for each in options(command) if each.opts[0] not in shared and each.name != "help"]
        for option in own:
            lines += [".RS", ".TP", _tag(option), roff(option.help or ""), ".RE"]
        if len(own) < len(options(command)) - 1:
            lines += [".RS", ".PP", "Takes the options below.", ".RE"]
    return lines


def _tables() -> list[str]:
    """Return the agent's tables: options, exit statuses, codes and the forms of a sink."""
    from agent.config.options import OPTIONS  # noqa: PLC0415
    from agent.core.codes import CODES, EXIT_STATUSES  # noqa: PLC0415 -- of the tree, whose path main sets
    from agent.sinks.registry import SINKS  # noqa: PLC0415

    lines = [".SH OPTIONS"]
    for each in OPTIONS:
        value = "" if each.flag else f" \\fI{roff(each.metavar or 'VALUE')}\\fR"
        lines += [".TP", f".B {roff(each.switch)}{value}", _sentence(each)]
    lines.append(".SH EXIT STATUS")
    for status, meaning in EXIT_STATUSES.items():
        lines += [".TP", f".B {status}", roff(meaning)]
    lines += [".SH CODES", "A failure has a code beside its exit status."]
    for code in CODES.values():
        lines += [".TP", f".B {roff(code.name)} \\fR({code.exit_status})", roff(code.meaning)]
    lines += [".SH REPORTS", f"What {roff('--report-to')} takes:"]
    lines += [line for place in SINKS.values() for line in (".TP", f".B {roff(place.form)}")]
    return lines


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


CONFIG = """\
# All options of /etc/hsm-agent/config.toml and of conf.d/*.toml beside it.
"""


def config() -> str:
    from agent.config.options import OPTIONS  # noqa: PLC0415

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
    from agent.render import manual  # noqa: PLC0415

    root = typer.main.get_command(command_tree([]))
    words = words_of(root)
    completions = {"bash": bash(words), "zsh": zsh(words), "fish": fish(words)}
    topics = {
        f"{page_name(topic)}.7": topic_page(topic, manual.blocks(manual.page(topic)), __version__, date)
        for topic in manual.topics()
    }
    made = {"hsm-agent.1": man(root, __version__, date), **topics, **completions, "config": config()}
    print(json.dumps(made))


if __name__ == "__main__":
    main()
