"""The bootstrap program as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.remote.bootstrap import (
    ArchiveStore,
    ensure_archive,
)
from agent.remote.protocol import KEPT, ArchiveRef
from tests.fakes.archives import ARCHIVE, Ends, damage, digest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "cut",
        "zeros",
        "cut bytecode",
        "empty bytecode",
        "no list",
        "half a list",
        "no list of ours",
        "a folder",
    ],
)
def test_a_tree_that_is_not_whole_is_asked_for_anew(tmp_path: Path, how: str, keep: bool) -> None:
    trees = ArchiveStore(tmp_path / "trees")
    other = "import sys; from pathlib import Path; from agent.remote.bootstrap import ArchiveStore; data = sys.stdin.buffer.read()"
    unpack = [sys.executable, "-c", f"{other}; ArchiveStore(Path(sys.argv[1])).unpack(sys.argv[2], data)"]
    subprocess.run([*unpack, str(tmp_path / "trees"), digest(ARCHIVE)], input=ARCHIVE, check=True, timeout=60)
    damage(tmp_path / "trees" / digest(ARCHIVE), how)
    ends = Ends(json.dumps({"size": len(ARCHIVE)}).encode() + b"\n" + ARCHIVE)
    folder = ensure_archive(
        ends.wire, ArchiveRef(digest(ARCHIVE), keep=keep), ArchiveStore(tmp_path / "trees")
    )
    assert ends.said == [{"event": "want", "what": "tree"}]
    assert (folder / "agent/__init__.py").read_bytes() == b"x = 1\n"
    assert (trees.hold(digest(ARCHIVE)) is not None) is keep


def test_a_kill_in_the_middle_of_pruning_leaves_no_half_tree_under_its_name(tmp_path: Path) -> None:
    """Killed between any two files: a folder that has the name of a tree is that tree whole."""
    code = """
import os, sys
from pathlib import Path
from agent.remote import bootstrap
left = int(sys.argv[2])
def mind(event, args):
    global left
    if event == "os.remove":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(mind)
bootstrap.ArchiveStore(Path(sys.argv[1]))._prune("other")
"""
    trees = tmp_path / "trees"
    for left in range(6):
        for age in range(KEPT + 1):
            (trees / f"t{age}").mkdir(parents=True, exist_ok=True)
            for name in "abc":
                (trees / f"t{age}" / name).write_text(name)
            os.utime(trees / f"t{age}", (1000 + age, 1000 + age))
        subprocess.run([sys.executable, "-c", code, str(trees), str(left)], check=False, timeout=60)
        whole = [path for path in trees.iterdir() if not path.name.startswith(".new-")]
        assert {len(list(path.iterdir())) for path in whole} == {3}
    assert {path.name for path in trees.iterdir()} == {"t1", "t2"}
