"""AWS as one run asks it: the region and the credentials are looked for when the first question is asked."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.aws.client import AwsClient
    from agent.aws.session import AwsSession, CredentialsProvider
    from agent.core.host import HostView


class AwsAccess:
    """Gives clients for AWS; one that nobody asks for costs nothing, not even its import (30 ms).

    `region` is the one that was named; without one it is that of the environment, of the provider, or of this instance.
    `provider` is where credentials come from, by default this host (`agent.aws.operator` has a person's).
    `check_stopped` is called often while AWS is waited for; by default an interrupt and the run's limit end the wait.
    """

    def __init__(
        self,
        view: HostView,
        environ: Mapping[str, str],
        region: str | None = None,
        provider: CredentialsProvider | None = None,
        check_stopped: Callable[[], None] | None = None,
    ) -> None:
        self._view = view
        self._environ = environ
        self._region = region
        self._provider = provider
        self._check_stopped = check_stopped or (lambda: view.sleep(0))  # no time passes

    @cached_property
    def client(self) -> AwsClient:
        """The client of this region. Raises AgentError `aws-region-unknown`."""
        from agent.aws.session import open_session  # noqa: PLC0415 -- see above

        return self._client_for(
            open_session(self._view, self._environ, self._region, self._provider, self._check_stopped)
        )

    def client_in(self, region: str) -> AwsClient:
        """Return a client for a resource that lies in another region, such as a bucket."""
        from agent.aws.session import AwsSession  # noqa: PLC0415 -- see above

        return self._client_for(
            AwsSession(self._view, self._environ, region, self._provider, self._check_stopped)
        )

    def _client_for(self, session: AwsSession) -> AwsClient:
        from agent.aws.client import AwsClient  # noqa: PLC0415 -- see above

        return AwsClient(session, check_stopped=self._check_stopped)
