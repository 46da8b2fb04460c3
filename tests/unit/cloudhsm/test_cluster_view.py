"""What AWS says of a cluster and what a host has, together."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from agent.aws.inventory import VpcSurvey
from agent.aws.network import Network, NetworkInterface
from agent.cloudhsm.cluster_view import ClusterView, HostSide, view_cluster
from tests.fakes import cluster_answers as aws
from tests.fakes import cluster_views as views
from tests.fakes.cluster_views import HOST, NOW, WEB, description, instance, network, survey


def view(cluster: Any = None, answers: VpcSurvey | None = None, host: HostSide = HOST) -> ClusterView:
    return view_cluster(
        cluster or description(aws.hsm(1), aws.hsm(2)),
        answers or survey(instance(1)),
        host,
        now=NOW,
        named_by="the argument",
    )


def codes(made: ClusterView) -> list[str]:
    return [each.code for each in made.risks]


def test_a_sound_cluster_has_no_risk_and_every_member_reaches_it() -> None:
    made = views.healthy()
    assert (made.risks, made.error, made.in_group) == ((), None, True)
    assert [(each.in_group, each.reaches) for each in made.instances or ()] == [(True, True)] * 4 + [
        (False, False)
    ] * 2
    assert [each.kind for each in made.others or ()] == ["lambda"]


def test_trouble_is_named_with_its_place() -> None:
    made = views.troubled()
    assert codes(made) == [
        "cluster-changing", "cluster-degraded", "cluster-addresses-changed", "sdk-not-for-cluster",
        "backup-old", "service-role-missing",
    ]  # fmt: skip
    blocked = {
        each.instance.name: [path.obstacle.code for path in each.blocked] for each in made.instances or ()
    }
    assert blocked["app-9"] == ["group-not-attached"]
    assert blocked["web-3"] == blocked["web-6"] == ["network-acl-blocks"]
    assert blocked["web-1"] == []


def test_this_host_and_who_is_blocked_come_first_then_names_as_people_count() -> None:
    made = view(None, survey(*(instance(number) for number in (10, 9, 2, 1)), instance(3, WEB, name="a")))
    assert [each.instance.name for each in made.instances or ()] == ["web-1", "web-2", "web-9", "web-10", "a"]


@pytest.mark.parametrize(
    ("hsms", "expected"),
    [
        ([aws.hsm(1)], ["single-hsm"]),
        ([aws.hsm(1), aws.hsm(4)], ["single-zone"]),
        ([aws.hsm(1), aws.hsm(4), aws.hsm(2)], []),
        ([aws.hsm(1), aws.hsm(2, "DELETE_IN_PROGRESS")], ["cluster-changing", "single-hsm"]),
        ([aws.hsm(1, AvailabilityZone=None), aws.hsm(2, AvailabilityZone=None)], []),
    ],
)
def test_what_one_failure_takes_away_is_a_risk(hsms: list[dict[str, Any]], expected: list[str]) -> None:
    host = replace(HOST, servers={})
    assert codes(view(description(*hsms), host=host)) == expected


def test_hsm1_ends_and_ended() -> None:
    cluster = description(aws.hsm(1), aws.hsm(2), HsmType="hsm1.medium")
    (before, after) = (
        view_cluster(
            cluster, survey(), HOST, now=dt.datetime(*day, tzinfo=dt.timezone.utc), named_by="x"
        ).risks[-1]
        for day in ((2026, 3, 31), (2026, 4, 1))
    )
    assert "support ends on 2026-03-31" in before.text
    assert "support ended on 2026-03-31" in after.text


@pytest.mark.parametrize(
    ("backup", "expected"),
    [
        (NOW - dt.timedelta(hours=47), []),
        (NOW - dt.timedelta(hours=49), ["backup-old"]),
        (None, ["backup-old"]),
    ],
)
def test_an_old_backup_is_a_risk_and_none_is_too(backup: dt.datetime | None, expected: list[str]) -> None:
    stamp = backup.timestamp() if backup else 0.0
    assert codes(view(answers=survey(instance(1), backup=stamp))) == expected
    assert view(answers=survey(instance(1), backup=stamp)).backup == backup


def test_a_cluster_that_cannot_be_used_yet_needs_no_backup() -> None:
    cluster = description(aws.hsm(1), aws.hsm(2), state="UNINITIALIZED")
    assert codes(view(cluster, survey(instance(1), backup=0.0))) == []


def test_what_is_not_known_is_no_risk() -> None:
    made = view(answers=VpcSurvey(), host=HostSide("laptop"))
    assert (made.instances, made.others, made.in_group, made.ca, made.backup) == (
        None,
        None,
        None,
        None,
        None,
    )
    assert made.risks == ()


def test_nothing_is_known_to_be_reached_where_only_groups_are_described() -> None:
    made = view(answers=survey(instance(1), instance(2, WEB), network=Network(groups=network().groups)))
    assert [each.reaches for each in made.instances or ()] == [None, False]


def test_an_instance_without_ipv4_is_not_known_to_reach_hsms_that_have_no_other() -> None:
    member = instance(1)
    narrow = replace(member.interfaces[0], addresses=("2001:db8:a::7",))
    (found,) = view(answers=survey(replace(member, interfaces=(narrow,)))).instances or ()
    assert (found.reaches, found.blocked) == (None, ())


def test_an_instance_without_an_interface_in_the_vpc_is_judged_by_none() -> None:
    away = NetworkInterface("eni-9", "vpc-other", "subnet-x", ("sg-x",), ("10.9.0.7",))
    (found,) = view(answers=survey(replace(instance(1), interfaces=(away,)))).instances or ()
    assert (found.interface, found.in_group, found.reaches, found.blocked) == (None, False, None, ())


def test_the_interface_that_is_in_the_group_is_the_one_that_counts() -> None:
    other = instance(1, WEB).interfaces[0]
    both = replace(instance(1), interfaces=(replace(other, id="eni-8"), instance(1).interfaces[0]))
    (found,) = view(answers=survey(both)).instances or ()
    assert (found.in_group, found.reaches) == (True, True)


@pytest.mark.parametrize(
    ("interface", "expected"),
    [(instance(1).interfaces[0], True), (instance(1, WEB).interfaces[0], False), (None, None)],
    ids=["member", "outside", "not known"],
)
def test_metadata_alone_tells_whether_this_host_is_in_the_group(
    interface: NetworkInterface | None, expected: bool | None
) -> None:
    made = view(answers=VpcSurvey(), host=HostSide("host", "i-1", interface))
    assert made.in_group is expected
    assert codes(made) == (["group-not-attached"] if expected is False else [])
    if expected is False:
        assert f"--groups {WEB} {made.cluster.security_group}" in made.risks[0].cure


def test_metadata_alone_blames_no_host_of_another_vpc() -> None:
    away = NetworkInterface("eni-9", "vpc-other", "subnet-x", ("sg-x",), ("10.9.0.7",))
    made = view(answers=VpcSurvey(), host=HostSide("host", "i-1", away))
    assert (made.in_group, codes(made)) == (False, [])


def test_each_configuration_is_compared_with_the_addresses() -> None:
    cluster = description(aws.hsm(1, EniIpV6="2001:db8::1"), aws.hsm(2), aws.hsm(3, "CREATE_IN_PROGRESS"))
    servers = {"cli": ("2001:DB8:0::1", "10.0.2.6"), "jce": ("10.0.3.6", "10.0.2.6", "hsm.example")}
    cli, jce = view(cluster, host=replace(HOST, servers=servers)).matches
    assert (cli.missing, cli.foreign) == ((), ())
    assert (jce.missing, jce.foreign) == (("10.0.1.6",), ("hsm.example",))


def test_the_ca_is_proven_or_is_another_s(ca_pem: bytes, other_ca_pem: bytes) -> None:
    # a root is issued by itself, so that it may stand for the certificate of the cluster
    cluster = description(aws.hsm(1), aws.hsm(2), Certificates={"ClusterCertificate": ca_pem.decode()})
    found = view(cluster, host=replace(HOST, ca=ca_pem, ca_source="/opt/ca.crt"))
    assert found.ca is not None
    assert (found.ca.proven, codes(found)) == (True, [])
    wrong = view(cluster, host=replace(HOST, ca=other_ca_pem, ca_source="/opt/ca.crt"))
    assert wrong.ca is not None
    assert (wrong.ca.proven, codes(wrong)) == (False, ["ca-not-of-cluster"])
    assert wrong.risks[0].text.startswith("/opt/ca.crt: ")


@pytest.mark.parametrize(
    ("state", "expected"),
    [("ACTIVE", None), ("INITIALIZED", "cluster-not-activated"), ("UNINITIALIZED", "cluster-uninitialized"),
     ("DELETED", "cluster-not-found"), ("A_STATE_OF_TOMORROW", None)],
)  # fmt: skip
def test_what_keeps_clients_off_is_the_error(state: str, expected: str | None) -> None:
    error = view(description(aws.hsm(1), aws.hsm(2), state=state)).error
    assert (error.code.name if error else None) == expected
