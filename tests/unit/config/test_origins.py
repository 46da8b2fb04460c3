"""`config show`: of each option the value that counts, and where it comes from."""

from __future__ import annotations

import hashlib
import ssl

import pytest

from agent.config.origins import HIDDEN, EffectiveOption, EffectiveOptions, effective_options
from agent.core.errors import AgentError
from agent.core.system import LINUX
from agent.render import config
from agent.state import records
from tests.fakes.memory import Memory

FILE = LINUX.configuration
KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HSM_AGENT_LOG_LEVEL", raising=False)


def found(memory: Memory, environ: dict[str, str] | None = None, **given: object) -> EffectiveOptions:
    return effective_options(memory, given, None, environ or {})


def option(found: EffectiveOptions, name: str) -> tuple[object, str, str]:
    each: EffectiveOption = next(each for each in found.options if each.name == name)
    return each.value, each.origin, each.where


def test_each_origin_is_named_and_the_strongest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(
        {
            FILE: b'[hsm]\nip = ["10.0.1.6",\n "10.0.1.7"]\n[client]\nlog_level = "warn"\nlog_type = "term"\n',
            f"{LINUX.configuration_folder}/10.toml": b'# ours\nclient.log_type = "file"\n',
        }
    )
    monkeypatch.setenv("HSM_AGENT_LOG_LEVEL", "debug")
    seen = found(memory, {"AWS_DEFAULT_REGION": "eu-west-1"}, sdk="5", replace_ca=True)
    assert option(seen, "hsm_ip") == (["10.0.1.6", "10.0.1.7"], "file", f"{FILE}:2")
    assert option(seen, "log_level") == ("debug", "environment", "HSM_AGENT_LOG_LEVEL")
    assert option(seen, "log_type") == ("file", "file", f"{LINUX.configuration_folder}/10.toml:2")
    assert option(seen, "sdk") == (5, "flag", "--sdk")
    assert option(seen, "replace_ca") == (True, "flag", "--replace-ca")
    assert option(seen, "region") == ("eu-west-1", "environment", "AWS_DEFAULT_REGION")
    assert option(seen, "component") == (["cli"], "default", "")
    assert option(seen, "timeout") == (None, "default", "")
    assert seen.notices == ()


def test_the_last_configure_completes_what_names_no_hsm(ca_pem: bytes) -> None:
    memory = Memory()
    asked = {"hsm_ip": ["10.0.1.6"], "log_level": "info", "report_to": ["https://r.example/x?token=abc"]}
    records.write_last(memory, records.LastConfigure(asked, ca_pem.decode()))
    seen = found(memory, log_level="warn")
    assert option(seen, "hsm_ip") == (["10.0.1.6"], "last-configure", LINUX.desired)
    assert option(seen, "log_level") == ("warn", "flag", "--log-level")
    assert option(seen, "report_to")[0] == ["https://r.example/x"]
    assert option(seen, "ca_cert") == (
        f"sha256:{hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca_pem.decode())).hexdigest()}",
        "last-configure",
        LINUX.desired,
    )
    # a request of its own does not take anything over
    assert option(found(memory, hsm_ip=["10.0.1.9"]), "log_level") == (None, "default", "")


def test_a_json_file_is_named_without_a_line_and_options_alone_are_no_error() -> None:
    memory = Memory({FILE: b'{"client": {"log_level": "warn"}}'})
    seen = found(memory)
    assert option(seen, "log_level") == ("warn", "file", FILE)
    assert option(seen, "hsm_ip") == (None, "default", "")


def test_nothing_that_may_be_a_secret_is_shown() -> None:
    memory = Memory({FILE: b'[client]\nsource = "https://mirror.example/x?sig=abc"\n'})
    seen = found(memory, {"HSM_AGENT_REPORT_TOKEN": "geheim"}, ca_cert=f"inline:{KEY}")
    assert option(seen, "report_token") == (HIDDEN, "environment", "HSM_AGENT_REPORT_TOKEN")
    assert option(seen, "ca_cert") == (HIDDEN, "flag", "--ca-cert")
    assert option(seen, "package_source") == ("https://mirror.example/x", "file", f"{FILE}:2")
    shown = config.screen(seen) + str(config.document(seen))
    assert not any(word in shown for word in ("geheim", "MC4CAQ", "sig="))


def test_a_record_that_an_ordinary_user_may_not_read_is_a_warning() -> None:
    memory = Memory()
    memory.root = False
    memory.place(LINUX.desired, b"{}", mode=0o600)
    seen = found(memory)
    assert [each.code for each in seen.notices] == ["record-unread"]
    assert "warning: " in config.screen(seen)


def test_what_is_wrong_is_refused_as_configure_does() -> None:
    with pytest.raises(AgentError) as caught:
        found(Memory({FILE: b"[hsm]\nips = 1\n"}))
    assert (caught.value.code.name, f"{FILE}:2" in caught.value.saw) == ("config-invalid", True)


def test_the_screen_names_origins_and_says_what_defaults_mean() -> None:
    text = config.screen(found(Memory(), sdk="3", package_source="/srv/mirror"))
    assert "sdk                3  (flag --sdk)\n" in text
    assert "package-source     /srv/mirror  (flag --package-source)\n" in text
    assert "client-version     what is installed, else the catalogue's newest\n" in text
    assert config.screen(found(Memory())).startswith("no option was given\n")
