"""Everything between a placed package and a proven client, broken one thing at a time, on real hosts and a real network.

Each fault gives its exact code, exit status, and words to act on; after the cure the same command ends 0, and once more
finds everything met.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.demo import default_config, mirror, package_contents, pki
from agent.demo.hsm_server import HsmServer

from .kernel import until
from .network import OPERATOR_IP
from .scene import (
    CA,
    ETC,
    STATE,
    Ran,
    Scene,
    agent,
    cluster,
    misbehave,
    prepare,
    serve,
    servers,
    settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab
    from .network import HsmSeat

IMAGE = "ubuntu22.04"
BIN = "/opt/cloudhsm/bin"
LIBRARY = "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so"
HTTPS_PORT = 8443
SINGLE = "single-hsm"
HERE = {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        made.package(IMAGE, "cloudhsm-cli")
        made.package(IMAGE, "cloudhsm-pkcs11")
        yield made


@pytest.fixture(scope="module")
def good() -> list[LabHost]:
    """The host that the tests of this module break and cure; one that could not be cured is left out."""
    return []


@pytest.fixture
def host(scene: Scene, good: list[LabHost], make_shared_host: MakeHost) -> Iterator[LabHost]:
    """A host in order. After the test it is cured of it: the usual run ends 0, and the next finds everything met."""
    if not good:
        fresh = make_shared_host(IMAGE, agent=True)
        prepare(fresh, scene)
        assert first(fresh, scene).exit_status == 0
        good.append(fresh)
    (host,) = good
    yield host
    good.clear()
    scene.mode("normal")
    for seat in scene.hsms:
        seat.faults.clear()
    host.must(["rm", "-rf", "/etc/cloudhsm-standin", "/run/cloudhsm-standin"])
    cured(host, *wanted(scene))
    good.append(host)


@contextmanager
def hsms(lab: Lab, folder: Path, count: int = 2, kind: str = "normal") -> Iterator[Scene]:
    """Another cluster, without a mirror of its own."""
    made = pki.make(folder, kind)
    other = Scene(lab, folder, made, tuple(lab.hsm() for _ in range(count)))
    try:
        for seat in other.hsms:
            serve(other, seat)
        yield other
    finally:
        for seat in other.hsms:
            lab.end(seat)


def wanted(scene: Scene) -> list[str]:
    """The options of the host's usual run."""
    return [*scene.options(IMAGE), "--component", "pkcs11"]


def first(host: LabHost, scene: Scene, *more: str) -> Ran:
    return agent(host, "configure", *wanted(scene), *more)


def cured(host: LabHost, *options: str) -> None:
    again = agent(host, "configure", *options)
    assert (again.exit_status, again.code) == (0, None), again
    once_more = agent(host, "configure", *options)
    assert (once_more.exit_status, once_more.report["changed"]) == (0, False), once_more
    assert once_more.outcomes == {"met"}, once_more


def told(ran: Ran, exit_status: int, code: str, *, step: str = "", saw: str = "", hint: str = "") -> None:
    """Hold a failure to its code, its exit status, and the words of the line (or of the run) that decided it."""
    assert (ran.exit_status, ran.code) == (exit_status, code), ran
    words = ran.step(step) if step else ran.report["failure"]
    assert saw in words["saw"], words
    assert hint in (words["hint"] or ""), words


def unconfigured(host: LabHost, *components: str) -> None:
    """Bring back the file of a fresh package where no copy of another was kept: nothing worked before."""
    host.must(["rm", "-rf", f"{STATE}/snapshots", f"{STATE}/proven.json"])
    placeholder(host, *components)


def placeholder(host: LabHost, *components: str) -> None:
    """Bring back the file of a fresh package, as its reinstallation does."""
    for component in components or ("cli", "pkcs11"):
        host.put(f"{ETC}/cloudhsm-{component}.cfg", default_config.fresh_cfg(component).encode())


def identity(host: LabHost, *paths: str) -> str:
    """Inode, times, owner and mode of files: what a write of any kind would change."""
    return host.must(["stat", "-c", "%n %i %Y %Z %U:%G %a", *paths])


# ---- the network


NETWORK: dict[str, tuple[Callable[[Scene, HsmSeat], None], str, str, str]] = {
    "dropped": (lambda _, seat: seat.faults.drop(), "hsm-timed-out", "timed out after 5 s", "security group"),
    "reset": (lambda _, seat: seat.faults.reset(), "hsm-refused", "refused", "describe-clusters"),
    "unreachable": (lambda _, seat: seat.faults.unreachable(), "hsm-no-route", "No route to host", "ip route get"),
    "silent after connect": (
        lambda _, seat: seat.faults.drop_after_connect(), "hsm-no-tls", "connected, then was silent for 5 s", "HSM",
    ),
    "frozen": (lambda _, seat: seat.freeze(), "hsm-no-tls", "connected, then was silent for 5 s", "describe-clusters"),
    "silent": (
        lambda scene, seat: scene.mode("silent", scene.hsms.index(seat)), "hsm-no-tls", "was silent", "describe-clusters",
    ),
    "plain": (
        lambda scene, seat: scene.mode("plain", scene.hsms.index(seat)), "hsm-no-tls", "not with TLS", "describe-clusters",
    ),
    "closing": (
        lambda scene, seat: scene.mode("closing", scene.hsms.index(seat)), "hsm-no-tls", "connected, then", "describe-clusters",
    ),
}  # fmt: skip


def test_each_fault_of_the_network_has_its_own_name(lab: Lab, host: LabHost, tmp_path: Path) -> None:
    """All faults at once, an HSM each: every line has its own cause, and the run's is that of the first."""
    with hsms(lab, tmp_path / "many", len(NETWORK)) as many:
        for seat, (breaks, *_) in zip(many.hsms, NETWORK.values()):
            breaks(many, seat)
        ran = agent(host, "verify", *(word for address in many.addresses for word in ("--hsm-ip", address)))
        for seat in many.hsms:
            seat.thaw()
    told(ran, 40, "hsm-timed-out", step=f"reach:{many.addresses[0]}:2223")
    for seat, (_, code, saw, hint) in zip(many.hsms, NETWORK.values()):
        line = ran.step(f"reach:{seat.ip}:2223")
        assert (line["outcome"], line["code"]) == ("failed", code), line
        assert saw in line["saw"], line
        assert hint in line["hint"], line
        assert {
            "ip": seat.ip,
            "port": 2223,
            "reached": False,
            "cause": code,
            "connect_ms": None,
        } in ran.report["hsms"]
    assert ran.step("client:hsm-info")["hint"].startswith("needs ")


