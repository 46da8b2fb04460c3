# repeat until it works or the time is up; a status from 20 to 29 means that waiting does not help
retry() {
    limit=$(($(uptime) + {{ patience }}))
    (umask 077 && : >"$log")
    while :; do
        "$@" >"$log" 2>&1
        status=$?
        cat "$log" >&2
        if [ "$status" -eq 0 ] || { [ "$status" -ge 20 ] && [ "$status" -le 29 ]; }; then
            return "$status"
        fi
        [ "$(uptime)" -lt "$limit" ] || return 1
        sleep 3
    done
}

