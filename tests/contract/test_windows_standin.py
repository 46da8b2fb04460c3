"""The stand-ins of the vendor's Windows client, inside Wine: what of them is Windows; test_standin.py has the rest."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.windows import cluster
from tests.windows.found import CLUSTER, Source

assert sys.platform == "win32"

from agent.hosts.windows import win32  # noqa: E402 -- it is for Windows alone

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 60
VENDOR = Source("vendor")
PROGRAMS = Path(r"C:\Program Files\Amazon\CloudHSM")
HOME = Path(r"C:\ProgramData\Amazon\CloudHSM")
WORDS = Path(r"C:\ProgramData\cloudhsm-standin")
BOTH = (cluster.FIRST, cluster.SECOND)
FRESH = ["%%HSM_IP_ADDRESS%%"]
VERIFICATION = re.compile(r"Certificate verification error with error code (\d+) and depth (\d+): (.*)")


def msiexec(verb: str, path: str) -> int:
    return subprocess.run(["msiexec", verb, path, "/qn", "/norestart"], check=False, timeout=LIMIT).returncode


def argv(tool: str, *arguments: str) -> list[str]:
    return [str(PROGRAMS / "bin" / f"{tool}.exe"), *arguments]


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv(tool, *arguments), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=LIMIT
    )


def answer(done: subprocess.CompletedProcess[bytes]) -> Any:
    return json.loads(done.stdout)


def settings(component: str = "cli") -> Any:
    return json.loads((HOME / f"data/cloudhsm-{component}.cfg").read_text(encoding="utf-8"))


def servers(component: str = "cli") -> list[str]:
    (one,) = settings(component)["clusters"]
    return [server["hostname"] for server in one["cluster"]["servers"]]


def misbehave(tool: str, word: str) -> None:
    WORDS.mkdir(exist_ok=True)
    (WORDS / tool).write_text(f"{word}\n")


def nothing_is_kept() -> None:
    """What was written at run time stays when a package is removed, and so does its configuration."""
    for folder in (HOME, PROGRAMS, WORDS):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    nothing_is_kept()
    paths = [VENDOR.msi(component) for component in ("CLI", "PKCS11", "JCE", "KSP")]
    assert [msiexec("/i", path) for path in paths] == [0, 0, 0, 0]
    yield
    assert [msiexec("/x", path) for path in paths] == [0, 0, 0, 0]
    nothing_is_kept()


@pytest.fixture
def fresh(installed: None) -> Iterator[None]:
    """As the packages left it, and so again afterwards."""
    CLUSTER.mode("normal")
    kept = {path: path.read_bytes() for path in (HOME / "data").iterdir()}
    yield
    for path, data in kept.items():
        path.write_bytes(data)
    shutil.rmtree(WORDS, ignore_errors=True)


@pytest.fixture
def connected(fresh: None) -> None:
    assert run("configure-cli", "-a", *BOTH, "--hsm-ca-cert", str(CLUSTER.ca)).returncode == 0


# ---- packages


@pytest.mark.usefixtures("fresh")
def test_the_packages_put_things_where_the_vendor_has_them() -> None:
    names = {path.relative_to(PROGRAMS).as_posix() for path in PROGRAMS.rglob("*") if path.is_file()}
    assert {name for name in names if not name.endswith(".py")} == {
        *(f"bin/configure-{component}.exe" for component in ("cli", "pkcs11", "jce", "ksp")),
        "bin/cloudhsm-cli.exe",
        *("bin/cloudhsm_pkcs11.dll", "bin/cloudhsm_jce.dll", "bin/cloudhsm-ksp.dll"),
        "java/cloudhsm-jce-5.18.0.jar",
    }
    assert settings("ksp") == {
        "clusters": [
            {
                "type": "hsm1",
                "cluster": {
                    "hsm_ca_file": str(HOME / "customerCA.crt"),
                    "servers": [{"hostname": FRESH[0], "port": 2223, "enable": True}],
                },
            }
        ],
        "logging": {
            "log_type": "file",
            "log_file": str(PROGRAMS / "cloudhsm-ksp.log"),
            "log_level": "info",
            "log_interval": "daily",
        },
    }


# ---- the launcher


@pytest.mark.usefixtures("fresh")
def test_words_arrive_as_they_were_given() -> None:
    path = 'C:\\x y\\"q"\\\\"\\Жü %PATH% ^&|<> \t\\\\'
    assert (
        run("configure-cli", "--log-file", path, "--hsm-ca-cert=", "--client-cert-hsm-tls-file").returncode
        == 2
    )
    assert run("configure-cli", "--log-file", path).returncode == 0
    assert settings()["logging"]["log_file"] == path
    assert (
        run("configure-cli", "-ж")
        .stderr.decode()
        .startswith("error: Found argument '-ж' which wasn't expected")
    )


@pytest.mark.usefixtures("fresh")
def test_a_launcher_that_is_ended_takes_its_program_along() -> None:
    misbehave("configure-cli", "hang")
    with subprocess.Popen(argv("configure-cli", "-a", "10.0.1.6"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"working..."
        process.kill()
        assert process.stdout.read() == b""
    assert servers() == FRESH


@pytest.mark.usefixtures("fresh")
def test_an_orphan_holds_the_output_open() -> None:
    misbehave("configure-cli", "orphan")
    words = argv("configure-cli", "-a", "10.0.1.6")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.wait(LIMIT) == 0
        assert win32.bytes_available(process.stdout.fileno()) == 0
    assert servers() == ["10.0.1.6"]


# ---- configure-*


@pytest.mark.usefixtures("fresh")
def test_all_addresses_of_one_call_are_written_and_flags_add_up() -> None:
    flags = ["--hsm-ca-cert", r"C:\ca.crt", "--disable-key-availability-check"]
    assert run("configure-pkcs11", "-a", "10.0.1.6", "10.0.2.9", *flags).returncode == 0
    assert run("configure-pkcs11", "--log-level", "debug").returncode == 0
    (one,) = settings("pkcs11")["clusters"]
    assert one["cluster"] == {
        "hsm_ca_file": r"C:\ca.crt",
        "servers": [{"hostname": host, "port": 2223, "enable": True} for host in ("10.0.1.6", "10.0.2.9")],
        "options": {"disable_key_availability_check": True},
    }
    assert settings("pkcs11")["logging"]["log_level"] == "debug"
    assert servers("cli") == FRESH
    assert run("configure-pkcs11", "-a", "fd00::9").returncode == 0
    assert servers("pkcs11") == ["fd00::9"]


@pytest.mark.usefixtures("fresh")
def test_the_key_storage_provider_has_flags_of_its_own() -> None:
    words = ["--server-client-cert-file", r"C:\c", "--server-client-key-file", r"C:\k"]
    assert run("configure-ksp", *words, "--enable-sdk3-compatibility-mode").returncode == 0
    inner = settings("ksp")["clusters"][0]["cluster"]
    assert (inner["client_cert_path"], inner["client_key_path"]) == (r"C:\c", r"C:\k")
    assert run("configure-ksp", *words[:2]).returncode == 2
    assert run("configure-cli", *words).returncode == 2


@pytest.mark.usefixtures("fresh")
def test_there_is_no_tool_for_what_only_linux_has(tmp_path: Path) -> None:
    for ending in ("exe", "py"):
        shutil.copy(PROGRAMS / f"bin/configure-cli.{ending}", tmp_path / f"configure-dyn.{ending}")
    done = subprocess.run(
        [tmp_path / "configure-dyn.exe", "-h"], capture_output=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 70
    assert b"configure-{cli,pkcs11,jce,ksp}" in done.stderr


@pytest.mark.parametrize(
    ("word", "status", "wanted"),
    [
        ("noisy", 0, ["10.0.1.6"]),
        ("garbage", 0, ["10.0.1.6"]),
        ("lie", 0, FRESH),
        ("wrong", 0, ["192.0.2.1"]),
        ("half", 1, None),
        ("fail", 1, FRESH),
        ("fail-with-effect", 1, ["10.0.1.6"]),
        ("no-such-word", 70, FRESH),
    ],
)
@pytest.mark.usefixtures("fresh")
def test_configure_misbehaves_on_demand(word: str, status: int, wanted: list[str] | None) -> None:
    misbehave("configure-cli", word)
    done = run("configure-cli", "-a", "10.0.1.6")
    assert done.returncode == status
    assert len(done.stdout) > 100_000 or word not in ("noisy", "garbage")
    if wanted is None:
        with pytest.raises(json.JSONDecodeError):
            settings()
    else:
        assert servers() == wanted


# ---- cloudhsm-cli


@pytest.mark.usefixtures("connected")
def test_the_cluster_is_seen() -> None:
    done = run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, done.stderr) == (0, b"")
    assert len({one["serial-number"] for one in answer(done)["data"]["hsms"]}) == 2
    log = (PROGRAMS / "cloudhsm-cli.log").read_text(encoding="utf-8")
    assert f'HsmConnection {{ hsm_info: HSM {{ IP: "{cluster.FIRST}"' in log
    CLUSTER.mode("unactivated")
    users = answer(run("cloudhsm-cli", "user", "list"))["data"]["users"]
    assert [(one["username"], one["role"]) for one in users] == [
        ("admin", "unactivated-admin"),
        ("app_user", "internal(APPLIANCE_USER)"),
        ("app", "crypto-user"),
    ]


@pytest.mark.usefixtures("connected")
def test_another_ca_gives_the_documented_words() -> None:
    CLUSTER.mode("other-ca", cluster.FIRST)
    done = run("cloudhsm-cli", "cluster", "hsm-info")
    assert len(answer(done)["data"]["hsms"]) == 1
    (found,) = VERIFICATION.findall(done.stderr.decode())
    assert found[:2] == ("19", "1")
    assert run("configure-cli", "--hsm-ca-cert", str(CLUSTER.other_ca)).returncode == 0
    CLUSTER.mode("normal")
    done = run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, answer(done)["error_code"]) == (1, 1)
    found, _ = VERIFICATION.findall(done.stderr.decode())
    assert found[:2] == ("20", "0")


@pytest.mark.usefixtures("connected")
def test_without_an_answer_there_is_an_error_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDHSM_STANDIN_TIMEOUT", "0.5")
    CLUSTER.mode("silent", cluster.FIRST)
    CLUSTER.mode("closing", cluster.SECOND)
    done = run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, answer(done)["error_code"]) == (1, 1)
    assert run("configure-cli", "-a", cluster.NOBODY).returncode == 0
    done = run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, answer(done)["error_code"]) == (1, 1)


@pytest.mark.usefixtures("connected")
def test_mutual_tls() -> None:
    CLUSTER.mode("mtls")
    done = run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, answer(done)["data"]) == (1, "HSM is disconnected")
    pair = CLUSTER.client
    flags = ["--client-cert-hsm-tls-file", str(pair.cert), "--client-key-hsm-tls-file", str(pair.key)]
    assert run("configure-cli", *flags).returncode == 0
    assert len(answer(run("cloudhsm-cli", "cluster", "hsm-info"))["data"]["hsms"]) == 2
    assert CLUSTER.connections(cluster.FIRST)[-1]["mode"] == "mtls"


@pytest.mark.usefixtures("fresh")
def test_the_placeholder_and_a_missing_file_are_named() -> None:
    done = run("cloudhsm-cli", "cluster", "hsm-info")
    assert done.returncode == 1
    assert answer(done)["data"] == "Config key hostname has invalid value %%HSM_IP_ADDRESS%%"
    run("configure-cli", "-a", cluster.FIRST)
    words = (
        "Could not read configuration-referenced file hsm_ca_file at location {}: No such file or directory"
    )
    assert answer(run("cloudhsm-cli", "user", "list"))["data"] == words.format(HOME / "customerCA.crt")


@pytest.mark.parametrize(
    ("word", "status"), [("noisy", 0), ("half", 0), ("lie", 0), ("panicked", 101), ("fail-with-effect", 1)]
)
@pytest.mark.usefixtures("connected")
def test_the_cli_misbehaves_on_demand(word: str, status: int) -> None:
    misbehave("cloudhsm-cli", word)
    done = run("cloudhsm-cli", "cluster", "hsm-info")
    assert done.returncode == status
    if word == "fail-with-effect":
        assert len(answer(done)["data"]["hsms"]) == 2
    else:
        with pytest.raises(json.JSONDecodeError):
            answer(done)


@pytest.mark.usefixtures("connected")
def test_a_slow_start_works_the_third_time() -> None:
    misbehave("cloudhsm-cli", "slow-start")
    assert [run("cloudhsm-cli", "user", "list").returncode for _ in range(3)] == [1, 1, 0]


# ---- SDK 3


@pytest.fixture
def sdk3() -> Iterator[Path]:
    """SDK 3 installed, and the folder of its programs."""
    CLUSTER.mode("normal")
    path = VENDOR.msi("Client", "3.4.4")
    assert msiexec("/i", path) == 0
    yield PROGRAMS
    assert msiexec("/x", path) == 0
    for each in (HOME / "data").glob("cloudhsm_*.cfg"):
        each.unlink()


def service(*words: str) -> str:
    done = subprocess.run(
        [*words, "AWSCloudHSMClient"], capture_output=True, text=True, check=False, timeout=LIMIT
    )
    return done.stdout


def test_sdk_3_from_configure_to_the_management_tool(sdk3: Path) -> None:
    def sdk3_tool(name: str, *words: str, told: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = [str(sdk3 / f"{name}.exe"), *words]
        return subprocess.run(argv, input=told, capture_output=True, check=False, timeout=LIMIT)

    assert "STOPPED" in service("sc", "query")
    assert b"%%SERVER_ADDR%%" in (HOME / "data/cloudhsm_client.cfg").read_bytes()
    service("net", "start")
    assert any("1066" in service("sc", "query") for _ in range(200)), (
        "it ends at once: nobody told it an address"
    )

    shutil.copy(CLUSTER.ca, HOME / "customerCA.crt")
    done = sdk3_tool("configure", "-a", cluster.FIRST)
    assert done.stdout.decode().splitlines() == [
        rf"Updating server config in {HOME}\data\cloudhsm_client.cfg",
        rf"Updating server config in {HOME}\data\cloudhsm_mgmt_util.cfg",
    ]
    assert sdk3_tool("configure", "-m").returncode == 2, "there is no cluster.info yet"
    service("net", "start")
    assert any(sdk3_tool("configure", "-m").returncode == 0 for _ in range(50))
    assert "RUNNING" in service("sc", "query")
    assert "libevmulti_init: Ready !" in (sdk3 / "cloudhsm.log").read_text()
    said = sdk3_tool(
        "cloudhsm_mgmt_util",
        str(HOME / "data/cloudhsm_mgmt_util.cfg"),
        told=b"info server 0\nlistUsers\nquit\n",
    ).stdout.decode()
    assert [f"Connected to server '{address}'" in said for address in BOTH] == [True, True]
    assert "Number of users found:3" in said
    service("net", "stop")
    assert "STOPPED" in service("sc", "query")
    assert (
        "cloudhsm_client.exe"
        not in subprocess.run(["tasklist"], capture_output=True, text=True, check=True, timeout=LIMIT).stdout
    )
