"""How many examples a property is tried with: the one place from which every test takes its number.

`pytest --hypothesis-profile few` keeps each to a handful, for the quick loop and for other Pythons; `all` is the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterable

FEW = 12
# no test depends on how busy the machine is
_SUPPRESSED = (HealthCheck.too_slow,)


def register() -> None:
    """Register the profiles, and load the default one; the command line chooses another afterwards."""
    settings.register_profile("all", deadline=None, suppress_health_check=_SUPPRESSED)
    settings.register_profile("few", settings.get_profile("all"), max_examples=FEW)
    settings.load_profile("all")


def examples(most: int, *, suppress: Iterable[HealthCheck] = ()) -> settings:
    """Return the settings of a property that is tried with `most` examples, or with few where few are asked for."""
    is_few = settings.get_current_profile_name() == "few"
    return settings(
        max_examples=min(most, FEW) if is_few else most,
        suppress_health_check=(*_SUPPRESSED, *suppress),
    )
