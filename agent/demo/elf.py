"""A small real shared object, made without a compiler, for the dynamic loader, ldd and /proc/PID/maps."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# machine -> (e_machine, a function that returns 0x54, CKR_FUNCTION_NOT_SUPPORTED)
_MACHINES = {
    "x86_64": (62, bytes.fromhex("b854000000c3")),
    "aarch64": (183, bytes.fromhex("800a8052c0035fd6")),
}
_PAGE = 0x10000  # the largest page of either machine
_STACK = 0x6474E551  # PT_GNU_STACK: without it glibc requires an executable stack
_EHDR, _PHDR, _SYM = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), struct.Struct("<IBBHQQ")
_NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME = 1, 4, 5, 6, 10, 11, 14


def shared_object(machine: str, soname: str, *, exports: Sequence[str], needed: Sequence[str]) -> bytes:
    """Return an ELF shared object that exports these functions and needs these libraries."""
    number, code = _MACHINES[machine]
    strings = bytearray(b"\0")

    def name(text: str) -> int:
        at = len(strings)
        strings.extend(text.encode() + b"\0")
        return at

    needs = [(_NEEDED, name(one)) for one in needed]
    dynamic_names = [*needs, (_SONAME, name(soname))]
    symbol_names = [name(one) for one in exports]
    count = len(exports) + 1
    code_at = _EHDR.size + 4 * _PHDR.size
    hash_at = _up(code_at + len(code))
    # one bucket: a chain through every symbol, the last one first
    chain = [0, *range(count - 1)]
    table = struct.pack(f"<{3 + count}I", 1, count, count - 1, *chain)
    symbols_at = _up(hash_at + len(table))
    symbols = _SYM.pack(0, 0, 0, 0, 0, 0)
    symbols += b"".join(_SYM.pack(one, 0x12, 0, 1, code_at, len(code)) for one in symbol_names)
    strings_at = symbols_at + len(symbols)
    dynamic_at = _up(strings_at + len(strings))
    entries = [
        *dynamic_names,
        (_HASH, hash_at),
        (_STRTAB, strings_at),
        (_SYMTAB, symbols_at),
        (_STRSZ, len(strings)),
        (_SYMENT, _SYM.size),
        (0, 0),
    ]
    dynamic = b"".join(struct.pack("<QQ", *one) for one in entries)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = _EHDR.pack(ident, 3, number, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, 4, 0, 0, 0)
    where = dynamic_at + _PAGE
    # all is mapped read and execute, and once more read and write for the dynamic section, which ld.so edits
    segments = (
        _PHDR.pack(1, 5, 0, 0, 0, dynamic_at, dynamic_at, _PAGE),
        _PHDR.pack(1, 6, dynamic_at, where, where, len(dynamic), len(dynamic), _PAGE),
        _PHDR.pack(2, 6, dynamic_at, where, where, len(dynamic), len(dynamic), 8),
        _PHDR.pack(_STACK, 6, 0, 0, 0, 0, 0, 16),
    )
    body = bytearray(dynamic_at)
    parts = {0: header, _EHDR.size: b"".join(segments), code_at: code, hash_at: table}
    for at, part in {**parts, symbols_at: symbols, strings_at: bytes(strings)}.items():
        body[at : at + len(part)] = part
    return bytes(body) + dynamic


def _up(number: int) -> int:
    return (number + 7) // 8 * 8
