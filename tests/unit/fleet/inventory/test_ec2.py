"""Terms and tables of an EC2 inventory, and the hosts that instances become; AWS's answers are values here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.aws.inventory import Instance
from agent.config.input_errors import InputErrors
from agent.core.errors import AgentError
from agent.fleet.inventory import read, select
from agent.fleet.inventory.ec2_selection import Ec2Selection, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.core.fleet_model import Target

WEB = Instance(
    "i-0aaaaaaaaaaaaaaa1", "web-1", "running", "eu-central-1a", private="10.0.1.7", public="3.3.3.3",
    image="ami-1", tags=(("Role", "web"), ("Name", "web-1")), region="eu-central-1",
)  # fmt: skip
DB = replace(
    WEB, id="i-0aaaaaaaaaaaaaaa2", name="", zone="eu-central-1b", private="10.0.2.7", public="",
    ipv6="fd00::7", image="ami-2", tags=(("Role", "db"),),
)  # fmt: skip
WINDOWS = replace(WEB, id="i-0aaaaaaaaaaaaaaa3", private="10.0.1.9", is_windows=True, image="ami-3", tags=())
NAMES = {"ami-1": "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20260101", "ami-2": "my-base-7"}


@dataclass
class Source:
    """What EC2 answers, and what it was asked."""

    instances: tuple[Instance, ...] = (WEB, DB, WINDOWS)
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    error: AgentError | None = None
    asked: list[object] = field(default_factory=list)

    def find(self, selection: Ec2Selection) -> tuple[Instance, ...]:
        self.asked.append(selection)
        return self.instances

    def image_names(self, instances: Sequence[Instance]) -> Mapping[str, str]:
        self.asked.append([each.image for each in instances])
        if self.error is not None:
            raise self.error
        return self.names


def known(where: str, source: Source, text: str = "") -> tuple[dict[str, Target], list[str], list[str]]:
    errors, remarks = InputErrors(), InputErrors()
    found = read(text.encode(), where, errors, remarks, source=source)
    return {each.name: each for each in found}, errors.texts, remarks.texts


def selected(text: str) -> Ec2Selection:
    errors = InputErrors()
    found = parse(text, "--inventory", errors)
    assert errors.texts == []
    assert found is not None
    return found


def complaints(text: str) -> list[str]:
    errors = InputErrors()
    assert parse(text, "--inventory", errors) is None
    return errors.texts


def test_terms_of_one_name_add_up_and_those_of_different_names_must_all_match() -> None:
    found = selected(
        "ec2:tag:Role=web,tag:Role=db,tag:Env,asg=pay,vpc=vpc-0123456789abcdef0,cluster=cluster-2abcdefghij,"
        "region=eu-central-1,region=us-gov-west-1,state=pending,state=running,address=id,group=Role,user=ops"
    )
    assert found == Ec2Selection(
        (
            ("tag:Role", ("web", "db")),
            ("tag-key", ("Env",)),
            ("tag:aws:autoscaling:groupName", ("pay",)),
            ("vpc-id", ("vpc-0123456789abcdef0",)),
        ),
        ("cluster-2abcdefghij",),
        ("eu-central-1", "us-gov-west-1"),
        ("pending", "running"),
        "id",
        ("Role",),
        (),
        "ops",
    )


@given(name=st.text(min_size=1), value=st.text())
def test_a_tag_of_any_characters_can_be_named(name: str, value: str) -> None:
    def escaped(text: str, marks: str) -> str:
        for mark in ("\\", *marks):
            text = text.replace(mark, f"\\{mark}")
        return text

    found = selected(f"ec2:tag:{escaped(name, ',=')}={escaped(value, ',')},vpc=vpc-01234567")
    # a backslash is EC2's to read, so that it stays doubled
    wanted = (f"tag:{escaped(name, '')}", (escaped(value, ""),))
    assert found.filters[0] == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ec2:", "which instances?"),
        ("ec2:region=eu-central-1", "which instances?"),
        ("ec2:tag:=web", "names no tag"),
        ("ec2:vpc=web", "vpc-0123456789abcdef0"),
        ("ec2:cluster=web", "cluster-2abcdefghij"),
        ("ec2:asg=", "'asg=' is not understood"),
        ("ec2:asg=a,regoin=x", "did you mean `region`?"),
        ("ec2:asg=a,region=Frankfurt", "eu-central-1"),
        ("ec2:asg=a,state=terminated", "pending, running, stopping, stopped"),
        ("ec2:asg=a,address=elastic", "private, public, ipv6, id"),
        ("ec2:asg=a,address=id,address=ipv6", "address is given twice"),
        ("ec2:asg=a,user=a b", "not the name of a user"),
        ("ec2:" + ",".join(f"asg={number}" for number in range(201)), "too many terms"),
    ],
)
def test_what_is_no_term_is_a_complaint(text: str, words: str) -> None:
    assert any(words in each for each in complaints(text)), complaints(text)


def test_aws_is_not_asked_for_what_is_not_understood() -> None:
    source = Source()
    targets, errors, _ = known("ec2:asg=a,state=gone", source)
    assert (targets, len(errors), source.asked) == ({}, 1, [])


def test_instances_are_hosts_by_their_ids() -> None:
    targets, errors, remarks = known("ec2:tag:Env=prod,group=Role", Source())
    assert errors == []
    web, db, windows = targets.values()
    assert (web.name, web.address, web.user, web.system) == (WEB.id, "10.0.1.7", "ubuntu", "linux")
    assert (web.instance_id, web.region, web.groups) == (WEB.id, "eu-central-1", ("eu-central-1a", "web"))
    assert (db.user, db.groups) == (None, ("db", "eu-central-1b"))
    assert (windows.user, windows.system) == ("Administrator", "windows")
    assert [each for each in remarks if "ami-2 (my-base-7)" in each and "ssh's configuration decides" in each]
    errors_of_limit = InputErrors()
    assert select(tuple(targets.values()), "web", errors_of_limit) == (web,)


@pytest.mark.parametrize(
    ("kind", "address"), [("private", "10.0.1.7"), ("public", "3.3.3.3"), ("id", WEB.id)]
)
def test_the_address_is_the_one_that_is_wanted(kind: str, address: str) -> None:
    targets, errors, _ = known(f"ec2:asg=a,address={kind},user=ops", Source((WEB,)))
    assert (errors, [each.address for each in targets.values()]) == ([], [address])


def test_an_instance_without_the_address_is_named() -> None:
    targets, errors, _ = known("ec2:asg=a,address=public", Source((WEB, DB)))
    assert targets == {}
    assert len(errors) == 1
    assert f"{DB.id} has no public IPv4 address: choose another address" in errors[0]


def test_with_a_user_no_image_is_asked_for() -> None:
    source = Source()
    targets, _, remarks = known("ec2:asg=a,user=ops", source)
    assert {each.user for each in targets.values()} == {"ops"}
    assert (len(source.asked), remarks) == (1, [])


def test_images_that_may_not_be_described_are_a_remark() -> None:
    denied = AgentError("aws-denied", "AWS denies ec2:DescribeImages in eu-central-1", saw="403")
    targets, errors, remarks = known("ec2:asg=a", Source(error=denied))
    assert (errors, [each.user for each in targets.values()]) == ([], [None, None, "Administrator"])
    assert ["aws-denied" in each for each in remarks] == [True]


def test_an_interrupt_is_no_remark() -> None:
    with pytest.raises(AgentError):
        known("ec2:asg=a", Source(error=AgentError("interrupted", "interrupted")))


@pytest.mark.parametrize("state", ["pending", "stopping", "stopped", "shutting-down", "terminated", "new"])
def test_an_instance_that_does_not_run_is_named(state: str) -> None:
    there = (WEB, *(replace(DB, id=f"i-0aaaaaaaaaaaaaab{number}", state=state) for number in range(7)))
    targets, errors, remarks = known("ec2:asg=a,user=ops", Source(there))
    assert (list(targets), errors) == ([WEB.id], [])
    some = ", ".join(each.id for each in there[1:6])
    assert remarks == [f"ec2:asg=a,user=ops: left out, since all 7 are {state}: {some} and 2 more"]


def test_a_state_that_is_asked_for_counts() -> None:
    targets, _, remarks = known(
        "ec2:asg=a,user=ops,state=running,state=pending", Source((WEB, replace(DB, state="pending")))
    )
    assert (sorted(targets), remarks) == ([WEB.id, DB.id], [])


@pytest.mark.parametrize(
    ("instances", "words"),
    [((), "no instance matches in eu-west-1"), ((replace(WEB, state="stopped"),), "is running: 1 stopped")],
)
def test_no_host_is_a_complaint_with_what_there_is(instances: tuple[Instance, ...], words: str) -> None:
    _, errors, _ = known("ec2:asg=a,region=eu-west-1", Source(instances))
    assert len(errors) == 1
    assert words in errors[0]


def test_values_of_tags_that_are_one_group_are_named() -> None:
    odd = [
        replace(WEB, id=f"i-0aaaaaaaaaaaaaac{number}", private=f"10.0.1.{number}", tags=(("Role", value),))
        for number, value in enumerate(("a b", "a,b", "all", "-x", "", "ü/+%"))
    ]
    targets, errors, remarks = known("ec2:asg=a,user=ops,group=Role", Source(tuple(odd)))
    groups = [sorted(set(each.groups) - {"eu-central-1a"}) for each in targets.values()]
    assert (errors, groups) == ([], [["a_b"], ["a_b"], ["_all"], ["_-x"], [], ["ü/+%"]])
    assert [each for each in remarks if "'a b', 'a,b'" in each and each.endswith("here: a_b")]


TABLE = """
hsm.ip = ["10.0.1.6"]
[ec2]
select = ["tag:Env=prod"]
regions = ["eu-central-1"]
groups = ["Role"]
users = { "my-base-*" = "base" }
[groups.web]
client.components = ["cli", "jce"]
[groups.front]
children = ["web"]
port = 2222
[zones.eu-central-1b]
hsm.ip = ["10.0.2.9"]
[hosts.i-0aaaaaaaaaaaaaaa3]
user = "admin"
address = "win-1.example.com"
[hosts.i-0aaaaaaaaaaaaaaa9]
user = "gone"
[hosts.bastion]
address = "10.0.9.9"
"""


def test_a_table_joins_instances_with_groups_zones_and_hosts() -> None:
    source = Source()
    targets, errors, remarks = known("fleet.toml", source, TABLE)
    assert errors == []
    web, db, windows = (targets[each.id] for each in (WEB, DB, WINDOWS))
    assert (web.user, web.port, web.groups) == ("ubuntu", 2222, ("eu-central-1a", "front", "web"))
    assert web.options == {"component": ("cli", "jce"), "hsm_ip": ("10.0.1.6",)}
    assert (db.user, db.groups, db.options["hsm_ip"]) == ("base", ("db", "eu-central-1b"), ("10.0.2.9",))
    assert (windows.user, windows.address, windows.system) == ("admin", "win-1.example.com", "windows")
    assert (targets["bastion"].instance_id, targets["bastion"].user) == (None, None)
    assert "i-0aaaaaaaaaaaaaaa9" not in targets
    assert [each for each in remarks if "left out, since EC2 shows no such host: i-0aaaaaaaaaaaaaaa9" in each]
    # of a host with a user, the image does not matter
    assert source.asked[1:] == [["ami-1", "ami-2"]]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("ec2 = 7", "`ec2` is not a table"),
        ("[ec2]\nselct = []", "did you mean `select`?"),
        ("[ec2]\nselect = 'asg=a'", "`ec2.select` is not a list of texts"),
        ("[ec2]\nregions = ['eu-central-1']", "which instances?"),
        ("[ec2]\nselect = ['asg=a']\nusers = { a = 7 }", "`ec2.users` is a table"),
        ("[ec2]\nselect = ['asg=a']\nusers = { a = '-x' }", "not the name of a user"),
        ("[ec2]\nselect = ['asg=a']\naddress = 'elastic'", "private, public, ipv6, id"),
    ],
)
def test_what_is_wrong_with_a_table_has_its_line(table: str, words: str) -> None:
    source = Source()
    _, errors, _ = known("fleet.toml", source, table)
    assert any(words in each and each.startswith("fleet.toml:") for each in errors), errors
    assert source.asked == []
