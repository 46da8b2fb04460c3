"""The options of a host in their three spellings, and the form of each value."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Literal

from agent.cloudhsm.client_options import CLIENT_OPTIONS, NONE
from agent.cloudhsm.cluster import CLUSTER_ID
from agent.cloudhsm.components import NAMES
from agent.cloudhsm.fingerprint import parse_fingerprint
from agent.core.paths import parse_path, path_of_uri
from agent.core.system import is_absolute
from agent.core.urls import names_user, redact_url, scheme_of, split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.cloudhsm.client_options import ClientOption

ENVIRONMENT_PREFIX = "HSM_AGENT_"
# read where a report is sent, and only from the environment: a secret is no option
SECRET_VARIABLES = (f"{ENVIRONMENT_PREFIX}REPORT_TOKEN",)


@dataclass(frozen=True)
class Option:
    """One option, in its three spellings. `many` may be repeated, as `collect` has them; `flag` takes no value.

    `short` is a second spelling on the command line, such as `-i`.
    """

    name: str
    key: str | None
    help: str
    parse: Callable[[str], Any]
    many: bool = False
    flag: bool = False
    metavar: str | None = None
    collect: Callable[[list[Any]], Any] = tuple
    short: str = ""

    @property
    def switch(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names that a complaint may use."""
        return (self.switch, self.variable, *filter(None, (self.key,)))


@dataclass(frozen=True)
class CaSource:
    """Where a CA comes from: the PEM text itself (`inline`), a path (`file`), standard input, a URL (`https`),
    or what AWS keeps (`aws`: s3, ssm, secretsmanager). Of a URL and of AWS, `value` is the text with its scheme.
    """

    kind: Literal["inline", "https", "file", "stdin", "aws"]
    value: str = ""

    @classmethod
    def of(cls, text: str) -> CaSource:
        """Read what records, requests and configuration files hold, without judging it."""
        if text.startswith("inline:") or "-----BEGIN" in text:
            return cls("inline", text.removeprefix("inline:"))
        if text == "-":
            return cls("stdin", text)
        if text.startswith("https://"):
            return cls("https", text)
        if text.startswith(("s3://", "ssm:", "secretsmanager:")):
            return cls("aws", text)
        # a record of an older version holds the URI of a file itself
        return cls(
            "file", next((text[len(each) :] for each in ("file://", "file:") if text.startswith(each)), text)
        )

    @property
    def text(self) -> str:
        """The spelling that `of` reads, in records and requests."""
        if self.kind == "inline":
            return f"inline:{self.value}"
        return self.value if CaSource.of(self.value) == self else f"file:{self.value}"

    @property
    def is_remote(self) -> bool:
        """Whether it means the same on every machine."""
        return self.kind in ("https", "aws")


class InvalidValueError(ValueError):
    """A value is not acceptable; the text is the complaint."""


def spelled_address(text: str) -> str:
    """Return an IP address in its one spelling, an IPv4 address for IPv6 as the first. Raises ValueError."""
    # 010 is 8 to some programs and 10 to others; Pythons before 3.9.5 take it, newer ones refuse
    if "%" in text or re.search(r"(^|[.:])0\d+\.|\.0\d", text):
        raise ValueError(text)
    address = ipaddress.ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


# what no ENI has as its address, by the registries of IANA; the first that fits is named
_NOBODYS = tuple(
    (ipaddress.ip_network(network), what)
    for network, what in (
        ("0.0.0.0/32", "any address of this host"),
        ("::/128", "any address of this host"),
        ("127.0.0.0/8", "this host itself"),
        ("::1/128", "this host itself"),
        ("0.0.0.0/8", "this network"),
        ("255.255.255.255/32", "everybody on this network"),
        ("224.0.0.0/4", "a multicast group"),
        ("ff00::/8", "a multicast group"),
        ("169.254.0.0/16", "a link-local address"),
        ("fe80::/10", "a link-local address"),
        ("240.0.0.0/4", "a reserved address"),
        # an HSM with an IPv4 address is named by that address: with one of these beside it, one HSM counts as two
        ("64:ff9b::/96", "an IPv4 address behind NAT64"),
        ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
        ("2002::/16", "an IPv4 address by 6to4"),
        ("2001::/32", "an IPv4 address by Teredo"),
        ("100::/64", "an address where everything is discarded"),
        ("::/96", "a reserved address"),
    )
)


