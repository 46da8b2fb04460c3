{# What brings an interpreter to a Linux host that has no usable Python. It is read as root, by any sh. -#}
# What agent/remote/bootstrap.py is on a host with a Python, up to where the interpreter starts: that then runs the
# bootstrap program itself. The directories are those of its ArchiveStore, which prunes them: one in use is locked.
export LC_ALL=C
umask 022
trap '' HUP
word= draft= archive=

record() { printf '\036%s%s\n' "$word" "$1"; }

fail() {
    # what a program printed can hold any byte
    words=$(printf '%s' "$2" | tail -n 3 | tr -c ' !#-[]-~' ' ')
    record "{\"event\": \"failed\", \"code\": \"$1\", \"saw\": \"$words\"}"
    exit 1
}

refused() {
    case "$1" in
        *'No space left'* | *'quota exceeded'*) fail no-space "$1" ;;
        *'Read-only file system'*) fail read-only "$1" ;;
        *) fail write-failed "$1" ;;
    esac
}

clean() {
    [ -z "$archive" ] || rm -f "$archive"
    [ -z "$draft" ] || rm -rf "$draft"
}

# A line is read by a shell of its own, byte by byte: all other programs would take what follows it, too.
line() { timeout {{ patience }} sh -c 'IFS= read -r line && printf %s "$line"'; }

# the values of a flat JSON object without blanks in them, and its keys
values() { printf '%s' "$1" | tr -c 'a-z0-9\n' ' '; }

is_own() { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ -z "$(find "$1" -maxdepth 0 -perm /022)" ]; }

make_trees() {
    mkdir -p -m 711 "$state" || return
    if ! is_own "$state"; then
        chown 0 "$state" && chmod go-w "$state" && rm -rf "$trees" || return
    elif ! is_own "$trees"; then
        rm -rf "$trees" || return
    fi
    mkdir -p -m 700 "$trees"
}

hold() {
    # leaves the directory locked as long as this process or the interpreter lives
    # `command`: a redirection of `exec` alone that fails would end some shells
    is_own "$state" && is_own "$trees" && [ -d "$1" ] && command exec 9<"$1" && flock -s 9 || return
    (cd "$1" 2>/dev/null && sha256sum --status -c .sums 2>/dev/null)
}

temporary() {
    # with room, and where programs may be started
    for folder in /run /var/tmp /tmp; do
        free=$(stat -f -c '%a * %S / 1048576' "$folder" 2>/dev/null) && [ $(($free)) -ge 80 ] || continue
        found=$(mktemp -d "$folder/hsm-agent-XXXXXXXX" 2>/dev/null) || continue
        printf '#!/bin/sh\n' >"$found/try" && chmod 700 "$found/try" && "$found/try" 2>/dev/null && {
            rm "$found/try"
            printf %s "$found"
            return
        }
        rm -rf "$found"
    done
    return 1
}

receive() {
    archive="$draft/.archive"
    record '{"event": "want", "what": "tree"}'
    answer=$(line) || fail link-lost 'the link ended'
    set -- $(values "$answer")
    left=$2 have=0
    case "$left" in '' | *[!0-9]*) fail link-lost 'no record came over the link' ;; esac
    while [ "$left" -gt 0 ]; do
        piece=1048576
        [ "$left" -ge "$piece" ] || piece=$left
        words=$({ timeout {{ patience }} head -c "$piece" >>"$archive"; } 2>&1)
        status=$?
        size=$(stat -c %s "$archive" 2>/dev/null)
        [ -z "$words" ] || refused "$words"
        [ "$status" = 0 ] && [ "${size:-0}" -eq $((have + piece)) ] || fail link-lost 'the link ended in a file'
        have=$size left=$((left - piece))
    done
    seen=$(sha256sum <"$archive")
    [ "${seen%% *}" = "$sha256" ] || fail checksum-mismatch "sha256:${seen%% *}, wanted sha256:$sha256"
    # of the archive, the interpreter: the agent itself is the one that every Linux host gets
    words=$(tar -x -z -f "$archive" -C "$draft" --no-same-owner --strip-components=1 --wildcards '*/python/*' 2>&1) ||
        refused "$words"
    rm -f "$archive"
    archive=
    words=$("$draft/python/bin/python3" -I -S -c 'import ssl, json, hashlib, zlib' 2>&1 </dev/null) ||
        fail python-missing "the interpreter that was sent does not start: $words"
}

keep() {
    words=$(make_trees 2>&1) || refused "$words"
    draft=$(mktemp -d "$trees/{{ draft }}XXXXXXXX" 2>&1) || refused "$draft"
    exec 8<"$draft" && flock -s 8 # what others prune is not locked
    receive
    words=$({ cd "$draft" && find python -type f -exec sha256sum '{}' + >.sums; } 2>&1) || refused "$words"
    chmod 755 "$draft"
    sync
    # a damaged one is moved away, unless a process runs from it; drafts are pruned
    [ ! -e "$home" ] || flock -n -x "$home" mv "$home" "$trees/{{ draft }}damaged-$$" 2>/dev/null
    # another session may be first
    mv -T "$draft" "$home" 2>/dev/null
    hold "$home" || { [ -d "$draft" ] && home=$draft; } || fail write-failed "$home was removed as soon as it was there"
}

begin() { "$1/python/bin/python3" -I -S -X utf8 -c '{{ python }}' hsm-agent; }

trap clean EXIT
request=$(line) || fail link-lost 'the link ended'
set -- $(values "$request")
sha256=$2 kept=$4 word=$6
state=/var/lib/hsm-agent
trees=$state/trees
home=$trees/$sha256
for tool in find flock gzip head mktemp sha256sum stat tail tar timeout tr; do
    command -v "$tool" >/dev/null || fail python-missing "no Python, and no $tool to unpack one with"
done
if ! hold "$home"; then
    if [ "$kept" = true ]; then
        keep
    else
        draft=$(temporary) || fail no-space 'no directory of /run, /var/tmp and /tmp has 80 MB for a program that starts'
        home=$draft
        receive
    fi
fi
record '{"event": "settled"}'
begin "$home"
