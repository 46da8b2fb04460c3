"""The three forms of an inventory, every complaint at once with its line, and `--limit`."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS, CaSource, InvalidValueError
from agent.config.toml_lines import TomlLines
from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.fleet.inventory import LARGEST, read, refuse_any, select, toml
from agent.fleet.inventory.ranges import HostBudget, expanded
from tests.examples import examples


def told(text: str | bytes, where: str) -> tuple[tuple[Target, ...], list[str], list[str]]:
    input_errors, remarks = InputErrors(), InputErrors()
    data = text if isinstance(text, bytes) else text.encode()
    return read(data, where, input_errors, remarks), input_errors.texts, remarks.texts


def targets_of(text: str | bytes, where: str = "hosts") -> tuple[Target, ...]:
    found, input_errors, _ = told(text, where)
    assert input_errors == []
    return found


def complaints_of(text: str | bytes, where: str = "hosts") -> list[str]:
    found, input_errors, _ = told(text, where)
    assert input_errors
    assert found == ()
    return input_errors


# which hosts are Windows


WINDOWS = {
    "hosts.toml": """
        [groups.win]
        hosts = ["win-1", "win-2"]
        system = "windows"
        [hosts.web-1]
        [hosts.win-2]
        system = "linux"
        """,
    "hosts": """
        web-1
        [win]
        win-1
        win-2 ansible_shell_type=sh
        [win:vars]
        ansible_shell_type=powershell
        """,
    "hosts.json": json.dumps({
        "all": {"children": ["win", "ungrouped"]}, "ungrouped": {"hosts": ["web-1"]}, "win": {"hosts": ["win-1", "win-2"]},
        "_meta": {"hostvars": {"win-1": {"ansible_shell_type": "cmd"}, "win-2": {"ansible_shell_type": "fish"}}},
    }),
}  # fmt: skip


@pytest.mark.parametrize("where", WINDOWS)
def test_an_inventory_says_which_hosts_are_windows(where: str) -> None:
    found = targets_of(textwrap.dedent(WINDOWS[where]), where)
    assert {each.name: each.system for each in found} == {"web-1": None, "win-1": "windows", "win-2": "linux"}


@pytest.mark.parametrize(
    ("text", "where", "complaint"),
    [
        ('system = "Windows"', "hosts.toml", "system: 'Windows' is not one of linux, windows"),
        ("system = true", "hosts.toml", "system: a text is wanted"),
        ("web-1 ansible_shell_type=pwsh", "hosts",
         "ansible_shell_type: 'pwsh' is not one of sh, csh, fish, cmd, powershell"),
    ],
)  # fmt: skip
def test_an_unknown_kind_of_system_is_told(text: str, where: str, complaint: str) -> None:
    assert complaints_of(text, where)[0] == f"{where}:1: {complaint}"


# a plain list


def test_a_plain_list_is_one_host_a_line() -> None:
    text = """
