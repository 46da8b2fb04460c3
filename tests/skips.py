"""Which skips a run may have on a machine that has everything: root on Debian or Ubuntu. Any other skip fails the run.

A test that skips for want of a program was never seen to fail: on a fresh machine 66 did, and the run was green. What a
test needs, `packaging/bootstrap test` installs.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

# (a pattern of the reason, why such a machine may have it all the same)
ALLOWED = (
    (r"this machine has no IPv6", "a kernel without IPv6, as in many containers"),
    (r"no user namespaces here", "a kernel that gives none, as in many containers"),
    (r"the lab needs namespaces, and this kernel gives none", "a container without the right to make them"),
    (r"cannot mount here; the lab does", "the same; the lab has a host of its own for it"),
    (r"Wine wants x86_64", "the stand-in of Windows is built for that processor alone"),
    (r"no ansible-core beside this Python", "it has none for Pythons before 3.11"),
    (r"ERR_new came with OpenSSL 3\.0", "Debian 11 has 1.1.1"),
    (r"has no wheel for this Python", "a grammar of PowerShell has none for 3.9"),
    (r"this is a release, which has its archive", "a checkout that was packed"),
)


def is_complete_machine() -> bool:
    """Tell whether this machine can have everything that the tests need."""
    return sys.platform == "linux" and os.geteuid() == 0 and Path("/etc/debian_version").exists()


def unexpected(reasons: dict[str, str]) -> dict[str, str]:
    """Return the skips, by test, that nothing on the list allows."""
    return {
        test: reason
        for test, reason in reasons.items()
        if not any(re.search(pattern, reason) for pattern, _ in ALLOWED)
    }