@pytest.mark.parametrize("name", ["dropped", "reset", "unreachable", "plain", "closing"])
def test_a_host_whose_hsms_cannot_be_reached_keeps_what_it_has(
    scene: Scene, host: LabHost, name: str
) -> None:
    breaks, code, saw, hint = NETWORK[name]
    for seat in scene.hsms:
        breaks(scene, seat)
    before = identity(host, CA, f"{ETC}/cloudhsm-cli.cfg")
    ran = first(host, scene)
    told(ran, 40, code, saw=saw, hint=hint)
    assert (ran.report["outcome"], ran.report["changed"]) == ("failed", False)
    assert (ran.outcome("client:hsm-info"), ran.step("client:hsm-info")["hint"]) == (
        "skipped",
        "needs reach:*",
    )
    assert identity(host, CA, f"{ETC}/cloudhsm-cli.cfg") == before


@pytest.mark.parametrize(
    ("route", "saw"), [("no_route", "No route"), ("black_hole", "Invalid"), ("prohibit", "denied")]
)
def test_a_host_without_a_way_to_the_hsms_says_so(scene: Scene, host: LabHost, route: str, saw: str) -> None:
    for address in scene.addresses:
        getattr(host.seat.faults, route)(address)
    try:
        told(first(host, scene), 40, "hsm-no-route", saw=saw, hint="ip route get")
    finally:
        host.seat.faults.clear()


def test_a_new_host_that_reaches_no_hsm_keeps_what_is_right(scene: Scene, make_host: MakeHost) -> None:
    host = make_host(IMAGE, agent=True)
    prepare(host, scene)
    for seat in scene.hsms:
        seat.faults.reset(source=host.ip)
    ran = first(host, scene)
    told(ran, 40, "hsm-refused", step=f"reach:{scene.addresses[0]}:2223")
    assert servers(host) == list(scene.addresses)
    for seat in scene.hsms:
        seat.faults.clear()
    assert agent(host, "verify").outcomes == {"met"}


def test_six_hsms_that_all_time_out_cost_one_timeout(host: LabHost) -> None:
    addresses = [f"10.99.0.{number}" for number in range(1, 7)]  # off-link: nobody forwards there
    ran = agent(host, "verify", *(word for address in addresses for word in ("--hsm-ip", address)))
    told(ran, 40, "hsm-timed-out")
    seconds = [ran.step(f"reach:{address}:2223")["seconds"] for address in addresses]
    wall = ran.step("reach:10.99.0.1:2223")["seconds"]
    assert sum(seconds) > 5 * wall, seconds  # each waited its own time out ...
    assert shared_wall(ran) < sum(seconds) / 2, ran.report  # ... and all of them at the same time


def shared_wall(ran: Ran) -> float:
    """The run's own length, from its report, to the second."""
    clock = [ran.report[key].split("T")[1].rstrip("Z").split(":") for key in ("started", "finished")]
    begun, ended = (int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in clock)
    return float((ended - begun) % 86400)


@pytest.mark.parametrize("name", ["reset", "closing"])
def test_one_of_two_down_is_degraded_and_never_undone(scene: Scene, host: LabHost, name: str) -> None:
    NETWORK[name][0](scene, scene.hsms[0])
    level = {"reset": "debug", "closing": "trace"}[name]
    ran = first(host, scene, "--log-level", level)
    told(ran, 41, "hsm-degraded", step=f"reach:{scene.addresses[0]}:2223")
    assert (ran.report["outcome"], ran.outcome("configure:cli")) == ("degraded", "changed")
    assert [each["reached"] for each in ran.report["hsms"]] == [False, True]
    assert ran.step("client:hsm-info")["saw"] == "1 of 2 HSMs answer"
    assert settings(host)["logging"]["log_level"] == level
    again = first(host, scene, "--log-level", level)
    assert (again.exit_status, again.report["changed"]) == (41, False)


def test_an_hsm_is_reached_by_its_ipv6_address(scene: Scene, host: LabHost) -> None:
    seat = scene.hsms[0]
    ipv6 = str(ipaddress.ip_address(seat.ipv6))
    hsm = HsmServer(
        ipv6, scene.made.hsm, scene.made.other_hsm, scene.made.client_ca.cert, scene.folder / "mode-v6"
    )
    argv = ["python3", "-m", "agent.demo.hsm_server", *hsm.arguments()]
    server = seat.start([*argv, "--ports=2223"], env=HERE)
    until(lambda: "LISTEN" in seat.tool(["ss", "-tln", f"src [{ipv6}]:2223"]), "the HSM's IPv6 address")
    options = [*wanted(scene), "--hsm-ip", ipv6]
    ran = agent(host, "configure", *options)
    assert (ran.exit_status, servers(host)) == (0, [*scene.addresses, ipv6]), ran
    assert ran.outcome(f"reach:[{ipv6}]:2223") == "met"
    assert {"ip": ipv6, "port": 2223, "reached": True}.items() <= ran.report["hsms"][2].items()
    assert agent(host, "configure", *options).outcomes == {"met"}
    seat.faults.reset(source=host.seat.ipv6)
    told(agent(host, "verify"), 41, "hsm-degraded", step=f"reach:[{ipv6}]:2223", saw="refused")
    server.terminate()


def test_a_host_that_moves_to_other_hsms_asks_the_dead_ones_twice(
    lab: Lab, scene: Scene, host: LabHost
) -> None:
    """A cold start may fail once, and what worked would not be put back then: so twice, and not as often as a proof."""
    log = "/opt/cloudhsm/run/cloudhsm-cli.log"
    for seat in scene.hsms:
        seat.faults.reset()
    host.must(["truncate", "-s", "0", log])
    told(first(host, scene, "--log-level", "warn"), 40, "hsm-refused")
    assert host.get(log).decode().count(f"{scene.addresses[0]}:2223 Could not connect") == 2
    assert (
        settings(host)["logging"]["log_level"] == "warn"
    )  # nothing that worked was lost, so nothing is undone


