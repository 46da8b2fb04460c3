"""Windows Firewall: what its profiles and rules mean, when it is named as the cause, and the one rule of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest

from agent.config.desired import Desired
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.model import Plan
from agent.core.registry import RegistryKey
from agent.core.system import windows
from agent.core.timeouts import Timeouts
from agent.engine import apply_plan, check_plan
from agent.hosts.connect import reach
from agent.planner import plan, removal_plan
from agent.render.progress import NullProgress
from agent.steps.firewall import FirewallRuleAbsent, FirewallRulePresent
from agent.steps.reach import Reach
from agent.windows.firewall import RULE, outbound_blocks, own_rules, parse_rule
from tests.fakes.memory import Memory
from tests.fakes.plans import CA, CATALOGUE, LIMITS, NOBLE
from tests.fakes.steps import Files
from tests.full_server import full_server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.codes import CodeName
    from agent.core.registry import Value

OWN = r"HKLM\SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy"
POLICY = r"HKLM\SOFTWARE\Policies\Microsoft\WindowsFirewall"
EVERYWHERE = ("DomainProfile", "StandardProfile", "PublicProfile")
OURS = f"v2.31|Action=Allow|Active=TRUE|Dir=Out|Protocol=6|RPort2_10=2223-2225|Name={RULE}|"
NETSH = ("netsh", "advfirewall", "firewall")
ADD = (
    *NETSH, "add", "rule", f"name={RULE}", "dir=out", "action=allow", "protocol=TCP", "remoteport=2223-2225",
    "profile=any", "enable=yes",
)  # fmt: skip
DELETE = (*NETSH, "delete", "rule", f"name={RULE}", "dir=out")
SERVER = replace(NOBLE, os="windows", os_version="20348", id_like=(), title="Windows Server 2022 Datacenter",
                 arch="x86_64", format="msi", init="scm", system=windows())  # fmt: skip

Keys = dict[str, "dict[str, Value]"]


def blocked(*profiles: str, **more: Value) -> Keys:
    return {rf"{OWN}\{each}": {"EnableFirewall": 1, "DefaultOutboundAction": 1, **more} for each in profiles}


def rules(*texts: str, root: str = OWN) -> Keys:
    return {rf"{root}\FirewallRules": {f"{{{number}}}": text for number, text in enumerate(texts)}}


def machine(keys: Mapping[str, Mapping[str, Value]], cause: CodeName | None = "hsm-timed-out") -> Memory:
    memory = Memory(ports={("10.0.1.6", 2223): cause}, system=windows())
    memory.other_keys = lambda key: RegistryKey(keys[key]) if key in keys else None
    return memory


def with_netsh(keys: Keys, status: int = 0, said: str = "", *, obeys: bool = True) -> Memory:
    """A netsh that does what it is told, or only says so, as Wine's does."""

    def netsh(argv: tuple[str, ...], _memory: Memory) -> CommandResult:
        place = keys.setdefault(rf"{OWN}\FirewallRules", {})
        if obeys and argv == ADD:
            place["{new}"] = OURS
        if obeys and argv == DELETE:
            for name in [name for name, text in place.items() if f"|Name={RULE}|" in str(text)]:
                del place[name]
        return CommandResult(status, said, "")

    memory = machine(keys)
    memory.programs["netsh"] = netsh
    return memory


def probe(memory: Memory) -> tuple[str | None, str, str | None]:
    found = Reach("10.0.1.6", 2223, 5).check(memory)
    return found.code, found.saw, found.hint


# --- rules


