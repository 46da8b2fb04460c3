"""Every os-release file of the corpus, on every processor, fits exactly one row or is refused with the nearest."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agent.catalogue import PlatformMatch, load, match_platform, parse_os_release
from agent.core.errors import AgentError

CORPUS = Path(__file__).parent / "os_release"
EXPECTED: dict[str, dict[str, str]] = json.loads((CORPUS / "expected.json").read_text(encoding="utf-8"))
CATALOGUE = load()
NAMES = sorted(path.name for path in CORPUS.iterdir() if path.suffix != ".json")


def answer(name: str, arch: str, platform: str | None = None) -> PlatformMatch | AgentError:
    # bytes, because reading as text would hide the carriage returns
    fields = parse_os_release((CORPUS / name).read_bytes().decode("utf-8"))
    try:
        return match_platform(
            CATALOGUE,
            os=fields.get("ID", "linux"),
            os_version=fields.get("VERSION_ID", ""),
            arch=arch,
            id_like=tuple(fields.get("ID_LIKE", "").split()),
            platform=platform,
        )
    except AgentError as error:
        return error


def flags(hint: str) -> list[str]:
    return re.findall(r"`--platform ([a-z0-9.]+)`", hint)


def words(found: PlatformMatch | AgentError) -> str:
    """Put an answer into the words of expected.json."""
    if isinstance(found, AgentError):
        assert found.code.name == "platform-unsupported"
        rows = flags(found.hint)
        if rows:
            return f"refused, near {' '.join(rows)}"
        return (
            "refused, nothing near" if "--platform ROW" in found.hint else f"refused, made for {found.want}"
        )
    assert not found.forced
    assert found.first is None
    limit = f" to {found.last}" if found.last else ""
    return " ".join([found.row.name + limit, *(notice.code for notice in found.notices)])


def test_expected_names_the_corpus() -> None:
    assert sorted(EXPECTED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_one_row_or_a_refusal(name: str) -> None:
    found = {arch: words(answer(name, arch)) for arch in ("x86_64", "aarch64")}

    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arch", ["riscv64", "armv7l", "i686", "ppc64le", ""])
def test_no_row_on_other_processors(name: str, arch: str) -> None:
    found = answer(name, arch)

    assert isinstance(found, AgentError)
    assert (found.code.name, found.saw, found.want) == ("platform-unsupported", arch, "x86_64 or aarch64")


@pytest.mark.parametrize("name", NAMES)
def test_every_row_that_is_named_near_can_be_forced(name: str) -> None:
    for arch in ("x86_64", "aarch64"):
        refused = answer(name, arch)
        if isinstance(refused, AgentError):
            for platform in flags(refused.hint):
                forced = answer(name, arch, platform)
                assert isinstance(forced, PlatformMatch), (name, arch, platform)
                assert (forced.row.name, forced.forced, forced.last) == (platform, True, None)
