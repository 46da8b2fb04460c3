#!/bin/bash
# What a careful operator's script looks at when everything is in order, and nothing is changed:
#   looks.sh CA COMPONENT... -- ADDRESS...
# The agent looks at the same things in its second `configure`, and besides at the key's
# size, at a TLS handshake with each HSM, and at what earlier clients left.
set -euo pipefail

ca=$1 etc=/opt/cloudhsm/etc
shift
components=()
while [ "$1" != -- ]; do components+=("$1"); shift; done
shift

. /etc/os-release
[ -n "$ID" ] && [ -n "$VERSION_ID" ] && [ -n "$(uname -m)" ]

# the packages, at the version that is wanted
for component in "${components[@]}"; do
    if [ -x /usr/bin/dpkg-query ]; then
        found=$(dpkg-query -W -f='${Version} ${db:Status-Abbrev}' "cloudhsm-$component")
        [ "$found" = "5.18.0-1 ii " ]
    else
        found=$(rpm -q --qf '%{VERSION}-%{RELEASE}' "cloudhsm-$component")
        [[ $found = 5.18.0-1* ]]
    fi
done

# the CA: the one that was given, readable, valid for half a year to come
cmp -s "$ca" "$etc/customerCA.crt"
[ "$(stat -c %a "$etc/customerCA.crt")" = 644 ]
openssl x509 -in "$etc/customerCA.crt" -noout -checkend $((180 * 86400)) >/dev/null
openssl x509 -in "$etc/customerCA.crt" -noout -fingerprint -sha256 >/dev/null

# every component's configuration: exactly these addresses
wanted=$(printf '%s\n' "$@" | sort)
for component in "${components[@]}"; do
    file=$etc/cloudhsm-$component.cfg
    found=$(grep -o '"hostname": *"[^"]*"' "$file" | cut -d'"' -f4 | sort)
    [ "$found" = "$wanted" ]
    grep -q "\"hsm_ca_file\": *\"$etc/customerCA.crt\"" "$file"
done

# every HSM is reached; bash alone would wait two minutes for one that is not
for address in "$@"; do
    timeout 5 bash -c "</dev/tcp/$address/2223"
done

# the libraries can be loaded, and which programs use them
for component in "${components[@]}"; do
    [ "$component" = cli ] && continue
    for library in /opt/cloudhsm/lib/*"$component"*.so; do
        ! ldd "$library" | grep -q 'not found'
    done
    grep -ls "$component" /proc/[0-9]*/maps >/dev/null || true
done

# the client answers
timeout 90 /opt/cloudhsm/bin/cloudhsm-cli cluster hsm-info | grep -q serial-number
timeout 90 /opt/cloudhsm/bin/cloudhsm-cli user list | grep -q username
