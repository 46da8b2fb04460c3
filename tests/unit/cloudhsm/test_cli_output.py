"""What the vendor's tools say, noise included."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloudhsm.cli_output import (
    CliResponse,
    activated,
    diagnose,
    hsm_serials,
    inconsistent,
    parse_response,
)
from agent.cloudhsm.sdk3.steps import connected_servers
from agent.core.codes import CODES
from tests.examples import examples

QUICK = examples(150)


def hsm(serial: object) -> dict[str, object]:
    """Return an HSM as the page cloudhsm_cli-cluster-hsm-info shows it."""
    return {
        "vendor": "Marvell Semiconductors, Inc.",
        "model": "NITROX-III CNN35XX-NFBE",
        "serial-number": serial,
        "firmware-version-major": "2",
        "fips-state": "2 [FIPS mode with single factor authentication]",
    }


def user(name: object, role: object = "crypto-user", coverage: object = "full") -> dict[str, object]:
    return {"username": name, "role": role, "locked": "false", "mfa": [], "cluster-coverage": coverage}


INFO = {"error_code": 0, "data": {"hsms": [hsm("5.3G1941-ICM000590"), hsm("5.3G1941-ICM000625")]}}
USERS = {
    "error_code": 0,
    "data": {"users": [user("admin", "admin"), user("app_user", "internal(APPLIANCE_USER)")]},
}
LOG = (
    "Error writing to log file. Falling back to standard error.\n"
    "2026-11-01T10:00:00 INFO [cloudhsm_provider::hsm1::session][][] Adding HSM connection to connection pool: "
    'HsmConnection { hsm_info: HSM { IP: "10.0.1.6", Port: 2223 } }\n'
)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", ["", LOG, "{{{ [", '{"unfinished": ', '"', LOG * 50])
@pytest.mark.parametrize("after", ["", "\n", "\n" + LOG, " }}", '{"', "{" * 50])
def test_the_answer_is_found_in_noise(indent: int | None, before: str, after: str) -> None:
    answer = parse_response(before + json.dumps(INFO, indent=indent) + after)
    assert answer == CliResponse(0, INFO["data"])
    assert answer.ok


def test_the_last_complete_answer_wins() -> None:
    first, second = json.dumps({"error_code": 1, "data": "no"}), json.dumps(INFO)
    assert parse_response(first + "\n" + second) == CliResponse(0, INFO["data"])
    assert parse_response(second + "\n" + first) == CliResponse(1, "no")
    assert parse_response(first + "\n" + second[:-1]) == CliResponse(1, "no")


def test_an_answer_inside_an_answer_is_not_one() -> None:
    inner = {"error_code": 5, "data": "inner"}
    assert parse_response(json.dumps({"error_code": 0, "data": inner})) == CliResponse(0, inner)
    assert parse_response(json.dumps({"data": inner, "error_code": 1})) == CliResponse(1, inner)


def test_the_order_of_keys_is_not_trusted() -> None:
    assert parse_response("{x " + json.dumps({"data": INFO["data"], "error_code": 0})) == CliResponse(
        0, INFO["data"]
    )


@pytest.mark.parametrize(
    "text",
    ["", "error_code", '{"error_code": 0', '{"error_code": "0"}', '{"error_code": true}', '{"error_code": null}',
     '{"error_code": 0.5}', '{"error_code": 1e400}', '["error_code"]', '{"data": "error_code"}', "{}"],
)  # fmt: skip
def test_what_is_no_answer(text: str) -> None:
    assert parse_response(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "{" * 3_000_000,
        '{"a":' * 600_000,
        '{"error_code":' * 200_000,
        '{"error_code": [' * 200_000 + '{"error_code": ' + "9" * 900_000,
        '"error_code"' * 200_000,
        "{" * 1_000_000 + '"error_code"' * 20 + "}" * 1_000_000,
        '{"error_code": 0, "data": "' + "\\" * 1_000_000,
    ],
)
def test_the_cost_is_bounded(text: str) -> None:
    started = time.thread_time()
    assert parse_response(text) is None
    assert diagnose(text) is None
    assert connected_servers(text) == ()
    assert time.thread_time() - started < 3


def test_an_answer_after_megabytes_of_noise_is_found() -> None:
    assert parse_response("{" * 3_000_000 + "\n" + json.dumps(INFO)) == CliResponse(0, INFO["data"])


@QUICK
@given(
    st.text(alphabet='{}[]":, error_code01\\\n', max_size=80),
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=4) | st.floats(allow_nan=False),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["hsms", "users", "role", "username", "serial-number"]), inner)
        ),
        max_leaves=10,
    ),
)
def test_no_type_is_trusted(noise: str, data: object) -> None:
    parse_response(noise)
    for key in ("hsms", "users"):
        answer = parse_response(noise + "\n" + json.dumps({"error_code": 0, "data": {key: data}}))
        assert answer is not None
        assert all(isinstance(serial, str) for serial in hsm_serials(answer))
        assert all(isinstance(name, str) for name in inconsistent(answer))
        assert activated(answer) in (True, False, None)


def test_hsms_are_counted_by_serial_number() -> None:
    rows = [hsm("A"), hsm("B"), hsm("A"), hsm(""), hsm(7), {}, None, "x"]
    assert hsm_serials(CliResponse(0, {"hsms": rows})) == ("A", "B")
    assert hsm_serials(CliResponse(0, {"hsms": []})) == ()
    assert hsm_serials(CliResponse(1, {"hsms": rows})) == ()
    assert hsm_serials(CliResponse(1, "HSM is disconnected")) == ()


def test_a_cluster_is_activated_when_its_admin_is() -> None:
    assert activated(CliResponse(0, USERS["data"])) is True
    waiting = {"users": [user("admin", "unactivated-admin"), user("app_user", "internal(APPLIANCE_USER)")]}
    assert activated(CliResponse(0, waiting)) is False
    assert activated(CliResponse(0, INFO["data"])) is None
    assert activated(CliResponse(0, {"users": [{"role": ["admin"]}, None]})) is None
    assert activated(CliResponse(1, "locked")) is None


def test_users_that_are_not_on_every_hsm() -> None:
    users = [
        user("admin", "admin"),
        user("a", coverage="inconsistent"),
        user("b"),
        user("a", coverage="inconsistent"),
    ]
    assert inconsistent(CliResponse(0, {"users": users})) == ("a",)
    assert inconsistent(CliResponse(0, USERS["data"])) == ()


VERIFICATION = "Certificate verification error with error code {} and depth {}: {}"


@pytest.mark.parametrize(
    ("said", "code", "hint"),
    [
        (VERIFICATION.format(20, 0, "unable to get local issuer certificate"), "client-tls-failed", None),
        (VERIFICATION.format(19, 1, "self-signed certificate in chain"), "client-tls-failed", None),
        (VERIFICATION.format(67, 1, "CA certificate key too weak"), "ca-key-weak", "5.17.2"),
        (VERIFICATION.format(10, 1, "certificate has expired"), "client-tls-failed", "date -u"),
        ("HSM is disconnected", "client-disconnected", None),
        (
            "Config key hostname has invalid value %%HSM_IP_ADDRESS%%",
            "configure-not-applied",
            "hsm-agent configure",
        ),
        ("cannot resolve %%SERVER_ADDR%%", "configure-not-applied", "hsm-agent configure"),
        (
            "Could not read configuration-referenced file client_cert_hsm_tls_path at location : No such file",
            "configure-not-applied",
            "--client-cert",
        ),
        (
            "Could not read configuration-referenced file hsm_ca_file at location /x: No such file or directory",
            "configure-not-applied",
            "names another file",
        ),
        ("Error in deserialization of data: Invalid integer conversion", "client-failed", "--client-version"),
        (
            "Failed to create cert/key from provided pfx file. Error: NotPkcs8",
            "client-failed",
            "openssl pkcs8 -topk8",
        ),
        (
            "multiple clusters provided in configuration file. Please specify cluster-id",
            "configure-not-applied",
            "remove",
        ),
        ("No credentials in the property bag", "configure-failed", "--hsm-ip"),
        ("LIQUIDSECURITY: Daemon socket connection error", "service-failed", None),
        (
            "Key 0x4 does not meet the availability requirements - The key must be available on at least 2 HSMs",
            "single-hsm-not-accepted",
            None,
        ),
        (
            "thread 'CloudHSM Worker' panicked at 'failed to create appender: Os { code: 13, kind: PermissionDenied",
            "client-failed",
            "/opt/cloudhsm/run",
        ),
        (
            "cloudhsm-cli: error while loading shared libraries: libncurses.so.5: cannot open shared object file",
            "library-unloadable",
            None,
        ),
    ],
)
def test_a_known_message_names_its_cause(said: str, code: str, hint: str | None) -> None:
    found = diagnose(f"{LOG}2026 ERROR [x][][] {said}\nother line\n")
    assert found is not None
    assert found.code == code
    assert said in found.saw
    assert "other line" not in found.saw
    assert found.code in CODES
    assert (found.hint is None) if hint is None else (hint in (found.hint or ""))


def test_causes_come_before_consequences_and_of_one_kind_the_last_counts() -> None:
    text = "\n".join(
        (
            VERIFICATION.format(67, 1, "CA certificate key too weak"),
            VERIFICATION.format(20, 0, "unable to get local issuer certificate"),
            "HSM is disconnected",
        )
    )
    found = diagnose(text)
    assert found is not None
    assert (found.code, found.saw) == (
        "client-tls-failed",
        VERIFICATION.format(20, 0, "unable to get local issuer certificate"),
    )


def test_what_is_not_known_has_no_cause() -> None:
    assert diagnose("") is None
    assert diagnose(LOG) is None
    assert diagnose("something new went wrong") is None


def test_what_is_shown_is_one_printable_line_of_bounded_length() -> None:
    found = diagnose("x" * 5000 + "\x1b[31mHSM is disconnected\x07" + "y" * 5000 + "\n")
    assert found is not None
    assert "HSM is disconnected" in found.saw
    assert found.saw.isprintable()
    assert len(found.saw) <= 300


def test_the_servers_that_sdk_3_connected_to() -> None:
    text = (
        "Connecting to the server(s), it may take time\ndepending on the server(s) load, please wait...\n\n"
        "Connecting to server '10.0.2.9': hostname '10.0.2.9', port 2225...\n"
        "Connected to server '10.0.2.9': hostname '10.0.2.9', port 2225.\r\n"
        "Connecting to server '10.0.3.11': hostname '10.0.3.11', port 2225...\n"
        "Connected to server 'three': hostname 'fd00::11', port 2225.\n"
        "Connected to server '10.0.4.4'\nConnected to server 10.0.4.5.\n"
        "Connected to server '10.0.2.9': hostname '10.0.2.9', port 2225.\n"
    )
    assert connected_servers(text) == ("10.0.2.9", "fd00::11", "10.0.4.4", "10.0.4.5")
    assert connected_servers("") == ()
