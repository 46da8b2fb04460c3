# its files run with all rights, and in ProgramData every user can create a directory, and write to one that inherits
function New-Folder {
    if (-not (Test-Path -LiteralPath $folder)) {
        $rights = New-Object Security.AccessControl.DirectorySecurity
        $rights.SetSecurityDescriptorSddlForm('{{ closed }}')
        [IO.Directory]::CreateDirectory($folder, $rights) | Out-Null
    }
    Assert-Closed $folder
    foreach ($each in [IO.Directory]::GetFileSystemEntries($folder)) {
        $name = Split-Path -Leaf $each
        if ($name -like 'first-boot*' -or $name -eq '{{ source.name }}') { Assert-Closed $each }
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
{% if source.url.startswith("s3:") %}
    Read-S3Object -BucketName '{{ source.bucket }}' -Key '{{ source.key }}' -File $file | Out-Null
{% else %}
    Invoke-WebRequest -UseBasicParsing -TimeoutSec 60 -Uri '{{ source.url }}' -OutFile $file
{% endif %}
}

# a virus scanner may hold it open: a file that stays only costs space
function Remove-File([string] $file) {
    Remove-Item -Force -ErrorAction SilentlyContinue -LiteralPath $file
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
    $found = (Get-FileHash -Algorithm SHA256 -LiteralPath $file).Hash
    if ($found -ne '{{ source.sha256 }}') {
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
        if ($ended -ne 1618 -or $clock.Elapsed.TotalSeconds -gt {{ patience }}) { throw "msiexec ended with $ended" }
        Start-Sleep -Seconds 5
    }
}

