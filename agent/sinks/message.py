"""A report on its way to one sink, the context of a delivery, and how it fails."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import Host


@dataclass(frozen=True)
class OutgoingReport:
    """A report, as the text of its JSON document, and its sink, as a URI."""

    uri: str
    document: str

    @property
    def rest(self) -> str:
        """The URI without its scheme and colon."""
        return self.uri.partition(":")[2]

    @property
    def tree(self) -> Mapping[str, Any]:
        tree: dict[str, Any] = json.loads(self.document)
        return tree

    @property
    def key(self) -> str:
        """An identifier of this report to this sink: the same for every attempt, also in later runs."""
        tree = self.tree
        name = f"{tree['host']['name']}\0{self.uri}".encode("utf-8", "backslashreplace")
        where = hashlib.sha256(name).hexdigest()
        return f"{tree['run_id']}-{where[:16]}"


@dataclass(frozen=True)
class DeliveryContext:
    """What a delivery to one receiver may use. `ends` is on the machine's monotonic clock.

    The token in the file `token_file`, or in `environ`, is for this receiver; `ca` is the path of its CA.
    """

    machine: Host
    ends: float
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: str | None = None
    token_file: str | None = None
    hurried: bool = False

    def left(self) -> float:
        return self.ends - self.machine.monotonic()

    def check_stopped(self) -> None:
        """Raise when no time is left, or AgentError when the run is interrupted (unless `hurried`: it was before)."""
        if self.left() <= 0:
            raise UndeliveredError("the time for deliveries ran out")
        if not self.hurried:
            self.machine.sleep(0)


class UndeliveredError(Exception):
    """A report did not arrive; `saw` is why, without secrets. `refused`: it never will arrive, so it is not kept."""

    def __init__(self, saw: str, *, refused: bool = False) -> None:
        super().__init__(saw)
        self.saw = saw
        self.refused = refused
