"""What the real openssl has to say of a CA that is sound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.authorities import maker as maker  # noqa: PLC0414 -- pytest takes it from here
from tests.fakes.authorities import root as root  # noqa: PLC0414 -- pytest takes it from here
from tests.fakes.certificates import openssl

if TYPE_CHECKING:
    from tests.fakes.authorities import Made


REPOSITORY = Path(__file__).parents[2]
ASKED = """
import ctypes, ctypes.util, datetime, hashlib, sys
from agent.cloudhsm.ca import find_certificates, read_ca
data = sys.stdin.buffer.read()
stale = "stale" in sys.argv
if stale:
    library = ctypes.CDLL(ctypes.util.find_library("crypto"))
    for reason in (0x41, 0x6C, 1):
        library.ERR_new()
        library.ERR_set_error(9, reason, None)
for _ in range(2):
    ca = read_ca(data, now=datetime.datetime.now(datetime.timezone.utc))
    assert find_certificates(data).plain
    if stale:
        library.ERR_new()
        library.ERR_set_error(20, 100, None)
print(ca.sha256, [key.bits for key in ca.keys], "ssl" in sys.modules)
"""
UNKNOWN_GROUP = """openssl_conf = init
[init]
ssl_conf = section
[section]
system_default = all
[all]
Groups = X25519NOTYET:X25519:P-256
"""
HALF_FIPS = """openssl_conf = init
[init]
providers = sect
[sect]
fips = fips_sect
base = base_sect
[fips_sect]
activate = 1
[base_sect]
activate = 1
"""


@pytest.mark.parametrize("configuration", [UNKNOWN_GROUP, HALF_FIPS, "nonsense = [", ""])
@pytest.mark.parametrize("queue", ["stale", "empty"])
def test_a_sound_ca_is_sound_whatever_openssl_has_to_complain_about(
    root: Made, tmp_path: Path, configuration: str, queue: str
) -> None:
    (tmp_path / "openssl.cnf").write_text(configuration, encoding="utf-8")
    if queue == "stale" and openssl("version").startswith(b"OpenSSL 1."):
        pytest.skip("ERR_new came with OpenSSL 3.0")
    done = subprocess.run(
        [sys.executable, "-c", ASKED, queue],
        input=root.pem,
        capture_output=True,
        check=False,
        env={"OPENSSL_CONF": str(tmp_path / "openssl.cnf"), "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout.decode() == f"{root.sha256} [2048] False\n", done.stderr.decode()
