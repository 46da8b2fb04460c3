"""The stand-ins hold to what is written about the real tools (cloudhsm-facts.md 3, 4, 5, 8), also when they misbehave."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.demo import default_config, elf, hsm_server, mirror, package_contents, packages, pki

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LIMIT = 60
VERIFICATION = re.compile(r"Certificate verification error with error code (\d+) and depth (\d+): (.*)")
HSM_INFO = {
    "vendor": "Marvell Semiconductors, Inc.",
    "model": "NITROX-III CNN35XX-NFBE",
    "hardware-version-major": "5",
    "hardware-version-minor": "3",
    "firmware-version-major": "2",
    "firmware-version-minor": "6",
    "firmware-build-number": "16",
    "firmware-id": "CNN35XX-NFBE-FW-2.06-16",
    "fips-state": "2 [FIPS mode with single factor authentication]",
}


@dataclass(frozen=True)
class Root:
    """A folder that stands for a host's root, with packages laid out in it."""

    path: Path

    def install(self, package: str, version: str = "5.18.0") -> None:
        described = package_contents.describe(package, version, arch="amd64", interpreter=sys.executable)
        packages.install(self.path, described)

    def argv(self, tool: str, *arguments: str) -> list[str]:
        return [str(self.path / "opt/cloudhsm/bin" / tool), *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "CLOUDHSM_STANDIN_ROOT": str(self.path), "CLOUDHSM_STANDIN_TIMEOUT": "1"}

    def run(self, tool: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = self.argv(tool, *arguments)
        return subprocess.run(
            argv, input=stdin, capture_output=True, check=False, timeout=LIMIT, env=self.environment()
        )

    def misbehave(self, tool: str, word: str) -> None:
        folder = self.path / "etc/cloudhsm-standin"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / tool).write_text(word + "\n")

    def etc(self, name: str) -> Path:
        return self.path / "opt/cloudhsm/etc" / name

    def cfg(self, component: str = "cli") -> Any:
        return json.loads(self.etc(f"cloudhsm-{component}.cfg").read_text())

    def point_at(self, places: Sequence[tuple[str, int]], **more: object) -> None:
        """Write the servers with ports of their own: the configure tool knows 2223 only."""
        document = self.cfg()
        servers = [{"hostname": host, "port": port, "enable": True} for host, port in places]
        document["clusters"][0]["cluster"].update(servers=servers, **more)
        self.etc("cloudhsm-cli.cfg").write_text(json.dumps(document))

    def log(self) -> str:
        return (self.path / "opt/cloudhsm/run/cloudhsm-cli.log").read_text()


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = Root(tmp_path / "root")
    made.install("cloudhsm-cli")
    return made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pki.Pki:
    return pki.make(tmp_path_factory.mktemp("pki"))


@dataclass(frozen=True)
class Running:
    """Two HSMs of one cluster, and their places."""

    hsms: tuple[hsm_server.HsmServer, ...]
    places: tuple[tuple[str, int], ...]

    def mode(self, word: str) -> None:
        for hsm in self.hsms:
            hsm_server.set_mode(hsm.state, word)


