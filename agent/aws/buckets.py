"""A call about an object, wherever its bucket lies: S3 names the region of a bucket that is asked for elsewhere."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.aws.client import AwsRefusedError
from agent.aws.operations import LIST_OBJECTS
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.aws.access import AwsAccess
    from agent.aws.client import AwsClient
    from agent.aws.operations import Operation
    from agent.core.aws_names import S3Location


@dataclass(frozen=True)
class ListedObject:
    """An object of a bucket: its whole key, its size in bytes, and when S3 got it, in epoch seconds by its clock."""

    key: str
    size: int
    modified: float


class BucketClient:
    """Calls S3 for one bucket: first in its named region or the run's own, then once in the one that S3 names.

    `adjust` returns a client with other limits.
    """

    def __init__(
        self,
        access: AwsAccess,
        location: S3Location,
        adjust: Callable[[AwsClient], AwsClient] = lambda client: client,
    ) -> None:
        self._access = access
        self._bucket = location.bucket
        self._adjust = adjust
        self._client = adjust(access.client_in(location.region) if location.region else access.client)
        self._is_found = False

    def call(self, operation: Operation, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what `AwsClient.call` returns, and raise what it raises."""
        whole = {**params, "Bucket": self._bucket}
        try:
            return self._client.call(operation, whole)
        except AwsRefusedError as error:
            other = self._other_region(error)
            if other is None:
                raise
        self._client, self._is_found = other, True
        return self._client.call(operation, whole)

    def objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with `prefix` and have no slash behind it, in the order of their keys.

        Raises what `call` raises, and AgentError `aws-refused` where there are more than are read.
        """
        token = ""
        for _ in range(LIST_OBJECTS.pages):
            params = {"Prefix": prefix, "MaxKeys": LIST_OBJECTS.page, "ContinuationToken": token}
            page = self.call(LIST_OBJECTS, params)
            for each in page["Contents"]:
                yield _listed(each)
            token = page["NextToken"]
            if not token:
                return
        most = LIST_OBJECTS.pages * LIST_OBJECTS.page
        raise AgentError(
            "aws-refused", "the bucket has more objects there than are read", saw=f"more than {most:,} objects",
            want=f"at most {most:,}", hint="name the prefix of the reports alone",
        )  # fmt: skip

    def _other_region(self, error: AwsRefusedError) -> AwsClient | None:
        region = error.refusal.region
        if self._is_found or not region or region == self._client.session.region:
            return None
        return self._adjust(self._access.client_in(region))


def _listed(tree: Mapping[str, str]) -> ListedObject:
    """Return an object as S3 lists it. Raises AgentError `aws-refused` for a listing that cannot be read."""
    try:
        time = dt.datetime.strptime(f"{tree['LastModified'][:19]}Z", "%Y-%m-%dT%H:%M:%S%z")
        return ListedObject(tree["Key"], int(tree["Size"]), time.timestamp())
    except ValueError:
        raise AgentError(
            "aws-refused", "the listing of the bucket cannot be read", saw="an object without size or time",
            want="a listing of S3", hint="is the endpoint that of S3?",
        ) from None  # fmt: skip
