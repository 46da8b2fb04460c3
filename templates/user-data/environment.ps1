$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
# a 32-bit shell gets other directories under the same names
$tools = Join-Path $env:SystemRoot 'System32'
if (Test-Path -LiteralPath "$env:SystemRoot\Sysnative\cmd.exe") { $tools = Join-Path $env:SystemRoot 'Sysnative' }
$programs = $env:ProgramFiles
if ($env:ProgramW6432) { $programs = $env:ProgramW6432 }
# programs of Windows only, whatever the PATH of this shell was
$env:Path = "$tools;$env:SystemRoot;$tools\Wbem;$tools\WindowsPowerShell\v1.0"

function Write-Alarm([string] $text) {
    & eventcreate.exe /l APPLICATION /t ERROR /id 1 /so hsm-agent-first-boot /d ($text -replace '"', "'") | Out-Null
}

if ("$($ExecutionContext.SessionState.LanguageMode)" -ne 'FullLanguage') {
    $text = 'PowerShell is in Constrained Language Mode here (AppLocker, WDAC), and first boot cannot run: allow this script in its policy, or install hsm-agent into the image'
    Write-Alarm $text
    throw "hsm-agent first boot: $text"
}

[Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12
{% if network.proxy %}
[Net.WebRequest]::DefaultWebProxy = New-Object Net.WebProxy('{{ network.proxy }}', $true, [string[]] @({{ network.bypasses }}))
# the task and the daily check read the proxy from the environment of the machine
foreach ($name in 'http_proxy', 'https_proxy', 'no_proxy') {
    $value = if ($name -eq 'no_proxy') { '{{ network.exceptions }}' } else { '{{ network.proxy }}' }
    if (-not [Environment]::GetEnvironmentVariable($name, 'Machine')) {
        [Environment]::SetEnvironmentVariable($name, $value, 'Machine')
    }
    [Environment]::SetEnvironmentVariable($name, $value, 'Process')
}
{% endif %}
