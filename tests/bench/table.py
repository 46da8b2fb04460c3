"""Where the tables are kept: in README.md, each between two marks of its own."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).with_name("README.md")


def keep(table: str, name: str) -> None:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = README.read_text(encoding="utf-8").partition(begin)
    _, also, after = rest.partition(end)
    assert found, f"{README} has no {begin}"
    assert also, f"{README} has no {end}"
    README.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")
