"""What a description of a cluster means for a client."""

from __future__ import annotations

from typing import Any

import pytest

from agent.cloudhsm.cluster import (
    CLUSTER_ID,
    activation_error,
    address_changes,
    address_error,
    client_error,
    cluster_error,
    cluster_notices,
    find_cluster,
    is_settled,
    read_cluster,
)
from agent.core.errors import AgentError
from agent.core.notices import WARNINGS
from agent.steps.cluster import ClusterAddresses
from tests.fakes import cluster_answers as aws
from tests.fakes.memory import Memory

REGION = "eu-central-1"


def read(tree: dict[str, Any]) -> Any:
    return read_cluster(tree, REGION)


def code(error: AgentError | None) -> str | None:
    return error.code.name if error else None


@pytest.mark.parametrize(
    ("state", "hsms", "expected", "waits"),
    [
        ("ACTIVE", [aws.hsm(1)], None, False),
        ("INITIALIZED", [aws.hsm(1)], None, False),
        ("UPDATE_IN_PROGRESS", [aws.hsm(1), aws.hsm(2, "CREATE_IN_PROGRESS", EniIp=None)], None, True),
        ("MODIFY_IN_PROGRESS", [aws.hsm(1)], None, False),
        ("PENDING_ROLLBACK", [aws.hsm(1)], None, False),
        ("DEGRADED", [aws.hsm(1, "DEGRADED")], None, False),
        ("A_STATE_OF_TOMORROW", [aws.hsm(1, "RESTING")], None, False),
        ("ACTIVE", [], "cluster-empty", False),
        ("ACTIVE", [aws.hsm(1, "DELETE_IN_PROGRESS")], "cluster-empty", True),
        ("UPDATE_IN_PROGRESS", [aws.hsm(1, "CREATE_IN_PROGRESS", EniIp=None)], "cluster-empty", True),
        ("CREATE_IN_PROGRESS", [], "cluster-empty", True),
        ("UNINITIALIZED", [aws.hsm(1)], "cluster-uninitialized", False),
        ("UNINITIALIZED", [aws.hsm(1, "CREATE_IN_PROGRESS")], "cluster-uninitialized", False),
        ("INITIALIZE_IN_PROGRESS", [aws.hsm(1)], "cluster-uninitialized", True),
        ("DELETE_IN_PROGRESS", [aws.hsm(1)], "cluster-not-found", False),
        ("DELETED", [], "cluster-not-found", False),
    ],
)
def test_a_state_says_whether_a_client_can_connect(
    state: str, hsms: list[dict[str, Any]], expected: str | None, waits: bool
) -> None:
    cluster = read(aws.cluster(state, *hsms))
    error = cluster_error(cluster)
    assert (code(error), cluster.may_become_ready) == (expected, waits)
    assert error is None or state in error.saw


def test_only_usable_addresses_are_used_and_each_hsm_once() -> None:
    cluster = read(
        aws.cluster(
            "ACTIVE",
            aws.hsm(3, EniIpV6="2001:db8::3"),
            aws.hsm(1, "DEGRADED"),
            aws.hsm(2, "CREATE_IN_PROGRESS"),
            aws.hsm(4, "DELETE_IN_PROGRESS"),
            aws.hsm(5, "DELETED", EniIp=None),
            aws.hsm(6, EniIp=None),
            aws.hsm(7, EniIp=None, EniIpV6="2001:db8::7"),
        )
    )
    assert set(cluster.addresses()) == {"10.0.3.6", "10.0.1.6", "2001:db8::7"}
    assert set(cluster.addresses(ipv6=True)) == {"2001:db8::3", "10.0.1.6", "2001:db8::7"}
    in_use = ["2001:db8::3", "10.0.1.6", "2001:db8::7"]
    assert set(cluster.addresses(in_use)) == set(in_use)
    assert address_changes(cluster, in_use) is None
    assert is_settled(read(aws.cluster("ACTIVE", aws.hsm(3, EniIpV6="2001:db8::3"))), None, in_use[:1])
    assert {each.id[:5] for each in cluster.hsms if each.is_moving} == {"hsm-2", "hsm-4", "hsm-6"}
    assert cluster.is_moving


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "127.0.0.1",
        "::1",
        "::",
        "169.254.1.2",
        "fe80::1%eth0",
        "224.0.0.1",
        "--evil",
        "10.0.0",
        " ",
    ],
)
def test_what_is_no_interface_s_address_never_becomes_a_word_of_a_command(address: str) -> None:
    """As if that HSM were not there yet: what AWS answers is data, and the configure tool runs as root."""
    cluster = read(aws.cluster("ACTIVE", aws.hsm(1), aws.hsm(2, EniIp=address, EniIpV6=address)))
    assert cluster.addresses() == (aws.hsm(1)["EniIp"],)
    assert cluster.is_moving


