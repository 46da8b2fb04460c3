"""What people and programs see of a cluster, whole: each screen is a file, and the exit status is in its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import jsonschema  # type: ignore[import-untyped]
import pytest

from agent.render.cluster.document import to_document, to_tree
from agent.render.cluster.screen import screen
from agent.render.json_report import schema
from tests.fakes import cluster_views as views
from tests.fakes.cluster_answers import SECRET
from tests.fakes.evil import EVIL
from tests.golden.runs import hold

if TYPE_CHECKING:
    from agent.cloudhsm.cluster_view import ClusterView

FOLDER = Path(__file__).parent / "cluster"


@pytest.mark.parametrize("made", views.VIEWS, ids=lambda made: made.__name__)
def test_the_screen_of_a_cluster(made: Callable[[], ClusterView], pytestconfig: pytest.Config) -> None:
    tree = to_tree(made())
    hold(made.__name__, tree["exit_status"], screen(tree), pytestconfig, FOLDER)


def test_the_document_of_a_cluster(pytestconfig: pytest.Config) -> None:
    tree = to_tree(views.troubled())
    tree["agent_version"] = "0.0.0"
    path = FOLDER / "troubled.json"
    if pytestconfig.getoption("--update-golden"):
        path.write_text(to_document(tree), encoding="utf-8")
    assert to_document(tree) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("made", views.VIEWS, ids=lambda made: made.__name__)
def test_every_document_keeps_to_the_published_schema(made: Callable[[], ClusterView]) -> None:
    tree = json.loads(to_document(to_tree(made())))
    jsonschema.Draft202012Validator(schema("cluster")).validate(tree)
    known = schema("cluster")["properties"]
    assert set(tree) == set(known)
    assert set(tree["cluster"]) == set(known["cluster"]["properties"])


@pytest.mark.parametrize("text", EVIL)
def test_what_aws_says_moves_no_cursor_and_breaks_no_line(text: str) -> None:
    tree = to_tree(views.saying(text))
    shown = screen(tree)
    assert all(char == "\n" or char.isprintable() for char in shown)
    jsonschema.Draft202012Validator(schema("cluster")).validate(json.loads(to_document(tree)))


def test_a_terminal_has_no_longer_lines_than_it_is_wide_but_for_commands() -> None:
    shown = screen(to_tree(views.troubled()), width=100)
    free = [each for each in shown.splitlines() if "aws " not in each and not each.startswith("  ")]
    assert max(map(len, free)) <= 100


def test_a_secret_of_the_answer_is_in_no_output() -> None:
    assert SECRET not in to_document(to_tree(views.healthy()))
