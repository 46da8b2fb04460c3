"""The landing program: what it says and takes over the wire, and how trees come to lie on a host."""

from __future__ import annotations

import fcntl
import io
import json
import os
import sys
import tarfile
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.remote.bootstrap import (
    MANIFEST,
    ArchiveStore,
    TimedReader,
    ensure_archive,
    extract,
    is_complete,
)
from agent.remote.protocol import KEPT, ArchiveRef, At, Failed, RecordStream
from tests.fakes.archives import ARCHIVE, Ends, archive, damage, digest

if TYPE_CHECKING:
    from pathlib import Path


def test_a_tree_that_is_here_is_not_asked_for(tmp_path: Path) -> None:
    there = ArchiveStore(tmp_path / "trees").unpack(digest(ARCHIVE), ARCHIVE)
    ends = Ends()
    assert (
        ensure_archive(ends.wire, ArchiveRef(digest(ARCHIVE), keep=True), ArchiveStore(tmp_path / "trees"))
        == there
    )
    assert ends.said == []


def test_a_tree_that_is_missing_is_asked_for_and_kept(tmp_path: Path) -> None:
    ends = Ends(json.dumps({"size": len(ARCHIVE)}).encode() + b"\n" + ARCHIVE + b"rest")
    folder = ensure_archive(
        ends.wire, ArchiveRef(digest(ARCHIVE), keep=True), ArchiveStore(tmp_path / "trees")
    )
    assert folder == tmp_path / "trees" / digest(ARCHIVE)
    assert ends.said == [{"event": "want", "what": "tree"}]
    assert (folder / "agent/__init__.py").read_bytes() == b"x = 1\n"
    assert (folder / "hsm-agent").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in (tmp_path / "trees").iterdir()] == [digest(ARCHIVE)]


def test_other_bytes_than_wanted_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    ends = Ends(json.dumps({"size": len(ARCHIVE)}).encode() + b"\n" + ARCHIVE)
    with pytest.raises(ValueError, match=f"sha256:{digest(ARCHIVE)}, wanted sha256:{'0' * 64}"):
        ensure_archive(ends.wire, ArchiveRef("0" * 64, keep=True), ArchiveStore(tmp_path / "trees"))
    assert not (tmp_path / "trees").exists()


@pytest.mark.parametrize("cut", [0, 1, 20, len(ARCHIVE)])
def test_a_link_that_ends_in_the_middle_leaves_nothing(tmp_path: Path, cut: int) -> None:
    whole = json.dumps({"size": len(ARCHIVE)}).encode() + b"\n" + ARCHIVE
    with pytest.raises(ConnectionError):
        ensure_archive(
            Ends(whole[:cut]).wire,
            ArchiveRef(digest(ARCHIVE), keep=True),
            ArchiveStore(tmp_path / "trees"),
        )
    assert not (tmp_path / "trees").exists()


