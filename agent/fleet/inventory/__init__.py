"""The bytes of an inventory -> targets, or all input errors together; and `--limit`.

Three formats are read; the name or the first byte decides, and nothing is guessed. `ec2:` is no file (see `ec2.py`).

- TOML, when the name ends in `.toml` (see `toml.py`);
- JSON as `ansible-inventory --list` prints it, when the name ends in `.json` or the text begins with a brace;
- lines otherwise: Ansible's INI, of which a plain list, `[user@]host[:port]` on each line, is the simplest case.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from agent.config.input_errors import InputErrors
from agent.fleet.inventory import ansible_json, ec2, ec2_selection, ini, toml
from agent.fleet.inventory.host_pattern import select
from agent.fleet.inventory.ranges import MOST_HOSTS
from agent.fleet.inventory.validators import RESERVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.fleet_model import Target
    from agent.core.host import HostView

__all__ = ["EC2", "LARGEST", "read", "refuse_any", "select", "selection"]

# How an inventory begins that is no file.
EC2 = ec2_selection.SCHEME
LARGEST = 4_000_000
MOST_COMPLAINTS = 100


class _EnoughError(Exception):
    """So much is wrong that the rest is not worth the time."""


class _Bounded(InputErrors):
    def add(self, where: str, text: str) -> None:
        super().add(where, text)
        if len(self.texts) == MOST_COMPLAINTS:
            raise _EnoughError


def read(
    data: bytes,
    where: str,
    input_errors: InputErrors,
    remarks: InputErrors | None = None,
    view: HostView | None = None,
    source: ec2.InstanceSource | None = None,
) -> tuple[Target, ...]:
    """Return the hosts of an inventory, in its order; none when there is an input error.

    `where` is the name of the file, or all of it for `ec2:...`. `remarks` collects warnings. `view` reads the machine
    that has the file, where Ansible also reads other files. `source` asks EC2: then AgentError of exit status 12 is
    raised, and `cluster-not-found`.
    """
    wrong = _Bounded()
    targets: tuple[Target, ...] = ()
    try:
        targets = _targets(data, where, wrong, InputErrors() if remarks is None else remarks, view, source)
        if not wrong.texts:
            _check(targets, where, wrong)
        enough = False
    except _EnoughError:
        enough = True
    input_errors.texts += sorted(wrong.texts, key=lambda text: _line(text, where))
    if enough:
        input_errors.add(where, "there are too many errors: the rest was not checked")
    return () if wrong.texts else targets


def selection(view: HostView, where: str, input_errors: InputErrors) -> ec2_selection.Ec2Selection | None:
    """Return which instances an inventory selects; None where it selects none. AWS is not asked."""
    if where.startswith(EC2):
        return ec2_selection.parse(where, where, input_errors)
    data = view.read(where) if where.endswith(".toml") else b""
    if data is None:
        input_errors.add("--inventory", f"there is no file {where}")
        return None
    return toml.selection(_text(data, where, input_errors), where, input_errors)


def refuse_any(input_errors: InputErrors) -> None:
    """Raise AgentError `inventory-invalid` with all input errors, if there are any."""
    input_errors.raise_any("inventory-invalid", "the inventory")


def _targets(
    data: bytes,
    where: str,
    input_errors: InputErrors,
    remarks: InputErrors,
    view: HostView | None,
    source: ec2.InstanceSource | None,
) -> tuple[Target, ...]:
    if where.startswith(ec2_selection.SCHEME):
        return ec2.read(where, where, input_errors, remarks, source)
    text = _text(data, where, input_errors)
    start = text.lstrip()
    is_program = start.startswith("#!")
    if input_errors.texts:
        return ()
    if is_program or where.endswith((".yaml", ".yml")) or start.startswith("---"):
        reason = "a program is not run" if is_program else "YAML is not read"
        input_errors.add(where, f"{reason}: `ansible-inventory -i FILE --list > fleet.json` makes JSON of it")
        return ()
    if where.endswith(".toml"):
        return toml.read(text, where, input_errors, remarks, source)
    if where.endswith(".json") or start.startswith("{"):
        return ansible_json.read(text, where, input_errors, remarks, view)
    return ini.read(text, where, input_errors, remarks, view)


def _text(data: bytes, where: str, input_errors: InputErrors) -> str:
    if len(data) > LARGEST:
        input_errors.add(where, f"too large: {len(data):,} bytes, at most {LARGEST:,} are read")
        return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "; it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        input_errors.add(f"{where}:{line}", f"not UTF-8: byte {error.start}{hint}")
        return ""


def _check(targets: Sequence[Target], where: str, input_errors: InputErrors) -> None:
    """Report errors that only the complete inventory shows."""
    if not targets:
        input_errors.add(where, "it names no host")
    if len(targets) > MOST_HOSTS:
        input_errors.add(where, f"too many hosts: {len(targets):,}, at most {MOST_HOSTS:,}")
        return
    seen: dict[tuple[str, int, str | None], Target] = {}
    for target in targets:
        if target.name in RESERVED:
            input_errors.add(
                target.where, f"`{target.name}` is no name for a host: it has a meaning in --limit"
            )
        # The user does not matter: two runs must not change one machine at once. Behind another jump host the
        # same private address is another machine.
        spot = (_plain(target.address), target.port or 22, target.jump)
        first = seen.setdefault(spot, target)
        if first is not target:
            input_errors.add(
                target.where,
                f"{target.name} is the same machine as {first.name} at {first.where}: "
                f"{target.address}, port {target.port or 22}",
            )


def _line(complaint: str, where: str) -> int:
    number = re.match(r":([0-9]+):", complaint[len(where) :])
    return int(number[1]) if number else 0


def _plain(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower().rstrip(".")