@pytest.mark.parametrize(
    ("text", "port", "profile", "is_for"),
    [
        (OURS, 2224, "Public", True),
        (OURS, 2226, "Public", False),
        (OURS, 2222, "Public", False),
        (OURS.replace("Protocol=6|", ""), 2223, "Domain", True),
        (OURS.replace("Protocol=6", "Protocol=256"), 2223, "Domain", True),
        (OURS.replace("Protocol=6", "Protocol=17"), 2223, "Domain", False),
        (OURS.replace("Active=TRUE", "Active=FALSE"), 2223, "Domain", False),
        (OURS.replace("RPort2_10=2223-2225", "RPort=443|RPort=2223"), 2223, "Domain", True),
        (OURS.replace("RPort2_10=2223-2225", "RPort=443|RPort2_10=1-10"), 2223, "Domain", False),
        (OURS.replace("RPort2_10=2223-2225", "RPort=IPTLSOut"), 2223, "Domain", False),
        (OURS.replace("RPort2_10=2223-2225|", ""), 2223, "Domain", True),
        (OURS.replace("|Name", "|Profile=Domain|Profile=Private|Name"), 2223, "Private", True),
        (OURS.replace("|Name", "|Profile=Domain|Profile=Private|Name"), 2223, "Public", False),
    ],
)
def test_which_connections_a_rule_is_about(text: str, port: int, profile: str, is_for: bool) -> None:
    rule = parse_rule(text)
    assert rule is not None
    assert rule.is_for(port, profile) is is_for


@pytest.mark.parametrize(
    "text", ["", "v2.31|", "v2.31|Action=Allow|Active=TRUE|Dir=In|Protocol=6|", "v2.31|Dir=Out|", "x"]
)
def test_what_is_no_rule_for_what_goes_out_is_left_out(text: str) -> None:
    assert parse_rule(text) is None


@pytest.mark.parametrize(
    "text",
    [
        OURS.replace("|Name", r"|App=C:\python.exe|Name"), OURS.replace("|Name", "|RA4=10.0.0.0/255.255.0.0|Name"),
        OURS.replace("|Name", "|Svc=Dnscache|Name"), OURS.replace("|Name", "|LUAuth=O:LSD:(A;;CC;;;S-1-5-18)|Name"),
        OURS.replace("|Name", "|Something=new|Name"), OURS.replace("|Name", "|Profile=Public|Name"),
        OURS.replace("Allow", "Block"), OURS.replace("TRUE", "FALSE"), OURS.replace("2223-2225", "2223-2224"),
    ],
)  # fmt: skip
def test_a_rule_that_was_narrowed_is_not_the_one_that_is_wanted(text: str) -> None:
    found = FirewallRulePresent(Timeouts()).check(machine(rules(text)))
    assert (found.met, found.saw) == (False, "a rule that was changed")


def test_a_rule_as_netsh_makes_it_lets_us_out() -> None:
    text = OURS.replace("|Name", "|Profile=Domain|Profile=Private|Profile=Public|Name")
    for each in (OURS, text, OURS.replace(f"Name={RULE}", f"Name={RULE}|Desc=x|EmbedCtxt=y")):
        assert FirewallRulePresent(Timeouts()).check(machine(rules("v2.31|Action=Allow|Dir=Out|", each))).met


# --- the cause


def test_a_connection_that_a_filter_refuses_is_not_one_without_a_way() -> None:
    """By the number of Windows, which no error of Linux has."""

    def ready(*_: object) -> bool:
        raise OSError(
            10013, "An attempt was made to access a socket in a way forbidden by its access permissions."
        )

    with full_server() as port:
        seen = reach("127.0.0.1", port, 5, ready=ready)
    assert (seen.cause, "forbidden" in seen.detail) == ("hsm-firewalled", True)


def test_a_blocked_connection_names_the_firewall_without_a_look_into_the_registry() -> None:
    code, saw, hint = probe(machine({}, "hsm-firewalled"))
    assert (code, saw) == ("hsm-firewalled", "hsm-firewalled")
    assert "--allow-firewall" in (hint or "")


