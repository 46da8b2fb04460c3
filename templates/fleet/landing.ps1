{# What `start.ps1` runs; the functions that receive are its own. Only ASCII. #}
# What agent/remote/bootstrap.py is on Linux: puts the archive in place, then starts the agent in it on the same
# standard input and output. The messages are those of agent/remote/protocol.py.

function Send-Record($record) {
    # in ASCII: the code page of this console is unknown
    $text = [regex]::Replace((ConvertTo-Json $record -Compress), '[^ -~]', { '\u{0:x4}' -f [int]$args[0].Value[0] })
    [Console]::Out.Write([char]30 + $word + $text + "`n")
}

function Assert-Own($folder) {
    # Every user may create directories in %ProgramData%. An existing one is used only if it is not a link, if the system,
    # the administrators or this user own it (an owner can grant himself every right), and if no other user may change it
    # or its contents. A new one is closed to all others. A list that is too open is not corrected: that would hide what
    # was exchanged meanwhile. So the directory is checked each time before its program starts.
    if (-not (Test-Path -LiteralPath $folder)) { [void][IO.Directory]::CreateDirectory($folder, $closed) }
    if ([IO.File]::GetAttributes($folder) -band [IO.FileAttributes]::ReparsePoint) { throw "$folder is a link" }
    $kind = [Security.Principal.SecurityIdentifier]
    $list = [IO.Directory]::GetAccessControl($folder)
    $owner = $list.GetOwner($kind).Value
    if ('S-1-5-18', 'S-1-5-32-544', $me.User.Value -notcontains $owner) { throw "$folder belongs to $owner" }
    if (-not $list.GetSecurityDescriptorSddlForm('Access').StartsWith('D:')) { throw "$folder has no access list" }
    foreach ($rule in $list.GetAccessRules($true, $true, $kind)) {
        # the rights to write data, append, set attributes, delete (also children), set the ACL or the owner; generic ones
        $writes = [int]$rule.FileSystemRights -band 0x500D0156
        $who = $rule.IdentityReference.Value
        # also CREATOR OWNER and OWNER RIGHTS
        $ours = 'S-1-5-18', 'S-1-5-32-544', 'S-1-3-0', 'S-1-3-4', $me.User.Value -contains $who
        if ("$($rule.AccessControlType)" -eq 'Allow' -and $writes -and -not $ours) { throw "$folder can be changed by $who" }
    }
}

function Receive-Tree {
    # Returns the directory of the tree, in a draft that its open archive holds: a directory with an open file cannot be
    # renamed, and one that cannot be renamed is not pruned.
    Assert-Own $draft
    $script:archive = [IO.File]::Create("$draft\zip")
    Send-Record @{ event = 'want'; what = 'tree' }
    $script:code = 'link-lost'
    $left = (ConvertFrom-Json (Receive-Line)).size
    $piece = New-Object byte[] 65536
    while ($left) {
        $script:code = 'link-lost'
        $count = Receive-Some $piece 0 ([Math]::Min($left, $piece.Length))
        $script:code = 'write-failed'
        $archive.Write($piece, 0, $count)
        $left -= $count
    }
    $archive.Position = 0
    $seen = [BitConverter]::ToString([Security.Cryptography.SHA256]::Create().ComputeHash($archive)) -replace '-'
    if ($seen -ne $wanted.sha256) {
        $script:code = 'checksum-mismatch'
        throw "sha256:$($seen.ToLower()), wanted sha256:$($wanted.sha256)"
    }
    Add-Type -AssemblyName System.IO.Compression
    Add-Type -AssemblyName System.IO.Compression.FileSystem
    $zip = New-Object IO.Compression.ZipArchive $archive
    [IO.Compression.ZipFileExtensions]::ExtractToDirectory($zip, "$draft\t")
    [IO.Directory]::GetDirectories("$draft\t")[0]
}

function Move-Tree($from, $to) {
    # A virus scanner that opens a new file prevents the rename for a moment. Another session may be first.
    for ($turn = 1; -not (Test-Path $to); $turn++) {
        try {
            [IO.Directory]::Move($from, $to)
        } catch {
            if ($turn -ge 40) { throw }
            Start-Sleep -Milliseconds 250
        }
    }
}

function Remove-Draft {
    if ($archive) { $archive.Close() }
    # there may be none, or a scanner reads in it: a later session prunes what remains
    try { [IO.Directory]::Delete($draft, $true) } catch { return }
}

function Remove-Others {
    $others = @(([IO.DirectoryInfo]$trees).GetDirectories() | Where-Object { $_.Name -ne $wanted.sha256 })
    $drafts = @($others | Where-Object { $_.Name -like '{{ draft }}*' })
    $older = @($others | Where-Object { $_.Name -notlike '{{ draft }}*' } | Sort-Object LastWriteTime)
    foreach ($each in $drafts + @($older | Select-Object -SkipLast {{ kept }})) {
        # removed under another name, so that an incomplete tree never has the name of a complete one
        try {
            $half = "$trees\{{ draft }}" + [IO.Path]::GetRandomFileName()
            [IO.Directory]::Move($each.FullName, $half)
            [IO.Directory]::Delete($half, $true)
        } catch {
            continue  # in use, or gone meanwhile
        }
    }
}

$status = 1
$archive = $null
$word = ''
try {
    $code = 'link-lost'
    $wanted = ConvertFrom-Json (Receive-Line)
    # each record begins with the word of the request, as on Linux
    $word = $wanted.word
    $code = 'not-root'
    $me = [Security.Principal.WindowsIdentity]::GetCurrent()
    if (-not ([Security.Principal.WindowsPrincipal]$me).IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
        throw "$($me.Name) is no administrator, or not elevated"
    }
    $code = 'write-failed'
    $closed = New-Object Security.AccessControl.DirectorySecurity
    $closed.SetSecurityDescriptorSddlForm('O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)')
    $trees = Join-Path $env:ProgramData 'hsm-agent\trees'
    $place = Join-Path $trees $wanted.sha256
    $draft = Join-Path $trees ('{{ draft }}' + [IO.Path]::GetRandomFileName())
    Assert-Own (Split-Path $trees)
    Assert-Own $trees
    if (Test-Path $place) {
        Assert-Own $place
    } elseif ($wanted.keep) {
        Move-Tree (Receive-Tree) $place
        Assert-Own $place
        Remove-Draft
        Remove-Others
    } else {
        $place = Receive-Tree
    }
    $code = 'far-end-failed'
    # an open file prevents pruning as long as the agent runs
    $held = [IO.File]::OpenRead("$place\hsm-agent.exe")
    $start = New-Object Diagnostics.ProcessStartInfo "$place\hsm-agent.exe", 'far-end'
    $start.UseShellExecute = $false
    Send-Record @{ event = 'settled' }
    $agent = [Diagnostics.Process]::Start($start)
    $agent.WaitForExit()
    $status = $agent.ExitCode
    $held.Close()
} catch {
    $why = $_.Exception.GetBaseException()
    # the two error codes of Windows for a full disk
    if (0x80070070, 0x80070027 -contains $why.HResult) { $code = 'no-space' }
    Send-Record @{ event = 'failed'; code = $code; saw = $why.Message }
}
Remove-Draft
exit $status
