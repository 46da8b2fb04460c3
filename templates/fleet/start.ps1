{#
The command that starts a session on Windows, as `-EncodedCommand`. It contains no value, so nothing is quoted, and it is
far shorter than the 8191 characters that cmd takes: its program comes over standard input, as on Linux, after its length.
The stream of the console has no buffer: what is not read stays there for the process that inherits the handle.
#}
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$stdin = [Console]::OpenStandardInput()
function Receive-Some($into, $at, $most) {
    $task = $stdin.ReadAsync($into, $at, $most)
    if (-not $task.Wait({{ patience }}000)) { throw 'nothing came over the link for {{ patience }} s' }
    if (-not $task.Result) { throw 'the link ended' }
    $task.Result
}
function Receive-Line {
    $text = ''
    $byte = New-Object byte[] 1
    while ((Receive-Some $byte 0 1) -and $byte[0] -ne 10) { $text += [char]$byte[0] }
    $text
}
$program = New-Object byte[] ([int](Receive-Line))
$have = 0
while ($have -lt $program.Length) { $have += Receive-Some $program $have ($program.Length - $have) }
. ([scriptblock]::Create([Text.Encoding]::ASCII.GetString($program)))
