"""`fleet status --from`: its options, and where the reports are read."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from agent.aws.access import AwsAccess
from agent.cli.options import PROFILE
from agent.config.input_errors import InputErrors
from agent.config.options import Option, age
from agent.core.aws_names import s3_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.aws.operator import OperatorCredentials
    from agent.core.fleet_model import Target
    from agent.core.host import HostView
    from agent.fleet.collected.sources import ReportSource
    from agent.fleet.collected.spool import ReportSpool
    from agent.fleet.collected.status import CollectedStatus
    from agent.fleet.shared_input import OpenAccess

OPTIONS = (
    Option("silent_after", None, "hosts that have not reported for so long are silent (36h)", str,
           metavar="AGE"),
    Option("region", None, "the region of the bucket; without it, as AWS's SDKs find it", str, metavar="REGION"),
    PROFILE,
)  # fmt: skip


def read_status(
    machine: HostView, place: str, own: Mapping[str, Any], spool: ReportSpool, input_errors: InputErrors
) -> CollectedStatus:
    """Return how the hosts stand that report to a place. Raises AgentError for all input errors, and for AWS's."""
    from agent.fleet.collected import status  # noqa: PLC0415 -- only where reports are collected
    from agent.fleet.collected.standing import SILENT_AFTER  # noqa: PLC0415 -- as above
    from agent.fleet.controller import new_run_id  # noqa: PLC0415 -- as above
    from agent.fleet.requester import requester  # noqa: PLC0415 -- as above
    from agent.render.json_report import schema  # noqa: PLC0415 -- as above

    silent_after = SILENT_AFTER
    if own["silent_after"] is not None:
        try:
            silent_after = age(own["silent_after"])
        except ValueError as error:
            input_errors.add("--silent-after", str(error))
    open_access = _open_access(machine, own["profile"])
    remarks = InputErrors()
    targets = _targets(machine, open_access, own, input_errors, remarks)
    source = _source(machine, open_access, place, own["region"], input_errors)
    input_errors.raise_any()
    request = status.StatusRequest(
        run_id=new_run_id(),
        inventory=own["inventory"] or "",
        targets=targets,
        only_targets=own["limit"] is not None,
        remarks=tuple(remarks.texts),
        silent_after=silent_after,
        by=requester(machine.name, os.environ),
    )
    return status.status(source, request, schema(), spool, machine.now().timestamp())


def _open_access(machine: HostView, profile: str | None) -> OpenAccess:
    @cache  # a person is asked for a second factor once
    def person() -> OperatorCredentials:
        from agent.aws.operator import OperatorCredentials  # noqa: PLC0415 -- only where AWS is asked

        terminal = sys.stdin is not None and sys.stdin.isatty()
        return OperatorCredentials(machine, os.environ, profile, has_terminal=terminal)

    return lambda region: AwsAccess(machine, os.environ, region, person())


def _targets(
    machine: HostView,
    open_access: OpenAccess,
    own: Mapping[str, Any],
    input_errors: InputErrors,
    remarks: InputErrors,
) -> tuple[Target, ...] | None:
    """Return the hosts of the inventory that are wanted, None without an inventory."""
    from agent.fleet.run_spec import FleetOptions, read_targets  # noqa: PLC0415 -- as above

    if own["inventory"] is None:
        if own["limit"]:
            input_errors.add("--limit", "it chooses from an inventory: name that with --inventory")
        return None
    options = FleetOptions(inventory=own["inventory"], limit=own["limit"])
    return read_targets(machine, open_access, options, own["region"], input_errors, remarks)


def _source(
    machine: HostView, open_access: OpenAccess, place: str, region: str | None, input_errors: InputErrors
) -> ReportSource:
    from agent.fleet.collected.sources import BucketSource, FolderSource  # noqa: PLC0415 -- as above

    if not place.startswith("s3://"):
        if "://" in place:
            input_errors.add("--from", f"{place!r} is neither s3://BUCKET/PREFIX/ nor a directory")
        return FolderSource(machine, place)
    try:
        s3_prefix(place)
    except ValueError as error:
        input_errors.add("--from", str(error))
    input_errors.raise_any()
    return BucketSource(open_access(region), place)


def json_pieces(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield the JSON of a report in pieces: reports that lie on the disk are read when their turn comes."""
    import json  # noqa: PLC0415 -- only where it is written

    held: list[str] = []
    size = 0
    for piece in json.JSONEncoder(indent=2, default=dict).iterencode(tree):
        held.append(piece)
        size += len(piece)
        if size > _PIECE:
            yield "".join(held)
            held, size = [], 0
    yield "".join([*held, "\n"])


_PIECE = 256 * 1024