def test_the_order_is_the_zones_whatever_aws_sends() -> None:
    hsms = [aws.hsm(number) for number in (5, 1, 3)]
    one, other = (read(aws.cluster("ACTIVE", *each)) for each in (hsms, hsms[::-1]))
    assert one == other


def test_members_that_are_missing_are_empty() -> None:
    cluster = read({"ClusterId": aws.CLUSTER_ID, "Hsms": [{"HsmId": "hsm-1"}], "Certificates": None})
    assert (cluster.certificate, cluster.hsm_type, cluster.subnets, cluster.addresses()) == ("", "", (), ())
    assert cluster.is_moving
    assert read(aws.cluster("ACTIVE", aws.hsm(1), Certificates=None)).certificate == ""


def test_the_secret_of_a_description_stays_in_it() -> None:
    cluster = read(aws.cluster("UNINITIALIZED", aws.hsm(1)))
    error = cluster_error(cluster)
    assert error is not None
    assert (
        aws.SECRET
        not in f"{cluster!r} {vars(cluster)} {error.saw} {error.sentence} {cluster_notices(cluster)}"
    )


def test_a_cluster_is_found_on_any_page() -> None:
    other = aws.cluster(ClusterId="cluster-zzzzzzzzzzz")
    pages = [aws.page(other, token="2"), aws.page(aws.cluster("ACTIVE", aws.hsm(1)))]
    assert find_cluster(pages, aws.CLUSTER_ID, REGION).id == aws.CLUSTER_ID


@pytest.mark.parametrize(
    "pages", [[], [aws.page()], [{}], [aws.page(aws.cluster(ClusterId="cluster-zzzzzzzzzzz"))]]
)
def test_a_cluster_that_is_not_there_is_said_with_the_region(pages: list[dict[str, Any]]) -> None:
    with pytest.raises(AgentError) as caught:
        find_cluster(pages, aws.CLUSTER_ID, REGION)
    assert caught.value.code.name == "cluster-not-found"
    assert REGION in caught.value.sentence


@pytest.mark.parametrize(
    ("state", "expected"), [("INITIALIZED", "cluster-not-activated"), ("ACTIVE", None), ("NEW", None)]
)
def test_only_an_initialised_cluster_is_known_not_to_be_activated(state: str, expected: str | None) -> None:
    assert code(activation_error(read(aws.cluster(state, aws.hsm(1))))) == expected


