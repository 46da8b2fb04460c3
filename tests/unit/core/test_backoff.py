"""Pauses between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.backoff import Backoff


@given(st.integers(1, 10**6), st.sampled_from([0.0, 0.5, 1.0]))
def test_pause_doubles_up_to_the_cap(attempt: int, least: float) -> None:
    longest = min(15.0, 0.5 * 2.0 ** min(attempt - 1, 10))
    assert least * longest <= Backoff(first=0.5, cap=15.0, least=least).pause(attempt) <= longest


def test_pauses_of_two_clients_differ() -> None:
    backoff = Backoff(first=1.0, cap=8.0, least=0.5)
    assert len({backoff.pause(3) for _ in range(8)}) > 1
