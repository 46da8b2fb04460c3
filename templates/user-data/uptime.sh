# seconds on a monotonic clock
uptime() {
    read -r up _ </proc/uptime
    echo "${up%.*}"
}

