"""`--cluster-id` end to end: commands on a host in memory, DescribeClusters from a server on the loopback."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent import commands
from agent.cloudhsm.cluster import (
    NamedCluster,
    description_from_json,
    description_to_json,
    read_cluster,
)
from agent.config.desired import Desired, with_options
from agent.config.options import CaSource
from agent.core.model import RunOutcome, StepOutcome
from agent.render.json_report import to_document
from agent.render.progress import NullProgress
from agent.report import new_run
from agent.state import records
from agent.steps.cluster import ClusterState
from tests.fakes import cluster_answers as aws
from tests.fakes.authorities import maker as maker  # noqa: PLC0414 -- pytest takes it from here
from tests.fakes.aws import KEYS, SECRET, TOKEN, answers, half, minds_the_clock, refuses, says
from tests.fakes.imds import imds
from tests.fakes.receiver import receiver
from tests.fakes.vendor import MIRROR, Vendor
from tests.golden.runs import NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.core.host import Host
    from agent.core.model import Report, StepResult
    from agent.engine import Listener
    from agent.report import RunInfo
    from tests.fakes.authorities import Maker
    from tests.fakes.receiver import Answer

REGION = "eu-central-1"
FIRST, SECOND, THIRD = "10.0.1.6", "10.0.2.6", "10.0.3.6"
IPV6 = ["2001:db8::1", "2001:db8::2"]


class Site:
    """A host, the CA of its cluster, and the answers that AWS gives."""

    def __init__(self, maker: Maker, name: str) -> None:
        self.ca = maker.root(f"{name}-ca", "/CN=customer", days=3652)
        self.leaf = maker.below(self.ca, f"{name}-cluster", "/CN=cluster", section="leaf")
        self.other = maker.root(f"{name}-other", "/CN=somebody", days=3652)
        self.vendor = Vendor(addresses=(FIRST, SECOND, THIRD, *IPV6))
        self.host = self.vendor.machine(NOW)
        self.environ = dict(KEYS)
        self.desired = Desired(
            cluster_id=aws.CLUSTER_ID,
            region=REGION,
            ca_cert=CaSource("inline", self.ca.pem.decode()),
            package_source=MIRROR,
            sha256=self.vendor.checksums(),
        )

    def cluster(self, *hsms: dict[str, Any], state: str = "ACTIVE", **more: Any) -> dict[str, Any]:
        """Return a cluster whose certificate the CA issued; without HSMs named, with two."""
        shown = hsms or (aws.hsm(1), aws.hsm(2))
        certificates = {"ClusterCertificate": self.leaf.pem.decode()}
        return aws.cluster(state, *shown, **{"Certificates": certificates, **more})

    @contextmanager
    def aws(self, *clusters: dict[str, Any] | Answer) -> Iterator[list[Any]]:
        """Have AWS answer with these, the last again and again; yields what it was asked."""
        turns = [each if callable(each) else answers(aws.page(each)) for each in clusters]
        with receiver(*turns) as double:
            self.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{double.server_port}"
            yield double.requests

    def configure(self, **more: object) -> Report:
        return self._run("configure", commands.configure, with_options(self.desired, more))

    def again(self) -> Report:
        return self._run("configure", commands.configure, Desired())

    def verify(self, **more: object) -> Report:
        return self._run("verify", commands.verify, Desired(**more))  # type: ignore[arg-type]

    def plan(self, **more: object) -> Report:
        return self._run("plan", commands.verify, with_options(self.desired, more))

    def _run(
        self, name: str, command: Callable[[Host, Desired, RunInfo, Listener], Report], desired: Desired
    ) -> Report:
        self.host.sleep(1.0)  # a name of its own for each run
        report = command(self.host, desired, new_run(self.host, name, self.environ), NullProgress())
        kept = to_document(report) + repr(self.host.entries)
        for secret in (SECRET, TOKEN, aws.SECRET):
            assert secret not in kept
        return report

    def servers(self) -> list[str]:
        """Return the addresses in the client's configuration."""
        text = (self.host.read("/opt/cloudhsm/etc/cloudhsm-cli.cfg") or b"").decode()
        return [each["hostname"] for each in json.loads(text)["clusters"][0]["cluster"]["servers"]]


@pytest.fixture
def site(maker: Maker, request: pytest.FixtureRequest) -> Site:
    return Site(maker, f"site{abs(hash(request.node.name))}")


def line(report: Report, name: str) -> StepResult:
    return next(each for each in report.steps if each.id == name)


def outcome(report: Report) -> tuple[str, str | None, int]:
    return report.outcome.value, report.code, report.exit_status


