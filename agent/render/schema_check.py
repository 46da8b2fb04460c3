"""Checks a document from a host against its published schema, for the part of JSON Schema that the schemas use.

fastjsonschema 2.22 was measured in its place: 15 ms for its import and 70 to 110 ms to compile the schema of a report,
in each command of the operator before the first host answers, against nothing here. It then takes 0.3 ms for a report,
against 1.2, so it pays from some hundred hosts on. It reads the schemas of draft 2020-12 as draft 7, and ignores an
unknown keyword; here it is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
# keywords that do not constrain a value, and those that lead to nested values
_ELSEWHERE = {
    "description",
    "title",
    "$schema",
    "$id",
    "$defs",
    "$ref",
    "if",
    "then",
    "else",
    "properties",
    "required",
    "items",
}


def first_violation(document: object, node: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """Return the first place where a document violates a node of its schema, such as `steps.3.outcome`; or None.

    A schema with an unknown keyword is a defect, and a ValueError.
    """
    return next((path.lstrip(".") or "the whole" for path in _faults(document, node, schema, "")), None)


def _faults(value: object, node: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{path}.{key}" for key in node.get("required", ()) if key not in value)
    for place, each, rule in _inside(value, node, schema):
        yield from _faults(each, rule, schema, path + place)
    if not all(
        _holds(value, word, wanted, schema) for word, wanted in node.items() if word not in _ELSEWHERE
    ):
        yield path


def _inside(
    value: object, node: Mapping[str, Any], schema: Mapping[str, Any]
) -> Iterator[tuple[str, object, Mapping[str, Any]]]:
    """Yield the nested values to check: place, value, and the node of the schema that applies to it."""
    if "$ref" in node:
        yield "", value, schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    if "if" in node:
        yield "", value, node.get("then" if _fits(value, node["if"], schema) else "else", {})
    if isinstance(value, dict):
        for key, rule in node.get("properties", {}).items():
            if key in value:
                yield f".{key}", value[key], rule
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield f".{number}", each, node.get("items", {})


def _fits(value: object, node: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    return next(_faults(value, node, schema, ""), None) is None


def _holds(value: object, word: str, wanted: Any, schema: Mapping[str, Any]) -> bool:
    if word == "type":
        return any(_is(value, name) for name in ([wanted] if isinstance(wanted, str) else wanted))
    elif word in ("enum", "const"):
        return any(_same(value, each) for each in (wanted if word == "enum" else [wanted]))
    elif word == "oneOf":
        return sum(_fits(value, each, schema) for each in wanted) == 1
    elif word == "pattern":
        return not isinstance(value, str) or re.search(wanted, value) is not None
    elif word in ("minimum", "maximum"):
        counts = isinstance(value, (int, float)) and not isinstance(value, bool)
        return not counts or (value >= wanted if word == "minimum" else value <= wanted)
    elif word in ("maxLength", "maxItems"):
        return not isinstance(value, str if word == "maxLength" else list) or len(value) <= wanted
    message = f"the schema has a word that is not known: {word}"
    raise ValueError(message)


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float) and name == "integer":
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _same(value: object, wanted: object) -> bool:
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted
