"""Every INI of the corpus means to us what it means to Ansible: its own `ansible-inventory --list` stands beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.fleet import Target
from agent.desired import Complaints
from agent.fleet.inventory import read, select

CORPUS = Path(__file__).parent / "inventories"
NAMES = sorted(path.stem for path in CORPUS.glob("*.ini"))


def targets_of(path: Path) -> dict[str, Target]:
    complaints = Complaints()
    found = read(path.read_bytes(), path.name, complaints)
    assert complaints.texts == []
    return {target.name: replace(target, where="") for target in found}


def test_the_corpus_is_what_is_read() -> None:
    assert sorted(path.stem for path in CORPUS.iterdir() if path.suffix == ".json") == NAMES
    assert len(NAMES) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_an_ini_means_what_ansible_says_it_means(name: str) -> None:
    assert targets_of(CORPUS / f"{name}.ini") == targets_of(CORPUS / f"{name}.json")


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_of_ansibles_listing_is_on_the_target(name: str) -> None:
    """Not through our own reader of the listing, so that one mistake in both is seen."""
    listed = json.loads((CORPUS / f"{name}.json").read_text(encoding="utf-8"))["_meta"]["hostvars"]
    for target in targets_of(CORPUS / f"{name}.ini").values():
        theirs = listed.get(target.name, {})
        assert target.address == theirs.get("ansible_ssh_host", theirs.get("ansible_host", target.name))
        assert target.port == theirs.get("ansible_ssh_port", theirs.get("ansible_port"))
        assert target.user == theirs.get("ansible_ssh_user", theirs.get("ansible_user"))
        assert target.key == theirs.get(
            "ansible_ssh_private_key_file", theirs.get("ansible_private_key_file")
        )


def test_what_ssh_is_told_is_what_ansible_tells_it() -> None:
    """Ansible 2.19 with a program in the place of ssh that writes its arguments down: who wins of two names."""
    assert targets_of(CORPUS / "legacy.ini")["b"] == Target(
        "b", "10.0.0.2", port=1, user="x", key="/b", groups=("old",)
    )
    assert {name: target.jump for name, target in targets_of(CORPUS / "bastion.ini").items()} == {
        "app-1.internal": "bastion.example.com",
        "app-2.internal": "bastion.example.com",
        "db.internal": "ops@bastion.example.com:2222,second.internal",
        "old.internal": "ops@gateway.example.com",
        "free.internal": None,
    }


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("all", "host1 host2 host3 loner stray"),
        ("*", "host1 host2 host3 loner stray"),
        ("host1", "host1"),
        ("host2,host1", "host1 host2"),
        (" host1 , host3 ", "host1 host3"),
        ("usa,,host1", "host1 host2 host3"),
        ("host?,stray", "host1 host2 host3 stray"),
        ("atlanta,raleigh", "host1 host2 host3"),
        ("atlanta,&raleigh", "host2"),
        ("&raleigh", "host2 host3"),
        ("usa,!raleigh", "host1"),
        ("!host2", "host1 host3 loner stray"),
        ("southeast,&raleigh,!host3", "host2"),
        ("!usa,host1,loners", "loner stray"),
        ("lon*,!stray", "loner"),
    ],
)
def test_a_limit_means_what_ansible_takes_it_for(pattern: str, names: str) -> None:
    """The names are those of `ansible all -i children.ini --limit PATTERN --list-hosts`."""
    complaints = Complaints()
    found = select(tuple(targets_of(CORPUS / "children.ini").values()), pattern, complaints)
    assert ([target.name for target in found], complaints.texts) == (names.split(), [])
