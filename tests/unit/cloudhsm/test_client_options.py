"""The options that are passed on to the vendor's tools: one row is all that an option needs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.cloudhsm.client_config import parse_client_config
from agent.cloudhsm.client_options import CLIENT_OPTIONS, ClientOption, ClientOptions
from agent.cloudhsm.components import NAMES
from agent.cloudhsm.paths import LINUX
from agent.config.desired import Desired, from_json, resolve, to_json, with_options
from agent.config.input_errors import InputErrors
from agent.config.readers import read_document, read_environment, read_flags
from agent.core.timeouts import Timeouts
from agent.demo.default_config import fresh_cfg
from agent.steps.configure import Configure
from agent.user_data import AgentSource, check_fit, config_json
from tests.fakes.memory import Memory

every = pytest.mark.parametrize("option", CLIENT_OPTIONS, ids=lambda each: each.name)


def sample(option: ClientOption) -> str:
    return "/srv/a file" if option.is_path else option.words[0]


def step(component: str, options: ClientOptions) -> Configure:
    return Configure(component, LINUX, ("10.0.1.6",), False, Timeouts(), options)


@every
def test_an_option_is_read_from_each_source(option: ClientOption) -> None:
    input_errors = InputErrors()
    value = sample(option)
    given = (
        read_flags({option.name: value}, input_errors),
        read_environment({f"HSM_AGENT_{option.name.upper()}": value}, input_errors),
        read_document(f"[client]\n{option.name} = {json.dumps(value)}", "f", input_errors),
    )
    assert input_errors.texts == []
    assert given == ({option.name: value},) * 3


@every
def test_an_option_is_kept_in_records_and_user_data_under_its_own_name(option: ClientOption) -> None:
    desired = with_options(Desired(), {option.name: sample(option)})
    assert to_json(desired) == {option.name: sample(option)}
    assert from_json(to_json(desired)) == desired
    assert json.loads(config_json(desired)) == {"client": {option.name: sample(option)}}


@every
@pytest.mark.parametrize("value", [3, ["x"], True])
def test_a_record_whose_option_is_no_text_is_refused(option: ClientOption, value: Any) -> None:
    with pytest.raises(TypeError):
        from_json({option.name: value})


@every
def test_an_option_that_is_null_in_a_record_was_not_given(option: ClientOption) -> None:
    assert from_json({option.name: None}) == Desired()


@every
@pytest.mark.parametrize("component", NAMES)
def test_an_option_reaches_the_tools_of_its_components(option: ClientOption, component: str) -> None:
    argv = step(component, ClientOptions({option.name: sample(option)})).argv(Memory({}))
    given = list(zip(argv, argv[1:]))
    assert ((option.flag, sample(option)) in given) == (component in option.components)


@every
def test_an_option_is_read_back_from_the_file_that_the_tool_writes(option: ClientOption) -> None:
    tree = json.loads(fresh_cfg("cli"))
    section = tree["logging"] if option.section == "logging" else tree["clusters"][0]["cluster"]
    section[option.key] = sample(option)
    assert parse_client_config(json.dumps(tree).encode()).options[option.name] == sample(option)


@every
def test_an_option_that_is_unset_has_no_flag_or_the_value_of_a_fresh_package(option: ClientOption) -> None:
    argv = step("cli", ClientOptions({option.name: option.unset})).argv(Memory({}))
    assert (argv[argv.index(option.flag) + 1] if option.flag in argv else None) == LINUX.logging("cli").get(
        option.key
    )


@every
def test_user_data_takes_what_unsets_an_option(option: ClientOption) -> None:
    input_errors = InputErrors()
    desired = with_options(Desired(), {option.name: option.unset})
    for form in ("shell", "powershell"):
        check_fit(desired, AgentSource(), form, input_errors)
    assert input_errors.texts == []


@every
def test_an_option_of_sdk_5_alone_is_refused_for_sdk_3(option: ClientOption) -> None:
    input_errors = InputErrors()
    given = {"sdk": 3, "package_source": "/mirror", "client_cert": "/c", "client_key": "/k"}
    given[option.name] = sample(option)
    with pytest.raises(Exception, match="wrong with the input"):
        resolve([given], input_errors)
    text = f"--sdk 3: --{option.name.replace('_', '-')} belongs to SDK 5"
    assert (text in input_errors.texts) == (3 not in option.sdks)
