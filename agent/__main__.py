"""The one exit: start the command line, and map whatever ends it to an exit status."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
from typing import Any


def main() -> None:
    """Run `hsm-agent` with the arguments of this process."""
    # Loading modules makes no garbage, and searching for it meanwhile and at the end takes 15 ms.
    gc.set_threshold(20_000)
    if sys.argv[1:] == ["far-end"]:  # for roll-outs, which start the agent like this on Windows
        from agent.remote.server import serve_stdio  # noqa: PLC0415 -- as below

        serve_stdio()
        return
    try:
        status = _answered() if sys.argv[1:] == ["run-command"] else _run()
    except KeyboardInterrupt:  # before a command had its own handler; nothing was changed
        status = _INTERRUPTED
    # the command is over: a later signal would only cause a traceback while Python ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout, sys.stderr = _settled(sys.stdout), _settled(sys.stderr)
    if threading.active_count() > 1:
        # A thread that still waits for a server, a name or a program was left behind. It may be inside OpenSSL, which
        # the C library would take down under it: the process would end with SIGSEGV instead of its status.
        os._exit(status)
    gc.freeze()
    sys.exit(status)


_INTERRUPTED = 130


def _answered() -> int:
    """Answer a roll-out over AWS Systems Manager, whose document starts the agent like this."""
    from agent.remote.run_command import serve_command  # noqa: PLC0415 -- as below

    return serve_command()


def _run() -> int:
    from agent.cli.root import main  # noqa: PLC0415 -- so that nothing is loaded by importing this module

    for stream in (sys.stdout, sys.stderr):
        # the output for programs has the same encoding everywhere, unless the caller chose one; a pipe on Windows would
        # have the code page of the console
        chosen = os.environ.get("PYTHONIOENCODING")
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty() and not chosen:
            stream.reconfigure(encoding="utf-8", errors=stream.errors)
    return main(sys.argv[1:])


def _settled(stream: Any) -> Any:
    """Flush a stream. Python would flush it once more at its end, and turn a failure into exit status 120."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        return None
    return stream


if __name__ == "__main__":
    main()
