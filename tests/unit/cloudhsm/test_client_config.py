"""The client's configuration files: what is in them, and that nothing in them is trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloudhsm.client_config import (
    ClientConfig,
    Server,
    parse_client_config,
    repaired,
)
from agent.cloudhsm.client_options import ClientOptions
from agent.cloudhsm.sdk3.client_config import (
    DaemonConfig,
    UtilityConfig,
    parse_daemon_config,
    parse_utility_config,
    repaired_daemon_config,
    repaired_utility_config,
)
from tests.examples import examples

QUICK = examples(100)
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


def read(document: object) -> ClientConfig:
    return parse_client_config(json.dumps(document).encode())


def test_a_configured_component() -> None:
    assert read(
        sdk5(options={"disable_key_availability_check": True}, cluster_id="cluster-abcdefghijk")
    ) == ClientConfig(
        servers=(Server("10.0.1.6", 2223, enable=True), Server("fd00::9", 2223, enable=True)),
        ca_file=CA,
        cluster_id="cluster-abcdefghijk",
        key_availability_check_disabled=True,
        options=ClientOptions(
            {
                "log_level": "info",
                "log_file": "/opt/cloudhsm/run/cloudhsm-cli.log",
                "log_type": "file",
                "log_rotation": "daily",
            }
        ),
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


def test_a_blanked_client_certificate_is_a_fault() -> None:
    found = read(sdk5(client_cert_hsm_tls_path="", client_key_hsm_tls_path="/etc/key"))
    assert (found.options["client_cert"], found.options["client_key"]) == (None, "/etc/key")
    assert found.faults == ("client_cert_hsm_tls_path is empty",)


def test_unknown_keys_pass() -> None:
    document = sdk5(retry={"mode": 1})
    document["new"] = [1]
    assert read(document) == read(sdk5())
    assert not read(document).faults


def changed(path: str, value: object) -> bytes:
    """Return a good file with one thing in it replaced; MISSING takes it out."""
    document: Any = sdk5(options={"disable_key_availability_check": True}, client_cert_hsm_tls_path="/c")
    *above, last = [int(each) if each.isdigit() else each for each in path.split(".")]
    inner = document
    for each in above:
        inner = inner[each]
    if value == MISSING:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(document).encode()


MISSING = "(missing)"
SERVER = "clusters.0.cluster.servers.0"
FAULTS: list[tuple[str, object]] = [
    (f"{SERVER}.port", "2223"), (f"{SERVER}.port", None), (f"{SERVER}.port", 2223.0), (f"{SERVER}.port", True),
    (f"{SERVER}.port", []), (f"{SERVER}.port", 10**400), (f"{SERVER}.port", MISSING), (f"{SERVER}.enable", "yes"),
    (f"{SERVER}.enable", 1), (f"{SERVER}.enable", None), (f"{SERVER}.enable", MISSING), (f"{SERVER}.hostname", 10),
    (f"{SERVER}.hostname", None), (f"{SERVER}.hostname", MISSING), (f"{SERVER}.hostname", "a\ud800"),
    (SERVER, None), (SERVER, "10.0.1.6"), (SERVER, ["10.0.1.6"]),
    ("clusters.0.cluster.servers", {"0": {}}), ("clusters.0.cluster.servers", None),
    ("clusters.0.cluster.servers", MISSING), ("clusters.0.cluster.servers", "10.0.1.6"),
    ("clusters.0.cluster", None), ("clusters.0.cluster", []), ("clusters.0.cluster", MISSING),
    ("clusters.0.type", 1), ("clusters.0.type", None), ("clusters.0", None), ("clusters.0", "x"),
    ("clusters", {}), ("clusters", []), ("clusters", None), ("clusters", MISSING),
    ("clusters.0.cluster.hsm_ca_file", None), ("clusters.0.cluster.hsm_ca_file", [CA]),
    ("clusters.0.cluster.hsm_ca_file", ""), ("clusters.0.cluster.cluster_id", 5),
    ("clusters.0.cluster.options", []), ("clusters.0.cluster.options", None), ("clusters.0.cluster.options", True),
    ("clusters.0.cluster.options.disable_key_availability_check", "true"),
    ("clusters.0.cluster.options.disable_key_availability_check", 1),
    ("clusters.0.cluster.options.disable_key_availability_check", None),
    ("clusters.0.cluster.client_cert_hsm_tls_path", None), ("clusters.0.cluster.client_cert_hsm_tls_path", ""),
    ("logging", []), ("logging", None), ("logging", "info"), ("logging.log_type", "FILE"), ("logging.log_type", 1),
    ("logging.log_file", ""), ("logging.log_file", ["/x"]), ("logging.log_level", "verbose"),
    ("logging.log_level", 3), ("logging.log_interval", "yearly"), ("logging.log_interval", None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), FAULTS, ids=str)
def test_what_is_known_has_one_form_and_another_is_a_fault_that_can_be_mended(
    path: str, value: object
) -> None:
    data = changed(path, value)
    assert parse_client_config(data).faults
    again = parse_client_config(repaired(data, ca=CA, logging={"log_type": "file", "log_level": "info"}))
    assert not again.faults
    if not path.startswith("clusters.0.cluster.servers") and path.startswith("logging"):
        assert again.servers == read(sdk5()).servers


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbf" + json.dumps(sdk5()).encode(), b'{"x": 1, "x": 1, ' + json.dumps(sdk5()).encode()[1:]],
    ids=["byte order mark", "twice"],
)
def test_what_a_stricter_reader_would_not_take_is_a_fault(data: bytes) -> None:
    assert parse_client_config(data).servers == read(sdk5()).servers
    assert parse_client_config(data).faults
    assert parse_client_config(repaired(data, ca=CA, logging={})) == read(sdk5())


def test_what_is_mended_keeps_all_that_was_no_fault() -> None:
    document = sdk5(retry={"mode": 1}, client_cert_hsm_tls_path="/c", client_key_hsm_tls_path="/k")
    document["clusters"][0]["cluster"]["servers"][0]["port"] = "2223"
    document["new"] = [1]
    again = json.loads(repaired(json.dumps(document).encode(), ca="/other", logging={}))
    again["clusters"][0]["cluster"]["servers"] = document["clusters"][0]["cluster"]["servers"]
    assert again == document


def test_what_is_unset_is_taken_out() -> None:
    document = sdk5(client_cert_hsm_tls_path="/c", client_key_hsm_tls_path="/k")
    without = ("client_cert_hsm_tls_path", "client_key_hsm_tls_path", "log_file")
    data = json.dumps(document).encode()
    for _ in range(2):  # also what is not there
        data = repaired(data, ca=CA, logging={}, without=without)
        assert parse_client_config(data).options == ClientOptions(
            {"log_level": "info", "log_type": "file", "log_rotation": "daily"}
        )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"clusters": [', "not JSON.*line 1"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"clusters": NaN}', "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b" " * 2_000_000, "bytes, more than any"),
    ],
)
def test_what_is_no_configuration_is_said_in_a_clause(data: bytes, said: str) -> None:
    for parse in (parse_client_config, parse_daemon_config):
        with pytest.raises(ValueError, match=f"^it .*{said}|^it is {said}"):
            parse(data)


def test_a_number_of_a_million_digits_costs_nothing() -> None:
    assert parse_client_config(b'{"clusters": ' + b"9" * 1_000_000 + b"}").clusters == 0


KEYS = (
    "clusters", "cluster", "servers", "server", "hostname", "port", "enable", "options", "logging", "log_file",
    "hsm_ca_file", "client", "e2e_owner_crt_path", "disable_key_availability_check", "type",
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@QUICK
@given(document=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_no_type_is_trusted(document: dict[str, object]) -> None:
    data = json.dumps(document).encode()
    assert isinstance(parse_client_config(data), ClientConfig)
    assert isinstance(parse_daemon_config(data), DaemonConfig)


@QUICK
@given(VALUES)
def test_no_type_is_trusted_inside_a_cluster(value: object) -> None:
    for key in ("servers", "options", "hsm_ca_file"):
        assert read(sdk5(**{key: value})).clusters == 1
    for document in ({"clusters": value}, {"clusters": [value]}, {"clusters": [{"cluster": value}]}):
        assert isinstance(read(document), ClientConfig)


@QUICK
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,1e-.n', max_size=60).map(str.encode))
def test_no_bytes_make_anything_but_settings_or_a_sentence(data: bytes) -> None:
    try:
        parse_daemon_config(data)
        parse_client_config(data)
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
    assert parse_daemon_config(sdk3("10.0.0.9")) == DaemonConfig("10.0.0.9", CA, placeholder=False)
    assert parse_daemon_config(sdk3("%%SERVER_ADDR%%")).placeholder


@pytest.mark.parametrize(
    ("hostname", "port"),
    [(None, 2223), (10, 2223), ("a", None), ("a", "2223"), ("a", 1), ("a", True), ("a", 2223.0)],
)
def test_what_is_known_of_sdk_3_has_one_form(hostname: object, port: object) -> None:
    data = sdk3(hostname, port)
    assert parse_daemon_config(data).faults
    assert not parse_daemon_config(repaired_daemon_config(data)).faults
    assert parse_daemon_config(b"{}").faults


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 1},
        {"port": "2225"},
        {"port": None},
        {"enable": True},
        {"enable": "maybe"},
        {"hostname": None},
    ],
)
def test_what_is_known_of_the_utility_has_one_form(changes: dict[str, object]) -> None:
    good = {"name": "a", "hostname": "a", "port": 2225, "enable": "yes", "CApath": "/x"}
    assert parse_utility_config(json.dumps({"servers": [good]}).encode()) == UtilityConfig(("a",))
    data = json.dumps({"servers": [{**good, **changes}], "scard": {}}).encode()
    assert parse_utility_config(data).faults
    again = repaired_utility_config(data)
    assert not parse_utility_config(again).faults
    assert json.loads(again)["servers"][0]["CApath"] == "/x"


@pytest.mark.parametrize("servers", [None, {}, "a", [None], ["a"]])
def test_servers_of_the_utility_in_another_form_are_a_fault(servers: object) -> None:
    assert parse_utility_config(json.dumps({"servers": servers}).encode()).faults