def _address(text: str) -> str:
    hint = "an IPv4 or IPv6 address of an HSM's ENI is wanted, such as 10.0.1.6"
    text = text.strip()
    try:
        spelled = spelled_address(text)
    except ValueError:
        if "%" in text:
            hint = "an HSM's address has no scope behind a percent sign"
        elif re.fullmatch(r"\[?[0-9a-fA-F.:]+\]?:\d+", text):
            hint = "the address alone is wanted; the port is always 2223"
        elif re.fullmatch(r"[A-Za-z0-9.-]+", text) and re.search(r"[A-Za-z]", text):
            hint = (
                "a name is not accepted, since the configure tool takes addresses only; "
                "the ENI's IP address is wanted"
            )
        raise InvalidValueError(f"{text!r} is not an IP address: {hint}") from None
    address = ipaddress.ip_address(spelled)
    what = next((what for network, what in _NOBODYS if address in network), None)
    if what is not None:
        raise InvalidValueError(f"{text!r} is no HSM's address, it means {what}: {hint}")
    return spelled


def _cluster_id(text: str) -> str:
    if CLUSTER_ID.fullmatch(text.strip()):
        return text.strip()
    raise InvalidValueError(f"{text!r} is not the id of a cluster, such as cluster-2abcdefghij")


def _region(text: str) -> str:
    if re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-\d{1,2}", text.strip()):
        return text.strip()
    raise InvalidValueError(f"{text!r} is not an AWS region, such as eu-central-1")


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in allowed:
            return text
        from difflib import get_close_matches  # noqa: PLC0415 -- only for a complaint

        near = get_close_matches(text, allowed, 1)
        raise InvalidValueError(
            f"{text!r} is not one of {', '.join(allowed)}" + (f"; did you mean {near[0]}?" if near else "")
        )

    return parse


