"""The signature of a file from the vendor: nothing to remark on, a remark, or proof that the file was changed."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.model import Notice
from agent.windows.authenticode_query import ARGV

if TYPE_CHECKING:
    from agent.core.host import HostView

_TIMEOUT = 60.0
# Whether AWS signs these files is not documented (facts 2.3), and the SHA-256 has been compared: so an absent or an
# unknown signature is reported, and only one that proves changed bytes is refused.
_CHANGED = "HashMismatch"
_SIGNER = "amazon"


def check_signature(view: HostView, file: str) -> tuple[Notice, ...]:
    """Query a file's signature. Raises AgentError `checksum-mismatch` when it does not match the file's bytes."""
    done = view.query(ARGV, timeout=_TIMEOUT, stdin=f"{file}\n".encode())
    try:
        answer = json.loads(done.out)
        status, by = str(answer["status"]), base64.b64decode(answer["by"]).decode("utf-8", "replace")
    except (ValueError, KeyError, TypeError):
        why = done.tail(2) or "no answer"
        return (
            Notice("signature-unchecked", f"{_name(file)}: PowerShell did not report its signature: {why}"),
        )
    if status == _CHANGED:
        raise AgentError(
            "checksum-mismatch", f"the signature of {_name(file)} is of other bytes", saw=f"{status}, by {by}",
            want="a file as it was signed", hint="download the file again, and ask the owner of the mirror",
        )  # fmt: skip
    if status != "Valid" or _SIGNER not in by.lower():
        text = f"{_name(file)}: its signature is {status}" + (f", by {by}" if by else "")
        return (Notice("signature-unusual", f"{text}; its SHA-256 is what vouches for it"),)
    return ()


def _name(file: str) -> str:
    return file.rpartition("\\")[2]
