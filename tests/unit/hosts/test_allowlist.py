"""What `ask` may run, and what it may not."""

from __future__ import annotations

import pytest

from agent.hosts.allowlist import CommandNotAllowed, is_allowed, require

CLI = "/opt/cloudhsm/bin/cloudhsm-cli"
CMU = "/opt/cloudhsm/bin/cloudhsm_mgmt_util"


@pytest.mark.parametrize(
    "command",
    [
        "dpkg-query -W -f=${Package}\\t${Version}\\n cloudhsm-cli cloudhsm-client",
        "/usr/bin/dpkg-query -L cloudhsm-cli",
        "rpm -qa --qf %{NAME}\\t%{VERSION}-%{RELEASE}\\n cloudhsm-cli",
        "rpm -ql cloudhsm-cli",
        "ldd /opt/cloudhsm/lib/libcloudhsm_pkcs11.so",
        "uname -m",
        "systemctl show --property=MainPID,ActiveState cloudhsm-client",
        "journalctl _SYSTEMD_UNIT=cloudhsm-client.service --lines=3 --output=cat --no-pager",
        f"{CLI} cluster hsm-info",
        f"{CLI} user list",
        f"{CMU} /opt/cloudhsm/etc/cloudhsm_mgmt_util.cfg",
    ],
)
def test_what_the_agent_asks_is_allowed(command: str) -> None:
    assert is_allowed(command.split())


@pytest.mark.parametrize(
    "command",
    [
        "",
        "rm -rf /",
        "sh -c uname",
        "dpkg -i /var/x.deb",
        "dpkg --configure -a",
        "dpkg --audit --force-all",
        "dpkg-deb -x /var/x.deb /",
        "dpkg-query",
        "rpm -e cloudhsm-cli",
        "rpm -Uvh /var/x.rpm",
        "rpm -qa --pipe rm",
        "rpm -qa --pipe=rm",
        "rpm -qa --qf %(rm) cloudhsm-cli",
        "rpm -qa --qf %{NAME} --pipe=rm",
        "rpm -qf /etc/passwd",
        "dpkg --audit",
        "dpkg-deb -f /var/x.deb Package",
        "rpm --eval %{_arch}",
        "systemctl is-active cloudhsm-client",
        f"{CLI} cluster hsm-info --cluster-id cluster-1",
        f"{CLI} --version",
        "rpm -qE %(rm)",
        "rpm --eval %(rm)",
        "rpm --eval %{lua:os.remove()}",
        "ldd -v",
        "openssl x509 -in /a",
        "openssl x509 -noout -in /a -out /b",
        "openssl x509 -noout -in",
        "openssl x509 -noout -req -CA /a -CAcreateserial",
        "openssl req -noout",
        "uname",
        "uname -m -a",
        "systemctl restart cloudhsm-client",
        "systemctl",
        "journalctl",
        "journalctl _SYSTEMD_UNIT=x --lines=3 --output=cat --vacuum-size=1",
        "journalctl --rotate --lines=3 --output=cat --no-pager",
        "cloudhsm-cli cluster hsm-info",
        "/tmp/cloudhsm-cli cluster hsm-info",
        f"{CLI} cluster activate",
        f"{CLI} cluster",
        f"{CLI} user create --username x",
        f"{CLI} --version user create",
        f"{CLI}",
        f"{CMU}",
        f"{CMU} /opt/cloudhsm/etc/cloudhsm_mgmt_util.cfg singlecmd",
        "/opt/cloudhsm/bin/configure-cli -a 10.0.0.1",
        "/opt/cloudhsm/uname -m",
    ],
)
def test_anything_else_is_not(command: str) -> None:
    assert not is_allowed(command.split())


def test_a_forbidden_command_is_not_hidden_by_a_blind_handler() -> None:
    require(("uname", "-m"))
    with pytest.raises(CommandNotAllowed, match="rm -rf /") as caught:
        require(("rm", "-rf", "/"))
    assert not isinstance(caught.value, Exception)
