{# The Linux step of an SSM document. SSM fills in the request only, which its pattern keeps to Base64; all other values
   were checked character by character. #}
#!/bin/sh
# Made by `hsm-agent ssm-document`, {{ version }}: installs hsm-agent on this host unless it is there, and runs what is
# requested. Standard output has the report alone; /var/log/amazon/ssm and `journalctl -t hsm-agent` have the rest.
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
umask 022
# agents of SSM before 3.3.2746.0 set no variable, and write the value in its place here
request=${SSM_request-'{{ parameter }}'}
{% if network.proxy %}
export http_proxy='{{ network.proxy }}' https_proxy='{{ network.proxy }}' no_proxy='{{ network.exceptions }}'
{% endif %}

state=/var/lib/hsm-agent
log=$state/ssm.log
{% if source.kind != "package" %}
installed=$state/ssm-agent.sha256
cache=/var/cache/hsm-agent/ssm
file=$cache/{{ source.name }}
{% endif %}
{% if source.url %}
# RHEL 8 has only this one by default: too old for the agent, new enough for this script
python=/usr/libexec/platform-python
[ -x "$python" ] || python=/usr/bin/python3
[ -x "$python" ] || python=python3
{% endif %}

{% include "user-data/uptime.sh" %}
# what a roll-out reads, since there is no agent yet to report; then exit
fail() {
    printf 'hsm-agent failed %s: %s\n' "$1" "$(printf '%s' "$3" | tail -c 2000)"
    exit "$2"
}

{% include "user-data/retry.sh" %}
mkdir -p "$state"
chmod 711 "$state"
# one installation at a time: a roll-out and State Manager may come together. Whoever can open the file can hold the lock
umask 077
exec 9>"$state/ssm.lock"
umask 022
flock -w {{ patience }} 9 || fail run-locked 11 "another command installs hsm-agent here"
{% if source.kind == "package" %}
if ! command -v hsm-agent >/dev/null; then
{% else %}
if [ "$(cat "$installed" 2>/dev/null)" != {{ source.sha256 }} ] || ! command -v hsm-agent >/dev/null; then
{% endif %}
{% include "user-data/agent.sh" %}
    hsm-agent --version >"$log" 2>&1 || fail package-failed 22 "the agent does not start: $(tail -n 3 "$log")"
{% if source.kind != "package" %}
    echo {{ source.sha256 }} >"$installed"
    rm -rf "$cache"
{% endif %}
fi
exec 9>&-

{% if run %}
printf '%s' "$request" | base64 -d | hsm-agent {{ run }}
{% else %}
printf '%s' "$request" | hsm-agent run-command
{% endif %}
