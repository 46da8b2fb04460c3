"""Who asked for a run and what was asked of its hosts, in a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.core.plain import printable
from agent.render.fleet.humanize import hosts

if TYPE_CHECKING:
    from collections.abc import Mapping

# How many different requests are shown, and how many digits of a fingerprint.
_MOST = 3
_DIGITS = 12


def requester_words(tree: Mapping[str, Any]) -> str:
    """Return who asked, on which machine, and from where; "" where nothing recorded it."""
    by = tree.get("by") or {}
    if not by:
        return ""
    who = str(by["user"]) + (f" (sudo by {by['sudo_user']})" if by["sudo_user"] else "")
    return printable(" ".join([who, f"on {by['host']}", *([f"from {by['from']}"] if by["from"] else [])]))


def asked_words(tree: Mapping[str, Any]) -> list[str]:
    """Return what was asked: a text for each different request, with its hosts where there are several."""
    asked = tree.get("asked") or []
    several = len(asked) > 1
    texts = [(f"{hosts(each['hosts'])}: " if several else "") + _words(each) for each in asked[:_MOST]]
    more = [f"and {len(asked) - _MOST:,} more"] if len(asked) > _MOST else []
    return [printable(text) for text in (*texts, *more)]


def _words(asked: Mapping[str, Any]) -> str:
    place = " ".join(asked["addresses"])
    if asked["cluster"]:
        place = f"{asked['cluster']} {place}".rstrip()
    parts = [place or "the HSMs of the last `configure`", ", ".join(asked["components"])]
    parts += [f"client {asked['version']}"] if asked["version"] else []
    parts += ["SDK 3"] if asked["sdk"] == 3 else []
    parts += [f"as {asked['platform']}"] if asked["platform"] else []
    parts += [f"CA {asked['ca_fingerprint'][:_DIGITS]}"] if asked["ca_fingerprint"] else []
    parts += ["one HSM is accepted"] if asked["accept_single_hsm"] else []
    return "; ".join(parts)
