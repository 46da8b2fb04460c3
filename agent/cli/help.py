"""`hsm-agent help`: the pages of the manual, and the text of `--help` for each command."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, List, Optional

import typer

from agent.cli.terminal import print_result, width
from agent.core.errors import AgentError
from agent.render import manual

Words = Annotated[
    Optional[List[str]],
    typer.Argument(metavar="[TOPIC|COMMAND]", help="default: the list of topics"),
]


def help_(context: typer.Context, words: Words = None) -> None:
    """Print a page of the manual, or what --help says of a command."""
    asked = words or []
    if asked and (len(asked) > 1 or asked[0] not in manual.topics()):
        print_result(_named(context, asked).get_help() + "\n")
    else:
        print_result(manual.page(asked[0] if asked else None, width=width()))


def _named(context: typer.Context, words: List[str]) -> Any:
    """Return the context of the command with this name. Raises AgentError `usage`."""
    found: Any = context.parent
    for number, word in enumerate(words):
        known = getattr(found.command, "commands", {})
        if word not in known:
            near = get_close_matches(word, {*known, *(() if number else manual.topics())}, 3)
            raise AgentError(
                "usage", f"there is no topic or command `{' '.join(words)}`", saw=word, want="a topic or a command",
                hint=f"did you mean {', '.join(near)}?" if near else "`hsm-agent help` lists the topics",
            )  # fmt: skip
        found = type(found)(known[word], parent=found, info_name=word)
    return found
