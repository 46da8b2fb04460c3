"""`s3://BUCKET/PREFIX/`: one object for each host, and the last of each day below `history/`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent.core.aws_names import s3_prefix
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from agent.sinks.message import DeliveryContext, OutgoingReport

_LONGEST = 200  # characters of a host's name
# about this very report or its key; everything else is about the bucket, the sender or the moment
_PERMANENT = ("EntityTooLarge", "KeyTooLongError", "InvalidURI")


def check(uri: str) -> None:
    """Require a bucket; a prefix may follow, and `?region=`."""
    s3_prefix(uri)


def object_names(tree: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of a report's objects below the prefix: that of its day, and the host's last."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", str(tree["host"]["name"]))[:_LONGEST]
    day = re.sub(r"[^0-9-]", "-", str(tree["finished"])[:10])
    return f"history/{day}/{host}.json", f"{host}.json"


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    """Write both objects, the host's last one at the end. Raises UndeliveredError."""
    from agent.aws.access import AwsAccess  # noqa: PLC0415 -- 30 ms
    from agent.aws.buckets import BucketClient  # noqa: PLC0415 -- as above
    from agent.aws.operations import PUT_OBJECT  # noqa: PLC0415 -- as above
    from agent.sinks.aws import undelivered, within  # noqa: PLC0415 -- as above

    location = s3_prefix(report.uri)
    body = report.document.encode("utf-8", "backslashreplace")
    try:
        access = AwsAccess(context.machine, context.environ)
        bucket = BucketClient(access, location, lambda client: within(context, client))
        for name in object_names(report.tree):
            params = {"Key": location.below(name), "Body": body, "ContentType": "application/json"}
            bucket.call(PUT_OBJECT, params)
    except AgentError as error:
        raise undelivered(error, _PERMANENT) from None
