{# What cloud-init runs, as it is or inside of cloud-config. Values come in three places only: words that were checked
   character by character, numbers, and one line of ASCII JSON in a here-document that expands nothing. #}
#!/bin/sh
# Made by `hsm-agent user-data`, {{ version }}: brings hsm-agent to this host and runs `hsm-agent configure`.
# cloud-init runs this once. What survives a reboot is a unit, which it makes of itself and takes away when the host is
# configured: what one boot could not do, the next one does. Read on with: journalctl -u hsm-agent-first-boot
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
umask 022
{% if way.proxy %}
export http_proxy='{{ way.proxy }}' https_proxy='{{ way.proxy }}' no_proxy='{{ way.exceptions }}'
{% endif %}

state=/var/lib/hsm-agent
self=$state/first-boot
wanted=$self.json
log=$self.log
unit=hsm-agent-first-boot.service
units=/etc/systemd/system
{% if source.kind != "package" %}
cache=/var/cache/hsm-agent/first-boot
file=$cache/{{ source.name }}
{% endif %}
# RHEL 8 as it comes has this one alone, which is too old for the agent but not for what is done here
python=/usr/libexec/platform-python
[ -x "$python" ] || python=/usr/bin/python3
[ -x "$python" ] || python=python3

say() {
    echo "hsm-agent first boot: $*" >&2
    { echo "hsm-agent first boot: $*" >/dev/console; } 2>/dev/null || :
}

# seconds on a clock that never jumps
uptime() {
    read -r up _ </proc/uptime
    echo "${up%.*}"
}

# before there is an agent that could: a report of the same form to whom it is for; then the end
fail() {
    # of a line without an end, no more than what an argument may be
    words=$(printf '%s' "$3" | tail -c 4000)
    say "$1: $words"
    timeout 300 "$python" -I - "$wanted" "$1" "$2" "$words" <<'END' || say "nobody was told: $python failed"
{% include "user-data/tell.py" %}
END
    exit "$2"
}

# again and again until it works or the time is up; a status from 20 on means that waiting cannot help
patiently() {
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

case ${1-} in
go) ;;
done)
    rm -f "$self" "$wanted" "$log" "$units/$unit" "$units/multi-user.target.wants/$unit"
{% if source.kind != "package" %}
    rm -rf "$cache"
{% endif %}
    say "this host is configured"
    exit 0
    ;;
*)
    mkdir -p "$state"
    chmod 711 "$state"
    if [ "$0" != "$self" ]; then
        cp "$0" "$self.new"
        chmod 700 "$self.new"
        mv -f "$self.new" "$self"
    fi
    touch "$self"
    if [ -d /run/systemd/system ]; then
        cat >"$units/$unit" <<'END'
[Unit]
Description=Configure this host for its CloudHSM cluster, at first boot and until it is done
Wants=network-online.target
After=network-online.target
ConditionPathExists=/var/lib/hsm-agent/first-boot

[Service]
Type=oneshot
ExecStart=/bin/sh /var/lib/hsm-agent/first-boot go
ExecStartPost=/bin/sh /var/lib/hsm-agent/first-boot done
EnvironmentFile=-/etc/hsm-agent/environment
# proven but not reported: the next run sends what is kept. Degraded is not done: the next boot tries again.
SuccessExitStatus=60
TimeoutStartSec={{ limit }}
# stopping is told to the agent alone: a package manager at work is allowed to finish
KillMode=mixed
TimeoutStopSec=15min

[Install]
WantedBy=multi-user.target
END
        # enabled by hand: `systemctl enable` would have systemd read all its units once more
        mkdir -p "$units/multi-user.target.wants"
        ln -sf "../$unit" "$units/multi-user.target.wants/$unit"
        systemctl daemon-reload
        systemctl start "$unit" || {
            say "not configured yet, the next boot tries again: journalctl -u $unit, hsm-agent status"
            exit 1
        }
        exit 0
    fi
    ;;
esac

trap 'fail interrupted 130 "stopped before the agent was there"' TERM INT HUP
(
    umask 077
    cat >"$wanted" <<'END'
{{ wanted }}
END
)

