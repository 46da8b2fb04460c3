"""AWS's Signature Version 4 over a request's headers: pure, and the only signer there is.

botocore signs too, but costs 200 ms of processor time and 25 MB; tests have it judge every signature that is made here.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import datetime as dt

    from agent.http.exchange import ApiRequest

# what RFC 3986 leaves as it is
_UNRESERVED = "-_.~"
# S3 wants the digest of the body as a header, and signs a path as it is sent; all others encode it once more.
_S3 = "s3"


@dataclass(frozen=True)
class Credentials:
    """Who signs. `token` is there for the credentials of a role, and `ends` says until when they are good."""

    id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    ends: dt.datetime | None = None


def sign(
    request: ApiRequest, *, region: str, service: str, credentials: Credentials, now: dt.datetime
) -> ApiRequest:
    """Return the request with the headers by which AWS believes it, for some minutes around `now` (UTC).

    `service` is the name in the signature: CloudHSM's is `cloudhsm`, though its host name begins with `cloudhsmv2`.
    """
    parts = urlsplit(request.url)
    stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    digest = hashlib.sha256(request.body).hexdigest()
    headers = {name.lower(): " ".join(value.split()) for name, value in request.headers.items()}
    headers.update({"host": parts.netloc, "x-amz-date": stamp})
    if service == _S3:
        headers["x-amz-content-sha256"] = digest
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    path = parts.path or "/"
    names = ";".join(sorted(headers))
    lines = (
        request.method,
        path if service == _S3 else quote(path, safe=f"/{_UNRESERVED}"),
        _canonical_query(parts.query),
        *(f"{name}:{headers[name]}" for name in sorted(headers)),
        "",
        names,
        digest,
    )
    canonical = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    scope = f"{day}/{region}/{service}/aws4_request"
    key = f"AWS4{credentials.secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={credentials.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return replace(request, headers={**headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"})


def _canonical_query(query: str) -> str:
    """Return the parameters in order. They are percent-encoded already; a blank is `%20`, since AWS takes no `+`."""
    return "&".join(
        "=".join(pair) for pair in sorted(each.partition("=")[::2] for each in query.split("&") if each)
    )