@pytest.mark.parametrize(
    "files", [{"../evil": b""}, {"a/../../evil": b""}, {"": b""}], ids=["beside", "above", "nameless"]
)
def test_nothing_is_written_outside_the_folder(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(OSError, match="is no plain file below its directory"):
        ArchiveStore(tmp_path / "trees").unpack("hash", archive(files))
    assert [path.name for path in tmp_path.rglob("*")] == ["trees"]


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("top/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(OSError, match="'top/link', which is no plain file"):
        extract(buffer.getvalue(), tmp_path)


def test_a_damaged_tree_that_somebody_runs_from_is_left_to_him(tmp_path: Path) -> None:
    trees = ArchiveStore(tmp_path / "trees")
    there = trees.unpack(digest(ARCHIVE), ARCHIVE)
    damage(there, "cut")
    other = ArchiveStore(tmp_path / "trees").unpack(digest(ARCHIVE), ARCHIVE)
    assert there.is_dir()
    assert (other != there, is_complete(other)) == (True, True)


def test_a_tree_is_compiled_before_it_has_its_name(tmp_path: Path) -> None:
    there = ArchiveStore(tmp_path / "trees").unpack(digest(ARCHIVE), ARCHIVE)
    (compiled,) = there.rglob("*.pyc")
    assert str(compiled.relative_to(there)) in json.loads((there / MANIFEST).read_text())
    assert is_complete(there)


def test_two_that_unpack_at_once_both_have_the_tree(tmp_path: Path) -> None:
    found: list[Path] = []
    go = threading.Barrier(4)

    def unpack() -> None:
        go.wait(10)
        found.append(ArchiveStore(tmp_path / "trees").unpack(digest(ARCHIVE), ARCHIVE))

    threads = [threading.Thread(target=unpack) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [tmp_path / "trees" / digest(ARCHIVE)] * 4
    assert [path.name for path in (tmp_path / "trees").iterdir()] == [digest(ARCHIVE)]


def test_old_trees_are_pruned_and_those_in_use_are_not(tmp_path: Path) -> None:
    trees = tmp_path / "trees"
    trees.mkdir()
    for age, name in enumerate(("held", "old", "older", "new", "newer")):
        (trees / name).mkdir()
        os.utime(trees / name, (1000 + age, 1000 + age))
    (trees / ".new-left").mkdir()
    fd = os.open(trees / "held", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        ArchiveStore(trees).unpack(digest(ARCHIVE), ARCHIVE)
        left = {path.name for path in trees.iterdir()}
    finally:
        os.close(fd)
    assert left == {"held", "new", "newer", digest(ARCHIVE)}
    assert KEPT == 2


def test_what_vanishes_while_pruning_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees" / "gone").symlink_to("nowhere")
    assert ArchiveStore(tmp_path / "trees").unpack(digest(ARCHIVE), ARCHIVE).is_dir()


def test_nobody_else_can_lock_a_tree(tmp_path: Path) -> None:
    ArchiveStore(tmp_path / "trees").unpack(digest(ARCHIVE), ARCHIVE)
    assert (tmp_path / "trees").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="an owner is changed")
@pytest.mark.parametrize("which", ["trees", "its parent"])
@pytest.mark.parametrize("how", ["mode", "owner"])
def test_what_others_could_have_put_there_is_not_run(tmp_path: Path, which: str, how: str) -> None:
    folder = tmp_path / "state" / "trees"
    trees = ArchiveStore(folder)
    place = trees.unpack(digest(ARCHIVE), ARCHIVE)
    assert trees.hold(digest(ARCHIVE)) == place
    (place / "planted").write_text("")
    opened = folder if which == "trees" else folder.parent
    opened.chmod(0o777 if how == "mode" else 0o755)
    os.chown(opened, 1000 if how == "owner" else 0, -1)
    assert trees.hold(digest(ARCHIVE)) is None
    again = trees.unpack(digest(ARCHIVE), ARCHIVE)
    assert not (again / "planted").exists()
    for each in (folder, folder.parent):
        seen = each.stat()
        assert (seen.st_uid, seen.st_mode & 0o022) == (0, 0)


@pytest.mark.parametrize("keep", [True, False])
def test_nothing_is_compiled_into_a_tree_that_is_here(tmp_path: Path, keep: bool) -> None:
    """It was compiled, synced and sealed before it had its name; what comes later could be cut by a power failure."""
    ArchiveStore(tmp_path / "trees").unpack(digest(ARCHIVE), ARCHIVE)
    before = sys.dont_write_bytecode
    try:
        ensure_archive(Ends().wire, ArchiveRef(digest(ARCHIVE), keep=keep), ArchiveStore(tmp_path / "trees"))
        assert sys.dont_write_bytecode
    finally:
        sys.dont_write_bytecode = before


def test_a_failure_in_the_middle_leaves_no_draft(tmp_path: Path) -> None:
    broken = archive({"agent/a.py": b"x" * 100_000})
    with pytest.raises((OSError, EOFError)):
        ArchiveStore(tmp_path / "trees").unpack("hash", broken[: len(broken) // 2])
    assert list((tmp_path / "trees").iterdir()) == []


def test_a_silent_link_ends_the_wait() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as incoming, os.fdopen(writer, "wb"):
        wire = RecordStream(TimedReader(incoming, patience=1), io.BytesIO())
        with pytest.raises(ConnectionError, match="nothing came over the link for 1 s"):
            wire.values()


def test_a_reader_that_is_gone_is_no_reason_to_stop() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as outgoing:
        wire = RecordStream(io.BytesIO(), outgoing)
        wire.send(At("one", changing=False))
        wire.send(At("two", changing=True))


def test_what_is_no_text_comes_through() -> None:
    ends = Ends()
    ends.wire.send(Failed("no-space", "\ud800 \udcff"))
    assert ends.said == [{"event": "failed", "code": "no-space", "saw": "\ud800 \udcff"}]


@pytest.mark.parametrize("text", [b"", b"no json\n", b"[1]\n", b'{"half'])
def test_what_is_no_record_is_a_broken_link(text: bytes) -> None:
    with pytest.raises(ConnectionError):
        Ends(text).wire.values()


def test_what_a_reader_leaves_of_a_file_is_read_away() -> None:
    wire = Ends(b"x" * 200_000 + b'{"next": 1}\n').wire
    with closing(wire.pieces(200_000)) as pieces:
        assert len(next(pieces)) == 65536
    assert wire.values() == {"next": 1}