def test_a_cluster_is_configured_by_its_id(site: Site) -> None:
    with site.aws(site.cluster()) as requests:
        report = site.configure()
    assert outcome(report) == ("ok", None, 0)
    assert site.servers() == [FIRST, SECOND]
    for name in ("cluster:state", "cluster:addresses", "cluster:ca"):
        assert line(report, name).outcome is StepOutcome.MET
    assert "ACTIVE" in str(line(report, "cluster:state").saw)
    assert vars(report.cluster) == {
        "id": aws.CLUSTER_ID, "state": "ACTIVE", "type": "hsm2m.medium", "region": REGION,
    }  # fmt: skip
    assert len(requests) == 1


@pytest.mark.parametrize("has_ipv4", [True, False])
def test_of_two_addresses_the_one_that_leads_there_is_used_and_stays(site: Site, has_ipv4: bool) -> None:
    reached = dict(site.host.ports)
    if not has_ipv4:
        site.host.ports[FIRST, 2223] = "hsm-no-route"
    cluster = site.cluster(aws.hsm(1, EniIpV6=IPV6[0]), aws.hsm(2, EniIpV6=IPV6[1]))
    with site.aws(cluster):
        report = site.configure()
        assert site.servers() == ([FIRST, SECOND] if has_ipv4 else IPV6), report
        site.host.ports.update(reached)
        again = site.again()
    assert (outcome(again), again.changed) == (("ok", None, 0), False)
    assert "cluster-addresses-changed" not in {each.code for each in again.notices}


def test_an_address_that_changed_is_drift_and_the_next_configure_follows(site: Site) -> None:
    with site.aws(site.cluster()):
        site.configure()
    moved = site.cluster(aws.hsm(1), aws.hsm(3))
    with site.aws(moved):
        found = site.verify()
        plan = site.plan()
        report = site.again()
    assert outcome(found) == outcome(plan) == ("drift", "drift", 3)
    (changed,) = (each.text for each in found.notices if each.code == "cluster-addresses-changed")
    assert THIRD in changed
    assert SECOND in changed
    assert outcome(report) == ("ok", None, 0)
    assert sorted(site.servers()) == [FIRST, THIRD]


def test_a_list_that_shrinks_counts_once_it_was_seen_twice(site: Site) -> None:
    with site.aws(site.cluster()):
        site.configure()
    with site.aws(site.cluster(aws.hsm(1)), site.cluster()) as requests:
        report = site.again()
    assert outcome(report) == ("ok", None, 0)
    assert site.servers() == [FIRST, SECOND]
    assert len(requests) == 2


def test_a_list_that_is_moving_is_asked_for_again(site: Site) -> None:
    coming = aws.hsm(2, "CREATE_IN_PROGRESS", EniIp=None)
    with site.aws(site.cluster(aws.hsm(1), coming), site.cluster()) as requests:
        report = site.configure()
    assert (site.servers(), len(requests)) == ([FIRST, SECOND], 2)
    assert outcome(report) == ("ok", None, 0)


def test_a_list_that_moves_on_is_used_as_it_is_and_that_is_said(site: Site) -> None:
    coming = aws.hsm(3, "CREATE_IN_PROGRESS", EniIp=None)
    with site.aws(site.cluster(aws.hsm(1), aws.hsm(2), coming)) as requests:
        report = site.configure()
    assert site.servers() == [FIRST, SECOND]
    assert "cluster-changing" in [each.code for each in report.notices]
    assert 2 < len(requests) < 60


@pytest.mark.parametrize(
    ("state", "more", "code", "exit_status"),
    [
        ("UNINITIALIZED", {}, "cluster-uninitialized", 43),
        ("DELETED", {}, "cluster-not-found", 43),
    ],
)
def test_a_cluster_that_cannot_be_used_changes_nothing(
    site: Site, state: str, more: dict[str, Any], code: str, exit_status: int
) -> None:
    before = set(site.host.entries)
    with site.aws(site.cluster(state=state, **more)):
        report = site.configure()
    assert outcome(report) == ("failed", code, exit_status)
    assert not report.changed
    assert line(report, "package:cli").outcome is StepOutcome.SKIPPED
    assert "/opt/cloudhsm/etc/customerCA.crt" not in site.host.entries
    assert {name for name in site.host.entries if name.startswith("/opt")} == {
        name for name in before if name.startswith("/opt")
    }


def test_a_cluster_without_an_hsm_is_empty(site: Site) -> None:
    empty = {**site.cluster(), "Hsms": []}
    with site.aws(empty):
        assert outcome(site.configure()) == ("failed", "cluster-empty", 43)


def test_an_unknown_cluster_is_not_found(site: Site) -> None:
    with site.aws(answers({"Clusters": []})):
        assert outcome(site.configure()) == ("failed", "cluster-not-found", 43)


