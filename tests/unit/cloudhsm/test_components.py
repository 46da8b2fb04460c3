"""The components of the client: one row is all that the agent knows of one, beside what the catalogue publishes."""

from __future__ import annotations

import re

import pytest

from agent.catalogue import load
from agent.cloudhsm.components import COMPONENTS, NAMES, SDK5, ClientComponent, component_of
from agent.cloudhsm.paths import LINUX, client_paths
from agent.config.options import OPTIONS
from agent.core import system
from agent.demo import package_contents
from agent.demo.default_config import fresh_cfg

WINDOWS = client_paths(system.windows())
every = pytest.mark.parametrize("row", COMPONENTS, ids=lambda each: f"{each.name}-{each.sdk}")


def test_the_catalogue_and_the_rows_agree() -> None:
    published = {(row.sdk, row.component): (row.package, row.msi) for row in load().packages}
    rows = {(each.sdk, each.name): (each.linux, each.windows) for each in COMPONENTS}
    assert published == {key: names for key, names in rows.items() if key != (3, "mgmt-util")}


@every
def test_a_component_is_known_by_its_packages(row: ClientComponent) -> None:
    assert [component_of(each) for each in (row.linux, row.windows) if each] == [row] * bool(row.linux) + [
        row
    ] * bool(row.windows)


@pytest.mark.parametrize("name", ["cloudhsm-ksp", "AWSCloudHSM", "cloudhsm-exporter", "", "cli"])
def test_any_other_package_is_no_component(name: str) -> None:
    assert component_of(name) is None


def test_no_two_components_have_one_package_or_one_name() -> None:
    packages = [name for each in COMPONENTS for name in (each.linux, each.windows) if name]
    assert len(set(packages)) == len(packages)
    assert len({(each.sdk, each.name) for each in COMPONENTS}) == len(COMPONENTS)


@every
def test_each_program_of_windows_has_words_to_be_known_by(row: ClientComponent) -> None:
    assert bool(row.windows) == bool(row.title) == bool(row.keyword)
    words = {"AWSCloudHSMManagementUtil": "management utility", "AWSCloudHSMKSP": "key storage"}
    if row.windows:
        name = words.get(row.windows, row.windows[len("AWSCloudHSM") :].lower())
        assert re.fullmatch(row.title, name)
        assert re.search(row.keyword, name)


@every
def test_a_library_is_known_on_the_systems_that_have_its_package(row: ClientComponent) -> None:
    if row.sdk == 5:
        assert LINUX.libraries.get(row.name) == (row.library if row.linux else None)
        assert WINDOWS.libraries.get(row.name) == (row.library if row.windows else None)


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_file_has_the_log_settings_of_its_row(name: str) -> None:
    text = fresh_cfg(name)
    for key, value in LINUX.logging(name).items():
        assert f'"{key}": "{value}"' in text
    assert ("log_file" in text) == ("log_file" in LINUX.logging(name)) == (SDK5[name].log_type == "file")


def test_the_option_names_every_component() -> None:
    option = next(each for each in OPTIONS if each.name == "component")
    named = option.help.partition(";")[0].replace(" (default)", "")
    assert tuple(named.split(", ")) == NAMES
    assert [option.parse(name) for name in NAMES] == list(NAMES)


@every
def test_there_is_a_stand_in_for_each_package_of_linux(row: ClientComponent) -> None:
    if row.linux:
        made = package_contents.describe(row.linux, "5.18.0", arch="amd64", interpreter="/usr/bin/python3")
        assert made.name == row.linux