# ---- TLS and the client's own words


def test_hsms_of_another_ca_are_told_by_what_the_client_says(scene: Scene, host: LabHost) -> None:
    scene.mode("other-ca")
    ran = first(host, scene)
    told(
        ran,
        42,
        "client-tls-failed",
        step="client:hsm-info",
        saw="Certificate verification error",
        hint="--replace-ca",
    )
    assert ran.outcome(f"reach:{scene.addresses[0]}:2223") == "met"


def test_another_ca_on_a_new_host_is_told_and_replaced_when_allowed(
    scene: Scene, make_host: MakeHost
) -> None:
    host = make_host(IMAGE, agent=True)
    prepare(host, scene)
    argv = ["/root/otherCA.crt" if word == "/root/customerCA.crt" else word for word in scene.options(IMAGE)]
    ran = agent(host, "configure", *argv)
    told(ran, 42, "client-tls-failed", step="client:hsm-info", saw="verification error", hint="--replace-ca")
    refused = agent(host, "configure", *scene.options(IMAGE))
    told(refused, 31, "ca-would-be-replaced", step="certificate", saw="sha256:", hint="--replace-ca")
    assert host.get(CA) == scene.made.other_ca.cert.read_bytes()
    cured(host, *scene.options(IMAGE), "--replace-ca")
    assert host.get(CA) == scene.made.ca.cert.read_bytes()


def test_another_ca_on_a_host_that_worked_is_put_back(scene: Scene, host: LabHost) -> None:
    ran = first(host, scene, "--ca-cert", "/root/otherCA.crt", "--replace-ca")
    told(ran, 51, "rolled-back", saw="Certificate verification error", hint="--replace-ca")
    assert (ran.report["cause"], host.get(CA)) == ("client-tls-failed", scene.made.ca.cert.read_bytes())
    assert "previous-works" in ran.told


def test_mutual_tls_is_named_and_cured_by_a_client_certificate(scene: Scene, host: LabHost) -> None:
    scene.mode("mtls")
    told(first(host, scene), 42, "client-disconnected", saw="HSM is disconnected", hint="--client-cert")
    pair = ["--client-cert", "/root/client.crt", "--client-key", "/root/client.key"]
    cured(host, *wanted(scene), *pair)
    inner = settings(host, "pkcs11")["clusters"][0]["cluster"]
    assert (inner["client_cert_hsm_tls_path"], inner["client_key_hsm_tls_path"]) == (pair[1], pair[3])
    host.must(["cp", "/root/client.key", "/root/moved.key"])
    moved = first(host, scene, *pair[:3], "/root/moved.key")
    assert (moved.exit_status, moved.outcome("configure:cli")) == (0, "changed"), moved
    assert settings(host)["clusters"][0]["cluster"]["client_key_hsm_tls_path"] == "/root/moved.key"
    host.must(["rm", "/root/moved.key"])
    gone = agent(host, "verify")
    told(
        gone,
        50,
        "configure-not-applied",
        step="client:hsm-info",
        saw="client_key_hsm_tls_path",
        hint="--client-key",
    )
    scene.mode("normal")
    # it was part of what worked, so it stays until it is said that there is none
    assert first(host, scene).code == "configure-not-applied"
    cured(host, *wanted(scene), "--client-cert", "none", "--client-key", "none")
    for component in ("cli", "pkcs11"):
        inner = settings(host, component)["clusters"][0]["cluster"]
        assert not {"client_cert_hsm_tls_path", "client_key_hsm_tls_path"} & set(inner)


def test_a_cause_that_stands_in_the_log_alone_is_found_where_the_log_is(scene: Scene, host: LabHost) -> None:
    scene.mode("mtls", 0)
    scene.mode("closing", 1)
    told(first(host, scene), 42, "client-disconnected", step="client:hsm-info", saw="HSM is disconnected")
    elsewhere = first(host, scene, "--log-file", "/var/log/client.log")
    assert elsewhere.report["cause"] in (None, "client-disconnected"), elsewhere
    assert elsewhere.code in ("client-disconnected", "rolled-back"), elsewhere
    scene.mode("normal")
    cured(host, *wanted(scene), "--log-file", "/var/log/client.log")
    scene.mode("mtls", 0)
    scene.mode("closing", 1)
    told(agent(host, "verify"), 42, "client-disconnected", step="client:hsm-info", saw="HSM is disconnected")
    unconfigured(host)


def test_a_cluster_that_was_never_activated(scene: Scene, host: LabHost) -> None:
    scene.mode("unactivated")
    ran = first(host, scene)
    told(
        ran,
        43,
        "cluster-not-activated",
        step="client:activated",
        saw="unactivated-admin",
        hint="cluster activate",
    )


# word -> exit status, code, what is seen, what hint helps
ANSWERS: dict[str, tuple[int, str | None, str, str]] = {
    "noisy": (0, None, "2 of 2 HSMs answer", ""),
    "locale": (0, None, "2 of 2 HSMs answer", ""),
    "orphan": (0, None, "2 of 2 HSMs answer", ""),
    "duplicate": (0, None, "2 of 2 HSMs answer", ""),
    "fail-with-effect": (0, None, "2 of 2 HSMs answer", ""),
    "exit-0": (0, None, "2 of 2 HSMs answer", ""),
    "inconsistent": (0, None, "2 of 2 HSMs answer", ""),
    "one-of": (41, "hsm-degraded", "1 of 2 HSMs answer", "keys may be unavailable"),
    "wrong": (42, "client-failed", "0 of 2 HSMs answer", "cluster hsm-info` by hand"),
    "panicked": (42, "client-failed", "PermissionDenied", "owner of /opt/cloudhsm/run"),
}


@pytest.mark.parametrize("word", ANSWERS)
def test_whatever_the_client_answers_is_judged_by_its_json(scene: Scene, host: LabHost, word: str) -> None:
    misbehave(host, "cloudhsm-cli", word)
    ran = first(host, scene)
    exit_status, code, saw, hint = ANSWERS[word]
    assert (ran.exit_status, ran.code) == (exit_status, code), ran
    line = ran.step("client:hsm-info")
    assert saw in line["saw"], line
    if exit_status:
        assert hint in ran.report["failure"]["hint"], ran.report["failure"]
    assert ("users-inconsistent" in ran.told) == (word == "inconsistent")


