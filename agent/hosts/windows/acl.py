"""What the modes of the Host interface mean on Windows: for whom a file is, as an access control list and back.

The administrators, the system and the owner may do everything; the bits for group and others say what everybody may.
A group of its own has no counterpart, so a mode that gives the group what it does not give to others is refused.
Through a folder everybody may pass to a name that he knows, whatever its list says: Windows grants that to all users.
"""

from __future__ import annotations

import re

# Windows has no numbers for users. As with chown(2), -1 asks for nothing.
NOBODY_ASKED = (-1, -1)

_ACE = re.compile(r"\(([A-Z]+);([A-Z]*);([^;]*);[^;]*;[^;]*;([^;)]+)")
# How the rights are spelt in a security descriptor's text, as bits of an access mask.
_RIGHTS = {
    "GA": 0x1F01FF, "GR": 0x120089, "GW": 0x120116, "GX": 0x1200A0,
    "FA": 0x1F01FF, "FR": 0x120089, "FW": 0x120116, "FX": 0x1200A0,
    "RC": 0x20000, "SD": 0x10000, "WD": 0x40000, "WO": 0x80000,
    "CC": 0x1, "DC": 0x2, "LC": 0x4, "SW": 0x8, "RP": 0x10, "WP": 0x20, "DT": 0x40, "LO": 0x80, "CR": 0x100,
}  # fmt: skip
_READ = 0x1
# data, more data, the list itself, the owner; in a folder also the removal of what lies there
_WRITE = 0x2 | 0x4 | 0x40000 | 0x80000
_REMOVE_INSIDE = 0x40
# the above, the extended and the plain attributes, and the removal of the folder itself
_ANY_CHANGE = _WRITE | _REMOVE_INSIDE | 0x10 | 0x100 | 0x10000
# who makes something in a folder, which only those may who are asked for here
_MAKERS = {"CO", "S-1-3-0"}
# SYSTEM, Administrators and the first of them, those of the domain, the owner, and the installer of Windows itself:
# for them nothing is closed.
_MIGHTY = {
    "SY", "S-1-5-18", "BA", "S-1-5-32-544", "LA", "DA", "EA", "OW", "S-1-3-4",
    "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",
}  # fmt: skip
_GENERIC = {0x10000000: 0x1F01FF, 0x80000000: 0x120089, 0x40000000: 0x120116, 0x20000000: 0x1200A0}


def descriptor(mode: int, *, folder: bool = False) -> str:
    """Return the security descriptor for a mode. Raises ValueError for one that has no counterpart."""
    kept = comparable(mode, folder=folder)
    owner, group, others = kept >> 6, kept >> 3 & 0o7, kept & 0o7
    if owner != (7 if folder else 6) or group != others or others not in ((1, 5) if folder else (0, 4, 6)):
        raise ValueError(f"mode {mode:04o} has no counterpart on Windows")
    inherited = "OICI" if folder else ""
    words = [f"(A;{inherited};FA;;;{who})" for who in ("SY", "BA", "OW")]
    rights = "".join(name for bit, name in ((4, "FR"), (2, "FW")) if others & bit)
    if rights:
        words.append(f"(A;;{rights};;;WD)")
    return "D:P" + "".join(words)


def mode(text: str, *, folder: bool = False, writable: bool = True, me: str = "") -> int:
    """Return the mode that says the same as a security descriptor's text, as far as a mode can.

    What is allowed to anybody but the mighty and `me`, the user of this process, counts as allowed to all; what is
    denied is not taken off again. So a file may be more closed than its mode says, and never more open. One that
    belongs to anybody else is open to all: its owner can give himself every right.
    """
    mighty = _MIGHTY | {me}
    who = re.search(r"O:(S-1-[\d-]+|[A-Z]{2})", text)
    if who and who[1] not in mighty:
        return 0o777 if folder else 0o666
    lists = text.partition("D:")
    if not lists[1] or lists[2].startswith("NO_ACCESS_CONTROL"):
        granted = 0x1F01FF  # no list at all: everybody may do everything
    else:
        granted = 0
        for kind, flags, rights, sid in _ACE.findall(lists[2]):
            inherited_only = "IO" in re.findall("..", flags)
            if kind in ("A", "XA", "OA") and not inherited_only and sid not in mighty:
                granted |= _mask(rights)
    bits = 4 if granted & _READ else 0
    bits |= 2 if granted & (_WRITE | (_REMOVE_INSIDE if folder else 0)) and (writable or folder) else 0
    bits |= 1 if folder else 0
    owner = 7 if folder else 6 if writable else 4
    return owner << 6 | bits << 3 | bits


def stranger(text: str, me: str = "") -> str | None:
    """Return who but the mighty and `me` can change a folder of that descriptor or what comes into it, None for nobody.

    What a folder only hands on to what is made in it counts too, and so do attributes: they make a folder a junction.
    """
    mighty = _MIGHTY | {me}
    owner = re.search(r"O:(S-1-[\d-]+|[A-Z]{2})", text)
    if owner is None or owner[1] not in mighty:
        return owner[1] if owner else "nobody"
    lists = text.partition("D:")
    if not lists[1] or lists[2].startswith("NO_ACCESS_CONTROL"):
        return "everybody"
    return next(
        (
            sid
            for kind, _, rights, sid in _ACE.findall(lists[2])
            if kind in ("A", "XA", "OA") and sid not in mighty | _MAKERS and _mask(rights) & _ANY_CHANGE
        ),
        None,
    )


def comparable(mode: int, *, folder: bool = False) -> int:
    """Return what of a mode Windows keeps: it has no files that may be run and others that may not."""
    return mode if folder else mode & ~0o111


def _mask(rights: str) -> int:
    if rights[:2].lower() == "0x":
        given = int(rights, 16)
    else:
        given = 0
        for name in re.findall("..", rights):
            given |= _RIGHTS.get(name, 0x1F01FF)  # an unknown word could mean anything
    for bit, meaning in _GENERIC.items():
        given |= meaning if given & bit else 0
    return given
