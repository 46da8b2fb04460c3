"""No expression takes time with the square of what it is given: a line from a host, a tool or a server is as long as it likes."""

from __future__ import annotations

import ast
import re
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Union

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sre_parse

AGENT = Path(__file__).parents[2] / "agent"
# what is repeated: blanks and letters, what opens and separates, and every text that the expression itself has in it
UNITS = (" ", "\t", "a", "0", "-", "\\", "[", ":", "=", "/", " a", "0.", "a/", '"a', "_x", ": ")
CALLS = {"sub": ("search",), "split": ("search",), "finditer": ("findall",)}
USES = ("search", "match", "fullmatch", "sub", "split", "findall", "finditer")
Text = Union[str, bytes]


def expressions() -> Iterator[tuple[str, str, Text, int]]:
    """Yield where an expression is written, how it is used, itself and its flags: each that is a constant."""
    for path in sorted(AGENT.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "import re\n" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            of, pattern = node.func.value, node.args[0]
            if (
                isinstance(of, ast.Name)
                and of.id == "re"
                and isinstance(pattern, ast.Constant)
                and isinstance(pattern.value, (str, bytes))
            ):
                where = f"{path.relative_to(AGENT)}:{node.lineno}"
                for use in uses_of(node.func.attr, source, node.lineno):
                    yield where, use, pattern.value, flags_of(node)


def uses_of(call: str, source: str, number: int) -> tuple[str, ...]:
    """Return how an expression is used: one that has a name, wherever the name stands; else in every way there is."""
    if call != "compile":
        return (call,)
    name = re.match(r"(\w+)(: [^=]+)? = re\.compile\(", source.splitlines()[number - 1])
    found = {use for use in USES if name and f"{name[1]}.{use}" in source}
    return tuple(sorted(found)) or ("search", "match", "fullmatch")


def flags_of(call: ast.Call) -> int:
    named = [
        each.attr
        for argument in (*call.args[1:], *(keyword.value for keyword in call.keywords))
        for each in ast.walk(argument)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "re"
    ]
    return sum(int(getattr(re, name)) for name in named if name.isupper())


def literals(tree: Any) -> list[str]:
    """Return the texts that stand in an expression, in order."""
    found: list[str] = []
    run = ""
    for kind, value in tree:
        if str(kind) == "LITERAL":
            run += chr(value)
            continue
        found, run = [*found, run], ""
        for each in flat(value):
            found += literals(each)
    return [text for text in (*found, run) if text]


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, sre_parse.SubPattern):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from flat(each)


def hostile(pattern: Text) -> Iterator[Callable[[int], str]]:
    """Yield makers of lines of a length that come near to what an expression wants, again and again."""
    said = literals(sre_parse.parse(pattern if isinstance(pattern, str) else pattern.decode("latin-1")))
    units = dict.fromkeys(
        [*UNITS, *said, "".join(said), " ".join(said), *("".join(said[:n]) for n in (2, 3))]
    )
    for before in dict.fromkeys(["", *said[:1], "".join(said[:2]), "a", '"']):
        for unit in filter(None, units):
            yield lambda length, before=before, unit=unit: (  # type: ignore[misc]
                before + unit * (length // len(unit) + 1) + "\0"
            )


def seconds(use: Callable[[Any], object], line: Text) -> float:
    """Return the processor time that it takes, whatever else the machine does; the least of three."""
    taken = []
    for _ in range(3):
        began = time.thread_time()
        use(line)
        taken.append(time.thread_time() - began)
        if taken[-1] < 0.0005:
            break
    return min(taken)


def squared(pattern: Text, call: str, flags: int) -> str:
    """Return the line that an expression takes too long for; empty when there is none."""
    compiled = re.compile(pattern, flags)
    for name in CALLS.get(call, (call,)):
        use = getattr(compiled, name)
        for made in hostile(pattern):

            def line(length: int) -> Text:
                text = made(length)  # noqa: B023 -- called at once
                return text if isinstance(pattern, str) else text.encode("latin-1", "replace")

            # what is cubic is not asked about a long line
            if seconds(use, line(600)) > 0.02 or (
                seconds(use, line(4800)) > 0.001 and seconds(use, line(4800)) > 9 * seconds(use, line(1200))
            ):
                return f"{name} {made(40)!r}"
    return ""


@pytest.mark.parametrize(
    ("where", "call", "pattern", "flags"),
    [pytest.param(*each, id=f"{each[0]}-{each[1]}") for each in expressions()],
)
def test_an_expression_takes_time_in_proportion(where: str, call: str, pattern: Text, flags: int) -> None:
    assert squared(pattern, call, flags) == "", where


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern", [r"\s+$", r"Product: .+? -- (.+)", r"\s*\[\s*([^\]]+?)\s*\]", r"<S>(.*?)</S>", r"a*a*b"]
)
def test_one_that_does_not_is_found(pattern: str) -> None:
    assert squared(pattern, "search", re.DOTALL)
