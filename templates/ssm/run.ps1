{# The Windows step of an SSM document; as in run.sh, SSM fills in the request only. ASCII only. #}
# Made by `hsm-agent ssm-document`, {{ version }}: installs hsm-agent on this host unless it is there, and runs what is
# requested. Standard output has the report alone. Log: %ProgramData%\hsm-agent\ssm.log
{% include "user-data/environment.ps1" %}
# agents of SSM before 3.3.2746.0 set no variable, and write the value in its place here
$request = '{{ parameter }}'
if ($env:SSM_request) { $request = $env:SSM_request }
$folder = Join-Path $env:ProgramData 'hsm-agent'
$program = Join-Path $programs 'hsm-agent\hsm-agent.exe'
$log = Join-Path $folder 'ssm.log'
$clock = [Diagnostics.Stopwatch]::StartNew()
$failure = @{ code = 'package-not-found'; status = 20 }
$next = @{ restart = $false; log = $false }

{% if source.url %}
# -f would write dates in the calendar of the system's language
function Format-Time([string] $form) {
    [DateTime]::UtcNow.ToString($form, [Globalization.CultureInfo]::InvariantCulture)
}

{% include "user-data/agent.ps1" %}
{% endif %}
try {
{% if source.url %}
    $failure.code = 'write-failed'; $failure.status = 11
    New-Folder
    $installed = Join-Path $folder 'ssm-agent.sha256'
    $found = ''
    if (Test-Path -LiteralPath $installed) {
        Assert-Closed $installed
        $found = [IO.File]::ReadAllText($installed).Trim()
    }
    if ($found -ne '{{ source.sha256 }}' -or -not (Test-Path -LiteralPath $program)) {
        Install-Agent | Out-Null
        if ($next.restart) {
            $failure.code = 'reboot-required'; $failure.status = 23
            throw 'Windows Installer needs a restart before hsm-agent can run'
        }
        [IO.File]::WriteAllText($installed, '{{ source.sha256 }}')
    }
{% endif %}
    $failure.code = 'package-not-found'; $failure.status = 20
    if (-not (Test-Path -LiteralPath $program)) { throw "there is no $program, and the document names no .msi" }
} catch {
    Write-Output "hsm-agent failed $($failure.code): $_"
    exit $failure.status
}
{% if run %}
[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($request)) | & $program {{ run }}
{% else %}
$request | & $program run-command
{% endif %}
exit $LASTEXITCODE
