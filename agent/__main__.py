"""The one door out: start the command line, and map whatever ends it to an exit status."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `hsm-agent` with the arguments of this process."""
    from agent.cli.root import start  # noqa: PLC0415 -- so that nothing is loaded by importing this module

    sys.exit(start(sys.argv[1:]))


if __name__ == "__main__":
    main()
