"""What a host may ask for: client packages that its plan can name, of the operator's own source, and never many."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from agent.catalogue import load, published
from agent.config.input_errors import InputErrors
from agent.config.readers import read_flags
from agent.core.errors import AgentError
from agent.core.urls import PUSHED
from agent.fleet.package_offer import PackageOffer, is_here
from agent.hosts.posix import Posix

if TYPE_CHECKING:
    from pathlib import Path

CATALOGUE = load()
NAMES = published(CATALOGUE)
CLI = "Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb"
KNOWN = CATALOGUE.checksums[CLI]
HERE: dict[str, Any] = {"hsm_ip": ["10.0.1.6"], "package_source": "/srv/mirror"}


def offer(**more: Any) -> PackageOffer:
    return PackageOffer(CATALOGUE, NAMES, {**HERE, **more}, "https://vendor")


def refused(these: PackageOffer, url: str, sha256: str | None = None) -> AgentError:
    with pytest.raises(AgentError) as refusal:
        these.url(url, sha256)
    assert refusal.value.code.name == "download-failed"
    return refusal.value


@pytest.mark.parametrize(
    ("source", "here"),
    [("/srv/mirror", True), ("mirror", True), ("file:///srv/mirror", True), ("FILE:///srv", True), (None, False),
     ("https://mirror/x", False), ("http://mirror", False)],
)  # fmt: skip
def test_a_host_is_told_of_no_folder_of_the_operators_machine(source: str | None, here: bool) -> None:
    these = offer(package_source=source)
    assert is_here(source) is here
    assert these.desired_of_host()["package_source"] == (PUSHED if here else source)
    assert these.desired_of_host()["hsm_ip"] == ["10.0.1.6"]
    if source is not None:
        assert these.url(f"{PUSHED if here else source}/{CLI}", KNOWN) == f"{source}/{CLI}"


def test_what_was_pushed_before_is_pushed_from_where_it_lay() -> None:
    again = PackageOffer(CATALOGUE, NAMES, {}, "https://vendor", {"package_source": "/srv/mirror"})
    assert again.desired_of_host() == {}
    assert again.url(f"{PUSHED}/{CLI}", KNOWN) == f"/srv/mirror/{CLI}"
    other = "1" * 64
    refused(again, f"{PUSHED}/{CLI}", other)
    own = PackageOffer(
        CATALOGUE, NAMES, {}, "https://vendor", {"sha256": [f"{CLI.partition('/')[2]}={other}"]}
    )
    assert own.url(f"{PUSHED}/{CLI}", other)
    vendor = PackageOffer(CATALOGUE, NAMES, {}, "https://vendor", {"package_source": "https://mirror/a?b=c"})
    # the record of a host: of a roll-out with that mirror, or of a `configure` on the host itself
    assert vendor.url(f"https://mirror/a/{CLI}?b=c", KNOWN) == f"https://mirror/a/{CLI}?b=c"
    assert vendor.source_of(f"https://mirror/a/{CLI}?b=c") == "https://mirror/a?b=c"
    assert vendor.url(f"https://vendor/{CLI}", KNOWN) == f"https://vendor/{CLI}"
    refused(vendor, f"https://elsewhere/{CLI}", KNOWN)
    assert vendor.url(f"{PUSHED}/{CLI}", KNOWN) == f"https://vendor/{CLI}"


def test_every_file_that_the_vendor_published_may_be_asked_for_but_management_tools() -> None:
    left = [path for path in CATALOGUE.checksums if NAMES.version(path) is None]
    assert all("mgmt-util" in path or "ManagementUtil" in path for path in left)


@pytest.mark.parametrize("path", [
    "Noble/cloudhsm-cli_5.18.0-1_u22.04_amd64.deb", "Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb.deb",
    "Noble/cloudhsm-other_5.18.0-1_u24.04_amd64.deb", "Noble/cloudhsm-cli_5.99.0-1_u24.04_amd64.deb",
    "Noble/cloudhsm-cli_latest_u24.04_amd64.deb", "Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb\n",
    "Noble/../cloudhsm-cli_5.18.0-1_u24.04_amd64.deb", "../etc/shadow", "", "Noble/cloudhsm-cli_\u0665.18.0-1_u24.04_amd64.deb",
])  # fmt: skip
def test_other_names_are_refused(path: str) -> None:
    assert refused(offer(), f"{PUSHED}/{path}").sentence == "the host asked for what is no client package"


def test_nine_hundred_made_up_packages_are_not_brought() -> None:
    these = offer()
    brought = 0
    for number in range(900):
        with contextlib.suppress(AgentError):
            these.url(f"{PUSHED}/Noble/cloudhsm-cli_5.{number}.0-1_u24.04_amd64.deb", None)
            brought += 1
    assert brought <= 16


def test_one_package_with_many_checksums_is_not_brought_many_times() -> None:
    these = offer(client_version="5.77.1")
    path = f"{PUSHED}/Noble/cloudhsm-cli_5.77.1-1_u24.04_amd64.deb"
    for number in range(16):
        these.url(path, f"{number:064x}")
    these.url(path, f"{3:064x}")  # again: the link broke
    assert "more packages" in refused(these, path, f"{99:064x}").sentence


def test_a_version_that_was_asked_for_may_be_named_and_no_other() -> None:
    these = offer(client_version="5.77.1")
    assert these.url(f"{PUSHED}/EL9/cloudhsm-cli-5.77.1-1.el9.x86_64.rpm", None)
    refused(these, f"{PUSHED}/{CLI}", KNOWN)
    assert offer(client_version="latest").url(f"{PUSHED}/Noble/cloudhsm-cli_latest_u24.04_amd64.deb", None)


def test_other_bytes_than_are_published_are_not_brought() -> None:
    assert refused(offer(), f"{PUSHED}/{CLI}", "0" * 64).want == f"sha256:{KNOWN}"
    own = offer(sha256=[f"{CLI.partition('/')[2]}={'0' * 64}"])
    assert own.url(f"{PUSHED}/{CLI}", "0" * 64)


def test_a_mirrors_signature_stays_and_is_not_shown() -> None:
    these = offer(package_source="https://mirror/x?signature=secret")
    assert (
        these.url(f"https://mirror/x/{CLI}?signature=secret", KNOWN)
        == f"https://mirror/x/{CLI}?signature=secret"
    )
    for url in (
        f"https://mirror/x/{CLI}?signature=other",
        f"https://mirror/x/{CLI}",
        "https://mirror/x?signature=secret",
    ):
        error = refused(these, url)
        assert "secret" not in error.saw + error.want


def test_what_was_pushed_cannot_be_had_without_a_roll_out(tmp_path: Path) -> None:
    """`hsm-agent configure` on such a host: the record says where its packages come from, and so does the failure."""
    with pytest.raises(AgentError) as refusal:
        Posix().download(f"{PUSHED}/{CLI}", str(tmp_path / "cli.deb"), sha256=KNOWN, limit=9, timeout=9)
    assert (refusal.value.code.name, "no roll-out sends it now" in refusal.value.sentence) == (
        "download-failed",
        True,
    )
    assert "fleet rollout" in refusal.value.hint
    assert "--package-source" in refusal.value.hint


def test_nobody_can_say_that_packages_are_pushed() -> None:
    input_errors = InputErrors()
    assert read_flags({"package_source": PUSHED}, input_errors) == {}
    assert input_errors.texts
