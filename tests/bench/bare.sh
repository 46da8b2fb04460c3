#!/bin/bash
# The shortest way from a bare host to a configured one, as the vendor's guide has it:
#   bare.sh [--ask] CA PACKAGE-FILE ADDRESS...
# With --ask it ends as the guide does: with the client's own answers.
set -euo pipefail

ask=
[ "$1" != --ask ] || { ask=1; shift; }
ca=$1 package=$2
shift 2
if [ -x /usr/bin/apt-get ]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$package"
else
    dnf install -y -q --disablerepo='*' "$package"
fi
install -m 644 "$ca" /opt/cloudhsm/etc/customerCA.crt
/opt/cloudhsm/bin/configure-cli -a "$@" --hsm-ca-cert /opt/cloudhsm/etc/customerCA.crt
for address in "$@"; do
    timeout 5 bash -c "</dev/tcp/$address/2223"
done
if [ "$ask" ]; then
    timeout 90 /opt/cloudhsm/bin/cloudhsm-cli cluster hsm-info | grep -q serial-number
    timeout 90 /opt/cloudhsm/bin/cloudhsm-cli user list | grep -q username
fi
