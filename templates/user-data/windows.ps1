{# Only ASCII, and every value in it is Base64 or was checked character by character. #}
<powershell>
# Made by `hsm-agent user-data`, {{ version }}: brings hsm-agent to this host and runs `hsm-agent configure`. EC2Launch runs
# this at every boot until the agent is there; from then on the task hsm-agent-first-boot goes on, which the agent takes
# away when the host is proven. Log: %ProgramData%\hsm-agent\first-boot.log
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
[Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12
$folder = Join-Path $env:ProgramData 'hsm-agent'
$program = Join-Path $env:ProgramFiles 'hsm-agent\hsm-agent.exe'
$log = Join-Path $folder 'first-boot.log'
$done = Join-Path $folder 'first-boot-{{ digest }}.done'
$wanted = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('{{ wanted }}'))
$clock = [Diagnostics.Stopwatch]::StartNew()
$failure = @{ code = 'internal'; status = 1 }
$next = @{ restart = $false }

# what lies in it is run with all rights: in ProgramData everybody can make a folder, and write to one that inherits
function New-Folder {
    if (-not (Test-Path $folder)) {
        $rights = New-Object Security.AccessControl.DirectorySecurity
        $rights.SetSecurityDescriptorSddlForm('{{ closed }}')
        [IO.Directory]::CreateDirectory($folder, $rights) | Out-Null
    }
    $owner = [IO.Directory]::GetAccessControl($folder).GetOwner([Security.Principal.SecurityIdentifier]).Value
    $me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
    if ('S-1-5-18', 'S-1-5-32-544', $me -notcontains $owner) { throw "$folder belongs to $owner" }
}

function Write-Line([string] $text) {
    Add-Content -ErrorAction SilentlyContinue -Path $log -Value ('{0:u} {1}' -f (Get-Date).ToUniversalTime(), $text)
    Write-Output $text
}

function Receive-Agent([string] $file) {
{% if source.url.startswith("s3:") %}
    Read-S3Object -BucketName '{{ source.bucket }}' -Key '{{ source.key }}' -File $file | Out-Null
{% else %}
    Invoke-WebRequest -UseBasicParsing -TimeoutSec 60 -Uri '{{ source.url }}' -OutFile $file
{% endif %}
}

function Install-Agent {
    $file = Join-Path $folder '{{ source.name }}'
    while ($true) {
        try {
            $failure.code = 'download-failed'; $failure.status = 20
            Receive-Agent $file
            break
        } catch {
            Write-Line "$_"
            if ($clock.Elapsed.TotalSeconds -gt {{ patience }}) { throw }
            Start-Sleep -Seconds 5
        }
    }
    $found = (Get-FileHash -Algorithm SHA256 -Path $file).Hash
    if ($found -ne '{{ source.sha256 }}') {
        Remove-Item -Path $file
        $failure.code = 'checksum-mismatch'; $failure.status = 21
        throw "the SHA-256 is $found"
    }
    $failure.code = 'package-failed'; $failure.status = 22
    while ($true) {
        $words = '/i "{0}" /qn /norestart /l*v "{1}.msi.log"' -f $file, $log
        $ended = (Start-Process -FilePath 'msiexec.exe' -ArgumentList $words -Wait -PassThru).ExitCode
        # 3010 and 1641: done, when Windows was restarted
        if (0, 3010, 1641 -contains $ended) { $next.restart = $ended -ne 0; return }
        # 1618: another installation is at work
        if ($ended -ne 1618 -or $clock.Elapsed.TotalSeconds -gt {{ patience }}) { throw "msiexec ended with $ended" }
        Start-Sleep -Seconds 5
    }
}

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
    Remove-Item -Path $file
    New-Item -ItemType File -Force -Path $done | Out-Null
}

function Send-Failure([string] $text) {
    $now = (Get-Date).ToUniversalTime()
    $run = '{0:yyyyMMddTHHmmssZ}-{1:x4}' -f $now, ($PID % 65536)
    $at = '{0:yyyy-MM-ddTHH:mm:ssZ}' -f $now
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
            want = 'a running agent'; hint = "$log says more; the next boot tries again"
        }
        started = $at; finished = $at
    }
    $body = [Text.Encoding]::UTF8.GetBytes((ConvertTo-Json -Depth 5 -InputObject $report))
    $places = (ConvertFrom-Json $wanted).report
    $headers = @{ 'Idempotency-Key' = "$run-$env:COMPUTERNAME" }
    foreach ($uri in @($places.to | Where-Object { $_ -like 'https:*' })) {
        try {
            if ($places.token_file) {
                $headers['Authorization'] = 'Bearer ' + (Get-Content -Raw -Path $places.token_file).Trim()
            }
            Invoke-RestMethod -Method Post -Uri $uri -Body $body -Headers $headers -ContentType 'application/json' -TimeoutSec 30 | Out-Null
        } catch {
            Write-Line "a receiver was not told: $($_.Exception.GetType().Name)"
        }
    }
}

if (-not (Test-Path $done)) {
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
            Write-Line 'Windows Installer asks for a restart: in a minute; the task goes on then'
            & shutdown.exe /r /t 60 /d p:4:2 /c 'hsm-agent: an installation is finished by a restart'
        }
    } catch {
        Write-Line "$($failure.code): $_"
        Send-Failure "$_"
    }
}
</powershell>
<persist>true</persist>