def test_a_blocked_connection_is_told_with_what_the_registry_knows() -> None:
    """That it was the firewall is certain here, so one profile is enough to say why."""
    block = (
        OURS.replace("Allow", "Block").replace("|Name", "|Profile=Public|Name").replace(RULE, "no way out")
    )
    code, saw, hint = probe(machine(rules(block), "hsm-firewalled"))
    assert code == "hsm-firewalled"
    assert saw == "hsm-firewalled; Windows Firewall: the rule 'no way out' blocks (Public)"
    assert hint == "take the rule off or out of the way: one that blocks wins over one that allows"


def test_silence_is_the_firewalls_when_it_blocks_whatever_the_network_is() -> None:
    code, saw, hint = probe(machine(blocked(*EVERYWHERE)))
    assert code == "hsm-firewalled"
    assert saw == "hsm-timed-out; Windows Firewall: what goes out is blocked, and no rule allows it"
    assert "--allow-firewall" in (hint or "")


def test_silence_may_be_the_firewalls_when_it_blocks_on_some_networks() -> None:
    code, saw, hint = probe(machine(blocked("PublicProfile")))
    assert code == "hsm-timed-out"
    assert saw.endswith("and no rule allows it (Public)")
    assert "security group" in (hint or "")
    assert "if this network has such a profile" in (hint or "")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        blocked(*EVERYWHERE, EnableFirewall=0),
        blocked(*EVERYWHERE, DefaultOutboundAction=0),
        {**blocked(*EVERYWHERE), **rules(OURS)},
        # it may be about us: not certain, so not said
        {**blocked(*EVERYWHERE), **rules(OURS.replace("|Name", "|RA4=10.0.0.0/255.0.0.0|Name"))},
        {**blocked(*EVERYWHERE), **rules(OURS, root=POLICY)},
        {**blocked(*EVERYWHERE), **{rf"{POLICY}\{each}": {"EnableFirewall": 0} for each in (*EVERYWHERE, "PrivateProfile")}},
        rules(OURS.replace("Allow", "Block").replace("|Name", r"|App=C:\other.exe|Name")),
    ],
)  # fmt: skip
def test_silence_is_the_networks_when_the_firewall_lets_out(keys: Keys) -> None:
    assert probe(machine(keys))[:2] == ("hsm-timed-out", "hsm-timed-out")


OTHERS = (
    r"|App=%SystemRoot%\system32\svchost.exe|Svc=Dnscache|", r"|App=C:\Program Files\Amazon\SSM\amazon-ssm-agent.exe|",
    "|Svc=AmazonSSMAgent|", "|AppPkgId=S-1-15-2-1|", r"|App=System|", r"|App=C:\tools\cloudhsm-cli.exe|",
    "|RA4=169.254.169.254|", "|RA4=10.0.2.0/255.255.255.0|RA4=10.0.1.7-10.0.1.9|", "|RA6=fd00::/8|",
)  # fmt: skip


@pytest.mark.parametrize("about", OTHERS)
def test_a_rule_for_somebody_else_does_not_silence_the_cause(about: str) -> None:
    """Images of AWS bring rules for its own agents, which let no HSM be reached."""
    keys = {**blocked(*EVERYWHERE), **rules(OURS.replace("|Name", f"{about}Name"))}
    code, saw, _ = probe(machine(keys))
    assert code == "hsm-firewalled"
    assert saw.endswith("what goes out is blocked, and no rule allows it")


@pytest.mark.parametrize(
    "about",
    [
        r"|App=C:\Program Files\Amazon\CloudHSM\bin\cloudhsm-cli.exe|", r"|App=C:\hsm-agent\hsm-agent.exe|", "|Svc=*|",
        "|RA4=10.0.1.6|", "|RA4=10.0.2.1|RA4=10.0.0.0-10.0.1.255|", "|RA4=LocalSubnet|", "|LUOwn=S-1-5-18|", "|RA4=|",
    ],
)  # fmt: skip
def test_a_rule_that_may_be_about_us_leaves_it_open(about: str) -> None:
    keys = {**blocked(*EVERYWHERE), **rules(OURS.replace("|Name", f"{about}Name"))}
    assert probe(machine(keys))[:2] == ("hsm-timed-out", "hsm-timed-out")


