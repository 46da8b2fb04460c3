"""Certificates that the real openssl makes, for tests of what is read in them."""

from __future__ import annotations

import subprocess


def openssl(*argv: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *argv], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _knows_traditional() -> bool:
    said = subprocess.run(["openssl", "rsa", "-help"], capture_output=True, check=False)
    return b"-traditional" in said.stdout + said.stderr