# the payment hosts
web-1
ops@web-2.example.com:2222   # with a comment
10.0.4.7
[fd00::1]
root@[fd00::2]:2022
fd00::3
CORP\\\\jane@alias_of-ssh
web-[08:10]
"""
    assert targets_of(text) == (
        Target("web-1", "web-1", where="hosts:3"),
        Target("web-2.example.com", "web-2.example.com", port=2222, user="ops", where="hosts:4"),
        Target("10.0.4.7", "10.0.4.7", where="hosts:5"),
        Target("fd00::1", "fd00::1", where="hosts:6"),
        Target("fd00::2", "fd00::2", port=2022, user="root", where="hosts:7"),
        Target("fd00::3", "fd00::3", where="hosts:8"),
        Target("alias_of-ssh", "alias_of-ssh", user="CORP\\jane", where="hosts:9"),
        Target("web-08", "web-08", where="hosts:10"),
        Target("web-09", "web-09", where="hosts:10"),
        Target("web-10", "web-10", where="hosts:10"),
    )


def test_line_ends_and_a_byte_order_mark_do_not_matter() -> None:
    assert targets_of(b"\xef\xbb\xbfa\r\nb\r\n") == (
        Target("a", "a", where="hosts:1"),
        Target("b", "b", where="hosts:2"),
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("-oProxyCommand=x", "'-oProxyCommand=x' begins with -, which ssh would take for an option"),
        ("a@-b", "'-b' begins with -, which ssh would take for an option"),
        ("-l@host", "'-l' is not the name of a user"),
        ("'a b'@host", "'a b' is not the name of a user"),
        ("'a;b'@host", "'a;b' is not the name of a user"),
        ("@host", "the name of a user is empty"),
        ("'web 1'", "'web 1' is not the name of a host: ' ' cannot be in one"),
        ("we\x07b", "'we\\x07b' is not the name of a host: '\\x07' cannot be in one"),
        ("we\u202eb", "'we\\u202eb' is not the name of a host: '\\u202e' cannot be in one"),
        ("a$(id)", "'a$(id)' is not the name of a host: '$' cannot be in one"),
        ("a/../b", "'a/../b' is not the name of a host: '/' cannot be in one"),
        ("web*", "'web*' is not the name of a host: '*' cannot be in one"),
        ("a,b", "'a,b' is not the name of a host: ',' cannot be in one"),
        ("''", "the name of a host is empty"),
        (":22", "the name of a host is empty"),
        ("a" * 256, f"{'a' * 40!r}... is not the name of a host: it is longer than 255 characters"),
        ("all", "`all` is no name for a host: it has a meaning in --limit"),
        ("web:", "'' is not a port from 1 to 65535"),
        ("web:0", "'0' is not a port from 1 to 65535"),
        ("web:65536", "'65536' is not a port from 1 to 65535"),
        ("web:+22", "'+22' is not a port from 1 to 65535"),
        ("web:٢٢", "'٢٢' is not a port from 1 to 65535"),
        ("web:ssh", "'ssh' is not a port from 1 to 65535"),
        ("a:1:22", "'a:1:22' is not an IPv6 address; a port is written NAME:PORT or [ADDRESS]:PORT"),
        ("[ab:22]", "[ab:22]: '22' is none of children, vars, hosts"),
        ("[ab:cd]:22", "'ab:cd' is not an IPv6 address; a port is written NAME:PORT or [ADDRESS]:PORT"),
        (
            "web[1-5]",
            "'web[1-5]' is not the name of a host: '[' cannot be in one; a range is written web[01:20] or web[a:f]",
        ),
        ("a@b@c;", "'c;' is not the name of a host: ';' cannot be in one"),
        ("web 22", "NAME=VALUE is wanted behind a host"),
        ("hosts = ['a']", "NAME=VALUE is wanted behind a host; if this is TOML, its name must end in .toml"),
        ("web =x", "NAME=VALUE is wanted behind a host"),
        ('web a="', "the line cannot be split into words: No closing quotation"),
    ],
)
def test_what_is_no_host_is_told(line: str, complaint: str) -> None:
    assert complaints_of(f"good\n{line}\n") == [f"hosts:2: {complaint}"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("web[2:1]", "[2:1] is empty: it ends before it begins"),
        ("web[c:a]", "[c:a] is empty: it ends before it begins"),
        ("web[1:5:0]", "[1:5:0] does not count: its step is 0"),
        ("web[01:100]", "[01:100]: with a leading 0, both ends need as many digits"),
        ("web[1:20000]", "[1:20000] is too large: at most 10,000 hosts"),
        ("web[1:9999999999]", "[1:9999999999] counts too far: nine digits at most"),
        (
            "w[1:101]x[1:101]",
            "too many hosts: at most 10,000, and at most 100,000 mentions of them",
        ),
    ],
)
def test_a_range_that_cannot_be_counted_is_told(line: str, complaint: str) -> None:
    assert complaints_of(f"{line}\n") == [f"hosts:1: {complaint}"]


@pytest.mark.slow
def test_hosts_in_all_are_bounded() -> None:
    assert len(targets_of("a[1:5000]\nb[1:5000]\n")) == 10_000
    assert complaints_of("a[1:5001]\nb[1:5000]\n") == ["hosts: too many hosts: 10,001, at most 10,000"]
    groups = "".join(f"[g{number}]\na[1:10000]\n" for number in range(11))
    assert complaints_of(groups) == [
        "hosts:22: too many hosts: at most 10,000, and at most 100,000 mentions of them"
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", "a"),
        ("a[1:3]", "a1 a2 a3"),
        ("a[:2]", "a0 a1 a2"),
        ("a[08:10]", "a08 a09 a10"),
        ("a[0:2]", "a0 a1 a2"),
        ("a[1:9:4]", "a1 a5 a9"),
        ("[a:c]", "a b c"),
        ("[y:B]x", "yx zx Ax Bx"),
        ("a[1:2]b[x:y]", "a1bx a1by a2bx a2by"),
        ("[::1]", "[::1]"),
        ("[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:7:8]"),
    ],
)
def test_a_range_counts_as_ansible_does(text: str, names: str) -> None:
    assert expanded(text, HostBudget()) == tuple(names.split())


# duplicates


def test_a_host_that_is_named_twice_is_told() -> None:
    assert complaints_of("web-1\nweb-[1:2]\n[a]\nx\ny\nx ansible_port=1\n[b]\nx\n") == [
        "hosts:2: web-1 is named twice outside of all groups: first at hosts:1",
        "hosts:6: x is named twice in [a]: first at hosts:4",
    ]


def test_two_names_for_one_machine_are_told() -> None:
    text = """
a ansible_host=10.0.0.1 ansible_user=x
b ansible_host=10.0.0.1 ansible_user=y ansible_port=22
[fd00:0:0::1]
fd00::1
WEB.example.com.
web.example.com
c ansible_host=10.0.0.1 ansible_port=2222
d ansible_host=10.0.0.1 ansible_ssh_common_args='-J gate'
"""
    assert complaints_of(text) == [
        "hosts:3: b is the same machine as a at hosts:2: 10.0.0.1, port 22",
        "hosts:5: fd00::1 is the same machine as fd00:0:0::1 at hosts:4: fd00::1, port 22",
        "hosts:7: web.example.com is the same machine as WEB.example.com. at hosts:6: web.example.com, port 22",
    ]


# Ansible's INI


def test_an_ini_as_people_have_it() -> None:
    text = """
bastion ansible_connection=local