def test_the_ca_of_another_cluster_is_refused_before_anything_changes(site: Site) -> None:
    with site.aws(site.cluster()):
        report = site.configure(ca_cert=CaSource("inline", site.other.pem.decode()))
    assert outcome(report) == ("failed", "ca-not-of-cluster", 31)
    assert not report.changed


def test_a_certificate_that_cannot_be_read_is_a_warning(site: Site) -> None:
    with site.aws(site.cluster(Certificates={})):
        report = site.configure()
    assert outcome(report) == ("ok", None, 0)
    assert "ca-not-checked" in [each.code for each in report.notices]
    assert "cluster:ca" not in [each.id for each in report.steps]


@pytest.mark.parametrize(
    ("sdk", "version", "code"),
    [
        (5, (5, 8, 0), "sdk-not-for-cluster"),
        (3, (3, 4, 4), "sdk-not-for-cluster"),
        (5, (5, 9, 0), None),
        (5, None, None),
    ],
)
def test_a_client_that_is_too_old_for_the_hsms_is_refused(
    site: Site, sdk: int, version: tuple[int, ...] | None, code: str | None
) -> None:
    cluster = read_cluster(site.cluster(), REGION)
    finding = ClusterState(NamedCluster(cluster.id, cluster), sdk, version).check(site.host)
    assert (finding.met, finding.code) == (code is None, code)


def test_given_addresses_must_be_the_clusters(site: Site) -> None:
    with site.aws(site.cluster()):
        good = site.configure(hsm_ip=(FIRST, SECOND))
        bad = site.plan(hsm_ip=(FIRST, THIRD))
    assert outcome(good) == ("ok", None, 0)
    assert outcome(bad) == ("failed", "hsm-not-of-cluster", 44)
    assert THIRD in str(line(bad, "cluster:addresses").saw)


def test_given_addresses_go_on_without_aws(site: Site) -> None:
    with site.aws(refuses("AccessDeniedException", "no", 403)):
        report = site.configure(hsm_ip=(FIRST, SECOND))
    assert outcome(report) == ("ok", None, 0)
    (text,) = (each.text for each in report.notices if each.code == "cluster-not-checked")
    assert "aws-denied" in text
    assert "cloudhsm:DescribeClusters" in text
    assert report.cluster is None


def test_without_addresses_a_host_that_cannot_ask_aws_is_not_touched(site: Site) -> None:
    with site.aws(refuses("AccessDeniedException", "no", 403)):
        report = site.configure()
    assert outcome(report) == ("failed", "aws-denied", 12)
    assert not report.changed


def test_a_configured_host_that_cannot_ask_aws_is_checked_all_the_same(site: Site) -> None:
    with site.aws(site.cluster()):
        site.configure()
    with site.aws(refuses("AccessDeniedException", "no", 403)):
        report = site.verify()
    assert outcome(report) == ("failed", "aws-denied", 12)
    assert line(report, "cluster:state").outcome is StepOutcome.FAILED
    assert f"--hsm-ip {FIRST} --hsm-ip {SECOND}" in str(line(report, "cluster:state").hint)
    assert line(report, f"reach:{FIRST}:2223").outcome is StepOutcome.MET
    assert line(report, "client:hsm-info").outcome is StepOutcome.MET


def test_the_record_names_the_cluster_and_not_its_addresses(site: Site) -> None:
    with site.aws(site.cluster()):
        site.configure()
    kept = records.read_last(site.host).desired
    assert (kept["cluster_id"], kept["region"]) == (aws.CLUSTER_ID, REGION)
    assert "hsm_ip" not in kept


def test_an_unfinished_request_names_its_cluster(site: Site) -> None:
    with site.aws(site.cluster()):
        site.configure()
    with site.aws(refuses("AccessDeniedException", "no", 403)):
        site.configure(cluster_id="cluster-7zyxwvutsrq")
    with site.aws(site.cluster()):
        report = site.verify(cluster_id=aws.CLUSTER_ID, region=REGION)
    assert report.outcome is RunOutcome.DRIFT
    assert report.failure is not None
    assert "cluster cluster-7zyxwvutsrq" in report.failure.saw


def test_what_an_operator_sent_along_is_not_asked_for_again(site: Site) -> None:
    cluster = read_cluster(site.cluster(), REGION)
    sent = json.loads(json.dumps(description_to_json(cluster)))
    desired = replace(site.desired, hsm_ip=(FIRST, SECOND))
    with site.aws(site.cluster()) as requests:
        run = replace(new_run(site.host, "configure", site.environ), cluster=description_from_json(sent))
        report = commands.configure(site.host, desired, run, NullProgress())
    assert outcome(report) == ("ok", None, 0)
    assert line(report, "cluster:ca").outcome is StepOutcome.MET
    assert requests == []


