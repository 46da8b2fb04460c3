{# ASCII only; every value in it is Base64 or was checked character by character. #}
<powershell>
# Made by `hsm-agent user-data`, {{ version }}: installs hsm-agent on this host and runs `hsm-agent configure`. EC2Launch
# runs this at every boot until the agent is installed; from then on the task hsm-agent-first-boot continues, which the
# agent removes when the host is proven. Log: %ProgramData%\hsm-agent\first-boot.log
{% include "user-data/environment.ps1" %}
$folder = Join-Path $env:ProgramData 'hsm-agent'
$program = Join-Path $programs 'hsm-agent\hsm-agent.exe'
$log = Join-Path $folder 'first-boot.log'
$done = Join-Path $folder 'first-boot-{{ digest }}.done'
$wanted = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('{{ wanted }}'))
$clock = [Diagnostics.Stopwatch]::StartNew()
$failure = @{ code = 'internal'; status = 1 }
$next = @{ restart = $false; log = $false }

# identifies this machine; an image of it does not carry it along
function Get-Machine {
    try { "$((Get-CimInstance -ClassName Win32_ComputerSystemProduct).UUID)" } catch { $env:COMPUTERNAME }
}

# -f would write dates in the calendar of the system's language
function Format-Time([string] $form) {
    [DateTime]::UtcNow.ToString($form, [Globalization.CultureInfo]::InvariantCulture)
}

{% include "user-data/agent.ps1" %}
function Register-FirstBoot {
    $failure.code = 'internal'; $failure.status = 1
    [IO.File]::WriteAllText((Join-Path $folder 'first-boot.json'), $wanted)
    $text = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('{{ task }}'))
    $text = $text.Replace('PROGRAM', [Security.SecurityElement]::Escape($program))
    $text = $text.Replace('FOLDER', [Security.SecurityElement]::Escape($folder))
    $file = Join-Path $folder 'first-boot.xml'
    [IO.File]::WriteAllText($file, $text, [Text.Encoding]::Unicode)
    & schtasks.exe /create /tn hsm-agent-first-boot /xml $file /f | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "schtasks ended with $LASTEXITCODE" }
    Remove-File $file
    [IO.File]::WriteAllText($done, (Get-Machine))
}

function Test-Done {
    (Test-Path -LiteralPath $done) -and [IO.File]::ReadAllText($done).Trim() -eq (Get-Machine)
}

# a report and its token go only to the receiver that was named, over TLS or on this machine; redirects are not followed
function Send-Report([string] $uri, $places, [string] $key, [byte[]] $body) {
    $where = [Uri] $uri
    $headers = @{ 'Idempotency-Key' = $key }
    if ($where.UserInfo -or ($where.Scheme -ne 'https' -and -not $where.IsLoopback)) { throw 'a report needs https' }
    if ($places.token_file) {
        $headers['Authorization'] = 'Bearer ' + (Get-Content -Raw -LiteralPath $places.token_file).Trim()
    }
    $web = @{ Method = 'Post'; Uri = $where; Body = $body; Headers = $headers; ContentType = 'application/json' }
    Invoke-RestMethod -UseBasicParsing -MaximumRedirection 0 -TimeoutSec 30 @web | Out-Null
}

function Send-Failure([string] $text) {
    $at = Format-Time 'yyyy-MM-ddTHH:mm:ssZ'
    $run = "$(Format-Time 'yyyyMMddTHHmmssZ')-$(($PID % 65536).ToString('x4'))"
    $report = @{
        schema_version = 1; run_id = $run; command = 'configure'; agent_version = '{{ version }}'
        host = @{
            name = $env:COMPUTERNAME; os = 'windows'; os_version = ''; title = 'Windows'
            arch = 'x86_64'; platform = $null; platform_forced = $false; instance_id = $null
        }
        client = $null; ca = $null; steps = @(); hsms = @(); warnings = @(); restart_needed = @()
        outcome = 'failed'; code = $failure.code; cause = $null; exit_status = $failure.status; changed = $false
        failure = @{
            code = $failure.code; sentence = 'first boot failed before hsm-agent could run'; saw = $text
            want = 'a running agent'; hint = "the Event Log (source hsm-agent-first-boot) and $log show more; the next boot tries again"
        }
        started = $at; finished = $at
    }
    $document = ConvertTo-Json -Depth 5 -InputObject $report
    $body = [Text.Encoding]::UTF8.GetBytes($document)
    $places = (ConvertFrom-Json $wanted).report
    foreach ($uri in @($places.to)) {
        $kind = "$uri".Split(':')[0]
        foreach ($attempt in 1, 2, 3) {
            try {
                if ($kind -eq 'https' -or $kind -eq 'http') {
                    Send-Report $uri $places "$run-$env:COMPUTERNAME" $body
                } elseif ($kind -eq 'file') {
                    $path = [Uri]::UnescapeDataString("$uri".Substring(5)) -replace '^//[^/\\]+/', '' -replace '^/+(?=[A-Za-z]:)', ''
                    $path = $path.Replace('/', '\')
                    Assert-Closed (Split-Path -Parent $path)
                    if (Test-Path -LiteralPath $path) { Assert-Closed $path }
                    [IO.File]::WriteAllBytes($path, $body)
                } elseif ($kind -eq 'cfn' -and "$uri" -match '^cfn:(.+)/([A-Za-z0-9]+)\?region=([a-z0-9-]+)$') {
                    $words = @{ StackName = $Matches[1]; LogicalResourceId = $Matches[2]; Region = $Matches[3] }
                    $id = "$($failure.code).$env:COMPUTERNAME.$run"
                    Send-CFNResourceSignal -UniqueId $id -Status FAILURE -Force @words | Out-Null
                }
                break
            } catch {
                Write-Line "no report to a receiver ($kind): $($_.Exception.GetType().Name)"
                Start-Sleep -Seconds (2 * $attempt)
            }
        }
    }
}

if (-not (Test-Done)) {
    try {
        New-Folder
        Install-Agent
        Register-FirstBoot
        if (-not $next.restart) {
            & $program {{ words | replace("FOLDER", "$folder") }}
            Write-Line "hsm-agent configure ended with $LASTEXITCODE"
            $next.restart = $LASTEXITCODE -eq 23
        }
        if ($next.restart) {
            Write-Line 'Windows Installer needs a restart, in one minute; the task continues after it'
            & shutdown.exe /r /t 60 /d p:4:2 /c 'hsm-agent: a restart completes an installation'
        }
    } catch {
        Write-Line "$($failure.code): $_"
        Write-Alarm "$($failure.code): $_"
        Send-Failure "$_"
    }
}
</powershell>
<persist>true</persist>
