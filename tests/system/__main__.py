"""`python -m tests.system [IMAGE [COMMAND...]]`: builds the images, or opens a shell in a host with the agent in it."""

from __future__ import annotations

import subprocess
import sys
import time

from . import images
from .lab import Lab


def say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def main(arguments: list[str]) -> int:
    reason = images.reason_not_to_run()
    if reason:
        say(reason)
        return 1
    images.install_tools()
    started = time.monotonic()
    for layer, seconds in images.ensure().items():
        say(f"built {layer} in {seconds:.1f} s")
    say(f"images ready after {time.monotonic() - started:.1f} s")
    if not arguments:
        return 0
    with Lab() as lab:
        host = lab.host(arguments[0], agent=True)
        say(f"{host.name} {host.ip}; from another terminal: {host.enter}")
        return subprocess.call([*host.enter.split(), *(arguments[1:] or ["bash", "-l"])])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
