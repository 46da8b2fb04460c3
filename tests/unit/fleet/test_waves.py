"""The arithmetic of waves and of the stop rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.fleet_model import HostState
from agent.fleet.waves import ALL, HostCount, limit_exceeded, share, shares, split, unproven

OK, FAILED, LATER = HostState.OK, HostState.FAILED, HostState.NOT_REACHED


@pytest.mark.parametrize(
    ("text", "hosts", "sizes"),
    [
        ("1,10%,100%", 100, [1, 9, 90]),
        ("1,10%,100%", 10, [1, 9]),
        ("1,10%,100%", 1, [1]),
        ("1,10%,100%", 11, [1, 1, 9]),
        ("100%", 7, [7]),
        ("3,5,50%,100%", 20, [3, 2, 5, 10]),
        ("50,100%", 20, [20]),
        ("0.5%,100%", 1000, [5, 995]),
        ("33.3%,100%", 3, [1, 2]),
    ],
)
def test_a_share_says_how_many_had_their_turn_when_its_wave_ends(
    text: str, hosts: int, sizes: list[int]
) -> None:
    assert [len(wave) for wave in split(range(hosts), shares(text))] == sizes


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "neither a number"),
        ("1,,100%", "neither a number"),
        ("1,ten,100%", "'ten' is neither a number of hosts nor a percentage"),
        ("-1,100%", "neither a number"),
        ("101%", "neither a number"),
        ("0,100%", "a wave of no host is none"),
        ("5,3,100%", "3 does not go beyond 5"),
        ("50%,20%,100%", "20% does not go beyond 50%"),
        ("1,10%", "the last wave must be 100%"),
    ],
)
def test_waves_that_make_no_sense_are_told(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        shares(text)


def test_a_limit_counts_the_whole_run() -> None:
    limit = share("2")
    wave = [FAILED] * 3 + [LATER] * 7
    assert (
        limit_exceeded(limit, [*wave, *[LATER] * 90], wave)
        == "3 of 100 hosts in the run are not proven; 2 allows 2"
    )
    assert limit_exceeded(limit, [FAILED, FAILED, *[LATER] * 98], [FAILED, FAILED, LATER]) is None


def test_a_percentage_counts_each_wave_too() -> None:
    wave = [FAILED]
    assert limit_exceeded(share("10%"), [FAILED, *[LATER] * 99], wave) == (
        "1 of 1 hosts in this wave are not proven; 10% allows 0"
    )
    assert limit_exceeded(share("10%"), [FAILED, *[LATER] * 99], [FAILED, *[OK] * 9]) is None


@pytest.mark.parametrize("state", [each for each in HostState if each not in (OK, LATER)])
def test_whatever_is_not_proven_counts(state: HostState) -> None:
    assert unproven([OK, state, LATER]) == 1
    assert limit_exceeded(share("0"), [OK, state, LATER], [OK, state]) is not None


_SHARES = st.one_of(
    st.integers(1, 50).map(lambda number: HostCount(number, percent=False)),
    st.integers(1, 99).map(lambda number: HostCount(number, percent=True)),
)


@given(st.integers(0, 500), st.lists(_SHARES, max_size=5))
def test_every_host_has_its_turn_once_and_in_order(hosts: int, some: list[HostCount]) -> None:
    found = split(range(hosts), (*some, ALL))
    assert [host for wave in found for host in wave] == list(range(hosts))
    assert all(found)


_STATES = st.lists(st.sampled_from(list(HostState)), min_size=1, max_size=60)


@given(_STATES, st.integers(0, 60), st.integers(0, 100))
def test_the_rule_stops_exactly_past_what_is_allowed(
    states: list[HostState], count: int, percent: int
) -> None:
    failed = sum(state not in (OK, LATER) for state in states)
    assert (limit_exceeded(HostCount(count, percent=False), states, states) is not None) == (failed > count)
    assert (limit_exceeded(HostCount(percent, percent=True), states, states) is not None) == (
        failed * 100 > percent * len(states) and failed > len(states) * percent // 100
    )


@given(_STATES, st.integers(0, 100))
def test_more_failures_never_start_it_again(states: list[HostState], percent: int) -> None:
    limit = HostCount(percent, percent=True)
    worse = [FAILED if state is LATER else state for state in states]
    if limit_exceeded(limit, states, states):
        assert limit_exceeded(limit, worse, worse)


@given(st.integers(0, 1000), st.integers(0, 100))
def test_a_wave_is_rounded_up_and_a_limit_down(hosts: int, percent: int) -> None:
    this = HostCount(percent, percent=True)
    assert this.down(hosts) == hosts * percent // 100
    assert this.up(hosts) == -(-hosts * percent // 100)