{% if way.proxy %}
# the units that come with the agent have no other way to know it
if [ ! -e /etc/hsm-agent/environment ]; then
    mkdir -p /etc/hsm-agent
    printf '%s=%s\n' http_proxy "$http_proxy" https_proxy "$https_proxy" no_proxy "$no_proxy" >/etc/hsm-agent/environment
fi
{% endif %}
# at a later boot: what somebody has configured since then stands
if [ -n "$(find "$state/desired.json" -newer "$self" 2>/dev/null)" ]; then
    hsm-agent status >/dev/null 2>&1
    case $? in
    0 | 60) exit 0 ;;
    41) exec hsm-agent configure --timeout {{ timeout }}s ;;
    esac
fi
{% if source.url %}

fetch() {
    mkdir -p "$cache"
    timeout {{ patience }} "$python" -I - "$file" {{ source.sha256 }} <<'END'
{% include "user-data/fetch.py" %}
END
}
{% endif %}
{% if source.data %}

fetch() {
    mkdir -p "$cache"
    base64 -d >"$file" <<'END'
{{ source.text }}
END
}
{% endif %}

bring() {
{% if source.kind == "package" %}
    if command -v hsm-agent >/dev/null; then
        return 0
    fi
    # no distribution has it: that nobody knows it is told at once, once all who could know were asked
    if command -v apt-get >/dev/null; then
        dpkg --configure -a || return 1
        apt-get -q -o APT::Update::Error-Mode=any update
        asked=$?
        if apt-cache show hsm-agent >/dev/null 2>&1; then
            apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=60 install hsm-agent
            return
        fi
    else
        manager=dnf
        command -v dnf >/dev/null || manager=yum
        "$manager" -q makecache
        asked=$?
        if "$manager" -q -C list available hsm-agent >/dev/null 2>&1; then
            "$manager" -q -y install hsm-agent
            return
        fi
    fi
    [ "$asked" -eq 0 ] || return 1
    echo "hsm-agent is not in this image, and no package repository that it knows has it"
    return 20
{% elif source.kind == "deb" %}
    command -v apt-get >/dev/null || {
        echo "a .deb cannot be installed here: there is no apt-get"
        return 22
    }
    # the archive is asked only where the package alone is not enough
    dpkg --configure -a && {
        apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=60 install "$file" || {
            apt-get -q update
            return 1
        }
    }
{% elif source.kind == "rpm" %}
    if command -v dnf >/dev/null; then
        dnf -q -y install "$file"
    elif command -v yum >/dev/null; then
        yum -q -y install "$file"
    else
        echo "an .rpm cannot be installed here: there is neither dnf nor yum"
        return 22
    fi
{% else %}
    rm -rf /opt/hsm-agent.new
    mkdir -p /opt/hsm-agent.new
    tar -xzf "$file" -C /opt/hsm-agent.new --strip-components=1 || return 22
    rm -rf /opt/hsm-agent
    mv /opt/hsm-agent.new /opt/hsm-agent
    mkdir -p /usr/local/bin
    ln -sf /opt/hsm-agent/hsm-agent /usr/local/bin/hsm-agent
{% endif %}
}

{% if source.kind != "package" %}
patiently fetch || case $? in
21) fail checksum-mismatch 21 "$(tail -n 3 "$log")" ;;
22) fail package-not-found 20 "$(tail -n 3 "$log")" ;;
*) fail download-failed 20 "$(tail -n 3 "$log")" ;;
esac
{% endif %}
patiently bring || case $? in
20) fail package-not-found 20 "$(tail -n 1 "$log")" ;;
*) fail package-failed 22 "$(tail -n 5 "$log")" ;;
esac
hsm-agent --version >"$log" 2>&1 || fail package-failed 22 "the agent does not start: $(tail -n 3 "$log")"
{% if not_before %}

# a clock that is behind is set as soon as there is a network; before its first day the CA is none
limit=$(($(uptime) + {{ patience }}))
while [ "$(date +%s)" -lt {{ not_before }} ] && [ "$(uptime)" -lt "$limit" ]; do
    sleep 1
done
{% endif %}

trap - TERM INT HUP
exec hsm-agent configure --config "$wanted" --timeout {{ timeout }}s{{ " --replace-ca" if replace_ca }}
