"""What the modes of the Host interface mean on Windows: a mode becomes an access control list, and a list a mode.

The administrators, the system and the owner may do everything; the bits for group and others state what all users may.
A group of its own has no counterpart, so a mode that gives the group more than others is refused.
Any user may pass through a folder to a name that he knows, whatever its list holds: Windows grants that to all users.
"""

from __future__ import annotations

import re

# Windows has no numbers for users. As with chown(2), -1 asks for nothing.
NOBODY_ASKED = (-1, -1)

_ACE = re.compile(r"\(([A-Z]+);([A-Z]*);([^;]*);[^;]*;[^;]*;([^;)]+)")
# The rights in the text of a security descriptor, as bits of an access mask.
_RIGHTS = {
    "GA": 0x1F01FF, "GR": 0x120089, "GW": 0x120116, "GX": 0x1200A0,
    "FA": 0x1F01FF, "FR": 0x120089, "FW": 0x120116, "FX": 0x1200A0,
    "RC": 0x20000, "SD": 0x10000, "WD": 0x40000, "WO": 0x80000,
    "CC": 0x1, "DC": 0x2, "LC": 0x4, "SW": 0x8, "RP": 0x10, "WP": 0x20, "DT": 0x40, "LO": 0x80, "CR": 0x100,
}  # fmt: skip
_READ = 0x1
# write data, append data, change the list, take ownership; in a folder also the removal of its entries
_WRITE = 0x2 | 0x4 | 0x40000 | 0x80000
_REMOVE_INSIDE = 0x40
# the above, the extended and the plain attributes, and the removal of the folder itself
_ANY_CHANGE = _WRITE | _REMOVE_INSIDE | 0x10 | 0x100 | 0x10000
# the creator of an entry in a folder; the caller checks who may create entries
_MAKERS = {"CO", "S-1-3-0"}
# Trusted: SYSTEM, Administrators, their first account, those of the domain, the owner, and the installer of Windows.
# They can open everything anyway.
_TRUSTED = {
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
    """Return the mode that comes closest to the text of a security descriptor.

    A right of any user but the trusted ones and `me`, the user of this process, counts as a right of all; a deny entry
    does not remove it. So a file may be less accessible than its mode shows, and never more. A file that
    belongs to any other user is open to all: its owner can give himself every right.
    """
    trusted = _TRUSTED | {me}
    who = re.search(r"O:(S-1-[\d-]+|[A-Z]{2})", text)
    if who and who[1] not in trusted:
        return 0o777 if folder else 0o666
    lists = text.partition("D:")
    if not lists[1] or lists[2].startswith("NO_ACCESS_CONTROL"):
        granted = 0x1F01FF  # no list at all: all users may do everything
    else:
        granted = 0
        for kind, flags, rights, sid in _ACE.findall(lists[2]):
            inherited_only = "IO" in re.findall("..", flags)
            if kind in ("A", "XA", "OA") and not inherited_only and sid not in trusted:
                granted |= _mask(rights)
    bits = 4 if granted & _READ else 0
    bits |= 2 if granted & (_WRITE | (_REMOVE_INSIDE if folder else 0)) and (writable or folder) else 0
    bits |= 1 if folder else 0
    owner = 7 if folder else 6 if writable else 4
    return owner << 6 | bits << 3 | bits


def untrusted_writer(text: str, me: str = "") -> str | None:
    """Return who can change a folder of that descriptor or its future entries, besides the trusted users and `me`.

    None when no one can. Entries that a folder only passes on to its new files count too, and so does the right to
    write attributes: it can turn a folder into a junction.
    """
    trusted = _TRUSTED | {me}
    owner = re.search(r"O:(S-1-[\d-]+|[A-Z]{2})", text)
    if owner is None or owner[1] not in trusted:
        return owner[1] if owner else "nobody"
    lists = text.partition("D:")
    if not lists[1] or lists[2].startswith("NO_ACCESS_CONTROL"):
        return "everybody"
    return next(
        (
            sid
            for kind, _, rights, sid in _ACE.findall(lists[2])
            if kind in ("A", "XA", "OA") and sid not in trusted | _MAKERS and _mask(rights) & _ANY_CHANGE
        ),
        None,
    )


def comparable(mode: int, *, folder: bool = False) -> int:
    """Return the part of a mode that Windows keeps: it does not distinguish executable files."""
    return mode if folder else mode & ~0o111


def _mask(rights: str) -> int:
    if rights[:2].lower() == "0x":
        mask = int(rights, 16)
    else:
        mask = 0
        for name in re.findall("..", rights):
            mask |= _RIGHTS.get(name, 0x1F01FF)  # an unknown right could mean anything
    for bit, rights_of_bit in _GENERIC.items():
        mask |= rights_of_bit if mask & bit else 0
    return mask
