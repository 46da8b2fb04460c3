"""What the vendor's tools say: cloudhsm-cli's JSON answer in noise, and messages whose cause is known."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agent.cloudhsm import lenient_json

if TYPE_CHECKING:
    from agent.core.codes import CodeName

# What is looked at, from the end: `user list` of a full cluster is some hundred kB.
_MOST_TEXT = 1024 * 1024
_MOST_ANSWERS = 16
_MOST_BRACES = 4
_LONGEST_LINE = 300


@dataclass(frozen=True)
class CliResponse:
    """One JSON object of cloudhsm-cli: `error_code` 0 and what was asked, or another code and a sentence."""

    error_code: int
    data: object

    @property
    def ok(self) -> bool:
        return self.error_code == 0


class KnownFailure(NamedTuple):
    """A known message: the code it stands for, its line, and a hint where the code's own is too wide."""

    code: CodeName
    saw: str
    hint: str | None


def parse_response(text: str) -> CliResponse | None:
    """Return the last complete JSON object with an integer `error_code`, or None.

    The last, because the tool answers when it is done, and what stands before are log lines (they come to
    standard output when the log file cannot be written), which may quote an earlier answer. An object inside
    another is not an answer. The cost is bounded: the last megabyte, few places in it, few braces each.
    """
    text = text[-_MOST_TEXT:]
    places = [found.start() for found in re.finditer('"error_code"', text)][-_MOST_ANSWERS:]
    if not places:
        return None
    braces = [found.start() for found in re.finditer("[{}]", text)]
    answer, end = None, 0
    for place in places:
        if place < end:
            continue
        for start in _openings(text, braces, place):
            read = _read(text, start)
            if read is not None:
                answer, end = read
                break
    return answer


def hsm_serials(answer: CliResponse) -> tuple[str, ...]:
    """Return the distinct serial numbers in an answer to `cluster hsm-info`, which has no addresses."""
    serials = (lenient_json.as_str(row.get("serial-number")) for row in _listed(answer, "hsms"))
    return tuple(dict.fromkeys(serial for serial in serials if serial))


def activated(answer: CliResponse) -> bool | None:
    """Tell from `user list` whether the cluster was activated, None when the answer does not say.

    Until `cluster activate` the admin has the role `unactivated-admin` (cloudhsm_cli-user-list).
    """
    roles = [row.get("role") for row in _listed(answer, "users")]
    if "unactivated-admin" in roles:
        return False
    return True if "admin" in roles else None


def inconsistent(answer: CliResponse) -> tuple[str, ...]:
    """Return the users in an answer to `user list` that are not on every HSM (`cluster-coverage`)."""
    names = (
        lenient_json.as_str(row.get("username"))
        for row in _listed(answer, "users")
        if row.get("cluster-coverage") == "inconsistent"
    )
    return tuple(dict.fromkeys(name for name in names if name))


def diagnose(text: str) -> KnownFailure | None:
    """Name the cause of a failure from what a tool printed or logged, None when no message in it is known.

    Causes before consequences: the rows are in that order, and of one row the last line in the text counts.
    """
    text = text[-_MOST_TEXT:]
    for pattern, code, hint in _MESSAGES:
        found = list(pattern.finditer(text))
        if not found:
            continue
        line = _line_around(text, found[-1].start(), found[-1].end())
        if pattern is _VERIFICATION:
            code, hint = _TLS.get(found[-1][1], (code, hint))  # noqa: PLW2901 - the number says more
        return KnownFailure(code, line, hint)
    return None


# `ki-all` lists the first known number, 67; they are OpenSSL's X509_V_ERR_* codes.
_VERIFICATION = re.compile(r"Certificate verification error with error code (\d+) and depth (\d+): ([^\n]*)")
_CLOCK = "check this host's clock with `date -u`; if it is right, a certificate of the cluster is out of date"
_TLS: dict[str, tuple[CodeName, str | None]] = {
    "9": ("client-tls-failed", _CLOCK),
    "10": ("client-tls-failed", _CLOCK),
    "67": (
        "ca-key-weak",
        "clients 5.17.0 and 5.17.1 refuse a CA key below RSA 2048: use `--client-version 5.17.2` or newer",
    ),
}

