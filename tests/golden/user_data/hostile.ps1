<powershell>
# Made by `hsm-agent user-data`, 0.1.0: installs hsm-agent on this host and runs `hsm-agent configure`. EC2Launch
# runs this at every boot until the agent is installed; from then on the task hsm-agent-first-boot continues, which the
# agent removes when the host is proven. Log: %ProgramData%\hsm-agent\first-boot.log
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
$folder = Join-Path $env:ProgramData 'hsm-agent'
$program = Join-Path $programs 'hsm-agent\hsm-agent.exe'
$log = Join-Path $folder 'first-boot.log'
$done = Join-Path $folder 'first-boot-d4b6b6b59f4eb187.done'
$wanted = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('eyJoc20iOiB7ImlwIjogWyJmZDc3OjphIl0sICJjYV9jZXJ0IjogImh0dHBzOi8vZGVzay5leGFtcGxlL2N1c3RvbWVyQ0EuY3J0In0sICJjbGllbnQiOiB7InNvdXJjZSI6ICIvc3J2LydcIiQodG91Y2ggcHduZWQpYHRvdWNoIHB3bmVkYFxuRU5EXG48L3Bvd2Vyc2hlbGw+XG5cdTAwN2ZcdTIwMTlcdTAwZTkifSwgInJlcG9ydCI6IHsidG8iOiBbImZpbGU6L3Zhci9sb2cvJChob3N0bmFtZSknLmpzb24iLCAiY2ZuOndlYi9Hcm91cD9yZWdpb249ZXUtY2VudHJhbC0xIl19fQ=='))
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

# its files run with all rights, and in ProgramData every user can create a directory, and write to one that inherits
function New-Folder {
    if (-not (Test-Path -LiteralPath $folder)) {
        $rights = New-Object Security.AccessControl.DirectorySecurity
        $rights.SetSecurityDescriptorSddlForm('D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)')
        [IO.Directory]::CreateDirectory($folder, $rights) | Out-Null
    }
    Assert-Closed $folder
    foreach ($each in [IO.Directory]::GetFileSystemEntries($folder)) {
        $name = Split-Path -Leaf $each
        if ($name -like 'first-boot*' -or $name -eq 'hsm-agent-0.1.0.msi') { Assert-Closed $each }
    }
    $next.log = $true
}

# refuse what another user owns or may change, and links
function Assert-Closed([string] $path) {
    $attributes = [IO.File]::GetAttributes($path)
    if ($attributes -band [IO.FileAttributes]::ReparsePoint) { throw "$path is a link" }
    if ($attributes -band [IO.FileAttributes]::Directory) { $access = [IO.Directory]::GetAccessControl($path) }
    else { $access = [IO.File]::GetAccessControl($path) }
    $kind = [Security.Principal.SecurityIdentifier]
    $me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
    # SYSTEM, Administrators, CREATOR OWNER, OWNER RIGHTS, TrustedInstaller
    $trusted = 'S-1-5-18', 'S-1-5-32-544', 'S-1-3-0', 'S-1-3-4', 'S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464', $me
    $owner = $access.GetOwner($kind).Value
    if ($trusted -notcontains $owner) { throw "$path belongs to $owner" }
    foreach ($rule in $access.GetAccessRules($true, $true, $kind)) {
        # the rights to write data, append, set attributes, delete (also children), set the ACL or the owner; generic ones
        $writes = ([int] $rule.FileSystemRights) -band 0x500D0156
        if ("$($rule.AccessControlType)" -eq 'Allow' -and $writes -and $trusted -notcontains $rule.IdentityReference.Value) {
            throw "$path can be changed by $($rule.IdentityReference.Value)"
        }
    }
}

function Write-Line([string] $text) {
    if ($next.log) {
        $line = "$(Format-Time 'yyyy-MM-dd HH:mm:ssZ') $text"
        Add-Content -ErrorAction SilentlyContinue -LiteralPath $log -Value $line
    }
    Write-Output $text
}

function Receive-Agent([string] $file) {
    Invoke-WebRequest -UseBasicParsing -TimeoutSec 60 -Uri 'https://bucket.s3.eu-central-1.amazonaws.com/hsm-agent-0.1.0.msi' -OutFile $file
}

# a virus scanner may hold it open: a file that stays only costs space
function Remove-File([string] $file) {
    Remove-Item -Force -ErrorAction SilentlyContinue -LiteralPath $file
}

