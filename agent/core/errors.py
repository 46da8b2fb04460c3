"""Errors as exceptions: AgentError with a code, and the codes for exceptions of the operating system."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from agent.core.codes import CODES

if TYPE_CHECKING:
    from agent.core.codes import CodeName


class AgentError(Exception):
    """A failure with a cause: a code from the table, a sentence, what was seen and wanted, and a hint to act on."""

    def __init__(
        self, code: CodeName, sentence: str, *, saw: str = "", want: str = "", hint: str | None = None
    ) -> None:
        super().__init__(sentence)
        self.code = CODES[code]
        self.sentence = sentence
        self.saw = saw
        self.want = want
        self.hint = self.code.fix if hint is None else hint

    @property
    def ends_run(self) -> bool:
        """Whether the whole run is over, and not only the part that raised this: no part may report it as its own."""
        return self.code.name in ("interrupted", "timed-out")


class DownloadTimeoutError(AgentError):
    """A download whose time was up, and which had no other error."""


# of OSError: too many open files in this process and in the system, too many processes, no memory
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
# Python and the C library report these as text, without a type or a number
_EXHAUSTED_WORDS = (
    "can't start new thread",
    "failed to map segment from shared object",
    "cannot allocate memory",
    "Too many open files",
    "cannot open shared object file: Error 24",
    # of an import for which there is no memory
    "error return without exception set",
)


def unexpected(crash: BaseException, sentence: str = "the agent failed") -> AgentError:
    """Return the error for an unexpected exception: a defect, unless the machine itself lacks something.

    Threads and modules are needed in many places, and a limit or a missing module can hit any of them.
    """
    if is_exhaustion(crash):
        saw = (crash.strerror if isinstance(crash, OSError) else None) or str(crash) or "no memory"
        want = "files, processes and memory for a run"
        return AgentError("no-resources", "this machine had nothing left for the agent", saw=saw, want=want)
    if isinstance(crash, OSError) and _has_no_folder():
        return AgentError(
            "unreadable",
            "the current directory cannot be used",
            saw=crash.strerror or str(crash),
            want="a directory that is there",
            hint="`cd /`, then run the same command again, with whole paths",
        )
    if isinstance(crash, ModuleNotFoundError) and not (crash.name or "agent").startswith("agent"):
        want = "a complete Python, such as a distribution's package"
        return AgentError(
            "python-missing", "this Python lacks a part of it", saw=f"no module {crash.name}", want=want
        )
    return AgentError("internal", sentence, saw=f"{type(crash).__name__}: {crash}")


def _has_no_folder() -> bool:
    """Return whether the current directory is gone, as after `rm -r`: no relative path has a meaning."""
    try:
        os.getcwd()  # noqa: PTH109 -- pathlib costs every start time
    except OSError:
        return True
    return False


def is_exhaustion(crash: BaseException) -> bool:
    """Tell whether the machine is at its limits: open files, processes and threads, memory."""
    if isinstance(crash, OSError):
        return crash.errno in EXHAUSTED
    by_text = isinstance(crash, (RuntimeError, ImportError, SystemError)) and any(
        each in str(crash) for each in _EXHAUSTED_WORDS
    )
    return by_text or isinstance(crash, MemoryError)


def too_many_mappings(seconds: float) -> AgentError:
    """Return the error for programs that have more files mapped than can be listed in time."""
    return AgentError(
        "unreadable",
        "the running programs cannot all be checked",
        saw=f"they have more files mapped than {seconds:g} s are enough for",
        want="what each program has mapped",
    )


def immutable(path: str) -> AgentError:
    """Return the error for a path that an attribute of the file system protects from every user."""
    return AgentError(
        "write-failed",
        f"{path} cannot be written",
        saw=f"{path} has the attribute `i` (immutable) or `a` (append only)",
        want="a file or directory that root may change",
        hint=f"`lsattr -d {path}` shows it, `chattr -ia {path}` removes it; then run the same command again",
    )
