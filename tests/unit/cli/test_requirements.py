"""Commands that need Linux where they are typed say so elsewhere."""

from __future__ import annotations

import pytest

from agent.cli.requirements import require_linux
from agent.core.errors import AgentError
from agent.core.system import windows
from tests.fakes.memory import Memory


def test_linux_is_enough() -> None:
    require_linux(Memory(), "demo")


def test_elsewhere_it_is_refused() -> None:
    with pytest.raises(AgentError) as caught:
        require_linux(Memory(system=windows()), "fleet plan")
    assert (caught.value.code.name, caught.value.saw) == ("platform-unsupported", "windows")
    assert "fleet plan" in caught.value.sentence