@pytest.mark.parametrize(
    ("hsm_type", "sdk", "version", "expected"),
    [
        ("hsm2m.medium", 5, (5, 18, 0), None),
        ("hsm2m.medium", 5, (5, 9, 0), None),
        ("hsm2m.medium", 5, None, None),
        ("hsm2m.medium", 5, (5, 8, 0), "sdk-not-for-cluster"),
        ("hsm2m.large", 5, (5, 8, 9), "sdk-not-for-cluster"),
        ("hsm2m.medium", 3, (3, 4, 4), "sdk-not-for-cluster"),
        ("hsm2m.medium", 3, None, "sdk-not-for-cluster"),
        ("hsm1.medium", 3, (3, 4, 4), None),
        ("hsm1.medium", 5, (5, 0, 0), None),
        ("hsm9.huge", 3, (3, 4, 4), None),
        (None, 3, (3, 4, 4), None),
    ],
)  # fmt: skip
def test_a_client_must_know_the_type_of_hsm(
    hsm_type: str | None, sdk: int, version: tuple[int, ...] | None, expected: str | None
) -> None:
    assert code(client_error(read(aws.cluster(HsmType=hsm_type)), sdk, version)) == expected


def test_addresses_of_another_cluster_are_named() -> None:
    cluster = read(aws.cluster("ACTIVE", aws.hsm(1, EniIpV6="2001:DB8::1"), aws.hsm(2, "DELETE_IN_PROGRESS")))
    assert address_error(cluster, ["10.0.1.6", "2001:db8:0::1", "10.0.2.6"]) is None
    error = address_error(cluster, ["10.0.1.6", "10.9.9.9", "hsm.example"])
    assert (code(error), error and error.saw) == ("hsm-not-of-cluster", "10.9.9.9, hsm.example")


def test_two_addresses_of_one_hsm_are_one_hsm() -> None:
    cluster = read(aws.cluster("ACTIVE", aws.hsm(1, EniIpV6="2001:DB8::1"), aws.hsm(2)))
    assert address_changes(cluster, ["2001:db8::1", "10.0.2.6"]) is None
    assert is_settled(cluster, None, ["2001:db8::1", "10.0.2.6"])
    changed = address_changes(cluster, ["2001:db8::1", "10.0.3.6"])
    assert changed is not None
    assert changed.text.endswith("new are 10.0.2.6; gone are 10.0.3.6")
    both = ClusterAddresses(cluster, ("10.0.1.6", "2001:db8::1")).check(Memory())
    assert both.saw == "10.0.1.6, 2001:db8::1: 1 of the 2 HSMs that can be used"


def test_an_hsm_that_is_being_deleted_is_not_one_that_can_be_used() -> None:
    cluster = read(aws.cluster("ACTIVE", aws.hsm(1, "DELETE_IN_PROGRESS"), aws.hsm(2)))
    found = ClusterAddresses(cluster, ("10.0.1.6", "10.0.2.6")).check(Memory())
    assert found.met
    assert found.saw == (
        "10.0.1.6, 10.0.2.6: 1 of the 1 HSMs that can be used; hsm-1abcdefghij is DELETE_IN_PROGRESS"
    )


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (aws.cluster("ACTIVE", aws.hsm(1)), []),
        (
            aws.cluster("UPDATE_IN_PROGRESS", aws.hsm(1), aws.hsm(2, "CREATE_IN_PROGRESS")),
            ["cluster-changing"],
        ),
        (aws.cluster("MODIFY_IN_PROGRESS", aws.hsm(1)), ["cluster-changing"]),
        (aws.cluster("DEGRADED", aws.hsm(1)), ["cluster-degraded"]),
        (aws.cluster("ACTIVE", aws.hsm(1, "DEGRADED")), ["cluster-degraded"]),
    ],
)
def test_what_is_worth_knowing_is_said(tree: dict[str, Any], expected: list[str]) -> None:
    notices = cluster_notices(read(tree))
    assert [each.code for each in notices] == expected
    assert {each.code for each in notices} <= set(WARNINGS)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (aws.CLUSTER_ID, True),
        ("cluster-abcDEF23457abcDE", True),
        ("cluster-abc", False),
        ("cluster-189abcdefgh", False),
        ("2abcdefghij", False),
        ("cluster-2abcdefghij\n", False),
    ],
)
def test_the_form_of_an_id_is_aws_s(text: str, fits: bool) -> None:
    assert bool(CLUSTER_ID.fullmatch(text)) is fits