def test_group_policy_is_stronger_than_the_hosts_own_settings() -> None:
    keys: Keys = {
        **blocked(*EVERYWHERE, DefaultOutboundAction=0),
        **{
            rf"{POLICY}\{each}": {"DefaultOutboundAction": 1, "AllowLocalPolicyMerge": 0}
            for each in ("DomainProfile", "PrivateProfile", "PublicProfile")
        },
        **rules(OURS),
    }
    code, _, hint = probe(machine(keys))
    assert (code, "in the policy" in (hint or "")) == ("hsm-firewalled", True)


def test_a_rule_that_blocks_wins_and_is_named() -> None:
    keys = rules(OURS, OURS.replace("Allow", "Block").replace(RULE, "no way out"))
    code, saw, hint = probe(machine(keys))
    assert code == "hsm-firewalled"
    assert saw.endswith("Windows Firewall: the rule 'no way out' blocks")
    assert "wins" in (hint or "")


def test_two_causes_are_told_with_their_profiles() -> None:
    keys = {
        **blocked("DomainProfile"),
        **rules(OURS.replace("Allow", "Block").replace("|Name", "|Profile=Public|Name").replace(RULE, "x")),
    }
    told = str(outbound_blocks(machine(keys), "10.0.1.6", 2223))
    assert told == "what goes out is blocked, and no rule allows it (Domain); the rule 'x' blocks (Public)"


def test_a_list_that_cannot_be_read_says_nothing() -> None:
    memory = machine({})
    memory.keys[rf"{OWN}\FirewallRules"] = AgentError(
        "unreadable", "it cannot be read", saw="Access is denied."
    )
    code, saw, _ = probe(memory)
    assert (code, saw) == (
        "hsm-timed-out",
        "hsm-timed-out; the rules of Windows Firewall could not be read: Access is denied.",
    )
    found = FirewallRuleAbsent(Timeouts()).check(memory)  # and is no reason to keep the packages
    assert (found.met, [notice.code for notice in found.notices]) == (True, ["firewall-unread"])


@pytest.mark.parametrize("mine", [True, False])
def test_however_many_rules_there_are_each_counts(*, mine: bool) -> None:
    """A domain's policy, and an app's rules for each user, make megabytes of them."""
    other = OURS.replace("|Name", r"|App=C:\Program Files\x.exe|Name").replace(RULE, "x" * 80)
    texts = [*[other] * 20_000, *([OURS] if mine else [])]
    code, saw, _ = probe(machine({**blocked(*EVERYWHERE), **rules(*texts)}))
    assert code == ("hsm-timed-out" if mine else "hsm-firewalled")
    assert "could not be read" not in saw


@pytest.mark.parametrize(("value", "causes"), [(1, 3), (0, 0), ("1", 0), (("1",), 0), (2, 0)])
def test_a_setting_that_is_no_number_is_as_if_it_were_not_there(value: Value, causes: int) -> None:
    keys: Keys = {rf"{OWN}\{each}": {"defaultoutboundaction": value, "Other": ("x",)} for each in EVERYWHERE}
    assert len(outbound_blocks(machine(keys), "10.0.1.6", 2223).causes) == causes


def test_only_a_failure_costs_a_look() -> None:
    memory = machine({}, None)

    def unasked(key: str) -> NoReturn:
        raise AssertionError(key)

    memory.other_keys = unasked
    assert Reach("10.0.1.6", 2223, 5).check(memory).met
    memory.ports["10.0.1.6", 2223] = "hsm-refused"
    assert probe(memory)[0] == "hsm-refused"


# --- the rule