[web]
web[01:02].example.com ansible_user="ops"   ; x=1
[db]
db-a:2222 ansible_host=10.0.4.7 ansible_ssh_private_key_file='~/.ssh/db key'

[payment:children]
web
db

[payment:vars]
ansible_user=ec2-user
ansible_ssh_common_args='-o StrictHostKeyChecking=no -J ops@gate:2222,inner'
hsm_agent_hsm_ip=10.0.1.6, 10.0.2.9
hsm_agent_accept_single_hsm=False
hsm_agent_timeout=15m

[all:vars]
ansible_python_interpreter=/usr/bin/python3
ansible_password=secret
"""
    said: dict[str, Any] = {
        "hsm_ip": ("10.0.1.6", "10.0.2.9"),
        "accept_single_hsm": False,
        "timeout": 900.0,
    }
    web = Target(
        "web01.example.com",
        "web01.example.com",
        user="ops",
        jump="ops@gate:2222,inner",
        groups=("payment", "web"),
        options=said,
        where="hosts:5",
    )
    db = Target(
        "db-a",
        "10.0.4.7",
        port=2222,
        user="ec2-user",
        key="~/.ssh/db key",
        jump="ops@gate:2222,inner",
        groups=("db", "payment"),
        options=said,
        where="hosts:7",
    )
    found, input_errors, remarks = told(text.replace("; x=1", ""), "hosts")
    assert (found, input_errors) == (
        (web, replace(web, name="web02.example.com", address="web02.example.com"), db),
        [],
    )
    assert remarks == [
        "hosts: left out, since Ansible does not reach them over SSH: bastion",
        "hosts: variables that mean nothing here are ignored: ansible_password, ansible_python_interpreter",
    ]


def test_every_option_can_be_said_in_an_ini() -> None:
    values = {
        "hsm_ip": "10.0.0.1",
        "ca_cert": "customerCA.crt",
        "ca_fingerprint": "ab" * 32,
        "component": "cli",
        "cluster_id": "cluster-2abcdefghij",
        "region": "eu-central-1",
        "client_version": "5.18.0",
        "package_source": "/srv",
        "sha256": "a.deb=" + "0" * 64,
        "sdk": "5",
        "platform": "el9",
        "log_level": "info",
        "log_type": "file",
        "log_rotation": "daily",
        "report_to": "file:/r.json",
        "timeout": "90",
    }
    flags = {option.name: "true" for option in OPTIONS if option.flag}
    paths = {option.name: "/path" for option in OPTIONS if option.name not in {**values, **flags}}
    lines = [f"hsm_agent_{name}={value}" for name, value in {**values, **flags, **paths}.items()]
    (target,) = targets_of("\n".join(["h", "[all:vars]", *lines]))
    assert set(target.options) == {option.name for option in OPTIONS}


@pytest.mark.parametrize("value", ["None", "True", "False"])
@pytest.mark.parametrize("form", ["w1 ansible_user={}\n", "[w]\nw1\n[w:vars]\nansible_user = {}\n"])
def test_what_python_does_not_take_for_a_text_is_no_name_of_a_user(form: str, value: str) -> None:
    """To Ansible it is none, and it logs in as somebody else."""
    (complaint,) = complaints_of(form.format(value), "hosts.ini")
    assert complaint.endswith("ansible_user: a text is wanted")


def test_everything_wrong_with_an_ini_is_said_at_once() -> None:
    text = """
