"""What travels to hosts: the archive of the agent, and packages from the operator's disk."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from agent import __version__
from agent.core.errors import AgentError
from agent.core.fleet_model import ArchiveDigests
from agent.core.transport import CancelledError
from agent.fleet import agent_archive, package_cache
from agent.fleet.package_cache import PackageCache
from agent.hosts.posix import Posix

FILE = "Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb"


def archive(folder: Path, text: str, name: str = "agent/__init__.py") -> Path:
    path = folder / "hsm-agent-x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(f"hsm-agent-x/{name}")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return path


def refused(named: str | None) -> AgentError:
    with pytest.raises(AgentError) as refusal:
        agent_archive.load(named, None)
    assert refusal.value.code.name == "tree-missing"
    return refusal.value


def test_an_archive_is_known_by_its_checksum(tmp_path: Path) -> None:
    path = archive(tmp_path, f'__version__ = "{__version__}"\n')
    found = agent_archive.load(str(path), None).posix
    assert (found.name, found.sha256) == (path.name, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.skipif(
    bool(list(agent_archive.HERE.glob("*.tar.gz"))), reason="this is a release, which has one"
)
def test_a_checkout_has_none_and_says_how_to_make_one() -> None:
    assert "packaging/build.py --tree" in refused(None).hint


def test_an_archive_of_another_version_is_refused(tmp_path: Path) -> None:
    error = refused(str(archive(tmp_path, '__version__ = "9.9.9"\n')))
    assert (error.saw, error.want) == ("9.9.9", __version__)


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b cut"], ids=["empty", "text", "cut"])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    refused(str(tmp_path / "x"))


def test_an_archive_without_an_agent_is_refused(tmp_path: Path) -> None:
    assert refused(str(archive(tmp_path, "x", "README"))).saw == "no agent in it"


def test_an_archive_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "none")).saw == "No such file or directory"


def zipped(folder: Path, *names: str, version: str = __version__) -> str:
    path = folder / "hsm-agent-x-x86_64-windows-0.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, f'__version__ = "{version}"\n')
    return str(path)


def with_windows(folder: Path, named: str | None) -> agent_archive.AgentArchives:
    return agent_archive.load(str(archive(folder, f'__version__ = "{__version__}"\n')), named)


def windows_refused(folder: Path, named: str) -> AgentError:
    with pytest.raises(AgentError) as refusal:
        with_windows(folder, named)
    assert refusal.value.code.name == "tree-missing"
    return refusal.value


def test_a_build_for_windows_is_one_folder_with_its_program(tmp_path: Path) -> None:
    named = zipped(tmp_path, "top/hsm-agent.exe", "top/agent/__init__.py")
    trees = with_windows(tmp_path, named)
    found = trees.windows
    assert found is not None
    assert trees.sent == ArchiveDigests(trees.posix.sha256, found.sha256)
    assert (found.sha256, found.data) == (hashlib.sha256(found.data).hexdigest(), Path(named).read_bytes())


@pytest.mark.skipif(
    bool(list(agent_archive.HERE.glob("*.zip"))), reason="a build for Windows lies beside this agent"
)
def test_a_fleet_without_windows_needs_no_build_for_it(tmp_path: Path) -> None:
    assert with_windows(tmp_path, None).windows is None


@pytest.mark.parametrize(
    "names", [("top/agent/__init__.py",), ("agent/__init__.py", "hsm-agent.exe"), ("a/top/agent/__init__.py",), ()],
    ids=["no program", "no folder", "two folders", "empty"],
)  # fmt: skip
def test_another_zip_is_no_build_for_windows(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert windows_refused(tmp_path, zipped(tmp_path, *names)).saw == "no agent in it"


def test_a_build_for_windows_of_another_version_or_none_is_refused(tmp_path: Path) -> None:
    named = zipped(tmp_path, "top/hsm-agent.exe", "top/agent/__init__.py", version="9.9.9")
    assert windows_refused(tmp_path, named).saw == "9.9.9"
    assert "no archive" in windows_refused(tmp_path, str(archive(tmp_path, "x"))).sentence
    assert windows_refused(tmp_path, str(tmp_path / "none")).saw == "No such file or directory"


def build_for_linux(folder: Path, processor: str, top: str = "", version: str = __version__) -> Path:
    top = top or f"hsm-agent-{version}-{processor}-linux-0123456789ab"
    path = folder / f"hsm-agent-{version}-{processor}-linux-0123456789ab.tar.gz"
    source = f'__version__ = "{version}"\n'.encode()
    with tarfile.open(path, "w:gz") as packed:
        member = tarfile.TarInfo(f"{top}/agent/__init__.py")
        member.size = len(source)
        packed.addfile(member, io.BytesIO(source))
    return path


def test_builds_for_linux_are_found_beside_the_named_archive_and_told_apart_by_processor(
    tmp_path: Path,
) -> None:
    named = str(archive(tmp_path, f'__version__ = "{__version__}"\n'))
    assert agent_archive.load(named, None).linux == {}
    for processor in ("x86_64", "aarch64"):
        build_for_linux(tmp_path, processor)
    build_for_linux(tmp_path, "x86_64", version="9.9.9")  # of another release, and not looked at
    found = agent_archive.load(named, None)
    assert {each: build.sha256 for each, build in found.linux.items()} == found.sent.linux_trees
    assert found.linux.keys() == {"x86_64", "aarch64"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    one = build_for_linux(elsewhere, "aarch64")
    assert agent_archive.load(named, None, (str(one),)).linux.keys() == {"aarch64"}


def test_what_is_no_build_for_linux_is_refused(tmp_path: Path) -> None:
    named = str(archive(tmp_path, f'__version__ = "{__version__}"\n'))
    for wrong in (named, str(build_for_linux(tmp_path, "x86_64", top="hsm-agent-0.1.0-riscv64-linux-0"))):
        with pytest.raises(AgentError) as refusal:
            agent_archive.load(named, None, (wrong,))
        assert (refusal.value.code.name, "no build with an interpreter" in refusal.value.sentence) == (
            "tree-missing",
            True,
        )
    with pytest.raises(AgentError) as refusal:
        agent_archive.load(named, None, (str(build_for_linux(tmp_path, "x86_64", version="9.9.9")),))
    assert (refusal.value.code.name, refusal.value.saw) == ("tree-missing", "9.9.9")


def mirror(folder: Path, data: bytes = b"package") -> str:
    (folder / "mirror" / "Noble").mkdir(parents=True)
    (folder / "mirror" / FILE).write_bytes(data)
    return str(folder / "mirror")


def test_a_package_is_brought_once_however_many_want_it(tmp_path: Path) -> None:
    source = mirror(tmp_path)
    these = PackageCache(Posix(), tmp_path / "kept")
    found: list[package_cache.CachedPackage] = []
    threads = [
        threading.Thread(target=lambda: found.append(these.cached(f"{source}/{FILE}", None, source)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [found[0]] * 8
    assert (found[0].size, found[0].sha256) == (7, hashlib.sha256(b"package").hexdigest())
    assert b"".join(found[0].pieces()) == b"package"


def test_a_package_that_is_here_and_right_is_not_brought_again(tmp_path: Path) -> None:
    source, right = mirror(tmp_path), hashlib.sha256(b"package").hexdigest()
    first = PackageCache(Posix(), tmp_path / "kept").cached(f"{source}/{FILE}", right, source)
    (tmp_path / "mirror" / FILE).unlink()
    assert PackageCache(Posix(), tmp_path / "kept").cached(f"{source}/{FILE}", right, source) == first


def test_other_bytes_than_wanted_are_refused_and_not_kept(tmp_path: Path) -> None:
    source = mirror(tmp_path)
    with pytest.raises(AgentError) as refusal:
        PackageCache(Posix(), tmp_path / "kept").cached(f"{source}/{FILE}", "0" * 64, source)
    assert refusal.value.code.name == "checksum-mismatch"
    assert not list((tmp_path / "kept").rglob("*.deb"))


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    source = mirror(tmp_path)
    for number in range(70):
        (tmp_path / "kept" / f"{number:02}").mkdir(parents=True)
    PackageCache(Posix(), tmp_path / "kept").cached(f"{source}/{FILE}", None, source)
    left = [each.name for each in (tmp_path / "kept").iterdir()]
    assert len(left) == 64
    assert any((tmp_path / "kept" / name / Path(FILE).name).exists() for name in left)


def test_packages_are_kept_where_the_desktop_wants_caches() -> None:
    assert package_cache.home({"XDG_CACHE_HOME": "/c", "HOME": "/home/op"}) == Path("/c/hsm-agent/packages")
    assert package_cache.home({"HOME": "/home/op"}) == Path("/home/op/.cache/hsm-agent/packages")


def test_who_waits_for_a_file_says_so_and_it_is_brought_once(tmp_path: Path) -> None:
    """A mirror slower than a host's patience: the host must hear that somebody is there."""
    source = mirror(tmp_path)
    go, calls = threading.Event(), []

    class Slow(Posix):
        def download(self, url: str, path: str, *, sha256: str | None, limit: int, timeout: float) -> str:
            calls.append(url)
            assert go.wait(30)
            return super().download(url, path, sha256=sha256, limit=limit, timeout=timeout)

    these = PackageCache(Slow(), tmp_path / "kept", turn=0.01)
    heard: list[int] = []
    found: list[package_cache.CachedPackage] = []

    def visit(number: int) -> None:
        def still() -> None:
            heard.append(number)
            if {1, 2} <= set(heard):
                go.set()

        found.append(these.cached(f"{source}/{FILE}", None, source, still))

    threads = [threading.Thread(target=visit, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(calls), len(found), found[0]) == (1, 2, found[1])


def test_a_failure_is_told_to_all_who_wait_and_tried_anew_later(tmp_path: Path) -> None:
    source = mirror(tmp_path)
    these = PackageCache(Posix(), tmp_path / "kept")
    (tmp_path / "mirror" / FILE).rename(tmp_path / "away")
    with pytest.raises(AgentError, match="is not there"):
        these.cached(f"{source}/{FILE}", None, source)
    (tmp_path / "away").rename(tmp_path / "mirror" / FILE)
    assert these.cached(f"{source}/{FILE}", None, source).size == len(b"package")


def test_a_wait_can_be_ended_by_who_waits(tmp_path: Path) -> None:
    source, go = mirror(tmp_path), threading.Event()

    class Hung(Posix):
        def download(self, url: str, path: str, *, sha256: str | None, limit: int, timeout: float) -> str:
            assert go.wait(30)
            raise AssertionError((url, path, sha256, limit, timeout))

    def cut() -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        PackageCache(Hung(), tmp_path / "kept", turn=0.01).cached(f"{source}/{FILE}", None, source, cut)
    go.set()