def test_the_rule_is_asked_for_on_windows_only() -> None:
    desired = Desired(hsm_ip=("10.0.1.6",), allow_firewall=True)
    assert plan(SERVER, desired, CATALOGUE, CA, LIMITS).plan.steps[0] == FirewallRulePresent(LIMITS)
    with pytest.raises(AgentError) as caught:
        plan(NOBLE, desired, CATALOGUE, CA, LIMITS)
    assert (caught.value.code.name, "--allow-firewall" in caught.value.saw) == ("config-invalid", True)
    said_nothing = replace(desired, allow_firewall=False)
    steps = plan(SERVER, said_nothing, CATALOGUE, CA, LIMITS).plan.steps
    assert FirewallRulePresent(LIMITS) not in steps


def test_a_removal_looks_for_the_rule_on_windows_only() -> None:
    assert removal_plan(SERVER, LIMITS).steps == (FirewallRuleAbsent(LIMITS),)
    assert removal_plan(NOBLE, LIMITS).steps == ()


def walk(
    memory: Memory, step: FirewallRulePresent | FirewallRuleAbsent
) -> tuple[str, str | None, str | None]:
    (line,) = apply_plan(Plan((step,)), memory, NullProgress(), Files(memory)).steps
    return line.outcome.value, line.code, line.hint


def test_the_rule_is_added_once_and_removed() -> None:
    keys: Keys = {}
    memory = with_netsh(keys)
    assert walk(memory, FirewallRulePresent(Timeouts()))[:2] == ("changed", None)
    assert walk(memory, FirewallRulePresent(Timeouts()))[:2] == ("met", None)
    assert walk(memory, FirewallRuleAbsent(Timeouts()))[:2] == ("changed", None)
    assert walk(memory, FirewallRuleAbsent(Timeouts()))[:2] == ("met", None)
    assert own_rules(memory) == ()
    assert memory.touches == [("run", *ADD), ("run", *DELETE)]


def test_a_rule_that_was_changed_is_replaced() -> None:
    keys = rules(OURS.replace("TRUE", "FALSE"))
    memory = with_netsh(keys)
    assert walk(memory, FirewallRulePresent(Timeouts()))[0] == "changed"
    assert memory.touches == [("run", *DELETE), ("run", *ADD)]
    assert list(keys[rf"{OWN}\FirewallRules"].values()) == [OURS]


@pytest.mark.parametrize("step", [FirewallRulePresent(Timeouts()), FirewallRuleAbsent(Timeouts())])
def test_a_netsh_that_only_says_so_is_not_believed(step: FirewallRulePresent | FirewallRuleAbsent) -> None:
    keys = rules(OURS) if isinstance(step, FirewallRuleAbsent) else {}
    assert walk(with_netsh(keys, obeys=False), step)[:2] == ("failed", "firewall-failed")


@pytest.mark.parametrize("step", [FirewallRulePresent(Timeouts()), FirewallRuleAbsent(Timeouts())])
def test_a_netsh_that_refuses_is_told_in_its_own_words(
    step: FirewallRulePresent | FirewallRuleAbsent,
) -> None:
    keys = rules(OURS) if isinstance(step, FirewallRuleAbsent) else {}
    memory = with_netsh(keys, 1, "Der angeforderte Vorgang erfordert erhoehte Rechte.\n", obeys=False)
    outcome, code, hint = walk(memory, step)
    assert (outcome, code) == ("failed", "firewall-failed")
    assert f'"name={RULE}"' in (hint or "")


def test_what_refused_and_did_it_all_the_same_is_fine() -> None:
    assert walk(with_netsh({}, 1), FirewallRulePresent(Timeouts()))[0] == "changed"


def test_a_look_touches_nothing() -> None:
    memory = with_netsh({})
    (line,) = check_plan(Plan((FirewallRulePresent(Timeouts()),)), memory, NullProgress()).steps
    assert (line.outcome.value, memory.touches) == ("would-change", [])
