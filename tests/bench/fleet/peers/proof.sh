# The proof, for all peers alike: every HSM answers on its port, and the client answers both questions. $@: addresses.
set -e
for address in "$@"; do
    timeout 5 bash -c "</dev/tcp/$address/2223"
done
timeout 90 /opt/cloudhsm/bin/cloudhsm-cli cluster hsm-info | grep -q serial-number
timeout 90 /opt/cloudhsm/bin/cloudhsm-cli user list | grep -q username