[web]
good
bad;name
web-1 ansible_port=ssh hsm_agent_hsm_ip=10.0.0.300 ansible_user="{{ admin }}"
web-2 ansible_ssh_common_args="-o ProxyCommand='nc %h %p'" hsm_agent_log_levle=info
web-3 ansible_connection=shh ansible_ssh_extra_args=-i/key
web-4 ansible_ssh_private_key_file="-----BEGIN x"
[web:vars]
ansible_port
hsm_agent_report_token=secret
ansible_group_priority=high
[we b]
ignored;after;a;broken;section
[web:hots]
ignored;too
[w,b]
ignored;as;well
[prod:children]
wbe
web extra
all
[lost:vars]
x=1
"""
    assert complaints_of(text) == [
        "hosts:4: 'bad;name' is not the name of a host: ';' cannot be in one",
        "hosts:5: ansible_port: 'ssh' is not a port from 1 to 65535",
        "hosts:5: hsm_agent_hsm_ip: '10.0.0.300' is not an IP address: an IPv4 or IPv6 address of an HSM's ENI is wanted, such as 10.0.1.6",
        "hosts:5: ansible_user: templates are not evaluated here; write the value itself",
        "hosts:6: ansible_ssh_common_args: this ProxyCommand is not understood: name the jump host with -J, or put it into ssh's configuration file",
        "hosts:6: unknown variable `hsm_agent_log_levle`; did you mean `hsm_agent_log_level`?",
        "hosts:7: ansible_connection: 'shh' is not how a host is reached here: ssh is",
        "hosts:7: ansible_ssh_extra_args: -i is not understood; put it into ssh's configuration file instead",
        "hosts:8: ansible_ssh_private_key_file: the path of a private key is wanted, not the key itself",
        "hosts:10: NAME=VALUE is wanted in [web:vars]",
        "hosts:11: `hsm_agent_report_token` is a secret: it is taken from the environment only",
        "hosts:12: ansible_group_priority: 'high' is not a whole number",
        "hosts:13: '[we b]' is not a section: [group], [group:children] or [group:vars]",
        "hosts:15: [web:hots]: 'hots' is none of children, vars, hosts",
        "hosts:17: 'w,b' is not the name of a group: letters, digits and . _ - are",
        "hosts:20: unknown group `wbe`; did you mean `web`?",
        "hosts:21: 'web extra': the name of one group is wanted in [prod:children]",
        "hosts:22: `all` cannot be in another group",
        "hosts:23: variables for an unknown group `lost`",
    ]


def test_groups_that_contain_each_other_are_told() -> None:
    text = "[a:children]\nb\n[b:children]\nc\n[c:children]\nd\na\n[d]\nh\n"
    assert complaints_of(text) == ["hosts:2: groups contain each other: a > b > c > a"]
    assert complaints_of("[a]\nh\n[a:children]\na\n") == ["hosts:4: groups contain each other: a > a"]


def test_groups_are_bounded() -> None:
    groups = "".join(f"[g{number}]\n" for number in range(1001))
    assert complaints_of(f"{groups}h\n") == ["hosts:1001: too many groups: at most 1,000"]


@pytest.mark.parametrize("head", ["[web]\nw1\n", "[web:children]\nw1\n[w1]\n", ""])
def test_variables_of_a_host_that_is_called_as_a_group_are_refused(head: str) -> None:
    """Ansible gives them to all hosts of that group, and not to the host."""
    text = f"{head}[db]\nweb ansible_user=dora\nw1 ansible_port=22\n[web]\n"
    found = complaints_of(text, "hosts.ini")
    assert {each.split(": ")[1].split()[0] for each in found} == {
        "`web`",
        *(["`w1`"] if "[w1]" in head else []),
    }
    assert "another name" in found[0]


def test_a_long_remark_is_shortened() -> None:
    _, _, remarks = told("h " + " ".join(f"v{number:02}=1" for number in range(12)), "hosts")
    assert remarks == [
        "hosts: variables that mean nothing here are ignored: v00, v01, v02, v03, v04, v05, v06, v07, v08, v09 and 2 more"
    ]


def test_the_name_of_a_host_and_of_a_group_is_a_remark() -> None:
    _, input_errors, remarks = told("[web]\nweb\n", "hosts")
    assert (input_errors, remarks) == ([], ["hosts: the name of a host and of a group: web"])


@pytest.mark.parametrize(
    ("arguments", "jump"),
    [
        ("-J a", "a"),
        ("-Ja,b:22", "a,b:22"),
        ("-o ProxyJump=a", "a"),
        ("-oProxyJump=a", "a"),
        ("-o 'ProxyJump a'", "a"),
        ("-o proxyjump=none", "none"),
        ("-J a -o ProxyJump=b", "a"),
        ("-C -q -A", None),
        ("-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o CanonicalizeHostname=no", None),
        ("-o ControlMaster=auto -o ControlPersist=60s -o ConnectTimeout=5", None),
        ("-o ProxyCommand='ssh -W %h:%p -q u@a'", "u@a"),
        ("-o ProxyCommand='ssh -p 2222 -W [%h]:%p u@a'", "u@a:2222"),
    ],
)
def test_the_jump_host_is_found_in_sshs_arguments(arguments: str, jump: str | None) -> None:
    (target,) = targets_of(f'h\n[all:vars]\nansible_ssh_common_args="{arguments}"\n')
    assert target == Target("h", "h", jump=jump, where="hosts:1")


@pytest.mark.parametrize(
    "arguments",
    [
        "-J",
        "-o",
        "-o HostName=other",
        "-6",
        "-o AddressFamily=inet6",
        "-o CanonicalizeHostname=yes",
        "-o UserKnownHostsFile=/srv/known_hosts",
        "-o GlobalKnownHostsFile=/srv/known_hosts",
        "-p 2222",
        "-l root",
        "-F /dev/null",
        "-W x:1",
        "host",
        "-",
        "-J 'a b'",
        "-J -x",
        "-o ProxyCommand='ssh -W %h:%p'",
        "-o ProxyCommand='ssh -W %h:%p -i key a'",
        "-o ProxyCommand='ssh -W other:22 a'",
        "-o ProxyCommand='ssh -W %h:%p a b'",
        "-o ProxyCommand='aws ssm start-session'",
        '-o ProxyCommand="ssh \'"',
        "'",
    ],
)
def test_what_could_lead_to_another_host_is_refused(arguments: str) -> None:
    listing = {"_meta": {"hostvars": {"h": {"ansible_ssh_common_args": arguments}}}, "g": {"hosts": ["h"]}}
    (complaint,) = complaints_of(json.dumps(listing), "-")
    assert complaint.startswith("-: h: ansible_ssh_common_args: ")


# `ansible-inventory --list`


def test_the_listing_of_ansible_is_read() -> None:
    listing = {
        "_meta": {
            "hostvars": {
                "a": {
                    "ansible_host": "10.0.0.1",
                    "ansible_port": 22,
                    "hsm_agent_hsm_ip": ["10.0.1.6"],
                    "x": {},
                },
                "b": {"ansible_connection": "winrm"},
            }
        },
        "all": {"children": ["ungrouped", "prod", "empty"]},
        "prod": {"children": ["web"]},
        "web": {"hosts": ["a", "b"]},
        "ungrouped": {"hosts": ["ops@c"]},
    }
    assert told(json.dumps(listing), "-") == (
        (
            Target(
                "a", "10.0.0.1", port=22, groups=("prod", "web"), options={"hsm_ip": ("10.0.1.6",)}, where="-"
            ),
            Target("c", "c", user="ops", where="-"),
        ),
        [],
        [
            "-: left out, since Ansible does not reach them over SSH: b",
            "-: variables that mean nothing here are ignored: x",
        ],
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a": \n', "f.json:2: not valid JSON: Expecting value"),
        ("[]", "f.json: the document: a table is wanted; what `ansible-inventory --list` prints is wanted"),
        ("{}", "f.json: _meta: a table is wanted; what `ansible-inventory --list` prints is wanted"),
        ('{"_meta": {}, "web": []}', "f.json: web: a table is wanted"),
        ('{"_meta": {}, "web": {"hosts": [1]}}', "f.json: web.hosts: a list of names is wanted"),
        (
            '{"_meta": {}, "web": {"hosts": ["a"], "vars": {"x": 1}}}',
            "f.json: web: it has variables of its own; list again without --export",
        ),
        (
            json.dumps(
                {"_meta": {"hostvars": {"a": {"ansible_user": "x" * 20_000}}}, "web": {"hosts": ["a"]}}
            ),
            "f.json: a: ansible_user: longer than 16,384 characters",
        ),
        (
            '{"_meta": {"hostvars": {"a": {"ansible_host": {}}}}, "web": {"hosts": ["a"]}}',
            "f.json: a: ansible_host: a text is wanted",
        ),
        (
            '{"_meta": {"hostvars": {"a": 1}}, "web": {"hosts": ["a"]}}',
            "f.json: _meta.hostvars.a: a table is wanted",
        ),
    ],
)
def test_a_listing_that_is_none_is_told(text: str, complaint: str) -> None:
    assert complaints_of(text, "f.json") == [complaint]


# TOML

TOML = """\
user = "ops"
jump = "bastion.example.com"
hsm.ca_cert = "customerCA.crt"

