"""The client's configuration files: what is in them, and that nothing in them is trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cloudhsm.settings import Server, Settings, Settings3, parse_settings, parse_settings3

QUICK = settings(max_examples=100)
CA = "/opt/cloudhsm/etc/customerCA.crt"


def sdk5(**changes: object) -> dict[str, Any]:
    cluster: dict[str, object] = {
        "hsm_ca_file": CA,
        "servers": [
            {"hostname": "10.0.1.6", "port": 2223, "enable": True},
            {"hostname": "fd00::9", "port": 2223, "enable": True},
        ],
    }
    cluster.update(changes)
    return {
        "clusters": [{"type": "hsm1", "cluster": cluster}],
        "logging": {
            "log_type": "file",
            "log_file": "/opt/cloudhsm/run/cloudhsm-cli.log",
            "log_level": "info",
            "log_interval": "daily",
        },
    }


def read(document: object) -> Settings:
    return parse_settings(json.dumps(document).encode())


def test_a_configured_component() -> None:
    assert read(
        sdk5(options={"disable_key_availability_check": True}, cluster_id="cluster-abcdefghijk")
    ) == Settings(
        servers=(Server("10.0.1.6", 2223, enable=True), Server("fd00::9", 2223, enable=True)),
        ca_file=CA,
        cluster_id="cluster-abcdefghijk",
        key_availability_check_disabled=True,
        client_cert=None,
        client_key=None,
        log_type="file",
        log_file="/opt/cloudhsm/run/cloudhsm-cli.log",
        log_level="info",
        log_interval="daily",
        clusters=1,
        placeholder=False,
    )


def test_a_fresh_package_is_not_configured() -> None:
    found = read(sdk5(servers=[{"hostname": "%%HSM_IP_ADDRESS%%", "port": 2223, "enable": True}]))
    assert found.placeholder
    assert [server.hostname for server in found.servers] == ["%%HSM_IP_ADDRESS%%"]


def test_several_clusters_are_counted_and_all_their_servers_are_told() -> None:
    document = sdk5(cluster_id="cluster-a")
    document["clusters"] += sdk5(cluster_id="cluster-b", options={"disable_key_availability_check": True})[
        "clusters"
    ]
    found = read(document)
    assert (found.clusters, len(found.servers), found.cluster_id) == (2, 4, "cluster-a")
    assert found.key_availability_check_disabled


def test_a_blanked_client_certificate_is_not_an_absent_one() -> None:
    found = read(sdk5(client_cert_hsm_tls_path="", client_key_hsm_tls_path="/etc/key"))
    assert (found.client_cert, found.client_key) == ("", "/etc/key")


def test_a_byte_order_mark_and_unknown_keys_pass() -> None:
    document = sdk5(retry={"mode": 1})
    document["new"] = [1]
    assert parse_settings(b"\xef\xbb\xbf" + json.dumps(document).encode()) == read(sdk5())


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ({"hostname": "a"}, Server("a", 2223, enable=True)),
        ({"hostname": "a", "port": "2224", "enable": "no"}, Server("a", 2224, enable=False)),
        ({"hostname": "a", "port": 1e400, "enable": False}, Server("a", 2223, enable=False)),
        ({"hostname": "a", "port": [], "enable": None}, Server("a", 2223, enable=True)),
        ({"hostname": "a", "port": "9" * 5000}, Server("a", 2223, enable=True)),
        ({"hostname": "a\ud800"}, Server("a?", 2223, enable=True)),
        ({"hostname": 10}, None),
        ({}, None),
        ("10.0.1.6", None),
        (None, None),
    ],
)
def test_odd_servers(server: object, found: Server | None) -> None:
    assert read(sdk5(servers=[server])).servers == ((found,) if found else ())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"clusters": [', "not JSON.*line 1"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b" " * 2_000_000, "bytes, more than any"),
    ],
)
def test_what_is_no_configuration_is_said_in_a_clause(data: bytes, said: str) -> None:
    for parse in (parse_settings, parse_settings3):
        with pytest.raises(ValueError, match=f"^it .*{said}|^it is {said}"):
            parse(data)


def test_a_number_of_a_million_digits_costs_nothing() -> None:
    assert parse_settings(b'{"clusters": ' + b"9" * 1_000_000 + b"}").clusters == 0


KEYS = (
    "clusters", "cluster", "servers", "server", "hostname", "port", "enable", "options", "logging", "log_file",
    "hsm_ca_file", "client", "e2e_owner_crt_path", "disable_key_availability_check", "type",
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@QUICK
@given(document=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_no_type_is_trusted(document: dict[str, object]) -> None:
    data = json.dumps(document).encode()
    assert isinstance(parse_settings(data), Settings)
    assert isinstance(parse_settings3(data), Settings3)


@QUICK
@given(VALUES)
def test_no_type_is_trusted_inside_a_cluster(value: object) -> None:
    for key in ("servers", "options", "hsm_ca_file"):
        assert read(sdk5(**{key: value})).clusters == 1
    for document in ({"clusters": value}, {"clusters": [value]}, {"clusters": [{"cluster": value}]}):
        assert isinstance(read(document), Settings)


@QUICK
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,1e-.n', max_size=60).map(str.encode))
def test_no_bytes_make_anything_but_settings_or_a_sentence(data: bytes) -> None:
    try:
        parse_settings3(data)
        parse_settings(data)
    except ValueError as error:
        assert str(error).startswith("it ")  # noqa: PT017


def sdk3(hostname: object, port: object = 2223) -> bytes:
    return json.dumps(
        {
            "ssl": {"certificate": "/opt/cloudhsm/etc/client.crt"},
            "client": {"workers": 1, "e2e_owner_crt_path": CA},
            "server": {"hostname": hostname, "port": port},
        }
    ).encode()


def test_sdk_3() -> None:
    assert parse_settings3(sdk3("10.0.0.9")) == Settings3("10.0.0.9", 2223, CA, placeholder=False)
    assert parse_settings3(sdk3("%%SERVER_ADDR%%")).placeholder
    assert parse_settings3(sdk3(None, None)) == Settings3(None, 2223, CA, placeholder=False)
    assert parse_settings3(b"{}") == Settings3(None, 2223, None, placeholder=False)
