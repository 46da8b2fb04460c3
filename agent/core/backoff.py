"""How long to wait before an attempt is repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds that double from `first` up to `cap`.

    Each is a random part of that, at least the part `least`: clients that failed together must not return together.
    """

    first: float
    cap: float
    least: float = 0.0

    def pause(self, attempt: int) -> float:
        """Return how long to wait after attempt number `attempt`, from 1 on."""
        longest = min(
            self.cap, self.first * 2.0 ** min(attempt - 1, 30)
        )  # a larger exponent overflows some day
        return random.uniform(self.least, 1.0) * longest  # noqa: S311 -- not a secret
