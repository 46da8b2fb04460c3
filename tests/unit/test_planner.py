"""The planner is pure: values in, one value out. Which steps, in which order, with what in them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.cloudhsm import paths
from agent.cloudhsm.client_options import ClientOptions
from agent.cloudhsm.sdk3.daemon import daemon_on
from agent.cloudhsm.sdk3.steps import (
    ConfigureSdk3,
    DaemonConnected,
    DaemonService,
    ManagementUtil,
    WorkingConfiguration,
)
from agent.config.desired import Desired
from agent.core.errors import AgentError
from agent.core.model import CaState, ClientState, Notice, Plan
from agent.facts import Configured, Facts
from agent.package_managers import MANAGERS, Condition, Installed
from agent.planner import PlanResult, plan, removal_plan
from agent.steps.certificate import Certificate
from agent.steps.client import ClusterActivated, HsmInfo
from agent.steps.configure import Configure
from agent.steps.library import Library
from agent.steps.package import Download, Package, PackagesAbsent
from agent.steps.reach import Reach
from tests.fakes.plans import CA, CATALOGUE, LIMITS, NOBLE

BASE = "https://s3.amazonaws.com/cloudhsmv2-software/CloudHsmClient"
ETC, BIN, RUN, LIB = (f"/opt/cloudhsm/{each}" for each in ("etc", "bin", "run", "lib"))
CA_PATH = f"{ETC}/customerCA.crt"
ONE = Desired(hsm_ip=("10.0.1.6",))
TWO = Desired(hsm_ip=("10.0.1.6", "10.0.2.9"))
SDK3 = replace(TWO, sdk=3, package_source="/mirror")

EL8 = Facts("host", "rhel", "8.10", ("fedora",), "Red Hat Enterprise Linux 8.10", "x86_64", "rpm", "systemd")
EL9 = replace(EL8, os_version="9.4", title="Red Hat Enterprise Linux 9.4")
EL10 = replace(EL8, os_version="10.0", title="Red Hat Enterprise Linux 10.0")

# what the vendor prints (latest-releases, client-history), copied here a second time
NOBLE_CLI = "28cba68e9721a1683f9a394704bd786b234cb44a8acc10dbe696aaee351a6f8d"
NOBLE_CLI_5_17_2 = "ef5e6d07c71f8d370207e5ca93425e07d1821bc571535890145422401a43752d"
NOBLE_PKCS11 = "72ab424e34ee2780ae770679180f456374d8be1b66a82aa441defa603c8ec3a7"
EL8_CLIENT3 = "81639c9ec83e501709c4117ba9d98b23dea7838a206ed244c9c6cc0d65130f8c"
EL8_PKCS11_3 = "9a15daa87b8616cf03a6bf6b375f53451ef448dbc54bf2c27fbc2be7823fc633"


def planned(facts: Facts, desired: Desired) -> PlanResult:
    return plan(facts, desired, CATALOGUE, CA, LIMITS)


def refusal(facts: Facts, desired: Desired) -> tuple[str, str, str]:
    with pytest.raises(AgentError) as caught:
        planned(facts, desired)
    return caught.value.code.name, caught.value.saw, caught.value.want


def steps(found: PlanResult | Plan) -> list[str]:
    return [step.id for step in (found.plan if isinstance(found, PlanResult) else found).steps]


def probes(found: PlanResult) -> list[str]:
    return [probe.id for probe in found.plan.probes]


def has(facts: Facts, **packages: str) -> Facts:
    """Return the same host with packages, `cloudhsm_cli="5.18.0-1"`."""
    found = (Installed(name.replace("_", "-"), version) for name, version in packages.items())
    return replace(facts, installed=tuple(sorted(found, key=lambda each: each.package)))


def package(found: PlanResult, component: str) -> Package:
    return next(
        each for each in found.plan.steps if isinstance(each, Package) and each.component == component
    )


def codes(found: PlanResult) -> list[str]:
    return [notice.code for notice in found.plan.notices]


# a virgin host


def test_a_virgin_host_whole() -> None:
    certificate = Certificate(paths.LINUX, CA.pem, CA.fingerprints, "2036-01-01T00:00:00+00:00")
    needs = ("package:cli", "certificate", "configure:cli", "reach:*")
    assert planned(NOBLE, replace(TWO, component=("pkcs11",))) == PlanResult(
        plan=Plan(
            steps=(
                Package(
                    "cli",
                    "cloudhsm-cli",
                    "5.18.0-1",
                    "5.18.0-1",
                    Download(
                        f"{BASE}/Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb",
                        "cloudhsm-cli_5.18.0-1_u24.04_amd64.deb",
                        NOBLE_CLI,
                    ),
                    MANAGERS["deb"],
                    LIMITS,
                    paths.LINUX,
                ),
                Package(
                    "pkcs11",
                    "cloudhsm-pkcs11",
                    "5.18.0-1",
                    "5.18.0-1",
                    Download(
                        f"{BASE}/Noble/cloudhsm-pkcs11_5.18.0-1_u24.04_amd64.deb",
                        "cloudhsm-pkcs11_5.18.0-1_u24.04_amd64.deb",
                        NOBLE_PKCS11,
                    ),
                    MANAGERS["deb"],
                    LIMITS,
                    paths.LINUX,
                ),
                certificate,
                *(
                    Configure(
                        component,
                        paths.LINUX,
                        TWO.hsm_ip,
                        accept_single_hsm=False,
                        limits=LIMITS,
                    )
                    for component in ("cli", "pkcs11")
                ),
            ),
            probes=(
                Reach("10.0.1.6", 2223, LIMITS.connect),
                Reach("10.0.2.9", 2223, LIMITS.connect),
                Library("pkcs11", paths.LINUX, "ldd", LIMITS, ("package:pkcs11",)),
                HsmInfo(paths.LINUX, 2, False, LIMITS, needs),
                ClusterActivated(paths.LINUX, LIMITS, needs),
            ),
        ),
        fit=planned(NOBLE, TWO).fit,
        client=ClientState(5, "5.18.0", ("cli", "pkcs11"), "catalogue-sha256"),
        ca=CaState(CA_PATH, CA.sha256, "CN=root", "2036-01-01T00:00:00+00:00", CA.fingerprints),
    )


def test_the_same_values_give_the_same_plan() -> None:
    assert planned(NOBLE, TWO) == planned(replace(NOBLE), replace(TWO))


@pytest.mark.parametrize(
    ("os", "version", "form", "path", "notices"),
    [
        ("amzn", "2023", "rpm", "Amzn2023/cloudhsm-cli-5.18.0-1.amzn2023.x86_64.rpm", []),
        ("amzn", "2", "rpm", "EL7/cloudhsm-cli-5.18.0-1.el7.x86_64.rpm", []),
        ("centos", "7", "rpm", "EL7/cloudhsm-cli-5.12.0-1.el7.x86_64.rpm", ["os-out-of-support"]),
        ("rhel", "8.10", "rpm", "EL8/cloudhsm-cli-5.18.0-1.el8.x86_64.rpm", []),
        ("rhel", "9.1", "rpm", "EL9/cloudhsm-cli-5.18.0-1.el9.x86_64.rpm", ["os-minor-old"]),
        ("rhel", "10.0", "rpm", "EL10/cloudhsm-cli-5.18.0-1.el10.x86_64.rpm", []),
        ("ubuntu", "20.04", "deb", "Focal/cloudhsm-cli_5.16.1-1_u20.04_amd64.deb", ["os-out-of-support"]),
        ("ubuntu", "22.04", "deb", "Jammy/cloudhsm-cli_5.18.0-1_u22.04_amd64.deb", []),
        ("ubuntu", "24.04", "deb", "Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb", []),
        ("ubuntu", "26.04", "deb", "Resolute/cloudhsm-cli_5.18.0-1_u26.04_amd64.deb", []),
    ],
)
def test_each_kind_of_host_has_the_same_steps_and_its_own_file(
    os: str, version: str, form: str, path: str, notices: list[str]
) -> None:
    found = planned(replace(NOBLE, os=os, os_version=version, format=form), ONE)
    assert steps(found) == ["package:cli", "certificate", "configure:cli"]
    assert probes(found) == ["reach:10.0.1.6:2223", "client:hsm-info", "client:activated"]
    cli = package(found, "cli")
    assert cli.download is not None
    assert (cli.download.url, cli.manager) == (f"{BASE}/{path}", MANAGERS[form])
    assert (codes(found), found.plan.baseline) == (notices, None)


@pytest.mark.parametrize(
    ("facts", "arch", "path"),
    [
        (NOBLE, "aarch64", "Noble/cloudhsm-cli_5.18.0-1_u24.04_arm64.deb"),
        (EL9, "aarch64", "EL9/cloudhsm-cli-5.18.0-1.el9.aarch64.rpm"),
    ],
)
def test_a_processor_has_another_name_for_each_format(facts: Facts, arch: str, path: str) -> None:
    found = package(planned(replace(facts, arch=arch), ONE), "cli").download
    assert (found.url if found else "") == f"{BASE}/{path}"


def test_the_order_is_fixed_whatever_was_said_first() -> None:
    found = planned(NOBLE, replace(ONE, component=("dyn", "jce", "pkcs11", "cli")))
    order = ["cli", "pkcs11", "jce", "dyn"]
    assert steps(found) == [
        *(f"package:{each}" for each in order),
        "certificate",
        *(f"configure:{each}" for each in order),
    ]
    assert probes(found)[1:] == [
        "client:library:pkcs11",
        "client:library:jce",
        "client:library:dyn",
        "client:hsm-info",
        "client:activated",
    ]


def test_an_ipv6_address_is_told_in_brackets() -> None:
    found = planned(NOBLE, Desired(hsm_ip=("fd00::6", "10.0.2.9")))
    assert probes(found)[:2] == ["reach:[fd00::6]:2223", "reach:10.0.2.9:2223"]


def test_the_options_reach_every_configure_step() -> None:
    options = ClientOptions({"log_level": "debug", "client_cert": "/c.crt", "client_key": "/c.key"})
    desired = replace(
        ONE,
        component=("pkcs11",),
        accept_single_hsm=True,
        replace_ca=True,
        client=options,
    )
    found = planned(NOBLE, desired)
    assert [step for step in found.plan.steps if isinstance(step, Configure)] == [
        Configure(
            component,
            paths.LINUX,
            ("10.0.1.6",),
            accept_single_hsm=True,
            limits=LIMITS,
            options=options,
        )
        for component in ("cli", "pkcs11")
    ]
    assert found.plan.steps[2] == Certificate(
        paths.LINUX, CA.pem, CA.fingerprints, "2036-01-01T00:00:00+00:00", replace=True
    )
    info = next(each for each in found.plan.probes if isinstance(each, HsmInfo))
    assert (info.asked, info.accept_single_hsm) == (1, True)


# what is on the host already


def test_what_is_installed_is_configured_too() -> None:
    found = planned(has(NOBLE, cloudhsm_jce="5.18.0-1"), ONE)
    assert steps(found) == [
        "package:cli", "package:jce", "certificate", "configure:cli", "configure:jce",
    ]  # fmt: skip


UNFINISHED, BROKEN = Condition.UNFINISHED, Condition.BROKEN


@pytest.mark.parametrize(
    ("facts", "there", "condition", "file"),
    [
        (NOBLE, "5.17.2-1", UNFINISHED, "cloudhsm-cli_5.17.2-1_u24.04_amd64.deb"),
        (NOBLE, "5.17.2-1", BROKEN, "cloudhsm-cli_5.17.2-1_u24.04_amd64.deb"),
        (EL9, "5.17.2-1.el9", UNFINISHED, "cloudhsm-cli-5.17.2-1.el9.x86_64.rpm"),
        # nothing is known of its bytes, and none may be needed
        (NOBLE, "5.16.0-1", UNFINISHED, None),
        (NOBLE, "5.16.0-1", BROKEN, "cloudhsm-cli_5.16.0-1_u24.04_amd64.deb"),
        # no version of this system's any more
        (NOBLE, "5.9.0-1", UNFINISHED, None),
        (NOBLE, "5.18.0-1", UNFINISHED, "cloudhsm-cli_5.18.0-1_u24.04_amd64.deb"),
    ],
)
def test_what_is_not_whole_is_completed_and_not_upgraded_unasked(
    facts: Facts, there: str, condition: Condition, file: str | None
) -> None:
    broken = (Installed("cloudhsm-cli", there, condition, "as dpkg says"),)
    found = package(planned(replace(facts, installed=broken), ONE), "cli")
    assert (found.version, found.download.file if found.download else None) == (there, file)
    asked = package(planned(replace(facts, installed=broken), replace(ONE, client_version="5.18.0")), "cli")
    assert asked.version == "5.18.0-1"


def test_a_broken_package_of_another_time_has_to_be_decided_about() -> None:
    facts = replace(NOBLE, installed=(Installed("cloudhsm-cli", "5.9.0-1", BROKEN, "half-installed"),))
    assert refusal(facts, ONE)[0] == "client-end-of-support"


@pytest.mark.parametrize("version", [None, "latest"])
def test_a_component_that_the_newest_client_left_out_is_not_planned_beside_it(version: str | None) -> None:
    """What `facts` does not list for this host comes at the version it had last, when that is asked for."""
    desired = replace(ONE, component=("openssl-provider",), client_version=version)
    with pytest.raises(AgentError) as caught:
        planned(NOBLE, desired)
    assert (caught.value.code.name, caught.value.want) == ("component-unsupported", "openssl-provider")
    assert "--client-version 5.17.2" in caught.value.hint
    asked = planned(NOBLE, replace(desired, client_version="5.17.2"))
    assert [package(asked, each).version for each in ("cli", "openssl-provider")] == ["5.17.2-1"] * 2
    there = has(NOBLE, cloudhsm_cli="5.17.2-1", cloudhsm_openssl_provider="5.17.2-1")
    assert package(planned(there, ONE), "openssl-provider").version == "5.17.2-1"


@pytest.mark.parametrize(
    ("facts", "platform", "words", "not_there"),
    [
        (NOBLE, "el9", "u24.04", "el9"),
        (EL9, "u24.04", "el8", "u24.04"),
        (replace(EL9, format=""), "el9", "microdnf install", "--platform"),
        (replace(EL9, format=""), None, "microdnf install", "--platform"),
    ],
)
def test_a_row_that_the_host_cannot_install_is_not_recommended(
    facts: Facts, platform: str | None, words: str, not_there: str
) -> None:
    with pytest.raises(AgentError) as caught:
        planned(facts, replace(ONE, platform=platform))
    assert caught.value.code.name == "platform-unsupported"
    assert (words in caught.value.hint, not_there in caught.value.hint) == (True, False), caught.value.hint


def test_what_an_unfinished_run_owes_is_planned() -> None:
    found = planned(replace(NOBLE, due=("pkcs11",)), replace(ONE, sdk=5))
    assert steps(found)[:2] == ["package:cli", "package:pkcs11"]


@pytest.mark.parametrize("facts", [has(NOBLE, cloudhsm_cli="5.17.2-1")])
@pytest.mark.parametrize(
    ("wanted", "version", "url", "sha256"),
    [
        (None, "5.17.2-1", None, None),
        ("5.18.0", "5.18.0-1", "Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb", NOBLE_CLI),
        ("5.17.2", "5.17.2-1", "Noble/cloudhsm-cli_5.17.2-1_u24.04_amd64.deb", NOBLE_CLI_5_17_2),
        # listed, and without a checksum: the step refuses, since only it knows whether it is there
        ("5.16.0", "5.16.0-1", "Noble/cloudhsm-cli_5.16.0-1_u24.04_amd64.deb", None),
        ("latest", "latest", "Noble/cloudhsm-cli_latest_u24.04_amd64.deb", None),
    ],
)
def test_kept_pinned_or_latest(
    facts: Facts, wanted: str | None, version: str, url: str | None, sha256: str | None
) -> None:
    found = package(planned(facts, replace(ONE, client_version=wanted)), "cli")
    download = Download(f"{BASE}/{url}", url.rpartition("/")[2], sha256) if url else None
    assert found == Package(
        "cli", "cloudhsm-cli", version, "5.18.0-1", download, MANAGERS["deb"], LIMITS, paths.LINUX
    )


@pytest.mark.parametrize(
    ("facts", "version", "kept"),
    [
        (NOBLE, "5.18.0-1", False),
        (EL9, "5.18.0-1.el9", False),
        (EL9, "5.17.2-1.el9", True),
    ],
)
def test_a_kept_version_has_nothing_to_download_and_the_newest_still_names_its_file(
    facts: Facts, version: str, kept: bool
) -> None:
    found = planned(has(facts, cloudhsm_cli=version), ONE)
    assert (package(found, "cli").download is None) is kept
    assert found.client == ClientState(5, version[:6], ("cli",), "installed")
    assert codes(found) == (["client-newer-available"] if kept else [])


def test_a_mirror_has_the_vendors_layout() -> None:
    found = package(planned(NOBLE, replace(ONE, package_source="/srv/mirror")), "cli")
    assert found.download == Download(
        "/srv/mirror/Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb",
        "cloudhsm-cli_5.18.0-1_u24.04_amd64.deb",
        NOBLE_CLI,
    )


# who vouches for the bytes

OWN = {"cloudhsm-cli_5.18.0-1_u24.04_amd64.deb": "1" * 64}
MIRROR = replace(ONE, package_source="/mirror")


@pytest.mark.parametrize(
    ("facts", "desired", "verified_by"),
    [
        (NOBLE, ONE, "catalogue-sha256"),
        (NOBLE, replace(MIRROR, sha256=OWN), "caller-sha256"),
        (NOBLE, replace(ONE, client_version="latest"), "unverified"),
        (has(NOBLE, cloudhsm_cli="5.18.0-1"), ONE, "installed"),
        (has(NOBLE, cloudhsm_cli="5.18.0-1"), replace(MIRROR, sha256=OWN), "installed"),
        (has(NOBLE, cloudhsm_cli="5.18.0-1"), replace(ONE, component=("pkcs11",)), "catalogue-sha256"),
        (has(NOBLE, cloudhsm_cli="5.17.2-1"), replace(ONE, client_version="5.18.0"), "catalogue-sha256"),
        (has(EL9, cloudhsm_cli="5.18.0-1.el9"), ONE, "installed"),
    ],
)
def test_who_vouches(facts: Facts, desired: Desired, verified_by: str) -> None:
    assert planned(facts, desired).client.verified_by == verified_by


@pytest.mark.parametrize("source", [None, BASE, f"{BASE}/", f"{BASE}?x=1", BASE.replace("s3.a", "S3.A")])
def test_another_checksum_for_what_aws_itself_sends_is_refused(source: str | None) -> None:
    desired = replace(ONE, sha256=OWN, package_source=source)
    assert refusal(NOBLE, desired) == ("checksum-mismatch", f"sha256:{'1' * 64}", f"sha256:{NOBLE_CLI}")
    agrees = replace(desired, sha256=dict.fromkeys(OWN, NOBLE_CLI))
    assert codes(planned(NOBLE, agrees)) == []


@pytest.mark.parametrize(
    ("source", "region", "query"),
    [
        ("s3://bucket/mirror", None, ""),
        ("s3://bucket/mirror/?region=us-east-1", "eu-west-1", "?region=us-east-1"),
        ("s3://bucket/mirror", "eu-west-1", "?region=eu-west-1"),
    ],
)
def test_a_bucket_is_a_mirror_and_knows_its_region(source: str, region: str | None, query: str) -> None:
    download = package(planned(NOBLE, replace(ONE, package_source=source, region=region)), "cli").download
    file = "Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb"
    assert download is not None
    assert (download.url, download.sha256) == (f"s3://bucket/mirror/{file}{query}", NOBLE_CLI)


def test_another_checksum_for_what_a_mirror_sends_is_in_every_report_of_it() -> None:
    found = planned(NOBLE, replace(MIRROR, sha256=OWN))
    download = package(found, "cli").download
    assert (download.sha256 if download else "", codes(found)) == ("1" * 64, ["checksum-replaced"])
    assert NOBLE_CLI in found.plan.notices[0].text
    assert codes(planned(has(NOBLE, cloudhsm_cli="5.18.0-1"), replace(MIRROR, sha256=OWN))) == []


# what is refused


@pytest.mark.parametrize(
    ("facts", "desired", "refused"),
    [
        (NOBLE, replace(ONE, client_version="5.12.0"), ("client-end-of-support", "made: 5.13.0 or newer", "5.12.0")),
        (
            replace(NOBLE, os_version="20.04"), replace(ONE, client_version="5.18.0"),
            ("client-end-of-support", "made: 5.7.0 to 5.16.1", "5.18.0"),
        ),
        (
            replace(NOBLE, os_version="16.04"), ONE,
            ("client-end-of-support", "Ubuntu 16.04 x86_64", "SDK 5"),
        ),
        (EL9, SDK3, ("client-end-of-support", "Red Hat Enterprise Linux 9 x86_64", "SDK 3")),
        (
            replace(EL8, arch="aarch64"), SDK3,
            ("client-end-of-support", "Red Hat Enterprise Linux 8 aarch64", "SDK 3"),
        ),
        (
            EL10, replace(ONE, component=("dyn",)),
            ("component-unsupported", "Red Hat Enterprise Linux 10 x86_64", "dyn"),
        ),
        (
            EL8, replace(SDK3, component=("dyn",)),
            ("component-unsupported", "Red Hat Enterprise Linux 8 x86_64", "dyn"),
        ),
        (NOBLE, replace(ONE, component=("ksp",)), ("component-unsupported", "Ubuntu 24.04 x86_64", "ksp")),
        (
            NOBLE, replace(ONE, platform="el9"),
            ("platform-unsupported", "Ubuntu 24.04.1 LTS, which has deb", "rpm"),
        ),
        (
            replace(EL9, format=""), ONE,
            ("platform-unsupported", "Red Hat Enterprise Linux 9.4, which has neither apt nor dnf", "rpm"),
        ),
        (has(NOBLE, cloudhsm_client="3.4.4-1"), ONE, ("package-conflict", "cloudhsm-client", "SDK 5 alone")),
        (
            has(EL8, cloudhsm_cli="5.18.0-1.el8", cloudhsm_pkcs11="5.18.0-1.el8"), SDK3,
            ("package-conflict", "cloudhsm-cli, cloudhsm-pkcs11", "SDK 3 alone"),
        ),
        (has(EL8, cloudhsm_mgmt_util="3.4.4-1.el8"), ONE, ("package-conflict", "cloudhsm-mgmt-util", "SDK 5 alone")),
        (replace(EL8, init="other"), SDK3, ("platform-unsupported", "another init, or none", "systemd")),
    ],
)  # fmt: skip
def test_what_is_refused(facts: Facts, desired: Desired, refused: tuple[str, str, str]) -> None:
    assert refusal(facts, desired) == refused


def test_a_forced_row_is_told() -> None:
    rocky = replace(EL9, os="rocky", title="Rocky Linux 9.4")
    assert refusal(rocky, ONE)[0] == "platform-unsupported"
    found = planned(rocky, replace(ONE, platform="el9"))
    assert (found.fit.row.name, found.fit.forced) == ("el9", True)
    assert found.plan.notices == (
        Notice(
            "platform-forced",
            "treated as el9 because `--platform` says so; AWS does not list rocky 9.4 on x86_64",
        ),
    )


# what there is to go back to

WORKED = replace(
    has(NOBLE, cloudhsm_cli="5.18.0-1"),
    configured=(Configured("cli", ("10.0.9.9", "10.0.9.8", "10.0.9.7"), CA_PATH),),
    has_ca=True,
)


def test_the_old_configuration_is_asked_by_its_own_number_of_hsms() -> None:
    assert planned(WORKED, ONE).plan.baseline == HsmInfo(
        paths.LINUX, 3, accept_single_hsm=True, limits=LIMITS, tries=2
    )


@pytest.mark.parametrize(
    "facts",
    [
        NOBLE,
        replace(WORKED, has_ca=False),
        replace(WORKED, configured=()),
        replace(WORKED, configured=(Configured("cli", (), CA_PATH),)),
        replace(WORKED, configured=(Configured("pkcs11", ("10.0.9.9",), CA_PATH),)),
    ],
)
def test_without_a_whole_configuration_there_is_nothing_to_go_back_to(facts: Facts) -> None:
    assert planned(facts, ONE).plan.baseline is None


@pytest.mark.parametrize("condition", Condition)
def test_whether_it_worked_is_asked_whatever_the_database_says(condition: Condition) -> None:
    facts = replace(WORKED, installed=(Installed("cloudhsm-cli", "5.18.0-1", condition, "a word"),))
    assert planned(facts, ONE).plan.baseline == planned(WORKED, ONE).plan.baseline
    assert planned(replace(WORKED, installed=()), ONE).plan.baseline == planned(WORKED, ONE).plan.baseline


# SDK 3


def test_sdk_3_whole() -> None:
    needs = ("package:cli", "certificate", "configure:cli", "reach:*", "service")
    found = planned(EL8, replace(SDK3, component=("pkcs11",)))
    files = [
        ("cli", "cloudhsm-client", EL8_CLIENT3),
        ("pkcs11", "cloudhsm-client-pkcs11", EL8_PKCS11_3),
    ]
    assert found.plan == Plan(
        steps=(
            *(
                Package(
                    component,
                    name,
                    "3.4.4-1",
                    "3.4.4-1",
                    Download(
                        f"/mirror/EL8/{name}-3.4.4-1.el8.x86_64.rpm", f"{name}-3.4.4-1.el8.x86_64.rpm", sha256
                    ),
                    MANAGERS["rpm"],
                    LIMITS,
                    paths.LINUX,
                )
                for component, name, sha256 in files
            ),
            Certificate(paths.LINUX, CA.pem, CA.fingerprints, "2036-01-01T00:00:00+00:00"),
            ConfigureSdk3(TWO.hsm_ip, paths.LINUX, LIMITS),
            DaemonService(paths.LINUX, LIMITS),
        ),
        probes=(
            *(Reach(each, port, LIMITS.connect) for port in (2223, 2225) for each in TWO.hsm_ip),
            ManagementUtil(paths.LINUX, LIMITS, needs),
            DaemonConnected(paths.LINUX, LIMITS, ("client:hsm-info",)),
        ),
        notices=(
            Notice("sdk3-end-of-support", "SDK 3 is out of support, and hsm2m clusters refuse it"),
        ),
    )  # fmt: skip
    assert steps(found) == ["package:cli", "package:pkcs11", "certificate", "configure:cli", "service"]
    assert found.client == ClientState(3, "3.4.4", ("cli", "pkcs11"), "catalogue-sha256")


def test_an_sdk_3_host_goes_back_when_what_it_had_worked() -> None:
    there = replace(has(EL8, cloudhsm_client="3.4.4-1.el8"), has_ca=True)
    assert planned(there, SDK3).plan.baseline == WorkingConfiguration(paths.LINUX, LIMITS)
    assert planned(replace(there, has_ca=False), SDK3).plan.baseline is None
    assert planned(EL8, SDK3).plan.baseline is None


def test_a_component_added_to_an_sdk_3_host_has_the_version_of_its_client() -> None:
    found = planned(has(EL8, cloudhsm_client="3.4.3-1.el8"), replace(SDK3, component=("pkcs11",)))
    assert [(package(found, each).version, package(found, each).download) for each in ("cli", "pkcs11")] == [
        ("3.4.3-1.el8", None),
        (
            "3.4.3-1",
            Download(
                "/mirror/EL8/cloudhsm-client-pkcs11-3.4.3-1.el8.x86_64.rpm",
                "cloudhsm-client-pkcs11-3.4.3-1.el8.x86_64.rpm",
                None,
            ),
        ),
    ]


def test_sdk_5_takes_the_place_of_sdk_3_component_by_component() -> None:
    there = has(EL8, cloudhsm_client="3.4.4-1.el8", cloudhsm_client_pkcs11="3.4.4-1.el8")
    found = planned(there, replace(ONE, sdk=5))
    assert steps(found) == [
        "package:sdk3",
        "package:cli",
        "package:pkcs11",
        "certificate",
        "configure:cli",
        "configure:pkcs11",
    ]
    downloads = [package(found, each).download for each in ("cli", "pkcs11")]
    assert found.plan.steps[0] == PackagesAbsent(
        "sdk3",
        ("cloudhsm-client", "cloudhsm-client-pkcs11"),
        MANAGERS["rpm"],
        LIMITS,
        daemon=daemon_on(paths.LINUX),
        first=tuple(each for each in downloads if each),
        replacements=("cloudhsm-cli", "cloudhsm-pkcs11"),
    )
    assert len([each for each in downloads if each]) == 2
    # nothing of the other SDK is a configuration that could be put back
    assert found.plan.baseline is None
    assert codes(found) == ["client-out-of-support"]


def test_the_utility_on_its_own_leaves_no_component_behind() -> None:
    found = planned(has(EL8, cloudhsm_mgmt_util="3.4.4-1.el8"), replace(ONE, sdk=5))
    assert steps(found) == ["package:sdk3", "package:cli", "certificate", "configure:cli"]


# taking off


def test_removal_takes_the_base_package_last_and_stops_its_daemon() -> None:
    there = has(EL8, cloudhsm_client="3.4.4-1.el8", cloudhsm_client_pkcs11="3.4.4-1.el8", cloudhsm_odd="1-1")
    assert removal_plan(there, LIMITS) == Plan(
        (
            PackagesAbsent("pkcs11", ("cloudhsm-client-pkcs11",), MANAGERS["rpm"], LIMITS),
            PackagesAbsent("cli", ("cloudhsm-client",), MANAGERS["rpm"], LIMITS, daemon_on(paths.LINUX)),
            PackagesAbsent("cloudhsm-odd", ("cloudhsm-odd",), MANAGERS["rpm"], LIMITS),
        )
    )
    assert removal_plan(has(NOBLE, cloudhsm_cli="5.18.0-1"), LIMITS) == Plan(
        (PackagesAbsent("cli", ("cloudhsm-cli",), MANAGERS["deb"], LIMITS),)
    )
    assert removal_plan(NOBLE, LIMITS) == Plan(())
