"""The one query to PowerShell: who signed a file. The path of the file is passed on standard input."""

from __future__ import annotations

import base64

# No value becomes part of the script. The answer is JSON in ASCII: PowerShell writes other characters in the code page
# of the console, which cannot be detected.
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
