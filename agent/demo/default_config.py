"""The configuration files of a freshly installed client: never configured, of SDK 5 and of SDK 3."""

from __future__ import annotations

import json

from agent.cloudhsm.components import SDK5


def fresh_cfg(
    component: str, *, ca: str = "/opt/cloudhsm/etc/customerCA.crt", logs: str = "/opt/cloudhsm/run/"
) -> str:
    """Return the configuration file of a fresh SDK 5 package: never configured, cloudhsm-facts 3.4.

    `ca` and `logs` are the default CA and the start of the log's path, on the system that the package is for.
    """
    logging: dict[str, str] = {"log_type": "file", "log_file": f"{logs}cloudhsm-{component}.log"}
    if SDK5[component].log_type == "term":
        logging = {"log_type": "term"}
    logging.update(log_level="info", log_interval="daily")
    server = {"hostname": "%%HSM_IP_ADDRESS%%", "port": 2223, "enable": True}
    cluster = {"hsm_ca_file": ca, "servers": [server]}
    document = {"clusters": [{"type": "hsm1", "cluster": cluster}], "logging": logging}
    return json.dumps(document, indent=2) + "\n"


def fresh_sdk3_cfg(name: str, *, etc: str = "/opt/cloudhsm/etc/") -> str:
    """Return cloudhsm_client.cfg or cloudhsm_mgmt_util.cfg as SDK 3 ships it, cloudhsm-facts 3.5.

    `etc` is the start of the paths of its certificates, on the system that the package is for.
    """
    pair = {"certificate": f"{etc}client.crt", "pkey": f"{etc}client.key"}
    if name == "cloudhsm_mgmt_util.cfg":
        server = {"name": "%%SERVER_ADDR%%", "hostname": "%%SERVER_ADDR%%", "port": 2225, **pair}
        server.update(CAfile="", CApath=f"{etc}certs", ssl_ciphers="", server_ssl="yes", enable="yes")
        server["e2e_encryption"] = {"enable": "yes", "owner_cert_path": f"{etc}customerCA.crt"}
        card = {"enable": "no", "certificate": "cert-sc", "pkey": "pkey-sc", "port": 2225}
        return json.dumps({"scard": card, "servers": [server]}, indent=2) + "\n"
    client = {
        "socket_type": "UNIXSOCKET",
        "tcp_port": 1111,
        "zoneid": 0,
        "workers": 1,
        "daemon_id": 1,
        "reconnect_attempts": -1,
        "reconnect_interval": 3,
        "log_level": "INFO",
        "sslreneg": 0,
        "CriticalAlertScript": "",
        "create_object_minimum_nodes": 1,
        "e2e_owner_crt_path": f"{etc}customerCA.crt",
        "enable_3des_key_reuse": "no",
    }
    balance = {
        "enable": "yes",
        "prefer_same_zone": "no",
        "relative_idleness_weight": 1,
        "sucess_rate_weight": 1,  # the vendor spells it so
    }
    dual = {
        "enable": "no",
        "port": 2225,
        **pair,
        "dualfactor_ssl": "yes",
        "dualfactor_ch_ssl_ciphers": "default",
    }
    ssl = {**pair, "CApath": f"{etc}certs", "server_ssl": "yes", "server_ch_ssl_ciphers": "default"}
    server = {"hostname": "%%SERVER_ADDR%%", "port": 2223}
    document = {"ssl": ssl, "client": client, "loadbalance": balance, "dualfactor": dual, "server": server}
    return json.dumps(document, indent=2) + "\n"
