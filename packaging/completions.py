"""Completions of bash, zsh and fish, made from the command tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Words:
    """The words that follow each command, by the words before them, and the values of each option that takes one.

    For an option that is not in `values`, the shell completes files.
    """

    behind: dict[tuple[str, ...], tuple[str, ...]]
    values: dict[str, tuple[str, ...]]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command of a tree with the words that lead to it."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


def options(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "option" and not each.hidden]


def words_of(root: Any) -> Words:
    from agent.cloudhsm.components import NAMES  # noqa: PLC0415 -- of the tree, whose path main sets
    from agent.core.codes import CODES  # noqa: PLC0415
    from agent.render.manual import topics  # noqa: PLC0415

    named: dict[tuple[str, ...], Iterable[str]] = {("explain",): CODES, ("help",): topics()}

    values: dict[str, tuple[str, ...]] = {"--component": NAMES}
    behind = {}
    for path, command in commands(root):
        words = [*getattr(command, "commands", {}), *named.get(path, ())]
        for option in options(command):
            words += option.opts
            choices = tuple((option.metavar or "").split("|"))
            is_closed = len(choices) > 1 and choices[0] == choices[0].lower()
            for each in option.opts if not option.is_flag else ():
                values[each] = values.get(each) or (choices if is_closed else ())
        behind[path] = tuple(words)
    return Words(behind, values)


_BASH = """\
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


def bash(words: Words) -> str:
    rows = [
        f'        {switch}) COMPREPLY=($(compgen -W "{" ".join(known)}" -- "$cur")); return ;;'
        for switch, known in words.values.items()
        if known
    ]
    return _BASH.format(
        paths=_paths(words),
        values="\n".join(rows),
        others=" | ".join(sorted(switch for switch, known in words.values.items() if not known)),
        commands=_cases(words, 'words="{}"', " "),
    )


_ZSH = """\
#compdef hsm-agent
# zsh completion for hsm-agent, made from its own command tree
_hsm_agent() {{
    local at= word
    local -a offered
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$at $word" in
            ({paths}) at="$at $word" ;;
        esac
    done
    case $words[CURRENT-1] in
{values}
        ({others}) _files; return ;;
    esac
    case $at in
{commands}
    esac
    compadd -a offered || _files
}}
_hsm_agent "$@"
"""


def zsh(words: Words) -> str:
    rows = [
        f"        ({switch}) compadd {' '.join(known)}; return ;;"
        for switch, known in words.values.items()
        if known
    ]
    return _ZSH.format(
        paths=_paths(words),
        values="\n".join(rows),
        others=" | ".join(sorted(switch for switch, known in words.values.items() if not known)),
        commands=_cases(words, "offered=({})", " ", before="("),
    )


_FISH = """\
# fish completion for hsm-agent, made from its own command tree
function __hsm_agent_at
    set -l at
    for word in (commandline -opc)[2..-1]
        switch "$at $word"
            case {paths}
                set at "$at $word"
        end
    end
    test "$at" = "$argv[1]"
end
{rows}
"""


def fish(words: Words) -> str:
    rows = []
    for path, behind in words.behind.items():
        where = "".join(f" {word}" for word in path)
        condition = f"complete -c hsm-agent -n '__hsm_agent_at \"{where}\"'"
        plain = [word for word in behind if not word.startswith("-")]
        if plain:
            rows.append(f"{condition} -f -a '{' '.join(plain)}'")
        for switch in (word for word in behind if word.startswith("-")):
            name = f"-l {switch[2:]}" if switch.startswith("--") else f"-s {switch[1:]}"
            known = words.values.get(switch)
            value = f" -x -a '{' '.join(known)}'" if known else "" if known is None else " -r"
            rows.append(f"{condition} {name}{value}")
    return _FISH.format(paths=_paths(words, " "), rows="\n".join(rows))


def _paths(words: Words, between: str = " | ") -> str:
    return between.join('"' + "".join(f" {word}" for word in path) + '"' for path in words.behind if path)


def _cases(words: Words, form: str, between: str, before: str = "") -> str:
    rows = []
    for path, behind in words.behind.items():
        where = '"' + "".join(f" {word}" for word in path) + '"'
        rows.append(f"        {before}{where}) {form.format(between.join(behind))} ;;")
    return "\n".join(rows)