function Install-Agent {
    $file = Join-Path $folder 'hsm-agent-0.1.0.msi'
    while ($true) {
        try {
            $failure.code = 'download-failed'; $failure.status = 20
            Receive-Agent $file
            break
        } catch {
            Write-Line "$_"
            if ($clock.Elapsed.TotalSeconds -gt 600) { throw }
            Start-Sleep -Seconds 5
        }
    }
    $found = (Get-FileHash -Algorithm SHA256 -LiteralPath $file).Hash
    if ($found -ne '5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e') {
        $failure.code = 'checksum-mismatch'; $failure.status = 21
        Remove-File $file
        throw "the SHA-256 is $found"
    }
    $failure.code = 'package-failed'; $failure.status = 22
    while ($true) {
        $words = '/i "{0}" /qn /norestart /l*v "{1}.msi.log"' -f $file, $log
        $ended = (Start-Process -FilePath "$tools\msiexec.exe" -ArgumentList $words -Wait -PassThru).ExitCode
        # 3010 and 1641: installed, but Windows must restart
        if (0, 3010, 1641 -contains $ended) { $next.restart = $ended -ne 0; return }
        # 1618: another installation is running
        if ($ended -ne 1618 -or $clock.Elapsed.TotalSeconds -gt 600) { throw "msiexec ended with $ended" }
        Start-Sleep -Seconds 5
    }
}

function Register-FirstBoot {
    $failure.code = 'internal'; $failure.status = 1
    [IO.File]::WriteAllText((Join-Path $folder 'first-boot.json'), $wanted)
    $text = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('PD94bWwgdmVyc2lvbj0iMS4wIj8+CjxUYXNrIHZlcnNpb249IjEuMiIgeG1sbnM9Imh0dHA6Ly9zY2hlbWFzLm1pY3Jvc29mdC5jb20vd2luZG93cy8yMDA0LzAyL21pdC90YXNrIj4KICA8UmVnaXN0cmF0aW9uSW5mbz4KICAgIDxBdXRob3I+aHNtLWFnZW50PC9BdXRob3I+CiAgICA8RGVzY3JpcHRpb24+Q29uZmlndXJlIHRoaXMgaG9zdCdzIENsb3VkSFNNIGNsaWVudCBhdCBlYWNoIHN0YXJ0IG9mIFdpbmRvd3MgdW50aWwgaXQgaXMgcHJvdmVuPC9EZXNjcmlwdGlvbj4KICAgIDxVUkk+XGhzbS1hZ2VudC1maXJzdC1ib290PC9VUkk+CiAgPC9SZWdpc3RyYXRpb25JbmZvPgogIDxUcmlnZ2Vycz4KICAgIDxCb290VHJpZ2dlcj4KICAgICAgPERlbGF5PlBUMU08L0RlbGF5PgogICAgPC9Cb290VHJpZ2dlcj4KICA8L1RyaWdnZXJzPgogIDxQcmluY2lwYWxzPgogICAgPFByaW5jaXBhbCBpZD0iU3lzdGVtIj4KICAgICAgPFVzZXJJZD5TLTEtNS0xODwvVXNlcklkPgogICAgICA8UnVuTGV2ZWw+SGlnaGVzdEF2YWlsYWJsZTwvUnVuTGV2ZWw+CiAgICA8L1ByaW5jaXBhbD4KICA8L1ByaW5jaXBhbHM+CiAgPFNldHRpbmdzPgogICAgPE11bHRpcGxlSW5zdGFuY2VzUG9saWN5Pklnbm9yZU5ldzwvTXVsdGlwbGVJbnN0YW5jZXNQb2xpY3k+CiAgICA8RGlzYWxsb3dTdGFydElmT25CYXR0ZXJpZXM+ZmFsc2U8L0Rpc2FsbG93U3RhcnRJZk9uQmF0dGVyaWVzPgogICAgPFN0b3BJZkdvaW5nT25CYXR0ZXJpZXM+ZmFsc2U8L1N0b3BJZkdvaW5nT25CYXR0ZXJpZXM+CiAgICA8RXhlY3V0aW9uVGltZUxpbWl0PlBUMTIwMFM8L0V4ZWN1dGlvblRpbWVMaW1pdD4KICAgIDxQcmlvcml0eT41PC9Qcmlvcml0eT4KICA8L1NldHRpbmdzPgogIDxBY3Rpb25zIENvbnRleHQ9IlN5c3RlbSI+CiAgICA8RXhlYz4KICAgICAgPENvbW1hbmQ+IlBST0dSQU0iPC9Db21tYW5kPgogICAgICA8QXJndW1lbnRzPmNvbmZpZ3VyZSAtLWNvbmZpZyAiRk9MREVSXGZpcnN0LWJvb3QuanNvbiIgLS10aW1lb3V0IDkwMHMgLS1yZXBsYWNlLWNhIC0tcXVpZXQ8L0FyZ3VtZW50cz4KICAgIDwvRXhlYz4KICA8L0FjdGlvbnM+CjwvVGFzaz4K'))
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
        schema_version = 1; run_id = $run; command = 'configure'; agent_version = '0.1.0'
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
            & $program configure --config "$folder\first-boot.json" --timeout 900s --replace-ca
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
