"""What `s3:`, `ssm:` and `secretsmanager:` name, as values; pure, and without AWS's client."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = r"[a-z0-9-]{1,40}"
# what may stand behind the question mark, and its form
_QUERY = {"versionId": r"[A-Za-z0-9._-]+", "region": _REGION}
_LONGEST_KEY = 1024  # bytes, of an S3 object
_PARAMETER = re.compile(r"[A-Za-z0-9_.\-/]{1,1011}(:[A-Za-z0-9_.\-]{1,100})?")
_PARAMETER_ARN = re.compile(rf"arn:[a-z-]+:ssm:({_REGION}):\d{{12}}:parameter/{_PARAMETER.pattern}")
_SECRET = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_SECRET_ARN = re.compile(rf"arn:[a-z-]+:secretsmanager:({_REGION}):\d{{12}}:secret:{_SECRET.pattern}")


@dataclass(frozen=True)
class S3Location:
    """An object, or the objects whose keys begin with `key` and a slash. `region` is empty where none was named."""

    bucket: str
    key: str
    version: str = ""
    region: str = ""

    def below(self, name: str) -> str:
        """Return the key of what lies below it."""
        return f"{self.key}/{name}" if self.key else name


@dataclass(frozen=True)
class Parameter:
    """A parameter of Parameter Store: `name` as its API takes it, with a version or a label, or an ARN."""

    name: str
    region: str = ""


@dataclass(frozen=True)
class Secret:
    """A secret of Secrets Manager: `id` is a name or an ARN. `key` is what is taken of JSON, None for all of it."""

    id: str
    key: str | None = None
    region: str = ""


def s3_object(uri: str) -> S3Location:
    """Read `s3://BUCKET/KEY`, also with `?versionId=` or `region=`. Raises ValueError with a complaint."""
    found = _location(uri, "s3://BUCKET/KEY", ("versionId", "region"))
    if not found.key or found.key.endswith("/"):
        raise ValueError(f"{uri!r} names no object: s3://BUCKET/KEY is wanted")
    return found


def s3_prefix(uri: str) -> S3Location:
    """Read `s3://BUCKET/PREFIX`, with `?region=` if there is one. Raises ValueError with a complaint."""
    found = _location(uri, "s3://BUCKET/PREFIX", ("region",))
    return S3Location(found.bucket, found.key.rstrip("/"), region=found.region)


def with_region(uri: str, region: str | None) -> str:
    """Return a prefix in S3 that names this region, unless it names one already; any other URI as it is."""
    if region is None or not uri.startswith("s3://") or "?region=" in uri:
        return uri
    return f"{uri}?region={region}"


def ssm_parameter(uri: str) -> Parameter:
    """Read `ssm:NAME`, a version or a label behind it, or `ssm:ARN`. Raises ValueError with a complaint."""
    name = uri.partition(":")[2]
    arn = _PARAMETER_ARN.fullmatch(name)
    if arn is None and _PARAMETER.fullmatch(name) is None:
        raise ValueError(
            f"{uri!r} names no parameter: ssm:NAME, ssm:NAME:VERSION, ssm:NAME:LABEL or ssm:ARN is wanted"
        )
    return Parameter(name, arn[1] if arn else "")


def secret_name(uri: str) -> Secret:
    """Read `secretsmanager:NAME` or an ARN, with `#KEY` if there is one. Raises ValueError with a complaint."""
    name, mark, key = uri.partition(":")[2].partition("#")
    arn = _SECRET_ARN.fullmatch(name)
    if (arn is None and _SECRET.fullmatch(name) is None) or (mark and not key):
        raise ValueError(f"{uri!r} names no secret: secretsmanager:NAME or :ARN, either with #KEY, is wanted")
    return Secret(name, key if mark else None, arn[1] if arn else "")


def name_of(uri: str) -> S3Location | Parameter | Secret:
    """Read what may hold a text: an object, a parameter or a secret. Raises ValueError with a complaint."""
    if uri.startswith("ssm:"):
        return ssm_parameter(uri)
    return secret_name(uri) if uri.startswith("secretsmanager:") else s3_object(uri)


def _location(uri: str, form: str, known: tuple[str, ...]) -> S3Location:
    path, mark, query = uri.removeprefix("s3://").partition("?")
    bucket, _, key = path.partition("/")
    if not uri.startswith("s3://") or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{uri!r} names no bucket: {form} is wanted")
    if not key.isprintable() or len(key.encode()) > _LONGEST_KEY:
        raise ValueError(f"{uri!r}: a key of S3 is at most {_LONGEST_KEY} bytes, without control characters")
    named = dict(each.partition("=")[::2] for each in query.split("&")) if mark else {}
    if not all(each in known and re.fullmatch(_QUERY[each], value) for each, value in named.items()):
        allowed = " or ".join(f"{each}=" for each in known)
        raise ValueError(f"{uri!r}: behind the question mark {allowed} is wanted")
    return S3Location(bucket, key, named.get("versionId", ""), named.get("region", ""))
