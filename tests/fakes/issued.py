"""Certificates that the real openssl makes, for tests of what is read in them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def by_openssl(ca: bytes, certificate: bytes, folder: Path) -> bool:
    (folder / "ca.crt").write_bytes(ca)
    (folder / "cluster.crt").write_bytes(certificate)
    argv = (
        "openssl",
        "verify",
        "-no_check_time",
        "-CAfile",
        str(folder / "ca.crt"),
        str(folder / "cluster.crt"),
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode == 0