@pytest.mark.parametrize("tree", [{}, {"hsms": [3]}, {"hsms": [{"colour": "red"}], "subnets": []}])
def test_a_description_of_another_form_is_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        description_from_json(tree)


def test_the_region_that_a_shell_names_is_recorded(site: Site) -> None:
    site.environ["AWS_REGION"] = REGION
    with site.aws(site.cluster()):
        site.configure(region=None)
        del site.environ["AWS_REGION"]
        report = site.verify()
    assert outcome(report) == ("ok", None, 0)
    assert records.read_last(site.host).desired["region"] == REGION


def test_the_region_of_a_shell_is_recorded_before_aws_answers(site: Site) -> None:
    site.environ["AWS_REGION"] = REGION
    with site.aws(refuses("AccessDeniedException", "no", 403)):
        assert outcome(site.configure(region=None)) == ("failed", "aws-denied", 12)
    del site.environ["AWS_REGION"]
    with site.aws(site.cluster()):
        assert outcome(site.again()) == ("ok", None, 0)


# --- AWS's bad days, and what is left when the operator named the addresses too

SKEWED = refuses(
    "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", 403
)
HALF = half(json.dumps(aws.page(aws.cluster("ACTIVE", aws.hsm(1)))), "json")
BAD_DAYS: dict[str, tuple[Answer, str, str]] = {
    "throttled for ever": (refuses("ThrottlingException", "Rate exceeded"), "aws-throttled", "Rate exceeded"),
    "half an answer": (HALF, "aws-unreachable", "not JSON"),
    "no JSON at all": (says("<html>Sign in</html>"), "aws-unreachable", "not JSON"),
    "a wrong clock": (SKEWED, "aws-clock", "minutes"),
    "expired": (refuses("ExpiredTokenException", "The security token included in the request is expired", 403), "aws-no-credentials", "expired"),
    "unknown key": (refuses("UnrecognizedClientException", "The security token is invalid", 403), "aws-no-credentials", "invalid"),
    "denied by an organisation": (refuses("AccessDeniedException", "with an explicit deny in a service control policy", 403), "aws-denied", "service control policy"),
    "broken for ever": (refuses("CloudHsmInternalFailureException", "internal", 500), "aws-unreachable", "internal"),
}  # fmt: skip


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_bad_day_of_aws_has_its_code_and_changes_nothing(site: Site, day: str) -> None:
    answer, code, said = BAD_DAYS[day]
    with site.aws(answer):
        report = site.configure()
        planned = site.plan()
    assert outcome(report) == outcome(planned) == ("failed", code, 12)
    assert not report.changed
    assert report.failure is not None
    assert said in str(report.failure.saw)
    assert report.failure.hint


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_bad_day_of_aws_is_a_warning_where_addresses_are_given(site: Site, day: str) -> None:
    answer, code, _ = BAD_DAYS[day]
    with site.aws(answer):
        report = site.configure(hsm_ip=(FIRST, SECOND))
    assert outcome(report) == ("ok", None, 0)
    (text,) = (each.text for each in report.notices if each.code == "cluster-not-checked")
    assert code in text
    assert site.servers() == [FIRST, SECOND]


@pytest.mark.parametrize("mode", ["v1-only", "hop-limit", "disabled", "no role"])
def test_without_credentials_anywhere_the_metadata_service_is_described(site: Site, mode: str) -> None:
    site.environ = {}
    with imds("v2" if mode == "no role" else mode) as service, site.aws(site.cluster()) as requests:
        site.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = service.url
        report = site.configure()
    assert outcome(report) == ("failed", "aws-no-credentials", 12)
    assert (report.changed, requests) == (False, [])


def test_a_clock_that_is_wrong_is_corrected_and_the_run_goes_on(site: Site) -> None:
    """The host in memory has a time of its own, which is far from that of the server."""
    with site.aws(minds_the_clock(aws.page(site.cluster()))) as requests:
        report = site.configure()
    assert (outcome(report), len(requests)) == (("ok", None, 0), 2)


def test_states_that_nobody_knows_are_carried_through(site: Site) -> None:
    strange = site.cluster(aws.hsm(1, "REBALANCING"), aws.hsm(2), state="HIBERNATING", NewMember={"a": 1})
    with site.aws(strange):
        report = site.configure()
    assert outcome(report) == ("ok", None, 0)
    assert site.servers() == [FIRST, SECOND]
    assert report.cluster is not None
    assert report.cluster.state == "HIBERNATING"


def test_a_cluster_on_a_later_page_is_found(site: Site) -> None:
    first = answers(aws.page(aws.cluster("ACTIVE", ClusterId="cluster-7zyxwvutsrq"), token="more"))
    with site.aws(first, site.cluster()) as requests:
        report = site.configure()
    assert (outcome(report), len(requests)) == (("ok", None, 0), 2)
