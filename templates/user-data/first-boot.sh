{# The script that cloud-init runs, directly or from cloud-config. It contains three kinds of value only: words that
   were checked character by character, numbers, and one line of ASCII JSON in a here-document that expands nothing. #}
#!/bin/sh
# Made by `hsm-agent user-data`, {{ version }}: installs hsm-agent on this host and runs `hsm-agent configure`.
# cloud-init runs this once. It installs itself as a unit that runs at each boot, and removes the unit when the host is
# configured. Its log: journalctl -u hsm-agent-first-boot
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
umask 022
{% if network.proxy %}
export http_proxy='{{ network.proxy }}' https_proxy='{{ network.proxy }}' no_proxy='{{ network.exceptions }}'
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
# RHEL 8 has only this one by default: too old for the agent, new enough for this script
python=/usr/libexec/platform-python
[ -x "$python" ] || python=/usr/bin/python3
[ -x "$python" ] || python=python3

say() {
    echo "hsm-agent first boot: $*" >&2
    { echo "hsm-agent first boot: $*" >/dev/console; } 2>/dev/null || :
}

{% include "user-data/uptime.sh" %}
# send a report of the agent's form to the report sinks, since there is no agent yet to do it; then exit
fail() {
    # a line may be endless, and an argument may not
    words=$(printf '%s' "$3" | tail -c 4000)
    say "$1: $words"
    timeout 300 "$python" -I - "$wanted" "$1" "$2" "$words" <<'END' || say "no report was sent: $python failed"
{% include "user-data/deliver.py" %}
END
    exit "$2"
}

{% include "user-data/retry.sh" %}
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
# 60: proven but not reported; the next run sends the report. Degraded is not done: the next boot tries again.
SuccessExitStatus=60
TimeoutStartSec={{ limit }}
# only the agent gets SIGTERM: a running package manager may finish
KillMode=mixed
TimeoutStopSec=15min

[Install]
WantedBy=multi-user.target
END
        # enabled by a link: `systemctl enable` makes systemd read all its units again
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

{% if network.proxy %}
# the agent's own units read the proxy from this file
if [ ! -e /etc/hsm-agent/environment ]; then
    mkdir -p /etc/hsm-agent
    printf '%s=%s\n' http_proxy "$http_proxy" https_proxy "$https_proxy" no_proxy "$no_proxy" >/etc/hsm-agent/environment
fi
{% endif %}
# at a later boot: keep what was configured by hand since then
if [ -n "$(find "$state/desired.json" -newer "$self" 2>/dev/null)" ]; then
    hsm-agent status >/dev/null 2>&1
    case $? in
    0 | 60) exit 0 ;;
    41) exec hsm-agent configure --timeout {{ timeout }}s ;;
    esac
fi
{% include "user-data/agent.sh" %}
hsm-agent --version >"$log" 2>&1 || fail package-failed 22 "the agent does not start: $(tail -n 3 "$log")"
{% if not_before %}

# wait for the network to set a clock that is behind: before its first day the CA is not valid
limit=$(($(uptime) + {{ patience }}))
while [ "$(date +%s)" -lt {{ not_before }} ] && [ "$(uptime)" -lt "$limit" ]; do
    sleep 1
done
{% endif %}

trap - TERM INT HUP
exec hsm-agent configure --config "$wanted" --timeout {{ timeout }}s{{ " --replace-ca" if replace_ca }}