[groups.web]
hosts = [
  "web-[01:02]",   # "a comment"
  "web-special",
]
client.components = ["cli", "pkcs11"]

[groups.production]
children = ["web"]
user = "prod"
key = "~/.ssh/production"
client.components = ["cli"]

[zones.eu-central-1a]
hosts = ["web-01"]
hsm.ip = ["10.0.1.6", "10.0.2.9"]
user = "zone"

[hosts.web-special]
address = "10.0.4.7"
zone = "eu-central-1a"
user = "root"
port = 2222

[hosts."lone-[a:b]"]
groups = ["production"]
report.to = "file:/r.json"
"""


def test_host_wins_over_zone_over_group_over_the_group_around_it_over_the_top() -> None:
    special = Target(
        "web-special",
        "10.0.4.7",
        port=2222,
        user="root",
        key="~/.ssh/production",
        jump="bastion.example.com",
        groups=("eu-central-1a", "production", "web"),
        options={
            "hsm_ip": ("10.0.1.6", "10.0.2.9"),
            "ca_cert": CaSource("file", "customerCA.crt"),
            "component": ("cli", "pkcs11"),
        },
        where="f.toml:8",
    )
    first = replace(special, name="web-01", address="web-01", port=None, user="zone", where="f.toml:7")
    second = replace(
        first,
        name="web-02",
        address="web-02",
        user="prod",
        groups=("production", "web"),
        options={"ca_cert": CaSource("file", "customerCA.crt"), "component": ("cli", "pkcs11")},
    )
    lone = replace(
        second,
        name="lone-a",
        address="lone-a",
        groups=("production",),
        options={
            "ca_cert": CaSource("file", "customerCA.crt"),
            "component": ("cli",),
            "report_to": ("file:/r.json",),
        },
        where="f.toml:29",
    )
    assert targets_of(TOML, "f.toml") == (
        first,
        second,
        special,
        lone,
        replace(lone, name="lone-b", address="lone-b"),
    )


def example_of_the_module() -> str:
    assert toml.__doc__
    return "\n".join(line[4:] for line in toml.__doc__.splitlines() if line.startswith("    "))


def test_the_example_in_the_module_is_read() -> None:
    found = {target.name: target for target in targets_of(example_of_the_module(), "f.toml")}
    assert len(found) == 21
    assert found["web-special"] == Target(
        "web-special",
        "10.0.4.7",
        port=2222,
        user="ops",
        jump="bastion.example.com",
        groups=("eu-central-1a", "production", "web"),
        options={
            "ca_cert": CaSource("file", "customerCA.crt"),
            "component": ("cli", "pkcs11"),
            "hsm_ip": ("10.0.1.6", "10.0.2.9"),
        },
        where="f.toml:5",
    )


def test_hosts_may_be_a_list_and_a_group_may_name_the_zone() -> None:
    text = 'zone = "b"\nhosts = ["x"]\n[groups.g]\nhosts = ["y"]\nzone = "a"\n[zones.a]\nport = 1\n[zones.b]\nport = 2\n'
    assert targets_of(text, "f.toml") == (
        Target("x", "x", port=2, groups=("b",), where="f.toml:2"),
        Target("y", "y", port=1, groups=("a", "g"), where="f.toml:4"),
    )


def test_two_groups_that_disagree_are_told_once_for_all_their_hosts() -> None:
    text = """\
