"""AWS's Signature Version 4 for one POST of a form: pure, since of botocore it is all that a signal needs."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import datetime as dt


@dataclass(frozen=True)
class Credentials:
    """Who signs. `token` is there for the credentials of a role, which end."""

    id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def signed(
    url: str, body: bytes, *, region: str, service: str, keys: Credentials, now: dt.datetime
) -> dict[str, str]:
    """Return the headers with which AWS believes this POST, for some minutes around `now`."""
    parts = urlsplit(url)
    stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8", "host": parts.netloc}
    headers["x-amz-date"] = stamp
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(headers))
    lines = ("POST", parts.path or "/", parts.query, *(f"{name}:{headers[name]}" for name in sorted(headers)))
    canonical = "\n".join((*lines, "", names, hashlib.sha256(body).hexdigest()))
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{keys.secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={keys.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}