def test_an_error_is_an_error_also_with_exit_0(scene: Scene, host: LabHost) -> None:
    misbehave(host, "cloudhsm-cli", "exit-0")
    scene.mode("mtls")
    told(first(host, scene), 42, "client-disconnected", step="client:hsm-info", saw="HSM is disconnected")


SLOW: dict[str, tuple[int, str | None, str]] = {
    "garbage": (42, "client-failed", ""),
    "lie": (42, "client-failed", "exit 0 without a word"),
    "half": (42, "client-failed", "firmware-id"),
    "fail": (42, "client-failed", "Internal error"),
    "slow-start": (0, None, "2 of 2 HSMs answer"),
}


def test_a_client_that_does_not_answer_is_asked_again_and_then_named(
    scene: Scene, make_host: MakeHost
) -> None:
    """Each costs the pauses between three tries, so each has a host of its own and they run at the same time."""
    hosts = {word: make_host(IMAGE, agent=True, init="idle") for word in SLOW}
    for word, each in hosts.items():
        prepare(each, scene)
        misbehave(each, "cloudhsm-cli", word)
    with ThreadPoolExecutor(len(hosts)) as pool:
        runs = dict(
            zip(hosts, pool.map(lambda each: agent(each, "configure", *scene.options(IMAGE)), hosts.values()))
        )
    for word, (exit_status, code, saw) in SLOW.items():
        assert (runs[word].exit_status, runs[word].code) == (exit_status, code), (word, runs[word])
        assert saw in runs[word].step("client:hsm-info")["saw"], (word, runs[word])
        misbehave(hosts[word], "cloudhsm-cli", None)
        cured(hosts[word], *scene.options(IMAGE))


def test_what_hangs_is_ended_and_named_before_the_runs_own_limit(scene: Scene, make_host: MakeHost) -> None:
    client, tool = make_host(IMAGE, agent=True, init="idle"), make_host(IMAGE, agent=True, init="idle")
    for each in (client, tool):
        prepare(each, scene)
    misbehave(client, "cloudhsm-cli", "hang")
    misbehave(tool, "configure-cli", "hang")
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda each: first(each, scene, "--timeout", "60s"), (client, tool)))
    told(
        runs[0],
        42,
        "client-hung",
        step="client:hsm-info",
        saw="no answer in",
        hint="cluster hsm-info` by hand",
    )
    told(runs[1], 50, "configure-failed", step="configure:cli", saw="working", hint="by hand")
    for each, name in ((client, "cloudhsm-cli"), (tool, "configure-cli")):
        assert each.run(["pgrep", "-f", f"{BIN}/{name}"]).stdout == ""
        misbehave(each, name, None)
        cured(each, *wanted(scene))


# ---- one HSM


def test_a_single_hsm_must_be_accepted_and_is_told_in_every_report(scene: Scene, make_host: MakeHost) -> None:
    host = make_host(IMAGE, agent=True)
    prepare(host, scene)
    one = [word for word in scene.options(IMAGE) if word not in ("--hsm-ip", *scene.addresses)]
    one += ["--hsm-ip", scene.addresses[0]]
    ran = agent(host, "configure", *one)
    told(ran, 50, "single-hsm-not-accepted", step="client:hsm-info", saw="1 HSM", hint="--accept-single-hsm")
    accepted = [*one, "--accept-single-hsm"]
    for command in ("plan", "configure", "configure", "verify"):
        ran = agent(host, command, *accepted)
        assert (ran.exit_status, SINGLE in ran.told) == (3 if command == "plan" else 0, True), ran
    assert SINGLE in agent(host, "verify").told
    assert settings(host)["clusters"][0]["cluster"]["options"] == {"disable_key_availability_check": True}
    # what was accepted once is not taken back by leaving the word out
    ran = agent(host, "configure", *one)
    told(
        ran, 50, "single-hsm-not-accepted", step="configure:cli", saw="check off", hint="--accept-single-hsm"
    )
    both = agent(host, "configure", *scene.options(IMAGE))
    assert (both.exit_status, SINGLE in both.told) == (0, False), both
    assert settings(host)["clusters"][0]["cluster"]["options"] == {"disable_key_availability_check": False}


def test_a_key_availability_check_switched_off_by_hand_is_drift_and_switched_on_again(
    scene: Scene, host: LabHost
) -> None:
    host.must([f"{BIN}/configure-pkcs11", "--disable-key-availability-check"])
    ran = agent(host, "verify")
    told(ran, 3, "drift", step="configure:pkcs11", saw="key-availability check off", hint="compare")
    assert ran.outcome("configure:cli") == "met"
    done = first(host, scene)
    assert (done.exit_status, done.outcome("configure:pkcs11")) == (0, "changed")
    assert settings(host, "pkcs11")["clusters"][0]["cluster"]["options"] == {
        "disable_key_availability_check": False
    }


# ---- the configure tools and their files


TOOLS: dict[str, tuple[int, str | None, str, str]] = {
    "noisy": (0, None, "", ""),
    "locale": (0, None, "", ""),
    "garbage": (0, None, "", ""),
    "orphan": (0, None, "", ""),
    "fail-with-effect": (0, None, "", ""),
    "lie": (50, "configure-not-applied", "not configured", "compare"),
    "wrong": (50, "configure-not-applied", "192.0.2.1", "compare"),
    "fail": (50, "configure-failed", "Failed to update configuration", "reinstalling the package"),
    "half": (50, "configure-failed", "interrupted", "reinstalling the package"),
}


@pytest.mark.parametrize("word", TOOLS)
def test_a_configure_tool_is_judged_by_its_file(scene: Scene, host: LabHost, word: str) -> None:
    unconfigured(host)
    misbehave(host, "configure-cli", word)
    ran = first(host, scene)
    exit_status, code, saw, hint = TOOLS[word]
    if code is None:
        assert (ran.exit_status, ran.outcome("configure:cli"), servers(host)) == (
            0,
            "changed",
            list(scene.addresses),
        )
        return
    told(ran, exit_status, code, step="configure:cli", saw=saw, hint=hint)
    assert ran.step("configure:pkcs11")["hint"] == "needs configure:cli"
    assert ran.outcome("client:hsm-info") == "skipped"
    if word == "half":  # what it left half is as it was before
        misbehave(host, "configure-cli", None)
        told(agent(host, "verify"), 3, "drift", step="configure:cli", saw="not configured", hint="compare")