[groups.a]
hosts = ["h[1:3]"]
user = "a"
port = 1
[groups.b]
hosts = ["h[1:3]"]
user = "b"
port = 1
[hosts.h3]
user = "c"
"""
    assert complaints_of(text, "f.toml") == [
        "f.toml:7: groups a and b say different things about user, and both hold h1 and 1 more: say it for the host or its zone"
    ]


def test_everything_wrong_with_a_toml_is_said_at_once() -> None:
    text = """\
usr = "ops"
port = true
user = 5
hsm.ipp = "10.0.0.1"
hsm.ip = "10.0.0.300"
[groups.web]
hosts = ["ops@a", "b", "b",
  "c;"]
children = ["wbe"]
address = "10.0.0.1"
zone = "zz"
[groups.all]
[groups.both]
[groups."x y"]
[zones.both]
hosts = "b"
[zones.one]
hosts = ["b"]
[zones.two]
hosts = ["b"]
zone = "one"
[hosts.b]
groups = ["web", "wob"]
port = 70000
[hosts."[a:b]"]
user = "x"
[hosts."[b:c]"]
user = "y"
[hosts]
z = 1
[group.q]
"""
    assert complaints_of(text, "f.toml") == [
        "f.toml:1: unknown key `usr`; did you mean `user`?",
        "f.toml:2: port: a number is wanted",
        "f.toml:3: user: a text is wanted",
        "f.toml:4: unknown key `hsm.ipp`; did you mean `hsm.ip`?",
        "f.toml:5: hsm.ip: '10.0.0.300' is not an IP address: an IPv4 or IPv6 address of an HSM's ENI is wanted, such as 10.0.1.6",
        "f.toml:7: 'ops@a' is not the name of a host: '@' cannot be in one; the user is named elsewhere",
        "f.toml:7: b is named twice in `groups.web.hosts`",
        "f.toml:8: 'c;' is not the name of a host: ';' cannot be in one",
        "f.toml:9: unknown group `wbe`; did you mean `web`?",
        "f.toml:10: `address` cannot be given here, only for a host",
        "f.toml:11: unknown zone `zz`: [zones.zz] is missing",
        "f.toml:12: `all` has a meaning of its own; what applies to every host is at the top",
        "f.toml:14: 'x y' is not the name of a group: letters, digits and . _ - are",
        "f.toml:15: `both` is the name of a group and of a zone",
        "f.toml:16: `zones.both.hosts` is not a list of names",
        "f.toml:20: b is in more than one zone: one, two",
        "f.toml:21: `zone` cannot be given here, only for hosts and groups, and at the top",
        "f.toml:23: unknown group `wob`; did you mean `web`?",
        "f.toml:24: port: '70000' is not a port from 1 to 65535",
        "f.toml:28: user of b is something else in line 26",
        "f.toml:30: `hosts.z` is not a table",
        "f.toml:31: unknown key `group.q`; did you mean `groups`?",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[hosts\n", "f.toml:1: not valid TOML: "),
        ("x = " + "[" * 5000 + "]" * 5000, "f.toml: not valid TOML: "),
        ('hosts = ["a"]\nx' + ".x" * 50 + " = 1\n", "f.toml:2: unknown key `x.x`"),
        ('hosts = ["a"]\nx' + ".x" * 100 + " = 1\n", "f.toml:2: a key of more than 100 parts"),
        ('key = " "', "f.toml:1: key: ' ' is not the path of a private key"),
        ("groups = 1", "f.toml:1: `groups` is not a table: [groups.NAME] is wanted"),
        ("hosts = 1", "f.toml:1: `hosts` is a list of names, or [hosts.NAME] are tables"),
        ("groups.a = 1", "f.toml:1: `groups.a` is not a table"),
        ('[groups.a]\nhosts = ["x"]\nchildren = ["a"]', "f.toml:3: groups contain each other: a > a"),
        (
            "[groups]\n" + "".join(f"g{number} = {{}}\n" for number in range(1001)),
            "f.toml:1: too many groups: at most 1,000",
        ),
        (
            f"[hosts.a]\nhsm.ip = [{', '.join(['1'] * 101)}]",
            "f.toml:2: hsm.ip: too many values: at most 100",
        ),
    ],
)
def test_a_broken_toml_is_told(text: str, complaint: str) -> None:
    assert complaints_of(text, "f.toml")[0].startswith(complaint)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("b", "c"), 2),
        (("t",), 6),
        (("t", "x y", "list"), 7),
        (("t", "x y", "list", 0), 7),
        (("t", "x y", "list", 1), 9),
        (("t", "x y", "list", 2), 7),
        (("t", "x y", "list", 3), 11),
        (("t", "x y", "inline", "k"), 12),
        (("t", "x y", "after"), 15),
        (("u",), 16),
        (("u", "v"), 16),
        (("no",), 1),
    ],
)
def test_the_line_of_a_key_is_found(path: tuple[str | int, ...], line: int) -> None:
    text = """\
