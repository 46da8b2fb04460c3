"""What holds for the files of the client: what changes one is seen and healed, what is kept works, links stay links."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import commands
from agent.cloudhsm.paths import LINUX, client_paths
from agent.config.desired import Desired, with_options
from agent.config.options import CaSource
from agent.core.model import Report, StepOutcome
from agent.render.progress import NullProgress
from agent.report import RunInfo
from agent.state import snapshots
from tests.examples import examples
from tests.fakes.vendor import MIRROR, Vendor, WindowsVendor, catalogue

if TYPE_CHECKING:
    from tests.fakes.memory import Memory

STARTED = dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc)
both = pytest.mark.parametrize("world", [Vendor, WindowsVendor], ids=["linux", "windows"])
World = type[Vendor]
FRESH = {"hostname": "%%HSM_IP_ADDRESS%%", "port": 2223, "enable": True}


class Host:
    """A host that was configured with two components, and the runs on it, one after another."""

    def __init__(self, world: World, ca_pem: bytes) -> None:
        self.vendor = world()
        self.memory: Memory = self.vendor.machine(dt.datetime.now(dt.timezone.utc))
        self.layout = client_paths(self.memory.system)
        self.desired = Desired(
            hsm_ip=self.vendor.addresses,
            ca_cert=CaSource.of(ca_pem.decode()),
            component=("pkcs11",),
            package_source=MIRROR,
            sha256=self.vendor.checksums(),
        )
        self.number = 0
        assert self.configure().exit_status == 0

    def run(self, command: str) -> RunInfo:
        self.number += 1
        return RunInfo(f"20261124T{self.number:06}Z-0000", command, STARTED, catalogue=catalogue())

    def configure(self, **more: Any) -> Report:
        return commands.configure(
            self.memory, with_options(self.desired, more), self.run("configure"), NullProgress()
        )

    def rollback(self, run_id: str | None = None) -> Report:
        return commands.rollback(self.memory, run_id, self.run("rollback"), NullProgress())

    def look(self) -> dict[str, StepOutcome]:
        report = commands.verify(self.memory, self.desired, self.run("plan"), NullProgress())
        return {line.id: line.outcome for line in report.steps}

    def cfg(self, component: str = "cli") -> str:
        return self.layout.settings(component, self.memory)

    def tree(self, component: str = "cli") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.memory.read(self.cfg(component)) or b"")
        return found

    def put(self, tree: object, component: str = "cli", **rights: int) -> None:
        self.memory.place(self.cfg(component), json.dumps(tree).encode(), **rights)

    def files(self) -> dict[str, bytes | None]:
        paths = (self.layout.ca, self.cfg(), self.cfg("pkcs11"))
        return {path: self.memory.read(path) for path in paths}


def codes(report: Report) -> set[str]:
    return {notice.code for notice in report.notices}


# ---- what changes a file is seen, and healed


# the last two are told by numbers, which Windows has not
CHANGES = ["remove", "empty", "cut", "replace", "binary", "nul", "open", "group", "owner"]


def change(host: Host, path: str, how: str) -> None:
    entry = host.memory.entries[host.memory._place_of(path)]  # noqa: SLF001 -- arranged behind the host's back
    if how == "remove":
        del host.memory.entries[host.memory._place_of(path)]  # noqa: SLF001
        return
    data = {"empty": b"", "cut": entry.data[: len(entry.data) // 2], "replace": b'{"clusters": [{}]}', "nul": b"\0" * 99,
            "binary": bytes(range(256))}.get(how, entry.data)  # fmt: skip
    rights: dict[str, int] = {
        "open": {"mode": 0o666},
        "group": {"mode": 0o664, "gid": 1000},
        "owner": {"uid": 1000},
    }.get(how, {})
    host.memory.place(path, data, **{"mode": entry.mode, "uid": entry.uid, "gid": entry.gid, **rights})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "how"),
    [*((Vendor, how) for how in CHANGES), *((WindowsVendor, how) for how in CHANGES[:-2])],
    ids=str,
)
@pytest.mark.parametrize("which", ["ca", "cli", "pkcs11"])
def test_whatever_is_done_to_a_file_is_seen_and_healed(
    world: World, which: str, how: str, ca_pem: bytes
) -> None:
    host = Host(world, ca_pem)
    before = host.files()
    path = host.layout.ca if which == "ca" else host.cfg(which)
    change(host, path, how)
    step = "certificate" if which == "ca" else f"configure:{which}"
    assert host.look()[step] is StepOutcome.WOULD_CHANGE
    assert host.configure().exit_status == 0
    assert set(host.look().values()) == {StepOutcome.MET}
    assert host.files() == before
    seen = host.memory.stat(path)
    assert seen is not None
    assert (seen.mode & 0o022, seen.uid) == (0, 0)


VALUES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
    | st.just("2223")
)
PLACES = [
    ("clusters",), ("clusters", 0), ("clusters", 0, "cluster"), ("clusters", 0, "cluster", "servers"),
    ("clusters", 0, "cluster", "servers", 0), ("clusters", 0, "cluster", "servers", 1, "hostname"),
    ("clusters", 0, "cluster", "servers", 0, "port"), ("clusters", 0, "cluster", "servers", 0, "enable"),
    ("clusters", 0, "cluster", "hsm_ca_file"), ("clusters", 0, "cluster", "options"),
]  # fmt: skip


@pytest.mark.slow
@both
@pytest.mark.parametrize("component", ["cli", "pkcs11"])
@examples(40)
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_what_configure_writes_is_met_only_as_it_writes_it(
    world: World, component: str, place: tuple[Any, ...], value: object, ca_pem: bytes
) -> None:
    host = Host(world, ca_pem)
    good = host.tree(component)
    tree: Any = json.loads(json.dumps(good))
    inner = tree
    for each in place[:-1]:
        inner = inner[each]
    had = place[-1] in inner if isinstance(inner, dict) else True
    inner[place[-1]] = value
    host.put(tree, component)
    if tree == good or (place[-1] == "options" and value == {} and not had):
        return
    assert host.look()[f"configure:{component}"] is StepOutcome.WOULD_CHANGE
    assert host.configure().exit_status == 0
    assert (
        host.tree(component)["clusters"][0]["cluster"]["servers"] == good["clusters"][0]["cluster"]["servers"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "etc", "bin", "lib"])
@pytest.mark.parametrize(
    "rights",
    [
        {"mode": 0o777},
        {"mode": 0o1777},
        {"mode": 0o775, "gid": 1000},
        {"mode": 0o775, "gid": 978, "writers": (("group", 1000),)},
        {"uid": 1000},
    ],
    ids=str,
)
def test_a_folder_of_the_client_that_others_could_change_is_closed(
    folder: str, rights: dict[str, Any], ca_pem: bytes
) -> None:
    host = Host(Vendor, ca_pem)
    host.memory.place("/etc/passwd", b"hsmuser:x:979:978::/opt/cloudhsm:/sbin/nologin\n")
    path = f"/opt/cloudhsm/{folder}".rstrip("/")
    host.memory.place(path, kind="directory", **{"mode": 0o755, **rights})
    assert StepOutcome.WOULD_CHANGE in host.look().values()
    assert host.configure().exit_status == 0
    seen = host.memory.stat(path)
    assert seen is not None
    assert (seen.mode & 0o022, seen.uid) == (0, 0)
    assert set(host.look().values()) == {StepOutcome.MET}


@pytest.mark.parametrize(
    ("path", "rights"),
    [
        ("/opt", {"kind": "directory", "mode": 0o777}),
        ("/opt", {"kind": "directory", "mode": 0o755, "uid": 1000}),
        ("/opt", {"kind": "directory", "mode": 0o775, "gid": 1000}),
        ("/opt", {"kind": "directory", "mode": 0o775, "writers": (("user", 1000),)}),
        ("/opt/cloudhsm/bin/configure-cli", {"mode": 0o777}),
        ("/opt/cloudhsm/bin/configure-cli", {"mode": 0o755, "uid": 1000}),
        ("/opt/cloudhsm/lib/libcloudhsm_pkcs11.so", {"mode": 0o757}),
    ],
    ids=str,
)
def test_what_is_not_ours_to_close_is_named_and_nothing_is_run(
    path: str, rights: dict[str, Any], ca_pem: bytes
) -> None:
    host = Host(Vendor, ca_pem)
    host.memory.place(path, b"#!", **rights)
    host.memory.touches.clear()
    report = host.configure()
    assert (report.code, report.exit_status) == ("permissions-unsafe", 50)
    assert path in (report.failure.saw if report.failure else "")
    assert not [touch for touch in host.memory.touches if touch[0] in ("run", "chmod")]


@pytest.mark.parametrize("folder", ["", r"\bin"])
def test_a_folder_of_programs_that_others_could_change_is_named_on_windows(
    folder: str, ca_pem: bytes
) -> None:
    host = Host(WindowsVendor, ca_pem)
    path = f"{host.layout.root}{folder}"
    host.memory.place(path, kind="directory", mode=0o777, uid=-1, gid=-1)
    host.memory.touches.clear()
    report = host.configure()
    assert (report.code, report.exit_status) == ("permissions-unsafe", 50)
    assert f'`icacls "{path}" /reset`' in (report.failure.hint if report.failure else "")
    assert not [touch for touch in host.memory.touches if touch[0] in ("run", "chmod")]


@pytest.mark.parametrize("folder", ["", "etc"])
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o710, 0o744])
def test_a_ca_that_root_alone_can_get_at_is_not_met(folder: str, mode: int, ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    path = f"/opt/cloudhsm/{folder}".rstrip("/")
    host.memory.place(path, kind="directory", mode=mode)
    assert host.look()["certificate"] is StepOutcome.WOULD_CHANGE
    assert host.configure().exit_status == 0
    seen = host.memory.stat(path)
    assert seen is not None
    assert seen.mode == mode | 0o011
    assert set(host.look().values()) == {StepOutcome.MET}


def test_a_library_is_not_loadable_where_root_alone_can_get_at_software(ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    host.memory.place("/opt", kind="directory", mode=0o700)
    assert host.look()["client:library:pkcs11"] is StepOutcome.FAILED
    assert host.configure().exit_status != 0


def test_what_a_site_put_beside_the_libraries_is_neither_judged_nor_in_the_way(ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    for name in ("libcorp_cloudhsm_pkcs11_shim.so", "libcloudhsm_pkcs11_spy.so", "cloudhsm_pkcs11.notes"):
        host.memory.place(f"/opt/cloudhsm/lib/{name}", b"the site's", mode=0o666, uid=1000)
    before = dict(host.memory.entries)
    assert set(host.look().values()) == {StepOutcome.MET}
    assert host.configure().exit_status == 0
    assert all(host.memory.entries[path] == before[path] for path in before if "/cloudhsm/lib/" in path)


@pytest.mark.parametrize("passwd", ["large", "no text", "a FIFO", "numbers without end"])
def test_accounts_that_cannot_be_read_are_no_fault_of_the_clients_files(passwd: str, ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    data = {
        "large": b"user:x:1000:1000::/:/bin/sh\n" * 200_000,
        "no text": b"\xff\0" * 99,
        "numbers without end": b"hsmuser:x:" + b"9" * 5000 + b":" + b"9" * 5000 + b"::/:/bin/sh\n",
    }.get(passwd, b"")
    host.memory.place("/etc/passwd", data, kind="other" if passwd == "a FIFO" else "file")
    assert set(host.look().values()) == {StepOutcome.MET}
    host.put(host.tree(), uid=979)
    assert host.look()["configure:cli"] is StepOutcome.WOULD_CHANGE


def test_a_sites_own_choices_stay(ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    host.memory.place(
        "/etc/passwd", b"root:x:0:0::/root:/bin/sh\nhsmuser:x:979:978::/opt/cloudhsm:/sbin/nologin\n"
    )
    host.put(host.tree(), mode=0o640, gid=990)
    host.put(host.tree("pkcs11"), "pkcs11", mode=0o660, uid=979, gid=978)
    host.memory.place("/opt/cloudhsm/etc", kind="directory", mode=0o750, uid=979, gid=978)
    host.memory.place("/opt", kind="directory", mode=0o1777)
    assert set(host.look().values()) == {StepOutcome.MET}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o000])
def test_a_file_that_programs_load_is_not_for_root_alone(mode: int, ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    host.put(host.tree(), mode=mode)  # the cli is the administrators' own
    assert set(host.look().values()) == {StepOutcome.MET}
    host.put(host.tree("pkcs11"), "pkcs11", mode=mode)
    assert host.look()["configure:pkcs11"] is StepOutcome.WOULD_CHANGE
    assert host.configure().exit_status == 0
    seen = host.memory.stat(host.cfg("pkcs11"))
    assert seen is not None
    assert seen.mode & 0o044 == 0o044
    assert set(host.look().values()) == {StepOutcome.MET}


def test_an_old_line_of_a_log_behind_a_link_is_no_cause(ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    host.memory.place("/var/log/cli.log", b"2026 ERROR HSM is disconnected\n" * 9)
    host.memory.place(LINUX.log("cli"), kind="link", link="/var/log/cli.log")
    host.vendor.client_says = "something else"
    report = host.configure()
    assert (report.code, report.failure and "something else" in report.failure.saw) == ("client-failed", True)


# ---- what is kept and put back


@pytest.mark.slow
@both
def test_after_25_failing_runs_the_last_that_worked_is_there(world: World, ca_pem: bytes) -> None:
    host = Host(world, ca_pem)
    good = host.files()
    host.vendor.client_says = "no HSM"
    host.vendor.moods["configure-cli"] = "fail"
    for number in range(25):
        host.memory.place(host.cfg(), b"{" * (number + 1))
        assert host.configure(log_level="debug").exit_status != 0
        host.memory.place(host.cfg(), b"{" * (number + 1))
    back = host.rollback()
    assert (back.exit_status, host.files()) == (0, good)
    again = host.rollback()
    assert (again.exit_status, again.changed, host.files()) == (0, False, good)
    assert "rollback-unneeded" in codes(again)


@both
def test_what_was_not_seen_to_work_is_said_to_be_so(world: World, ca_pem: bytes) -> None:
    host = Host(world, ca_pem)
    first = snapshots.known(host.memory)[0]
    good = host.files()
    back = host.rollback(first)
    assert (back.exit_status, host.memory.stat(host.layout.ca)) == (0, None)
    assert "rollback-unproven" in codes(back)
    assert host.rollback(host.run("x").run_id).code == "nothing-recorded"
    assert host.configure().exit_status == 0
    assert host.files() == good


@both
def test_a_state_that_worked_counts_though_no_hsm_answers_now(world: World, ca_pem: bytes) -> None:
    host = Host(world, ca_pem)
    good = host.files()
    host.vendor.client_says = "no HSM"
    assert host.configure(log_level="debug").exit_status != 0
    assert host.files() != good
    back = host.rollback()
    assert (back.exit_status, host.files(), codes(back)) == (0, good, {"configure-unfinished"})


@both
def test_an_undo_never_puts_a_damaged_file_over_a_whole_one(world: World, ca_pem: bytes) -> None:
    host = Host(world, ca_pem)
    host.memory.place(host.cfg("pkcs11"), b'{"clusters": 5}')
    host.vendor.activated = False  # a failure after all is configured
    assert host.configure().code == "cluster-not-activated"
    assert host.tree("pkcs11")["clusters"][0]["cluster"]["servers"]


# ---- what is not said stays


OWN = {"log_level": "warn", "log_interval": "never"}


def tune(host: Host, component: str) -> dict[str, Any]:
    """Do what an operator does by hand, and return it as it then stands there."""
    tree = host.tree(component)
    tree["logging"].update(OWN)
    tree["clusters"][0]["cluster"].update(
        client_cert_hsm_tls_path="/root/c", client_key_hsm_tls_path="/root/k", retry={"mode": "off"}
    )
    tree["site"] = {"owner": "us"}
    host.put(tree, component, mode=0o640, gid=0 if host.memory.system.kind == "windows" else 990)
    return tree


@both
@pytest.mark.parametrize("component", ["cli", "pkcs11"])
def test_an_upgrade_keeps_what_is_not_said(world: World, component: str, ca_pem: bytes) -> None:
    host = Host(world, ca_pem)
    wanted = tune(host, component)
    package = next(each for each in host.vendor.installed if each.lower().endswith(component))
    host.vendor.installed[package] = "5.17.0-1" if world is Vendor else "5.17.0"
    report = host.configure(client_version="5.18.0")
    assert report.exit_status == 0, report
    assert host.tree(component) == wanted
    seen = host.memory.stat(host.cfg(component))
    assert seen is not None
    assert (seen.mode, seen.gid) == (0o640, 0 if world is WindowsVendor else 990)
    assert set(host.look().values()) == {StepOutcome.MET}


@both
def test_a_package_that_was_installed_anew_by_hand_loses_no_more_than_since_the_last_run(
    world: World, ca_pem: bytes
) -> None:
    host = Host(world, ca_pem)
    wanted = tune(host, "cli")
    assert host.configure(log_file="/var/log/hsm.log").exit_status == 0
    tree = json.loads(json.dumps(wanted))
    tree["clusters"][0]["cluster"]["servers"] = [FRESH]
    tree["logging"] = {"log_type": "file"}
    host.put(tree)
    assert host.configure().exit_status == 0
    assert host.tree()["logging"] == {**wanted["logging"], "log_file": "/var/log/hsm.log"}


@both
@pytest.mark.parametrize("left", ["nothing", "the package", "its file"])
def test_what_was_taken_off_by_hand_does_not_come_back(world: World, left: str, ca_pem: bytes) -> None:
    host = Host(world, ca_pem)
    assert host.configure(client_cert="/etc/old.crt", client_key="/etc/old.key").exit_status == 0
    if left != "the package":
        host.vendor.installed.clear()
    if left != "its file":
        host.memory.remove(host.cfg())
    assert host.configure().exit_status == 0
    cluster = host.tree()["clusters"][0]["cluster"]
    assert ("client_cert_hsm_tls_path" in cluster) is (left != "nothing")


@both
def test_after_a_removal_nothing_is_kept(world: World, ca_pem: bytes) -> None:
    host = Host(world, ca_pem)
    tune(host, "cli")
    assert host.configure(log_file="/var/log/hsm.log").exit_status == 0
    assert commands.remove(host.memory, host.run("remove"), NullProgress(), None).exit_status == 0
    host.memory.remove(host.cfg())
    assert host.configure().exit_status == 0
    assert "retry" not in host.tree()["clusters"][0]["cluster"]


@both
def test_what_was_said_once_can_be_unsaid(world: World, ca_pem: bytes) -> None:
    host = Host(world, ca_pem)
    fresh = host.tree()["logging"]
    tune(host, "cli")
    unsaid = {f"log_{each}": "default" for each in ("level", "file", "type", "rotation")}
    assert host.configure(client_cert="", client_key="", **unsaid).exit_status == 0
    assert host.tree()["logging"] == {**fresh, "log_interval": "daily"}
    cluster = host.tree()["clusters"][0]["cluster"]
    assert (set(cluster) & {"client_cert_hsm_tls_path", "client_key_hsm_tls_path"}, cluster["retry"]) == (
        set(),
        {"mode": "off"},
    )


# ---- links


ETC = "/opt/cloudhsm/etc"
LINKS = [("/srv/hsm/file", {}), ("../../../srv/hsm/file", {}), ("hop", {f"{ETC}/hop": "/srv/hsm/file"})]


@pytest.mark.parametrize(("target", "others"), LINKS, ids=str)
@pytest.mark.parametrize("which", ["ca", "cli"])
def test_a_link_stays_one_and_its_file_is_put_back(
    which: str, target: str, others: dict[str, str], ca_pem: bytes, other_ca_pem: bytes
) -> None:
    host = Host(Vendor, ca_pem)
    path = host.layout.ca if which == "ca" else host.cfg()
    before = host.memory.read(path)
    assert before is not None
    host.memory.place("/srv/hsm", kind="directory", mode=0o755)
    host.memory.place("/srv/hsm/file", before, mode=0o644, gid=990)
    for each, goal in (*others.items(), (path, target)):
        host.memory.place(each, kind="link", mode=0o777, link=goal)
    assert set(host.look().values()) == {StepOutcome.MET}
    changed = with_options(
        host.desired,
        {"ca_cert": CaSource.of(other_ca_pem.decode()), "replace_ca": True, "log_level": "debug"},
    )
    run = host.run("configure")
    assert commands.configure(host.memory, changed, run, NullProgress()).exit_status == 0
    assert (host.memory.readlink(path), host.memory.read("/srv/hsm/file")) != (target, before)
    assert host.memory.readlink(path) == target
    host.memory.place(path, b"a file in the place of the link")
    assert host.rollback(run.run_id).exit_status == 0
    assert (host.memory.readlink(path), host.memory.read("/srv/hsm/file")) == (target, before)
    seen = host.memory.stat("/srv/hsm/file")
    assert seen is not None
    assert (seen.kind, seen.mode, seen.gid) == ("file", 0o644, 990)


@pytest.mark.parametrize("which", ["ca", "cli"])
def test_a_link_into_a_folder_of_others_is_named_and_not_written_through(which: str, ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    path = host.layout.ca if which == "ca" else host.cfg()
    host.memory.place("/home/user", kind="directory", mode=0o755, uid=1000)
    host.memory.place("/home/user/file", host.memory.read(path) or b"")
    host.memory.place(path, kind="link", mode=0o777, link="/home/user/file")
    report = host.configure(log_level="debug")
    assert (report.code, report.failure and "/home/user" in report.failure.saw) == (
        "permissions-unsafe",
        True,
    )


@pytest.mark.parametrize("which", ["ca", "cli"])
def test_a_link_that_leads_nowhere_is_named(which: str, ca_pem: bytes) -> None:
    host = Host(Vendor, ca_pem)
    path = host.layout.ca if which == "ca" else host.cfg()
    host.memory.place(path, kind="link", mode=0o777, link="/mnt/away/file")
    report = host.configure(log_level="debug")
    assert report.code == "unreadable"
    assert "/mnt/away/file" in (report.failure.saw if report.failure else "")
    assert host.memory.readlink(path) == "/mnt/away/file"