@pytest.fixture(scope="module")
def two_hsms(certificates: pki.Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("hsms")
    first = _hsm(certificates, folder / "one", "127.0.0.2")
    second = replace(first, address="127.0.0.3", state=folder / "two")
    with hsm_server.running(first) as one, hsm_server.running(second) as two:
        yield Running((first, second), ((one.address, one.ports[0]), (two.address, two.ports[0])))


def _hsm(certificates: pki.Pki, state: Path, address: str) -> hsm_server.HsmServer:
    return hsm_server.HsmServer(
        address=address,
        identity=certificates.hsm,
        other=certificates.other_hsm,
        client_ca=certificates.client_ca.cert,
        state=state,
        ports=(0,),
        users=("app",),
        peers=("127.0.0.2", "127.0.0.3"),
    )


@pytest.fixture
def connected(root: Root, certificates: pki.Pki, two_hsms: Running) -> Root:
    two_hsms.mode("normal")
    shutil.copy(certificates.ca.cert, root.etc("customerCA.crt"))
    root.point_at(two_hsms.places)
    return root


def answer(done: subprocess.CompletedProcess[bytes]) -> Any:
    return json.loads(done.stdout)


# ---- configure-*


def test_a_fresh_package_ships_the_placeholder(root: Root) -> None:
    assert root.cfg() == {
        "clusters": [
            {
                "type": "hsm1",
                "cluster": {
                    "hsm_ca_file": "/opt/cloudhsm/etc/customerCA.crt",
                    "servers": [{"hostname": "%%HSM_IP_ADDRESS%%", "port": 2223, "enable": True}],
                },
            }
        ],
        "logging": {
            "log_type": "file",
            "log_file": "/opt/cloudhsm/run/cloudhsm-cli.log",
            "log_level": "info",
            "log_interval": "daily",
        },
    }


def test_all_addresses_and_flags_in_one_call_give_the_documented_file(root: Root) -> None:
    root.install("cloudhsm-pkcs11")
    flags = ["--hsm-ca-cert", "/srv/ca.crt", "--disable-key-availability-check", "--log-level", "debug"]
    assert root.run("configure-pkcs11", "-a", "10.0.1.6", "10.0.2.9", *flags).returncode == 0
    assert root.cfg("pkcs11") == {
        "clusters": [
            {
                "type": "hsm1",
                "cluster": {
                    "hsm_ca_file": "/srv/ca.crt",
                    "servers": [
                        {"hostname": "10.0.1.6", "port": 2223, "enable": True},
                        {"hostname": "10.0.2.9", "port": 2223, "enable": True},
                    ],
                    "options": {"disable_key_availability_check": True},
                },
            }
        ],
        "logging": {
            "log_type": "file",
            "log_file": "/opt/cloudhsm/run/cloudhsm-pkcs11.log",
            "log_level": "debug",
            "log_interval": "daily",
        },
    }
    assert root.cfg("cli") == json.loads(default_config.fresh_cfg("cli")), (
        "one tool must not configure another component"
    )


def test_a_second_call_replaces_the_servers_and_keeps_the_flags(root: Root) -> None:
    root.run("configure-cli", "-a", "10.0.1.6", "--disable-key-availability-check")
    root.run("configure-cli", "-a", "fd00::9")
    inner = root.cfg()["clusters"][0]["cluster"]
    assert [one["hostname"] for one in inner["servers"]] == ["fd00::9"]
    assert inner["options"] == {"disable_key_availability_check": True}
    root.run(
        "configure-cli", "--enable-key-availability-check", "--log-rotation", "hourly", "--log-type", "term"
    )
    after = root.cfg()
    assert after["clusters"][0]["cluster"]["servers"] == inner["servers"]
    assert after["clusters"][0]["cluster"]["options"] == {"disable_key_availability_check": False}
    assert (after["logging"]["log_interval"], after["logging"]["log_type"]) == ("hourly", "term")


def test_mutual_tls_files_go_in_as_a_pair(root: Root) -> None:
    assert root.run("configure-cli", "--client-cert-hsm-tls-file", "/c").returncode == 2
    done = root.run("configure-cli", "--client-cert-hsm-tls-file", "/c", "--client-key-hsm-tls-file", "/k")
    assert done.returncode == 0
    inner = root.cfg()["clusters"][0]["cluster"]
    assert (inner["client_cert_hsm_tls_path"], inner["client_key_hsm_tls_path"]) == ("/c", "/k")


def test_a_multi_cluster_file_is_refused(root: Root) -> None:
    document = root.cfg()
    document["clusters"] *= 2
    root.etc("cloudhsm-cli.cfg").write_text(json.dumps(document))
    done = root.run("configure-cli", "-a", "10.0.1.6")
    assert (done.returncode, root.cfg()) == (1, document)
    assert answer(root.run("cloudhsm-cli", "user", "list")) == {
        "error_code": 1,
        "data": "multiple clusters provided in configuration file. Please specify cluster-id",
    }


def test_root_is_needed(root: Root) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-U", "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    environment = {key: value for key, value in root.environment().items() if key != "CLOUDHSM_STANDIN_ROOT"}
    argv = ["unshare", "-U", *root.argv("configure-cli", "-a", "10.0.1.6")]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=LIMIT, env=environment)
    assert done.returncode == 1
    assert b"Permission denied" in done.stderr


