"""The one question that PowerShell is asked: whose signature a file has. Its path is told on standard input."""

from __future__ import annotations

import base64

# Nothing is put together from values. The answer is JSON in ASCII: PowerShell writes other letters in the code page
# of the console, which nobody can guess.
_SCRIPT = """$ErrorActionPreference = 'Stop'
[Console]::InputEncoding = [Text.Encoding]::UTF8
$it = Get-AuthenticodeSignature -LiteralPath ([Console]::In.ReadLine())
$by = if ($it.SignerCertificate) { $it.SignerCertificate.Subject } else { '' }
$by = [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($by))
[Console]::Out.WriteLine('{"status":"' + $it.Status + '","by":"' + $by + '"}')
"""
ARGV = (
    "powershell", "-NoProfile", "-NonInteractive", "-EncodedCommand",
    base64.b64encode(_SCRIPT.encode("utf-16-le")).decode("ascii"),
)  # fmt: skip
