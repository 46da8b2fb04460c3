"""What every layer shares: certificates, made once by the real openssl program, and an interpreter that lives on."""

from __future__ import annotations

import contextlib
import gc
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import iri_syntax, order, skips

if TYPE_CHECKING:
    from pathlib import Path


iri_syntax.stand_before_the_package()
with contextlib.suppress(ModuleNotFoundError):  # Hypothesis; inside Wine no test has a use for it
    from tests import examples

    examples.register()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what is seen as what is wanted from now on"
    )


# What `nohup`, a job in the background of a script, or a CI system ignores stays ignored in every program that a test
# starts, and tests send these to programs.
_ENDINGS = ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM")
_skipped = pytest.StashKey[dict[str, str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(
        config, "workerinput"
    ):  # only workers share the tests; one process alone keeps the order of files
        items.sort(key=lambda item: order.rank(item.path))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_skipped] = {}
    config.pluginmanager.register(_Skips(config))
    for number in (getattr(signal, name) for name in _ENDINGS if hasattr(signal, name)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


class _Skips:
    """Fails a run, on a machine that can have everything, for each skip that is not allowed there."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.config.stash[_skipped][report.nodeid] = str(report.longrepr)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        is_worker = hasattr(self.config, "workerinput")
        if not is_worker and exitstatus == 0 and skips.is_complete_machine() and self._unexpected():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if skips.is_complete_machine():
            for test, reason in self._unexpected().items():
                terminalreporter.write_line(
                    f"NOT ALLOWED TO BE SKIPPED HERE (tests/skips.py) {test}: {reason}"
                )

    def _unexpected(self) -> dict[str, str]:
        return skips.unexpected(self.config.stash[_skipped])


def _ca(folder: Path, name: str) -> bytes:
    argv = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3652", "-subj", f"/O=test/CN={name}",
        "-keyout", str(folder / "key"), "-out", str(folder / "crt"),
    ]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return (folder / "crt").read_bytes()


@pytest.fixture(autouse=True)
def nobody_listens_to_the_garbage_collector() -> None:
    """Hypothesis does, to leave its time out, and swallows what goes wrong in that.

    Where that is the limit of a recursion, such as in JSON of a thousand brackets, Python 3.9.2 "cannot recover from
    stack overflow" and aborts; 3.9.18 and 3.10 to 3.13 can.
    """
    gc.callbacks.clear()


@pytest.fixture(scope="session")
def ca_pem(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The cluster's CA."""
    return _ca(tmp_path_factory.mktemp("ca"), "customer CA")


@pytest.fixture(scope="session")
def other_ca_pem(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A CA of another cluster."""
    return _ca(tmp_path_factory.mktemp("ca"), "other CA")
