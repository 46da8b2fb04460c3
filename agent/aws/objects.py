"""A file in S3, part by part: each is asked for and signed anew, so that one that fails costs one part."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.aws.buckets import BucketClient
from agent.aws.client import AwsClient, AwsRefusedError
from agent.aws.operations import GET_OBJECT
from agent.core.aws_names import s3_object
from agent.core.errors import AgentError
from agent.core.urls import redact_url
from agent.http.download import FilePart, SourceChangedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.aws.access import AwsAccess

# A part is what one call answers, and lies in memory: bytes, and the seconds that it may take.
PART = 2 * 1024 * 1024
SECONDS = 30.0
TRIES = 5
_ABSENT = ("NoSuchBucket", "NoSuchKey")
# another object than the one that was begun, or one that has no byte there
_CHANGED = ("PreconditionFailed", "InvalidRange")


class ObjectReader:
    """Reads one object. `check_stopped` is called often and may raise; `seconds` bounds a part with its tries."""

    def __init__(
        self, access: AwsAccess, url: str, check_stopped: Callable[[], None], seconds: float
    ) -> None:
        def patient(client: AwsClient) -> AwsClient:
            return replace(
                client, check_stopped=check_stopped, tries=TRIES, seconds=seconds, try_seconds=SECONDS
            )

        self._url = url
        location = s3_object(url)
        self._key = location.key
        self._bucket = BucketClient(access, location, patient)

    def read(self, start: int, validator: str) -> FilePart:
        """Return the bytes from `start` on, of the object with this ETag, or of any where it is empty.

        Raises SourceChangedError where there is no such part any more, AgentError `package-not-found`, and what keeps
        AWS from being asked.
        """
        params = {"Key": self._key, "Range": f"bytes={start}-{start + PART - 1}", "IfMatch": validator}
        try:
            answer = self._bucket.call(GET_OBJECT, params)
        except AwsRefusedError as error:
            if error.refusal.code in _CHANGED:
                raise SourceChangedError(error.saw) from None
            if error.refusal.code not in _ABSENT:
                raise
            place = redact_url(self._url)
            raise AgentError(
                "package-not-found", f"{place} is not there", saw=error.saw, want=place
            ) from None
        data = bytes(answer["Body"])
        span = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", answer["ContentRange"])
        if span is None and start == 0:  # all of it
            return FilePart(data, len(data), answer["ETag"])
        if span is None or int(span[1]) != start or not data:
            raise SourceChangedError("another part than the one that was asked for")
        return FilePart(data, int(span[2]), answer["ETag"])