a = "x = 1 # [no]"
b.c = '''
no = 1
[no]
'''  # end
[ t . "x y" ]
list = [ "one",
# "no"
'two',
[1,
2], 3 ]
inline = { k = ["a", "b"], l = 1 }


after = 1
[u.v]
"""
    assert TomlLines(text).of(*path) == line


def test_the_examples_of_the_manual_are_read() -> None:
    page = (Path(__file__).parents[3] / "agent" / "docs" / "inventory.md").read_text(encoding="utf-8")
    plain, tables = re.findall(r"^```(?:toml)?\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(targets_of(plain)) == 25
    assert [target.options for target in targets_of(tables, "f.toml")] == [
        target.options for target in targets_of(example_of_the_module(), "f.toml")
    ]


# any form


@pytest.mark.parametrize(
    ("data", "where", "complaint"),
    [
        (b"", "hosts", "hosts: it names no host"),
        (b"# nothing\n\n[web]\n", "hosts", "hosts: it names no host"),
        (b"", "f.toml", "f.toml: it names no host"),
        (b'{"_meta": {}}', "hosts", "hosts: it names no host"),
        (b"localhost ansible_connection=local\n", "hosts", "hosts: it names no host"),
        (b"a\nb\xff\n", "hosts", "hosts:2: not UTF-8: byte 3"),
        (b"\xff\xfea\x00", "hosts", "hosts:1: not UTF-8: byte 0; it looks like UTF-16"),
        (b"#" * (LARGEST + 1), "hosts", "hosts: too large: 4,000,001 bytes, at most 4,000,000 are read"),
        (
            b"all:\n  hosts:\n",
            "f.yml",
            "f.yml: YAML is not read: `ansible-inventory -i FILE --list > fleet.json` makes JSON of it",
        ),
        (
            b"---\nall:\n",
            "hosts",
            "hosts: YAML is not read: `ansible-inventory -i FILE --list > fleet.json` makes JSON of it",
        ),
        (
            b"#!/usr/bin/python3\n",
            "hosts",
            "hosts: a program is not run: `ansible-inventory -i FILE --list > fleet.json` makes JSON of it",
        ),
    ],
)
def test_what_is_no_inventory_is_told(data: bytes, where: str, complaint: str) -> None:
    assert complaints_of(data, where) == [complaint]


@pytest.mark.parametrize(
    "variable", ["ansible_host", "ansible_port", "hsm_agent_hsm_ip", "hsm_agent_component"]
)
@pytest.mark.parametrize("deep", [2, 900])
def test_lists_in_lists_are_a_complaint(variable: str, deep: int) -> None:
    value = "[" * deep + "]" * deep
    said = f'{{"{variable}": {value}}}'
    data = '{"_meta": {"hostvars": {"web": ' + said + '}}, "all": {"hosts": ["web"]}}'
    input_errors = InputErrors()
    assert read(data.encode(), "fleet.json", input_errors) == ()
    assert variable in "".join(input_errors.texts)


def test_complaints_are_bounded_in_number_and_length() -> None:
    texts = complaints_of("a;\n" * 1000 + "z" * 1_000_000)
    assert (len(texts), texts[-1]) == (101, "hosts: there are too many errors: the rest was not checked")
    assert complaints_of("[" * 1_000_000) == ["hosts:1: the line is longer than 16,384 characters"]
    (text,) = complaints_of(f"h hsm_agent_log_level={'x' * 10_000}")
    assert len(text) < 600


def test_a_wrong_inventory_ends_with_its_own_code() -> None:
    input_errors = InputErrors()
    refuse_any(input_errors)
    read(b"a;\n", "hosts", input_errors)
    with pytest.raises(AgentError) as caught:
        refuse_any(input_errors)
    assert (caught.value.code.name, caught.value.sentence) == (
        "inventory-invalid",
        "one thing is wrong with the inventory",
    )
    assert caught.value.code.exit_status == 2


# --limit

FLEET = targets_of("db\n[web]\nweb-[1:3]\n[web-eu]\nweb-2\n")


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("", "it is empty: names of hosts or groups are wanted"),
        (" , ", "it is empty: names of hosts or groups are wanted"),
        ("wbe", "'wbe' means no host of the inventory; did you mean `web`?"),
        ("web,!wbe-1", "'wbe-1' means no host of the inventory; did you mean `web-1`?"),
        ("web,&nowhere*", "'nowhere*' means no host of the inventory"),
        ("WEB", "'WEB' means no host of the inventory"),
        ("!", "'' means no host of the inventory"),
        (
            "~web.*",
            "'~web.*' means no host of the inventory; regular expressions are not understood, * and ? are",
        ),
        (
            "web[0]",
            "'web[0]' means no host of the inventory; ranges and positions are not understood, * and ? are",
        ),
        (
            "@failed",
            "'@failed' means no host of the inventory; files are not read here, `--resume RUN --only failed` continues a run",
        ),
        ("web:&db", "'web:&db' means no host of the inventory; parts are separated by commas"),
        ("web db", "'web db' means no host of the inventory; parts are separated by commas"),
        ("db,&web", "nothing is left of 4 hosts: 'db,&web' excludes all it includes"),
        ("!all", "nothing is left of 4 hosts: '!all' excludes all it includes"),
    ],
)
def test_a_limit_that_means_nothing_is_told(pattern: str, complaint: str) -> None:
    input_errors = InputErrors()
    assert select(FLEET, pattern, input_errors) == ()
    assert input_errors.texts == [f"--limit: {complaint}"]


@pytest.mark.parametrize(
    ("pattern", "group"),
    [
        ("app*", None),
        ("a*", "all"),
        ("*", None),
        ("al*", "all"),
        ("u*", "ungrouped"),
        ("web,!a*", "all"),
        ("unit*", None),
    ],
)
def test_a_pattern_that_means_all_hosts_to_ansible_is_refused(pattern: str, group: str | None) -> None:
    """With Ansible `--limit 'a*'` is everybody: neither that nor the hosts whose names begin so is done unasked."""
    hosts = targets_of("stray\n[web]\napp-1\nalpha\nunit-1\nallies\n")
    input_errors = InputErrors()
    found = select(hosts, pattern, input_errors)
    said = [f"matches the group `{group}` too" in text for text in input_errors.texts]
    assert (bool(found), said) == ((False, [True]) if group else (True, []))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("ungrouped", "db"), ("web-eu,db", "db web-2"), ("web-?", "web-1 web-2 web-3"), ("web-[1:3],db", "")],
)
def test_a_limit_keeps_the_order_of_the_inventory(pattern: str, names: str) -> None:
    assert [target.name for target in select(FLEET, pattern, InputErrors())] == names.split()


# properties

WORDS = st.text(st.sampled_from("abcwxyz019._-"), min_size=1, max_size=12).filter(
    lambda text: not text.startswith("-") and text.rstrip(".") not in ("all", "ungrouped", "")
)
SPOTS = st.builds(
    Target,
    name=WORDS,
    address=st.just(""),
    port=st.none() | st.integers(1, 65535),
    user=st.none() | st.sampled_from(["ops", "ec2-user", "a.b_c"]),
)
LINES = st.lists(SPOTS, min_size=1, max_size=8, unique_by=lambda target: target.name.rstrip("."))


@given(LINES)
def test_a_plain_list_says_what_was_written(spots: list[Target]) -> None:
    lines = [
        (f"{spot.user}@" if spot.user else "") + spot.name + (f":{spot.port}" if spot.port else "")
        for spot in spots
    ]
    assert targets_of("\n".join(lines)) == tuple(
        replace(spot, address=spot.name, where=f"hosts:{number}") for number, spot in enumerate(spots, 1)
    )


@given(LINES)
def test_ini_listing_and_toml_say_the_same(spots: list[Target]) -> None:
    ini, toml, hostvars = ["[g]"], ["[groups.g]", f"hosts = {json.dumps([spot.name for spot in spots])}"], {}
    for spot in spots:
        said = {"ansible_user": spot.user, "ansible_port": spot.port}
        hostvars[spot.name] = {name: value for name, value in said.items() if value is not None}
        ini.append(" ".join([spot.name, *(f"{name}={value}" for name, value in hostvars[spot.name].items())]))
        toml.append(f'[hosts."{spot.name}"]')
        toml += [f"{name[8:]} = {json.dumps(value)}" for name, value in hostvars[spot.name].items()]
    listing = {"_meta": {"hostvars": hostvars}, "g": {"hosts": [spot.name for spot in spots]}}
    wanted = [replace(spot, address=spot.name, groups=("g",)) for spot in spots]
    for text, where in (("\n".join(ini), "i"), ("\n".join(toml), "t.toml"), (json.dumps(listing), "l.json")):
        assert [replace(target, where="") for target in targets_of(text, where)] == wanted


PIECES = st.lists(
    st.sampled_from(
        ["[", "]", "[a]", "[a:children]", "[a:vars]", "\n", " ", "=", "a", "b", "'", '"', "#", "@", ":", "{", "}", ",",
         "hosts", "groups", "ansible_port=", "hsm_agent_hsm_ip=", "[1:3]", "[::1]", "\\", "\x00", "{{", "é", "_meta", "."]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@given(st.binary(max_size=200) | PIECES.map(str.encode), st.sampled_from(["hosts", "f.toml", "f.json", "-"]))
@examples(500)
def test_garbage_is_complained_about_and_nothing_else_happens(data: bytes, where: str) -> None:
    input_errors = InputErrors()
    found = read(data, where, input_errors)
    assert bool(found) != bool(input_errors.texts)
    assert all(text.startswith(where) for text in input_errors.texts)
    assert len({target.name for target in found}) == len(found)


@given(st.text(max_size=30) | st.text(st.sampled_from("web-123db!&*?,[] "), max_size=30))
def test_a_limit_selects_some_or_complains(pattern: str) -> None:
    input_errors = InputErrors()
    found = select(FLEET, pattern, input_errors)
    assert bool(found) != bool(input_errors.texts)
    assert [target for target in FLEET if target in found] == list(found)


@given(st.text(st.sampled_from("ab[]:0129"), max_size=12))
def test_a_range_is_counted_or_refused(text: str) -> None:
    try:
        names = expanded(text, HostBudget())
    except InvalidValueError:
        return
    assert 1 <= len(names) <= 10_000
