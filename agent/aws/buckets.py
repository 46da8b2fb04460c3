"""A call about an object, wherever its bucket lies: S3 names the region of a bucket that is asked for elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.aws.client import AwsRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.aws.access import AwsAccess
    from agent.aws.client import AwsClient
    from agent.aws.operations import Operation
    from agent.core.aws_names import S3Location


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

    def _other_region(self, error: AwsRefusedError) -> AwsClient | None:
        region = error.refusal.region
        if self._is_found or not region or region == self._client.session.region:
            return None
        return self._adjust(self._access.client_in(region))