@pytest.mark.parametrize("word", ["lie", "fail", "half"])
def test_what_worked_comes_back_whatever_its_tool_does(scene: Scene, host: LabHost, word: str) -> None:
    before = settings(host)
    placeholder(host, "cli")
    misbehave(host, "configure-cli", word)
    ran = first(host, scene)
    assert (ran.exit_status, ran.outcome("configure:cli"), settings(host)) == (0, "changed", before), ran


@pytest.mark.parametrize("word", ["lie", "wrong", "fail", "half"])
def test_a_configure_tool_that_fails_on_a_host_that_worked_is_undone(
    scene: Scene, host: LabHost, word: str
) -> None:
    files = (CA, f"{ETC}/cloudhsm-cli.cfg", f"{ETC}/cloudhsm-pkcs11.cfg")
    before = [host.get(path) for path in files]
    owners = host.must(["stat", "-c", "%n %U:%G %a", *files])
    misbehave(host, "configure-pkcs11", word)
    ran = first(host, scene, "--log-level", "trace")
    told(ran, 51, "rolled-back")
    assert ran.report["cause"] == TOOLS[word][1]
    assert ran.report["outcome"] == "rolled-back"
    assert [host.get(path) for path in files] == before
    assert host.must(["stat", "-c", "%n %U:%G %a", *files]) == owners
    assert "previous-works" in ran.told


def test_a_configure_tool_that_is_gone(scene: Scene, host: LabHost) -> None:
    before = settings(host)
    host.must(["rm", f"{BIN}/configure-cli"])
    ran = first(host, scene)
    # it is the package that is not whole, and its file stays what worked
    assert (ran.exit_status, ran.outcome("package:cli"), settings(host)) == (0, "changed", before), ran
    assert host.testinfra.file(f"{BIN}/configure-cli").exists


def test_a_configure_tool_that_cannot_be_started(scene: Scene, host: LabHost) -> None:
    kept = host.get(f"{BIN}/configure-cli")
    host.put(f"{BIN}/configure-cli", b"#!/nowhere/python3\n", 0o755)
    # the file is right, so nobody needs the tool
    assert first(host, scene).outcomes == {"met"}
    unconfigured(host, "cli")
    ran = first(host, scene)
    told(
        ran, 50, "configure-failed", step="configure:cli", saw="No such file", hint="reinstalling the package"
    )
    host.put(f"{BIN}/configure-cli", kept, 0o755)


def test_what_is_right_is_not_touched_and_its_tool_not_run(scene: Scene, host: LabHost) -> None:
    files = (CA, f"{ETC}/cloudhsm-cli.cfg", f"{ETC}/cloudhsm-pkcs11.cfg")
    before = identity(host, *files)
    for tool in ("configure-cli", "configure-pkcs11"):
        misbehave(host, tool, "wrong")  # would be seen in the file
    assert first(host, scene).outcomes == {"met"}
    assert identity(host, *files) == before


def test_every_flag_is_verified_in_the_file(scene: Scene, host: LabHost) -> None:
    flags = [
        "--log-level",
        "warn",
        "--log-file",
        "/var/log/hsm.log",
        "--log-type",
        "file",
        "--log-rotation",
        "hourly",
    ]
    cured(host, *wanted(scene), *flags)
    for component in ("cli", "pkcs11"):
        assert settings(host, component)["logging"] == {
            "log_type": "file", "log_file": "/var/log/hsm.log", "log_level": "warn", "log_interval": "hourly",
        }  # fmt: skip
    host.must([f"{BIN}/configure-pkcs11", "--log-rotation", "never"])
    told(agent(host, "verify"), 3, "drift", step="configure:pkcs11", saw="log rotation never", hint="compare")
    assert agent(host, "configure").outcome("configure:pkcs11") == "changed"
    unconfigured(host)


def test_a_file_of_several_clusters_is_refused(scene: Scene, host: LabHost) -> None:
    tree = settings(host)
    tree["clusters"].append(tree["clusters"][0])
    host.put(f"{ETC}/cloudhsm-cli.cfg", json.dumps(tree).encode())
    before = identity(host, f"{ETC}/cloudhsm-cli.cfg")
    ran = first(host, scene)
    told(ran, 50, "configure-not-applied", step="configure:cli", saw="2 clusters", hint="remove-cluster")
    assert identity(host, f"{ETC}/cloudhsm-cli.cfg") == before
    unconfigured(host, "cli")