def test_configure_starts_without_the_network_libraries(root: Root) -> None:
    argv = [sys.executable, "-IS", "-X", "importtime", *root.argv("configure-cli", "-h")]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=LIMIT)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.decode().splitlines()}
    assert loaded.isdisjoint({"ssl", "socket", "argparse", "subprocess", "threading", "site"})


WANTED = ["10.0.1.6"]
FRESH = ["%%HSM_IP_ADDRESS%%"]


@pytest.mark.parametrize(
    ("word", "status", "servers"),
    [
        ("noisy", 0, WANTED),
        ("locale", 0, WANTED),
        ("garbage", 0, WANTED),
        ("lie", 0, FRESH),
        ("wrong", 0, ["192.0.2.1"]),
        ("half", 1, None),
        ("fail", 1, FRESH),
        ("fail-with-effect", 1, WANTED),
        ("no-such-word", 70, FRESH),
    ],
)
def test_configure_misbehaves_on_demand(
    root: Root, word: str, status: int, servers: list[str] | None
) -> None:
    root.misbehave("configure-cli", word)
    done = root.run("configure-cli", "-a", "10.0.1.6")
    assert done.returncode == status
    assert len(done.stdout) > 100_000 or word not in ("noisy", "garbage")
    if servers is None:
        with pytest.raises(json.JSONDecodeError):
            root.cfg()
    else:
        assert [one["hostname"] for one in root.cfg()["clusters"][0]["cluster"]["servers"]] == servers


@pytest.mark.parametrize("tool", ["configure-cli", "cloudhsm-cli"])
def test_a_hang_ignores_sigterm(root: Root, tool: str) -> None:
    root.misbehave(tool, "hang")
    arguments = ["-a", "10.0.1.6"] if tool == "configure-cli" else ["cluster", "hsm-info"]
    argv = root.argv(tool, *arguments)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=root.environment()) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"working...\n"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.2)
        finally:
            process.kill()


# ---- cloudhsm-cli


def test_hsm_info_is_the_documented_object_once_for_each_hsm(connected: Root) -> None:
    done = connected.run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, done.stderr) == (0, b"")
    said = answer(done)
    serials = [one.pop("serial-number") for one in said["data"]["hsms"]]
    assert said == {"error_code": 0, "data": {"hsms": [HSM_INFO, HSM_INFO]}}
    assert len(set(serials)) == 2
    assert all(one.startswith("5.3G1941-ICM") for one in serials)
    assert 'HsmConnection { hsm_info: HSM { IP: "127.0.0.2"' in connected.log()
    assert "[][] Version handshake with server succeeded" in connected.log()


def test_user_list_is_the_documented_object(connected: Root, two_hsms: Running) -> None:
    def users() -> Any:
        return answer(connected.run("cloudhsm-cli", "user", "list"))["data"]["users"]

    admin = {"username": "admin", "role": "admin", "locked": "false", "mfa": [], "cluster-coverage": "full"}
    appliance = {**admin, "username": "app_user", "role": "internal(APPLIANCE_USER)"}
    assert users() == [admin, appliance, {**admin, "username": "app", "role": "crypto-user"}]
    two_hsms.mode("unactivated")
    assert users()[0] == {**admin, "role": "unactivated-admin"}


