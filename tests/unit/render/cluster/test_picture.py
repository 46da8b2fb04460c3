"""The picture of a cluster: everybody is in it, nothing lies outside its frame or on something else."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Callable

import pytest

from agent.aws.inventory import VpcSurvey
from agent.cloudhsm.cluster import read_cluster
from agent.cloudhsm.cluster_view import HostSide, view_cluster
from agent.render.cluster.document import to_tree
from agent.render.cluster.picture import Box, Picture, draw, fit
from tests.fakes import cluster_answers as aws
from tests.fakes import cluster_views as views
from tests.fakes.evil import EVIL

if TYPE_CHECKING:
    from agent.cloudhsm.cluster_view import ClusterView

CASES = (*views.VIEWS, *(lambda text=text: views.saying(text) for text in EVIL))


def picture(made: Callable[[], ClusterView] | ClusterView) -> Picture:
    return draw(to_tree(made() if callable(made) else made))


def named(drawn: Picture, word: str) -> list[Box]:
    return [each for each in drawn.chips if word in each.kind.split()]


@pytest.mark.parametrize("made", CASES)
def test_every_box_lies_inside_and_no_chip_on_another(made: Callable[[], Any]) -> None:
    drawn = picture(made)
    for each in (*drawn.boxes, *drawn.chips):
        assert 0 <= each.x <= each.x + each.wide <= drawn.wide
        assert 0 <= each.y <= each.y + each.high <= drawn.high
    for one, other in itertools.combinations(drawn.chips, 2):
        beside = one.x + one.wide <= other.x or other.x + other.wide <= one.x
        assert beside or one.y + one.high <= other.y or other.y + other.high <= one.y, (one, other)
    points = [*((each.x, each.y) for each in drawn.labels), *((each.x, each.y) for each in drawn.marks)]
    assert all(0 <= x <= drawn.wide and 0 <= y <= drawn.high for x, y in points)


@pytest.mark.parametrize("made", views.VIEWS, ids=lambda made: made.__name__)
def test_members_and_interfaces_are_in_the_group_others_and_hsms_are_not(made: Callable[[], Any]) -> None:
    drawn = picture(made)
    (group,) = (each for each in drawn.boxes if each.kind == "group")

    def is_inside(box: Box) -> bool:
        return group.y <= box.y and box.y + box.high <= group.y + group.high

    assert all(map(is_inside, (*named(drawn, "client"), *named(drawn, "eni"))))
    assert not any(map(is_inside, (*named(drawn, "outside"), *named(drawn, "hsm"))))


def test_each_hsm_stands_below_its_interface_in_its_zone() -> None:
    for made in (views.healthy, views.crowded):
        drawn = picture(made)
        interfaces, hsms = named(drawn, "eni"), named(drawn, "hsm")
        assert [each.x for each in interfaces] == [each.x for each in hsms]
        assert all(one.y < other.y for one, other in zip(interfaces, hsms))
    assert len(hsms) == 28


def test_what_stops_packets_is_red_at_both_ends_with_one_number() -> None:
    drawn = picture(views.troubled)
    blocked = {each.first: [number for _, number in each.marks] for each in named(drawn, "blocked")}
    assert blocked == {"app-9": [1], "web-6": [2], "web-3": [2], "10.0.2.6": [2]}
    assert sorted(each.number for each in drawn.marks) == [1, 2]
    assert [each.kind for each in drawn.lines].count("cross") == 1
    assert not any(each.kind == "stop" for each in picture(views.healthy).lines)


def test_of_many_the_blocked_ones_are_drawn_and_the_others_counted() -> None:
    drawn = picture(views.crowded)
    assert [each.first for each in named(drawn, "here")] == ["worker-1.eu.example"]
    counted = sum(int(each.first.split()[1]) for each in named(drawn, "more"))
    shown = [each for each in (*named(drawn, "client"), *named(drawn, "outside")) if "more" not in each.kind]
    assert counted + len(shown) == 300
    assert drawn.high < 1200


def test_more_zones_than_columns_become_one() -> None:
    hsms = [aws.hsm(number, AvailabilityZone=f"zone-{number:02}") for number in range(1, 13)]
    drawn = picture(
        view_cluster(
            views.description(*hsms, SubnetMapping={}),
            views.survey(),
            views.HOST,
            now=views.NOW,
            named_by="x",
        )
    )
    titles = [each.text for each in drawn.labels if each.kind == "zone-title"]
    assert titles == [*(f"zone-{number:02}" for number in range(1, 8)), "other zones"]
    assert len(named(drawn, "hsm")) == 12


def test_a_cluster_without_anything_is_drawn() -> None:
    empty = read_cluster({"ClusterId": aws.CLUSTER_ID}, views.REGION)
    drawn = picture(view_cluster(empty, VpcSurvey(), HostSide("x"), now=views.NOW, named_by="x"))
    assert {each.text for each in drawn.labels} >= {
        "who is in the group is not known",
        "the cluster has no HSM",
    }
    assert drawn.chips == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web-1", "web-1"),
        ("a-name-that-is-much-too-long-for-it", "a-name-that-i…"),
        ("WWWWWWWWWWWWWWWWWWWW", "WWWWWWWW…"),
        ("東京東京東京東京東京東京", "東京東京東京東…"),
        ("two\nlines\x1b[2J", "two lines?[2J"),
        ("", ""),
    ],
)
def test_a_text_is_cut_to_what_surely_fits(text: str, expected: str) -> None:
    assert fit(text, 120, 13) == expected