BROKEN_FILES: dict[str, tuple[str, int, str, str]] = {
    "cut": ("head -c 200 FILE >/root/x; cat /root/x >FILE", 50, "configure-failed", "could not parse"),
    "empty": (": >FILE", 50, "configure-failed", "could not parse"),
    "binary": ("head -c 4096 /dev/urandom >FILE", 50, "configure-failed", "could not parse"),
    "missing": ("rm FILE", 50, "configure-failed", "could not read"),
    "folder": ("rm FILE; mkdir FILE", 11, "unreadable", "directory"),
    "fifo": ("rm FILE; mkfifo FILE", 11, "unreadable", "a FIFO"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_configuration_file_that_is_none(scene: Scene, host: LabHost, name: str) -> None:
    path = f"{ETC}/cloudhsm-cli.cfg"
    script, exit_status, code, saw = BROKEN_FILES[name]
    unconfigured(host, "cli")  # or the copy that was kept would take its place
    host.must(["sh", "-ec", script.replace("FILE", path)])
    ran = first(host, scene)
    told(ran, exit_status, code, step="configure:cli", saw=saw)
    if name not in ("folder", "fifo"):
        assert "reinstall" in ran.step("configure:cli")["hint"]
    # the way out that the hint names
    host.must(["rm", "-rf", path])
    reinstall(host, scene, "cloudhsm-cli")


@pytest.mark.parametrize("name", ["cut", "empty", "binary", "missing"])
def test_a_configuration_file_that_is_none_is_the_one_that_worked_again(
    scene: Scene, host: LabHost, name: str
) -> None:
    path = f"{ETC}/cloudhsm-cli.cfg"
    tree = settings(host)
    tree["an operator's own"] = [1]
    host.put(path, json.dumps(tree).encode())
    assert first(host, scene).outcomes == {"met"}
    host.must(["sh", "-ec", BROKEN_FILES[name][0].replace("FILE", path)])
    ran = first(host, scene)
    assert (ran.exit_status, ran.outcome("configure:cli"), settings(host)) == (0, "changed", tree), ran
    assert ("settings-restored" in ran.told) is (name != "missing")
    unconfigured(host, "cli")


def reinstall(host: LabHost, scene: Scene, package: str) -> None:
    """What a person does by hand: the package once more, over what is there."""
    file = next(file for file in scene.sums if file.startswith(package))
    data = (scene.folder / "mirror/Jammy" / file).read_bytes()
    host.put(f"/root/{file}", data)
    host.must(["dpkg", "-i", f"/root/{file}"])


def test_a_reinstalled_package_brings_its_placeholder_which_is_drift(scene: Scene, host: LabHost) -> None:
    reinstall(host, scene, "cloudhsm-pkcs11")
    ran = agent(host, "verify")
    told(ran, 3, "drift", step="configure:pkcs11", saw="not configured", hint="compare")
    assert ran.outcome("configure:cli") == "met"
    assert agent(host, "configure").outcome("configure:pkcs11") == "changed"
    assert servers(host, "pkcs11") == list(scene.addresses)


def test_a_component_installed_by_hand_is_configured_too(scene: Scene, make_host: MakeHost) -> None:
    host = make_host(IMAGE, agent=True)
    prepare(host, scene)
    reinstall(host, scene, "cloudhsm-pkcs11")
    ran = agent(host, "configure", *scene.options(IMAGE))
    assert (ran.exit_status, ran.report["client"]["components"]) == (0, ["cli", "pkcs11"]), ran
    assert ran.outcome("configure:pkcs11") == "changed"
    assert servers(host, "pkcs11") == list(scene.addresses)
    host.put(f"{BIN}/cloudhsm-cli", b"#!/nowhere/python3\n", 0o755)
    ran = agent(host, "verify")
    told(ran, 42, "client-failed", step="client:hsm-info", saw="No such file", hint="reinstall")
    host.must(["rm", f"{BIN}/cloudhsm-cli"])
    told(agent(host, "verify"), 3, "drift")
    assert agent(host, "verify").step("package:cli")["saw"] == f"5.18.0-1 ({BIN}/cloudhsm-cli missing)"
    cured(host, *scene.options(IMAGE))


# ---- the CA


@pytest.fixture(scope="module")
def cas(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cas")
    return {kind: pki.customer(folder / kind, kind)[0].cert for kind in pki.KINDS if kind != "normal"}


CA_FAULTS: dict[str, tuple[int, str, str, str]] = {
    "missing": (30, "ca-unreadable", "no file /root/ca/missing", "--ca-cert"),
    "empty": (30, "ca-unreadable", "nothing", "--ca-cert"),
    "folder": (30, "ca-unreadable", "directory", "--ca-cert"),
    "fifo": (30, "ca-unreadable", "a FIFO", "--ca-cert"),
    "endless": (30, "ca-unreadable", "a FIFO", "--ca-cert"),
    "large": (30, "ca-unreadable", "more than", "--ca-cert"),
    "der": (30, "ca-not-a-certificate", "DER", "openssl x509 -inform der"),
    "key": (30, "ca-is-private-key", "a private key", "keep the key off"),
    "key+cert": (30, "ca-is-private-key", "a private key", "keep the key off"),
    "expired": (30, "ca-expired", "valid until 2016", "date -u"),
    "not-yet-valid": (30, "ca-not-yet-valid", "valid from 2090", "date -u"),
    "weak": (30, "ca-key-weak", "RSA 1024 bits", "stronger CA"),
    "end-entity": (30, "ca-not-a-certificate", "end-entity", "CA:TRUE"),
    "five": (30, "ca-not-a-certificate", "root certificates", "initialised the cluster"),
    "html": (30, "ca-not-a-certificate", "HTML", "web server"),
    "cut": (30, "ca-damaged", "cut", "copy customerCA.crt again"),
}


def test_a_ca_that_is_none_is_refused_and_costs_the_host_nothing(
    scene: Scene, cas: dict[str, Path], make_host: MakeHost
) -> None:
    host = make_host(IMAGE, agent=True)
    good, key = scene.made.ca.cert.read_bytes(), scene.made.ca.key.read_bytes()
    der = subprocess.run(
        ["openssl", "x509", "-outform", "der"], input=good, capture_output=True, check=True
    ).stdout
    contents = {
        "empty": b"", "large": good + b"#" * 1_100_000, "der": der, "key": key, "key+cert": good + key,
        "five": good + scene.made.other_ca.cert.read_bytes(), "html": b"<html>404</html>", "cut": good[:400],
        **{kind: cas[kind].read_bytes() for kind in ("expired", "not-yet-valid", "weak", "end-entity")},
    }  # fmt: skip
    for name, data in contents.items():
        host.put(f"/root/ca/{name}", data)
    host.must(["mkdir", "/root/ca/folder"])
    host.must(["mkfifo", "/root/ca/fifo"])
    host.must(["ln", "-s", "/dev/zero", "/root/ca/endless"])
    for name, (exit_status, code, saw, hint) in CA_FAULTS.items():
        ran = agent(host, "configure", *scene.options(IMAGE), "--ca-cert", f"/root/ca/{name}")
        told(ran, exit_status, code, saw=saw, hint=hint)
        assert (ran.report["steps"], ran.report["changed"]) == ([], False)
    assert not host.testinfra.file("/opt/cloudhsm").exists
    middle = key.decode().splitlines()[5]
    assert host.run(["grep", "-rlF", middle, STATE, "/var/log", "/var/cache", "/run"]).stdout == ""
    prepare(host, scene)
    cured(host, *scene.options(IMAGE))


def test_a_ca_as_people_really_have_it(lab: Lab, scene: Scene, host: LabHost) -> None:
    good = scene.made.ca.cert.read_bytes()
    one_line = good.decode().replace("\n", " ").strip()
    options = [word for word in wanted(scene) if word not in ("--ca-cert", "/root/customerCA.crt")]
    for name, data in {
        "crlf": good.replace(b"\n", b"\r\n"),
        "flat": one_line.encode(),
        "escaped": good.replace(b"\n", b"\\n"),
        "bom": b"\xef\xbb\xbf" + good,
        "dump": b"Certificate:\n    Data:\n        Version: 3 (0x2)\n" + good,
    }.items():
        host.put(f"/root/{name}.crt", data)
        host.must(["rm", CA])
        ran = agent(host, "configure", *options, "--ca-cert", f"file:///root/{name}.crt")
        assert (ran.exit_status, ran.outcome("certificate"), host.get(CA)) == (0, "changed", good), (
            name,
            ran,
        )
    host.must(["rm", CA])
    ran = agent(host, "configure", *options, "--ca-cert", "-", stdin=good)
    assert (ran.exit_status, host.get(CA)) == (0, good), ran
    host.must(["rm", CA])
    ran = agent(host, "configure", *options, env={"HSM_AGENT_CA_CERT": one_line})
    assert (ran.exit_status, host.get(CA)) == (0, good), ran
    told(
        agent(host, "configure", *options, "--ca-cert", "-"),
        30,
        "ca-unreadable",
        saw="nothing",
        hint="--ca-cert",
    )


def test_a_chain_is_placed_issuer_first(lab: Lab, scene: Scene, make_host: MakeHost, tmp_path: Path) -> None:
    with hsms(lab, tmp_path / "chained", kind="chain") as chained:
        host = make_host(IMAGE, agent=True)
        prepare(host, chained)
        chained.sums, chained.url = scene.sums, scene.url
        cured(host, *chained.options(IMAGE))
        assert host.get(CA) == chained.made.ca.cert.read_bytes()
        assert host.get(CA).count(b"BEGIN") == 2


def test_the_fingerprint_that_was_given_decides(scene: Scene, host: LabHost) -> None:
    printed = host.must(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", "/root/customerCA.crt"]
    )
    right = printed.strip().partition("=")[2]
    assert first(host, scene, "--ca-fingerprint", right).outcomes == {"met"}
    assert first(host, scene, "--ca-fingerprint", f"SHA256:{right.replace(':', '').lower()}").outcomes == {
        "met"
    }
    ran = first(host, scene, "--ca-fingerprint", "0" * 64)
    told(ran, 31, "ca-fingerprint-differs", saw=right.replace(":", "").lower(), hint="-fingerprint -sha256")
    ran = first(host, scene, "--ca-cert", "/root/otherCA.crt")
    told(ran, 31, "ca-would-be-replaced", step="certificate", saw="sha256:", hint="--replace-ca")
    assert host.get(CA) == scene.made.ca.cert.read_bytes()


def test_a_ca_from_an_https_server(lab: Lab, scene: Scene, host: LabHost, tmp_path: Path) -> None:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "customerCA.crt").write_bytes(scene.made.ca.cert.read_bytes())
    cert, key = tmp_path / "www.crt", tmp_path / "www.key"
    subject = ["-subj", "/CN=www", "-addext", f"subjectAltName=IP:{OPERATOR_IP}"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *subject, "-keyout", str(key),
         "-out", str(cert)], check=True, capture_output=True,
    )  # fmt: skip
    server = mirror.Mirror(
        folder, tmp_path / "faults.json", OPERATOR_IP, HTTPS_PORT, cert, key, tmp_path / "log"
    )
    lab.operator.start(["python3", "-m", "agent.demo.mirror", *server.arguments()], [HTTPS_PORT], HERE)
    host.put("/root/www.crt", cert.read_bytes())
    url, trusting = f"https://{OPERATOR_IP}:{HTTPS_PORT}/customerCA.crt", {"SSL_CERT_FILE": "/root/www.crt"}
    host.must(["rm", CA])
    ran = agent(host, "configure", *wanted(scene), "--ca-cert", url, env=trusting)
    assert (ran.exit_status, host.get(CA)) == (0, scene.made.ca.cert.read_bytes()), ran
    told(first(host, scene, "--ca-cert", url), 30, "ca-unreadable", saw="certificate", hint="SSL_CERT_FILE")
    ran = agent(host, "configure", *wanted(scene), "--ca-cert", f"{url}.gone", env=trusting)
    told(ran, 30, "ca-unreadable", saw="HTTP 404", hint="--ca-cert")
    mirror.set_faults(tmp_path / "faults.json", {"*": "html"})
    ran = agent(host, "configure", *wanted(scene), "--ca-cert", url, env=trusting)
    told(ran, 30, "ca-not-a-certificate", saw="HTML", hint="web server")
    late = [*faketime("+1y"), *CONFIGURE, *wanted(scene), "--ca-cert", url]
    ran = Ran(*parsed(host.run(late, env=trusting, timeout=60)))
    told(ran, 30, "ca-unreadable", saw="expired", hint="date -u")


CONFIGURE = ("hsm-agent", "configure", "--output", "json", "--quiet")


def faketime(offset: str) -> list[str]:
    return ["faketime", "-m", "-f", offset]


def parsed(done: subprocess.CompletedProcess[str]) -> tuple[int, dict[str, Any], str]:
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_clock_that_is_wrong_by_a_year(scene: Scene, host: LabHost) -> None:
    behind = Ran(*parsed(host.run([*faketime("-1y"), *CONFIGURE, *wanted(scene)])))
    told(behind, 30, "ca-not-yet-valid", saw="this host's clock says", hint="date -u")
    ahead = Ran(*parsed(host.run([*faketime("+1y"), *CONFIGURE, *wanted(scene)])))
    assert (ahead.exit_status, ahead.outcomes) == (0, {"met"}), ahead
    decade = Ran(*parsed(host.run([*faketime("+11y"), *CONFIGURE, *wanted(scene)])))
    told(decade, 30, "ca-expired", saw="this host's clock says", hint="date -u")


@pytest.mark.parametrize(
    ("script", "saw"),
    [
        ("chmod 000 FILE", "mode 0000"),
        ("chmod 0666 FILE", "mode 0666"),
        (": >FILE", "empty"),
        ("rm FILE", "absent"),
        ("echo not a certificate >FILE", "not a certificate"),
        ("tr '\\n' ' ' <FILE >/root/x; cat /root/x >FILE", "sha256:"),
    ],
)
def test_a_ca_that_was_spoilt_by_hand_is_drift_and_cured(
    scene: Scene, host: LabHost, script: str, saw: str
) -> None:
    host.must(["sh", "-ec", script.replace("FILE", CA)])
    told(agent(host, "verify"), 3, "drift", step="certificate", saw=saw)
    done = agent(host, "configure")
    assert (done.exit_status, done.outcome("certificate")) == (0, "changed"), done
    ca = host.testinfra.file(CA)
    assert (ca.user, ca.group, ca.mode, ca.content) == (
        "root",
        "root",
        0o644,
        scene.made.ca.cert.read_bytes(),
    )
    assert agent(host, "verify").outcomes == {"met"}


def test_a_ca_that_is_a_link_to_nothing_is_named_and_left_to_whoever_made_it(
    scene: Scene, host: LabHost
) -> None:
    host.must(["sh", "-ec", f"mv {CA} /root/kept; ln -s /nowhere {CA}"])
    for command in ("verify", "configure"):
        told(agent(host, command), 11, "unreadable", saw="/nowhere")
        assert host.testinfra.file(CA).linked_to == "/nowhere"
    host.must(["sh", "-ec", f"mv /root/kept {CA}"])
    assert agent(host, "configure").exit_status == 0


# ---- the silent killers


HOLDS = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"


def using(host: LabHost, user: str | None = None) -> subprocess.Popen[bytes]:
    """A program that has loaded the PKCS#11 library, until its standard input is closed."""
    program = host.start(["python3", "-c", HOLDS, LIBRARY], user=user)
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"
    return program


def ended(program: subprocess.Popen[bytes]) -> None:
    assert program.stdin is not None
    program.stdin.close()
    program.wait(10)


def test_a_program_that_still_has_the_old_configuration_is_named_until_it_restarts(
    scene: Scene, host: LabHost
) -> None:
    program = using(host)
    pid = int(host.must(["pgrep", "-f", HOLDS[:20]]).split()[0])
    assert first(host, scene).report["restart_needed"] == []
    changed = first(host, scene, "--log-level", "debug")
    (needed,) = changed.report["restart_needed"]
    assert (needed["pid"], needed["name"], needed["component"]) == (pid, "python3", "pkcs11"), needed
    assert agent(host, "verify").report["restart_needed"] == [needed]
    ended(program)
    # at once, as `systemctl restart` after `hsm-agent configure` does: the same second
    assert first(host, scene).exit_status == 0
    program = using(host)
    assert agent(host, "verify").report["restart_needed"] == []
    ended(program)


def test_a_program_that_still_has_the_old_ca_is_named(scene: Scene, host: LabHost) -> None:
    program = using(host)
    host.put(CA, scene.made.other_ca.cert.read_bytes())
    changed = first(host, scene, "--replace-ca")
    assert (changed.exit_status, changed.outcome("certificate"), changed.outcome("configure:pkcs11")) == (
        0, "changed", "met",
    )  # fmt: skip
    assert [each["component"] for each in changed.report["restart_needed"]] == ["pkcs11"]
    ended(program)


def test_a_program_that_may_not_write_its_log_is_named(scene: Scene, host: LabHost) -> None:
    program = using(host, user="nobody")
    ran = first(host, scene)
    assert ran.exit_status == 0
    (text,) = [each["text"] for each in ran.report["warnings"] if each["code"] == "log-folder-not-writable"]
    assert "may not write logs in /opt/cloudhsm/run" in text
    assert "python3 (pid" in text
    host.must(["chmod", "0777", "/opt/cloudhsm/run"])
    assert "log-folder-not-writable" not in first(host, scene).told
    host.must(["chmod", "0755", "/opt/cloudhsm/run"])
    ended(program)


def test_what_an_earlier_client_left_is_told_and_gone_when_it_is(scene: Scene, host: LabHost) -> None:
    run = "/opt/cloudhsm/run"
    host.must(["useradd", "--system", "hsmuser"])
    host.must(["chown", "hsmuser:hsmuser", run])
    host.must(["mkdir", "-p", "/opt/cloudhsm/daemon/1"])
    left = [f"{ETC}/cloudhsm_client.cfg", f"{ETC}/cloudhsm-jce.cfg.rpmsave"]
    host.must(["touch", *left])
    ran = first(host, scene)
    texts = {each["code"]: each["text"] for each in ran.report["warnings"]}
    assert (ran.exit_status, ran.outcomes) == (0, {"met"})
    assert f"chown root:root {run}" in texts["log-folder-owner"]
    assert all(path in texts["client-leftovers"] for path in (*left, "/opt/cloudhsm/daemon"))
    host.must(["rm", "-r", *left, "/opt/cloudhsm/daemon"])
    host.must(["chown", "root:root", run])
    assert not {"client-leftovers", "log-folder-owner"} & first(host, scene).told


def test_a_library_that_cannot_be_loaded(scene: Scene, make_host: MakeHost) -> None:
    host = make_host(IMAGE, agent=True)
    prepare(host, scene)
    sums = dict(scene.sums)
    scene.package(IMAGE, "cloudhsm-pkcs11", fault="missing-library")
    ran = first(host, scene)
    broken = told_library(ran)
    scene.package(IMAGE, "cloudhsm-pkcs11")
    assert scene.sums == sums
    reinstall(host, scene, "cloudhsm-pkcs11")
    cured(host, *wanted(scene))
    assert broken == f"{LIBRARY.rsplit('/', 1)[1]} lacks {package_contents.MISSING}"


def told_library(ran: Ran) -> str:
    told(ran, 42, "library-unloadable", step="client:library:pkcs11", saw="lacks", hint="package manager")
    assert ran.outcome("client:hsm-info") == "met"
    said: str = ran.step("client:library:pkcs11")["saw"]
    return said


def test_a_client_that_cannot_write_its_log_still_proves(scene: Scene, host: LabHost) -> None:
    """Its log lines then come to standard output, around its answer."""
    host.must(["mv", "/opt/cloudhsm/run", "/opt/cloudhsm/kept"])
    host.must(["touch", "/opt/cloudhsm/run"])
    ran = first(host, scene)
    assert (ran.exit_status, ran.outcomes) == (0, {"met"}), ran
    host.must(["rm", "/opt/cloudhsm/run"])
    host.must(["mv", "/opt/cloudhsm/kept", "/opt/cloudhsm/run"])
