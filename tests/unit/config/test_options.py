"""One reader for every option that takes a path: what people type on Linux and on Windows, plain and as a URI."""

from __future__ import annotations

import pytest

from agent.config.options import OPTIONS, CaSource, InvalidValueError
from agent.core.paths import parse_path, path_of_uri
from agent.sinks.registry import check

BY_NAME = {option.name: option for option in OPTIONS}
GOOD = [
    ("file:/a/b", "/a/b"),
    ("file:///a/b", "/a/b"),
    ("file://localhost/a/b", "/a/b"),
    ("file:/a b", "/a b"),
    ("file:/a%20b", "/a b"),
    ("file:///100%", "/100%"),
    ("file:C:\\x\\y", "C:\\x\\y"),
    ("file:C:/x/y", "C:/x/y"),
    ("file:/C:/x/y", "C:/x/y"),
    ("file:///C:/x/y", "C:/x/y"),
    ("file:///C:/Program%20Files/y", "C:/Program Files/y"),
    ("file:///c:\\x", "c:\\x"),
    ("file:\\\\server\\share\\y", "\\\\server\\share\\y"),
]
# on Windows another thing than was written, or nothing at all
BAD_NAMES = (
    "CON", "nul.txt", "COM1", "com\u00b9.log", "LPT9.x", "x:stream", "x.", "x ", "a<b", "a|b", 'a"b', "a?b", "a*b", "CONIN$",
)  # fmt: skip


@pytest.mark.parametrize(("uri", "path"), GOOD)
def test_a_file_uri_names_a_path(uri: str, path: str) -> None:
    assert path_of_uri(uri) == path
    assert BY_NAME["ca_cert"].parse(uri) == CaSource("file", path)
    assert BY_NAME["package_source"].parse(uri) == path
    check(uri)


@pytest.mark.parametrize(
    "uri", ["file:", "file:x", "file://server/a", "file:///", "file:/a\x00b", "file:/a%0ab", "file:/a\x7f"]
)
def test_what_names_no_file_is_refused_everywhere(uri: str) -> None:
    with pytest.raises(ValueError, match="file"):
        check(uri)


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("folder", ["C:\\logs\\", "C:/logs/", "\\\\server\\share\\"])
def test_what_windows_takes_for_something_else_is_refused(folder: str, name: str) -> None:
    path = folder + name
    with pytest.raises(ValueError, match="Windows"):
        parse_path(path)
    for option in ("log_file", "client_cert", "report_ca", "report_token_file"):
        with pytest.raises(InvalidValueError):
            BY_NAME[option].parse(path)
    for scheme in ("file", "junit", "prometheus"):
        with pytest.raises(ValueError, match="Windows"):
            check(f"{scheme}:{path}")
    # below a folder of that name as well
    with pytest.raises(ValueError, match="Windows"):
        parse_path(f"{path}\\x")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_on_linux_these_are_names_as_any_other(name: str) -> None:
    assert parse_path(f"/logs/{name}") == f"/logs/{name}"


def test_the_folder_of_windows_exporter_can_be_named() -> None:
    for uri in (
        r"prometheus:C:\Program Files\windows_exporter\textfile_inputs",
        "prometheus:C:/Program%20Files/windows_exporter/textfile_inputs",
        "prometheus:///C:/Program%20Files/windows_exporter/textfile_inputs",
    ):
        check(uri)
    with pytest.raises(ValueError, match="space"):
        check("https://receiver.example/a b")
