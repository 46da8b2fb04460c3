"""The one way out: start the command line, and map whatever ends it to an exit status."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run `hsm-agent` with the arguments of this process."""
    # Loading modules makes no garbage, and looking for it meanwhile and at the end takes 15 ms.
    gc.set_threshold(20_000)
    if sys.argv[1:] == ["far-end"]:  # nobody types it: a roll-out starts the agent so on Windows
        from agent.remote.server import serve_stdio  # noqa: PLC0415 -- as below

        serve_stdio()
        return
    try:
        status = _run()
    except KeyboardInterrupt:  # before a command was there to hear it; nothing was done
        status = _INTERRUPTED
    # the command is over: one that comes now would only be heard by Python's own end, in a traceback
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout, sys.stderr = _settled(sys.stdout), _settled(sys.stderr)
    gc.freeze()
    sys.exit(status)


_INTERRUPTED = 130


def _run() -> int:
    from agent.cli.root import main  # noqa: PLC0415 -- so that nothing is loaded by importing this module

    for stream in (sys.stdout, sys.stderr):
        # what a program reads is the same everywhere, unless somebody said otherwise; a pipe on Windows would have the
        # code page of the console
        said = os.environ.get("PYTHONIOENCODING")
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty() and not said:
            stream.reconfigure(encoding="utf-8", errors=stream.errors)
    return main(sys.argv[1:])


def _settled(stream: Any) -> Any:
    """Write what a stream still holds. Python would try once more at its end, and make a failure exit status 120."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        return None
    return stream


if __name__ == "__main__":
    main()
