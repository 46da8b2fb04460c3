"""What every layer shares: certificates, made once by the real openssl program, and an interpreter that lives on."""

from __future__ import annotations

import contextlib
import gc
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


with contextlib.suppress(ModuleNotFoundError):  # inside Wine no test has a use for it
    from hypothesis import HealthCheck, settings

    # no test depends on how busy the machine is
    settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("ours")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what is seen as what is wanted from now on"
    )


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
