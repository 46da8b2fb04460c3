"""A configuration file of the client as a JSON document: what a stricter reader than Python's finds wrong with it."""

from __future__ import annotations

import codecs
import json
from typing import Any, NoReturn

from agent.cloudhsm import lenient_json

# a real file has 1 to 2 kB
_MOST_BYTES = 1024 * 1024
_MOST_DIGITS = 20
_MOST_SHOWN = 40
# A fresh package ships %%HSM_IP_ADDRESS%% (SDK 5) or %%SERVER_ADDR%% (SDK 3): never configured.
PLACEHOLDER = "%%"


def parse_document(data: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return what a file holds, and what of its spelling a stricter reader than Python's refuses.

    Raises ValueError, with a clause about "it", for what is no JSON object.
    """
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes, more than any configuration file")
    if not data.strip():
        raise ValueError("it is empty")
    faults = ["it begins with a byte order mark"] if data.startswith(codecs.BOM_UTF8) else []
    try:
        found = _decoder(faults).decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one exception for all a file can be
    return found, faults


def to_bytes(document: dict[str, Any]) -> bytes:
    """Return a document as the file holds it. Raises ValueError, with a clause about "it", for what JSON lacks."""
    try:
        return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    except (ValueError, RecursionError):
        raise ValueError("it holds a number that is none, or is nested too deeply") from None


def value_of(holder: dict[str, Any], key: str, kind: type, faults: list[str], *, needed: bool = False) -> Any:
    """Return the value of a key that has its one form; None without it, and with a fault for another."""
    if key not in holder:
        if needed:
            faults.append(f"it has no {key}")
        return None
    value = holder[key]
    if type(value) is kind and not (
        kind is str and lenient_json.as_str(value) != value
    ):  # a bool is an int to Python
        return value
    faults.append(f"{key} is {shown(value)}")
    return lenient_json.as_str(value) if kind is str else None


def is_good(holder: dict[str, Any], key: str, kind: type) -> bool:
    """Tell whether a key is there, has its one form and is not empty."""
    faults: list[str] = []
    value = value_of(holder, key, kind, faults, needed=True)
    return not faults and value != ""


def shown(value: object) -> str:
    """Return a value as it is quoted in a fault: bounded, and without what an object holds."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def objects_in(holder: dict[str, Any], key: str, faults: list[str]) -> list[dict[str, Any]]:
    """Return the objects in a list; anything else in it is a fault, and counts as one that holds nothing."""
    found = []
    for each in value_of(holder, key, list, faults, needed=True) or []:
        if not isinstance(each, dict):
            faults.append(f"{key} holds {shown(each)}")
        found.append(lenient_json.as_object(each))
    return found


def _decoder(faults: list[str]) -> json.JSONDecoder:
    """Return a decoder that adds a fault for each duplicate key of an object."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, value in pairs:
            if key in members:
                faults.append(f"{shown(key)} stands there twice")
            members[key] = value
        return members

    return json.JSONDecoder(parse_int=_integer, parse_constant=_refuse, object_pairs_hook=once)


def _integer(digits: str) -> int | float:
    """Read an integer; a very long one as a float, so that a million digits cost nothing."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