def test_the_placeholder_and_missing_files_are_named(root: Root, two_hsms: Running) -> None:
    done = root.run("cloudhsm-cli", "cluster", "hsm-info")
    assert done.returncode == 1
    assert answer(done)["data"] == "Config key hostname has invalid value %%HSM_IP_ADDRESS%%"
    root.point_at(two_hsms.places, client_cert_hsm_tls_path="", hsm_ca_file="/none.crt")
    words = "Could not read configuration-referenced file {} at location {}: No such file or directory"
    assert answer(root.run("cloudhsm-cli", "user", "list"))["data"] == words.format(
        "hsm_ca_file", "/none.crt"
    )


def test_another_configuration_file_can_be_named(connected: Root, tmp_path: Path) -> None:
    other = tmp_path / "other.cfg"
    other.write_text(default_config.fresh_cfg("cli"))
    assert answer(connected.run("cloudhsm-cli", "--config", str(other), "user", "list"))["error_code"] == 1
    assert connected.run("cloudhsm-cli", "--version").stdout == b"cloudhsm-cli 5.18.0\n"


@pytest.mark.parametrize("mode", ["closing", "plain", "silent"])
def test_an_hsm_that_is_reached_and_does_not_speak_tls(connected: Root, two_hsms: Running, mode: str) -> None:
    hsm_server.set_mode(two_hsms.hsms[0].state, mode)
    assert len(answer(connected.run("cloudhsm-cli", "cluster", "hsm-info"))["data"]["hsms"]) == 1
    two_hsms.mode(mode)
    done = connected.run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, answer(done)["error_code"]) == (1, 1)


def test_a_certificate_of_another_ca_gives_the_documented_words(connected: Root, two_hsms: Running) -> None:
    two_hsms.mode("other-ca")
    done = connected.run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, answer(done)["error_code"]) == (1, 1)
    found = VERIFICATION.search(done.stderr.decode())
    assert found is not None
    assert found.groups() == ("19", "1", found[3])
    assert VERIFICATION.search(connected.log())


def test_a_wrong_customer_ca_gives_the_documented_words(connected: Root, certificates: pki.Pki) -> None:
    shutil.copy(certificates.other_ca.cert, connected.etc("customerCA.crt"))
    found = VERIFICATION.search(connected.run("cloudhsm-cli", "cluster", "hsm-info").stderr.decode())
    assert found is not None
    assert found.groups() == ("20", "0", "unable to get local issuer certificate")


@pytest.mark.parametrize(
    ("kind", "version", "verdict"),
    [
        ("weak", "5.16.2", None),
        ("weak", "5.17.1", ("67", "1")),
        ("weak", "5.17.2", None),
        ("expired", "5.18.0", ("10", "1")),
        ("not-yet-valid", "5.18.0", ("9", "1")),
        ("ec", "5.18.0", None),
        ("chain", "5.18.0", None),
    ],
)
def test_kinds_of_ca(
    certificates: pki.Pki, tmp_path: Path, kind: str, version: str, verdict: tuple[str, str] | None
) -> None:
    root = Root(tmp_path / "root")
    root.install("cloudhsm-cli", version)
    ca, identity = pki.customer(tmp_path / "pki", kind)
    shutil.copy(ca.cert, root.etc("customerCA.crt"))
    hsm = replace(_hsm(certificates, tmp_path / "state", "127.0.0.4"), identity=identity)
    with hsm_server.running(hsm) as started:
        root.point_at([(started.address, started.ports[0])])
        done = root.run("cloudhsm-cli", "cluster", "hsm-info")
    found = VERIFICATION.search(done.stderr.decode())
    assert (found and found.groups()[:2]) == verdict
    assert done.returncode == (1 if verdict else 0)