# Where a hint is None, the code's own says it. Sources: the troubleshooting and known-issues pages of the
# User Guide, and for messages that only users published: GitHub aws-samples/aws-cloudhsm-jce-examples#97 (the
# placeholder), aws-samples/aws-cloudhsm-cloudformation-template#16 (the appender).
_MESSAGES: tuple[tuple[re.Pattern[str], CodeName, str | None], ...] = (
    (
        re.compile(r"Config key hostname has invalid value|%%(?:HSM_IP_ADDRESS|SERVER_ADDR)%%"),
        "configure-not-applied",
        "this component was never configured; `hsm-agent configure` does it for every installed one",
    ),
    (
        re.compile(r"multiple clusters provided in configuration file"),
        "configure-not-applied",
        "the file names several clusters; `configure-cli remove-cluster --cluster-id ID` takes one out",
    ),
    (
        re.compile(r"Could not read configuration-referenced file client_(?:cert|key)_hsm_tls_path"),
        "configure-not-applied",
        "the entry for mutual TLS names no readable file; pass `--client-cert` and `--client-key`",
    ),
    (
        re.compile(r"Could not read configuration-referenced file"),
        "configure-not-applied",
        "the file names another file that this host does not have; put it there, or configure again",
    ),
    (
        re.compile(r"NotPkcs8"),
        "client-failed",
        "convert the client key: `openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW`, or use client 5.12.0+",
    ),
    (
        re.compile(r"error while loading shared libraries|cannot open shared object file"),
        "library-unloadable",
        None,
    ),
    (
        re.compile(r"failed to create appender"),
        "client-failed",
        "the client may not write its log: check the owner of /opt/cloudhsm/run, or pass `--log-type term`",
    ),
    (
        re.compile(r"No credentials in the property bag"),
        "configure-failed",
        "no AWS credentials: in a container set the IMDSv2 hop limit to 2, or name HSMs with `--hsm-ip`",
    ),
    (_VERIFICATION, "client-tls-failed", None),
    (
        re.compile(r"Error in deserialization of data"),
        "client-failed",
        "a client up to 5.12 does not understand an hsm2m.medium: raise `--client-version`",
    ),
    (re.compile(r"does not meet the availability requirements"), "single-hsm-not-accepted", None),
    (re.compile(r"LIQUIDSECURITY: Daemon socket connection error"), "service-failed", None),
    (re.compile(r"HSM is disconnected"), "client-disconnected", None),
)


def _openings(text: str, braces: list[int], place: int) -> list[int]:
    """Return where the objects around `place` begin, innermost first."""
    found: list[int] = []
    depth = 0
    for at in range(bisect_left(braces, place) - 1, -1, -1):
        if text[braces[at]] == "}":
            depth += 1
        elif depth:
            depth -= 1
        else:
            found.append(braces[at])
            if len(found) == _MOST_BRACES:
                break
    return found


def _read(text: str, start: int) -> tuple[CliResponse, int] | None:
    try:
        value, end = lenient_json.DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    code = lenient_json.as_object(value).get("error_code")
    number = lenient_json.as_int(code) if isinstance(code, float) else None
    return None if number is None else (CliResponse(number, value.get("data")), end)


def _listed(answer: CliResponse, key: str) -> list[dict[str, object]]:
    if not answer.ok:
        return []
    return [
        lenient_json.as_object(row)
        for row in lenient_json.as_array(lenient_json.as_object(answer.data).get(key))
    ]


def _line_around(text: str, start: int, end: int) -> str:
    """Return the line around a match, printable and of bounded length, the match in it."""
    first = max(text.rfind("\n", 0, start) + 1, start - _LONGEST_LINE // 3)
    last = text.find("\n", end)
    line = text[first : first + _LONGEST_LINE if last < 0 else min(last, first + _LONGEST_LINE)]
    return "".join(letter for letter in line if letter.isprintable()).strip()