def _plain(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise InvalidValueError("an empty value")
    return text


def _path(text: str) -> str:
    try:
        return parse_path(text)
    except ValueError as error:
        raise InvalidValueError(str(error)) from None


def _local(text: str) -> str:
    """Take a `file:` URI as the path that it names, and a path as it is."""
    try:
        return path_of_uri(text)
    except ValueError as error:
        raise InvalidValueError(str(error)) from None


def _parser(option: ClientOption) -> Callable[[str], str]:
    """Return what reads an option that is passed on: one of its words or a path, or what unsets it."""
    if option.unset == NONE:
        return lambda text: NONE if text.strip() in ("", "none") else _path(text)
    if option.is_path:
        return lambda text: text if text == option.unset else _path(text)
    return _one_of(*option.words, option.unset)


def _ca(text: str) -> CaSource:
    if "-----BEGIN" in text or text.startswith("inline:") or text == "-":
        return CaSource.of(text)
    scheme = scheme_of(text)
    if scheme in ("s3", "ssm", "secretsmanager"):
        return _ca_in_aws(scheme + text[len(scheme) :])
    if scheme == "http":
        raise InvalidValueError("a CA is not fetched over http; use https: or a file")
    if scheme == "https" and text[len("https:") :].startswith("//"):
        return CaSource("https", _web(text, "download it once, and name the file"))
    if scheme == "file":
        # a person may also mean a file below the current folder
        is_whole = re.match(r"[/\\]|[A-Za-z]:[/\\]", text[5:])
        return CaSource("file", _local(text) if is_whole else _plain(text[5:]))
    if scheme not in (None, "https") and "://" in text:
        raise InvalidValueError(
            f"{redact_url(text)!r} is not a path, -, file:, https:, s3:, ssm: or secretsmanager:"
        )
    return CaSource("file", _plain(text))


def _ca_in_aws(uri: str) -> CaSource:
    from agent.core.aws_names import name_of  # noqa: PLC0415 -- only for what AWS keeps

    try:
        name_of(uri)
    except ValueError as error:
        raise InvalidValueError(str(error)) from None
    return CaSource("aws", uri)


def _source(text: str) -> str:
    text = _plain(text)
    scheme = scheme_of(text)
    if scheme in ("http", "https"):
        text = _web(text, "copy what is needed once, and name the directory")
    elif scheme == "s3":
        text = _prefix(f"s3{text[2:]}")
    elif scheme == "file":
        text = _local(text)
    elif scheme is not None and re.match(r"[^:]+://", text):
        raise InvalidValueError(
            f"{redact_url(text)!r} is not http://, https://, s3://, file:/// or a directory"
        )
    # on Linux a backslash is a character like any other
    is_windows = is_absolute(text) and not text.startswith("/")
    return text.rstrip("/\\" if is_windows else "/") or "/"


def _prefix(uri: str) -> str:
    from agent.core.aws_names import s3_prefix  # noqa: PLC0415 -- only for what S3 keeps

    try:
        s3_prefix(uri)
    except ValueError as error:
        raise InvalidValueError(str(error)) from None
    return uri


def _web(text: str, instead: str) -> str:
    """Take an http or https URL without a user and a password: what is asked for stands in files that others read."""
    if names_user(text):
        raise InvalidValueError(
            f"{redact_url(text)!r} was given with a user or a password, which everybody on this host could see: "
            f"{instead}; in a path, @ is written as %40"
        )
    try:
        parts = split(text)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or not re.fullmatch(r"[A-Za-z]+://[!-~]+", text):
        form = "https://HOST/PATH is wanted, with other characters percent-encoded"
        raise InvalidValueError(f"{redact_url(text)!r} is not a URL: {form}")
    return parts.scheme + text[len(parts.scheme) :]


def _version(text: str) -> str:
    if text == "latest" or re.fullmatch(r"\d+\.\d+\.\d+(-\d+)?", text):
        return text
    raise InvalidValueError(f"{text!r} is not a version: one such as 5.18.0, or latest, is wanted")


SDKS = (5, 3)


def _sdk(text: str) -> int:
    return int(_one_of(*map(str, SDKS))(text))


def _checksum(text: str) -> str:
    name, _, value = text.partition("=")
    if name and "/" not in name and re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return f"{name}={value.lower()}"
    raise InvalidValueError(f"{text!r} is not FILE=SHA256 (64 hexadecimal digits)")


def checksums_of(pairs: Iterable[str]) -> dict[str, str]:
    """Return file -> SHA-256 of FILE=SHA256 pairs. Raises ValueError for another form."""
    return dict(pair.split("=", 1) for pair in pairs)


def _fingerprint(text: str) -> str:
    try:
        return parse_fingerprint(text)
    except ValueError as error:
        raise InvalidValueError(str(error)) from None


def _row(text: str) -> str:
    # which rows there are is the catalogue's to say; here only what can be a name at all
    if re.fullmatch(r"[a-z0-9.]+", text):
        return text
    raise InvalidValueError(f"{text!r} is not the name of a catalogue row, such as el9 or u24.04")


_LONGEST_AGE = 3650 * 86400  # seconds


def duration(text: str) -> float:
    """Return seconds from `90`, `90s`, `15m` or `2h`. Raises ValueError with a sentence."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= 86400:
        raise InvalidValueError(f"{text!r} is not a duration between 1s and 24h, such as 90s, 15m or 2h")
    return seconds


def age(text: str) -> float:
    """Return seconds from `36h`, `30d` or `2w`, and whatever `duration` reads. Raises ValueError with a sentence."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|m|h|d|w|)", text.strip())
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    seconds = float(match[1]) * units[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST_AGE:
        raise InvalidValueError(f"{text!r} is not an age between 1s and 3650d, such as 36h, 30d or 2w")
    return seconds


def _place(text: str) -> str:
    from agent.sinks.registry import check  # noqa: PLC0415 -- only where a report goes somewhere

    try:
        check(text)
    except ValueError as error:
        raise InvalidValueError(str(error)) from None
    return text


def _yes(text: str) -> bool:
    return _one_of("true", "false", "1", "0", "yes", "no")(text.lower()) in ("true", "1", "yes")


OPTIONS = (
    Option("hsm_ip", "hsm.ip", "ENI address of an HSM, IPv4 or IPv6; all go to the configure tool in one call",
           _address, many=True, metavar="IP"),
    Option("cluster_id", "hsm.cluster_id",
           "ask AWS for the addresses of this cluster; with --hsm-ip, those are used and must be the cluster's",
           _cluster_id, metavar="ID"),
    Option("region", "hsm.region",
           "the cluster's AWS region; default: AWS_REGION, AWS_DEFAULT_REGION, instance metadata",
           _region, metavar="REGION"),
    Option("ca_cert", "hsm.ca_cert",
           "customerCA.crt: a path, -, file:PATH, https:URL, the PEM text itself, s3://BUCKET/KEY, ssm:NAME or "
           "secretsmanager:NAME[#KEY]", _ca, metavar="SOURCE"),
    Option("ca_fingerprint", "hsm.ca_fingerprint",
           "expected SHA-256 of the CA (of the root, for a chain); any other CA is refused",
           _fingerprint, metavar="SHA256"),
    Option("replace_ca", None, "allow a CA different from the one on the host", _yes, flag=True),
    Option("component", "client.components",
           f"{', '.join(NAMES).replace('cli', 'cli (default)', 1)}; installed components are always configured too",
           _one_of(*NAMES), many=True, metavar="NAME"),
    Option("client_version", "client.version",
           "a pinned version, or latest (unverified); default: what is installed, else the catalogue's newest",
           _version, metavar="V"),
    Option("package_source", "client.source",
           "a mirror, s3://BUCKET/PREFIX or directory with the vendor's layout; checksums are enforced there too",
           _source, metavar="URL|DIR"),
    Option("sha256", "client.sha256", "a checksum for a file that the catalogue does not know", _checksum, many=True,
           metavar="FILE=HASH", collect=checksums_of),
    Option("sdk", "client.sdk", "5 (default), or 3: the end-of-support client, from your own mirror", _sdk,
           metavar="5|3"),
    Option("platform", "client.platform", "treat this host as a catalogue row, such as el9 on Rocky Linux", _row,
           metavar="ROW"),
    Option("accept_single_hsm", "hsm.accept_single_hsm",
           "turn the key-availability check off, for a cluster with one HSM; every report says so", _yes, flag=True),
    Option("allow_firewall", "hsm.allow_firewall",
           "on Windows: add a firewall rule for TCP 2223-2225 out; remove deletes it", _yes, flag=True),
    Option("attach_group", "hsm.attach_group",
           "with --cluster-id: attach the cluster's security group to this instance; remove detaches it", _yes,
           flag=True),
    *(
        Option(each.name, f"client.{each.name}", each.help, _parser(each), metavar=each.metavar)
        for each in CLIENT_OPTIONS
    ),
    Option("report_to", "report.to",
           "a report sink of configure and verify: `hsm-agent help reports`",
           _place, many=True, metavar="URI"),
    Option("report_ca", "report.ca", "the CA of https receivers, instead of the host's own (path on this host)", _path,
           metavar="PATH"),
    Option("report_token_file", "report.token_file", "the bearer token for https receivers (path on this host)", _path,
           metavar="PATH"),
    Option("timeout", None, "a limit for the whole run and for each wait in it: 90s, 15m, 2h", duration,
           metavar="DURATION"),
)  # fmt: skip
BY_KEY = {option.key: option for option in OPTIONS if option.key}