def test_an_old_client_cannot_talk_to_hsm2m(certificates: pki.Pki, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.install("cloudhsm-cli", "5.12.0")
    shutil.copy(certificates.ca.cert, root.etc("customerCA.crt"))
    hsm = replace(_hsm(certificates, tmp_path / "state", "127.0.0.4"), hsm_type="hsm2m.medium")
    with hsm_server.running(hsm) as started:
        root.point_at([(started.address, started.ports[0])])
        done = root.run("cloudhsm-cli", "cluster", "hsm-info")
    assert answer(done)["data"] == "Error in deserialization of data: Invalid integer conversion"


def test_mutual_tls(connected: Root, certificates: pki.Pki, two_hsms: Running) -> None:
    two_hsms.mode("mtls")
    done = connected.run("cloudhsm-cli", "cluster", "hsm-info")
    assert (done.returncode, answer(done)["data"]) == (1, "HSM is disconnected")
    shutil.copy(certificates.client.cert, connected.etc("client.crt"))
    shutil.copy(certificates.client.key, connected.etc("client.key"))
    names = ["/opt/cloudhsm/etc/client.crt", "/opt/cloudhsm/etc/client.key"]
    flags = ["--client-cert-hsm-tls-file", names[0], "--client-key-hsm-tls-file", names[1]]
    assert connected.run("configure-cli", *flags).returncode == 0
    assert len(answer(connected.run("cloudhsm-cli", "cluster", "hsm-info"))["data"]["hsms"]) == 2


def test_a_log_file_that_cannot_be_written_makes_standard_output_noisy(connected: Root) -> None:
    connected.run("configure-cli", "--log-file", "/opt/cloudhsm/absent/cloudhsm-cli.log")
    done = connected.run("cloudhsm-cli", "cluster", "hsm-info")
    out = done.stdout.decode()
    assert done.returncode == 0
    assert out.startswith("Error writing to log file. Falling back to standard error.\n")
    assert "HsmConnection {" in out
    assert "HsmConnection {" in done.stderr.decode()
    assert len(json.loads(out[out.index('{\n  "error_code"') :])["data"]["hsms"]) == 2


@pytest.mark.parametrize(
    ("word", "status", "hsms"),
    [
        ("noisy", 0, None),
        ("locale", 0, None),
        ("garbage", 0, None),
        ("lie", 0, None),
        ("half", 0, None),
        ("fail", 1, None),
        ("panicked", 101, None),
        ("wrong", 0, None),
        ("one-of", 0, 1),
        ("duplicate", 0, 4),
        ("inconsistent", 0, 2),
        ("fail-with-effect", 1, 2),
        ("exit-0", 0, 2),
    ],
)
def test_the_cli_misbehaves_on_demand(connected: Root, word: str, status: int, hsms: int | None) -> None:
    connected.misbehave("cloudhsm-cli", word)
    done = connected.run("cloudhsm-cli", "cluster", "hsm-info")
    assert done.returncode == status
    if hsms is not None:
        assert len(answer(done)["data"]["hsms"]) == hsms
    elif word == "wrong":
        assert answer(done) == {"error_code": 0, "data": ["hsms"]}
    else:
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
            answer(done)
    if word == "panicked":
        assert b"failed to create appender: Os { code: 13, kind: PermissionDenied" in done.stderr
    if word == "inconsistent":
        users = answer(connected.run("cloudhsm-cli", "user", "list"))["data"]["users"]
        assert [one["cluster-coverage"] for one in users] == ["full", "inconsistent", "inconsistent"]


def test_a_slow_start_works_the_third_time(connected: Root) -> None:
    connected.misbehave("cloudhsm-cli", "slow-start")
    assert [connected.run("cloudhsm-cli", "user", "list").returncode for _ in range(4)] == [1, 1, 0, 0]


# ---- SDK 3


def test_sdk_3_from_configure_to_the_management_tool(certificates: pki.Pki, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.install("cloudhsm-client", "3.4.4")
    shutil.copy(certificates.ca.cert, root.etc("customerCA.crt"))
    assert "%%SERVER_ADDR%%" in root.etc("cloudhsm_client.cfg").read_text()
    done = root.run("configure", "-a", "127.0.0.5")
    assert done.stdout.decode().splitlines() == [
        "Updating server config in /opt/cloudhsm/etc/cloudhsm_client.cfg",
        "Updating server config in /opt/cloudhsm/etc/cloudhsm_mgmt_util.cfg",
    ]
    client = json.loads(root.etc("cloudhsm_client.cfg").read_text())
    assert client["server"] == {"hostname": "127.0.0.5", "port": 2223}
    assert client["client"]["e2e_owner_crt_path"] == "/opt/cloudhsm/etc/customerCA.crt"
    assert root.run("configure", "-m").returncode == 2, "there is no cluster.info yet"

    hsm = replace(_hsm(certificates, tmp_path / "state", "127.0.0.5"), peers=("127.0.0.5", "127.0.0.6"))
    with hsm_server.running(hsm) as started:
        client["server"]["port"] = started.ports[0]
        root.etc("cloudhsm_client.cfg").write_text(json.dumps(client))
        argv = root.argv("cloudhsm_client", str(root.etc("cloudhsm_client.cfg")))
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=root.environment()) as daemon:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == b"libevmulti_init: Ready !\n"
            assert root.run("configure", "-m").returncode == 0
            daemon.terminate()
            assert daemon.wait(LIMIT) == 0
        mgmt = json.loads(root.etc("cloudhsm_mgmt_util.cfg").read_text())
        assert [(one["hostname"], one["port"]) for one in mgmt["servers"]] == [
            ("127.0.0.5", 2225),
            ("127.0.0.6", 2225),
        ]
        assert root.run("configure", "--cmu", "127.0.0.5").returncode == 0
        mgmt = json.loads(root.etc("cloudhsm_mgmt_util.cfg").read_text())
        mgmt["servers"][0]["port"] = started.ports[0]
        root.etc("cloudhsm_mgmt_util.cfg").write_text(json.dumps(mgmt))
        commands = b"info server 0\ngetHSMInfo\nlistUsers\nquit\n"
        path = str(root.etc("cloudhsm_mgmt_util.cfg"))
        said = root.run("cloudhsm_mgmt_util", path, stdin=commands).stdout.decode()
    port = started.ports[0]
    assert f"Connecting to server '127.0.0.5': hostname '127.0.0.5', port {port}...\n" in said
    assert "Connected to server '127.0.0.5'" in said
    assert "Serial Number        :5.3G1941-ICM" in said
    assert "Number of users found:3" in said


# ---- packages, the mirror

DEB = "Noble/cloudhsm-pkcs11_5.18.0-1_u24.04_amd64.deb"
RPM = "Amzn2023/cloudhsm-pkcs11-5.18.0-1.amzn2023.x86_64.rpm"


@pytest.mark.parametrize(("path", "tool"), [(DEB, "dpkg-deb"), (RPM, "rpmbuild")])
def test_a_package_is_built_the_same_each_time(tmp_path: Path, path: str, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed here")
    first = packages.build(tmp_path, path, "cloudhsm-pkcs11", "5.18.0")
    again = packages.build(tmp_path, path, "cloudhsm-pkcs11", "5.18.0-1", padding_mb=0)
    assert first == again == hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
    large = packages.build(tmp_path, path, "cloudhsm-pkcs11", "5.18.0", padding_mb=2)
    assert large != first
    assert (tmp_path / path).stat().st_size > 2 * 1024 * 1024
    assert [one.name for one in (tmp_path / path).parent.iterdir()] == [(tmp_path / path).name]


def test_a_deb_says_what_it_needs(tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed here")

    def field(name: str) -> str:
        argv = ["dpkg-deb", "-f", str(tmp_path / DEB), name]
        return subprocess.run(argv, capture_output=True, check=True, timeout=LIMIT).stdout.decode().strip()

    packages.build(tmp_path, DEB, "cloudhsm-pkcs11", "5.18.0")
    assert [field(one) for one in ("Version", "Architecture", "Depends")] == [
        "5.18.0-1",
        "amd64",
        "libc6 (>= 2.17)",
    ]
    packages.build(tmp_path, DEB, "cloudhsm-pkcs11", "5.18.0", fault="unmet-dependency")
    assert field("Depends") == "libc6 (>= 99)"
    packages.build(tmp_path, DEB, "cloudhsm-client", "3.4.4")
    assert "cloudhsm-cli" in field("Conflicts")


def test_the_library_is_loaded_unless_it_misses_another(tmp_path: Path) -> None:
    machine = os.uname().machine
    if not sys.platform.startswith("linux") or machine not in ("x86_64", "aarch64"):
        pytest.skip("an ELF file for Linux")
    library = tmp_path / "libcloudhsm_pkcs11.so"
    exports = ("C_GetFunctionList",)
    library.write_bytes(elf.shared_object(machine, library.name, exports=exports, needed=["libc.so.6"]))
    assert ctypes.CDLL(str(library)).C_GetFunctionList() == 0x54
    broken = tmp_path / "broken.so"
    broken.write_bytes(
        elf.shared_object(machine, broken.name, exports=exports, needed=[package_contents.MISSING])
    )
    with pytest.raises(OSError, match=package_contents.MISSING):
        ctypes.CDLL(str(broken))


def test_a_mirror_serves_ranges_and_faults(tmp_path: Path) -> None:
    data, folder = os.urandom(100_000), tmp_path / "mirror"
    (folder / "Noble").mkdir(parents=True)
    (folder / "Noble/x.deb").write_bytes(data)
    served = mirror.Mirror(folder, tmp_path / "switch", log=tmp_path / "log")
    with mirror.running(served) as url:

        def get(**headers: str) -> tuple[int, bytes]:
            asked = urllib.request.Request(f"{url}/Noble/x.deb", headers=headers)
            with urllib.request.urlopen(asked, timeout=LIMIT) as response:
                return response.status, response.read()

        assert get() == (200, data)
        assert get(Range="bytes=40000-") == (206, data[40000:])
        mirror.set_faults(served.switch, {"*.deb": "wrong-bytes"})
        status, wrong = get()
        assert (status, len(wrong), wrong == data) == (200, len(data), False)
        for fault, status in (("404", 404), ("403", 403), ("500", 500)):
            mirror.set_faults(served.switch, {"/Noble/*": fault})
            with pytest.raises(urllib.error.HTTPError) as caught:
                get()
            assert caught.value.code == status
            caught.value.close()
        for fault in ("truncate", "reset"):
            mirror.set_faults(served.switch, {"*": fault})
            with pytest.raises((OSError, http.client.IncompleteRead)):
                get()
        mirror.set_faults(served.switch, {"*": "503*2"})
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError) as caught:
                get()
            caught.value.close()
        assert get() == (200, data)
    seen = mirror.requests_seen(tmp_path / "log")
    assert {
        "method": "GET",
        "path": "/Noble/x.deb",
        "range": "bytes=40000-",
        "status": 206,
        "fault": "",
    } in seen


def test_a_mirror_over_https(certificates: pki.Pki, tmp_path: Path) -> None:
    import ssl

    (tmp_path / "file").write_bytes(b"bytes")
    identity = certificates.hsm
    served = mirror.Mirror(tmp_path, tmp_path / "switch", cert=identity.cert, key=identity.key)
    context = ssl.create_default_context(cafile=str(certificates.ca.cert))
    context.check_hostname = False
    with (
        mirror.running(served) as url,
        contextlib.closing(urllib.request.urlopen(f"{url}/file", timeout=LIMIT, context=context)) as response,
    ):
        assert response.read() == b"bytes"


def test_unknown_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown mode"):
        hsm_server.set_mode(tmp_path / "state", "sideways")
    with pytest.raises(ValueError, match="unknown fault"):
        mirror.set_faults(tmp_path / "switch", {"*": "418"})
    with pytest.raises(ValueError, match="unknown fault"):
        packages.build(tmp_path, DEB, "cloudhsm-pkcs11", "5.18.0", fault="smells")
