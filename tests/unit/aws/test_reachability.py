"""Answers that are shared between instances are those that each path has by itself."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.aws.network import (
    AclEntry,
    GroupRule,
    Network,
    NetworkAcl,
    NetworkInterface,
    RouteTable,
    SecurityGroup,
    VpcRoute,
)
from agent.aws.path import EPHEMERAL_LINUX, PathEnd, find_obstacle
from agent.aws.reachability import BlockedPath, Reachability

REGION = "eu-central-1"
_RANGES = st.sampled_from(
    ["0.0.0.0/0", "10.0.0.0/16", "10.0.1.0/24", "10.0.1.7/32", "10.0.9.6/32", "pl-1", "::/0"]
)
_GROUPS = ("sg-1", "sg-2")
_RULES = st.builds(
    GroupRule, st.just("tcp"), st.just(2223), st.sampled_from([2223, 2225]),
    st.lists(_RANGES, max_size=2).map(tuple), st.lists(st.sampled_from(_GROUPS), max_size=1).map(tuple),
)  # fmt: skip
_ENTRIES = st.builds(
    AclEntry, st.integers(1, 200), st.booleans(), st.booleans(), st.just("6"), _RANGES,
    st.sampled_from([0, 2223, 32768]), st.just(65535),
)  # fmt: skip
_ROUTES = st.builds(
    VpcRoute, _RANGES.filter(lambda each: each[0] != "p"), st.sampled_from(["local", "nat-1", "pcx-1"]), st.booleans()
)  # fmt: skip


def interface(name: str, subnet: str, groups: tuple[str, ...], *addresses: str) -> NetworkInterface:
    return NetworkInterface(name, "vpc-1", subnet, groups, addresses)


@settings(max_examples=60, deadline=None)
@given(
    rules=st.lists(st.tuples(_RULES, _RULES), min_size=2, max_size=2),
    entries=st.lists(_ENTRIES, max_size=4),
    routes=st.lists(_ROUTES, max_size=2),
    clients=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([("sg-1",), ("sg-2",), _GROUPS]), st.integers(6, 8)),
        max_size=6,
    ),
)
def test_an_answer_that_is_shared_is_the_one_of_each_path(
    rules: list[tuple[GroupRule, GroupRule]],
    entries: list[AclEntry],
    routes: list[VpcRoute],
    clients: list[tuple[str, tuple[str, ...], int]],
) -> None:
    network = Network(
        groups=tuple(SecurityGroup(name, (one,), (other,)) for name, (one, other) in zip(_GROUPS, rules)),
        acls=(NetworkAcl("acl-1", ("a", "b", "c"), tuple(entries)),),
        tables=(RouteTable("rtb-1", "vpc-1", (), True, (VpcRoute("10.0.0.0/16", "local"), *routes)),),
    )
    hsms = [
        (
            f"hsm-{number}",
            PathEnd(interface(f"eni-{number}", "c", ("sg-1",), f"10.0.9.{number}"), f"10.0.9.{number}"),
        )
        for number in (6, 7, 8)
    ]
    shared = Reachability(network, hsms, REGION)
    for subnet, groups, number in clients:
        client = interface(f"eni-{subnet}{number}", subnet, groups, f"10.0.1.{number}")
        wanted = {
            name: obstacle
            for name, end in hsms
            for obstacle in [
                find_obstacle(
                    network,
                    PathEnd(client, client.addresses[0]),
                    end,
                    region=REGION,
                    ephemeral=EPHEMERAL_LINUX,
                )
            ]
            if obstacle is not None
        }
        found = shared.blocked(client, EPHEMERAL_LINUX)
        assert {name: path.obstacle.code for path in found for name in path.hsms} == {
            name: each.code for name, each in wanted.items()
        }
        assert all(path.obstacle == wanted[path.hsms[0]] for path in found)


def test_no_obstacle_is_between_addresses_of_two_families_or_what_is_no_address() -> None:
    network = Network(groups=(SecurityGroup("sg-1"),))
    hsms = [("hsm-1", PathEnd(interface("eni-1", "c", ("sg-1",), "10.0.9.6"), "10.0.9.6")),
            ("hsm-2", PathEnd(interface("eni-2", "c", ("sg-1",), "?"), "?"))]  # fmt: skip
    shared = Reachability(network, hsms, REGION)
    assert (
        shared.blocked(interface("eni-3", "a", ("sg-1",), "2001:db8::7", "nonsense"), EPHEMERAL_LINUX) == ()
    )
    (found,) = shared.blocked(interface("eni-4", "a", ("sg-1",), "nonsense", "10.0.1.7"), EPHEMERAL_LINUX)
    assert isinstance(found, BlockedPath)
    assert found.hsms == ("hsm-1",)
