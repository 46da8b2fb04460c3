"""What is hidden in logs and files before somebody else reads them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.redaction import HIDDEN, redact, redact_tree
from tests.examples import examples

QUICK = examples(100)

WORD = st.text("abcdefghijkmnopqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ23456789", min_size=12, max_size=30).map(
    "Zq9".__add__
)
FORMS = (
    "password={}", 'token = "{}"', "PASSWD: {}", '"SecretString": "{}"', "CLOUDHSM_PIN={}", "pin: {}",
    "Authorization: Bearer {}", "authorization: AWS4-HMAC-SHA256 Credential=x, Signature={}",
    "GET https://a.example/x?X-Amz-Signature={} HTTP/1.1", "https://user:{}@mirror.example/x", "x-amz-security-token: {}",
    "api_key='{}'", "cloudhsm-cli --password {} user list", "aws_secret_access_key = {}", "Cookie: a={}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n{}",
    "{}\n-----END EC PRIVATE KEY-----\n", r'"-----BEGIN PRIVATE KEY-----\n{}\n"', "HSM_AGENT_REPORT_TOKEN={}",
)  # fmt: skip


@QUICK
@given(st.sampled_from(FORMS), WORD, st.text(max_size=40), st.text(max_size=40))
def test_what_is_marked_as_a_secret_is_not_there(form: str, secret: str, before: str, after: str) -> None:
    said = redact(f"{before}\n{form.format(secret)}\n{after}")
    assert secret not in said
    assert HIDDEN in said


@pytest.mark.parametrize(
    "secret",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
    ],
)
def test_a_secret_of_a_known_form_needs_no_name(secret: str) -> None:
    assert secret not in redact(f"sent {secret} to it")


@pytest.mark.parametrize(
    "text",
    [
        "reach:10.0.1.6:2223 met saw='TLS by an HSM' code=None",
        "sha256:9f2c" + "0a" * 30,
        "spinning the disks: done",
        "https://mirror.example/CloudHsmClient/Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709 is a digest",
    ],
)
def test_what_helps_stays(text: str) -> None:
    assert redact(text) == text


def test_a_json_document_stays_one() -> None:
    tree = {"a": [{"token": "x", "note": "password=y"}, 1, None], "token": {"deeper": "kept"}, "secret": ""}
    assert redact_tree(tree) == {
        "a": [{"token": HIDDEN, "note": f"password={HIDDEN}"}, 1, None],
        "token": {"deeper": "kept"},
        "secret": "",
    }
    json.dumps(redact_tree(tree))


@pytest.mark.parametrize(
    "unit", ["a", "-", "token", "-----BEGIN PRIVATE KEY-----", "http://a", "A" * 41, ".", "--pin "]
)
def test_the_cost_of_one_long_line_is_bounded(unit: str) -> None:
    """What grows with the square of its input does not end here within the limit of a test."""
    assert redact(unit * (256 * 1024 // len(unit))) is not None
