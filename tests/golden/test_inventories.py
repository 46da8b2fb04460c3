"""Every INI of the corpus means to us what it means to Ansible: its own `ansible-inventory --list` stands beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from agent.config.input_errors import InputErrors
from agent.core.fleet_model import Target
from agent.fleet.inventory import read, select
from agent.hosts.posix import Posix
from tests.examples import examples

# where the programs of this Python's packages are
BIN = str(Path(sys.executable).parent)
CORPUS = Path(__file__).parent / "inventories"
NAMES = sorted(path.stem for path in CORPUS.glob("*.ini"))


def targets_of(path: Path) -> dict[str, Target]:
    complaints = InputErrors()
    found = read(path.read_bytes(), path.name, complaints)
    assert complaints.texts == []
    return {target.name: replace(target, where="") for target in found}


def test_the_corpus_is_what_is_read() -> None:
    assert sorted(path.stem for path in CORPUS.iterdir() if path.suffix == ".json") == NAMES
    assert len(NAMES) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_an_ini_means_what_ansible_says_it_means(name: str) -> None:
    assert targets_of(CORPUS / f"{name}.ini") == targets_of(CORPUS / f"{name}.json")


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_of_ansibles_listing_is_on_the_target(name: str) -> None:
    """Not through our own reader of the listing, so that one mistake in both is seen."""
    listed = json.loads((CORPUS / f"{name}.json").read_text(encoding="utf-8"))["_meta"]["hostvars"]
    for target in targets_of(CORPUS / f"{name}.ini").values():
        theirs = listed.get(target.name, {})
        assert target.address == theirs.get("ansible_ssh_host", theirs.get("ansible_host", target.name))
        assert target.port == theirs.get("ansible_ssh_port", theirs.get("ansible_port"))
        assert target.user == theirs.get("ansible_ssh_user", theirs.get("ansible_user"))
        assert target.key == theirs.get(
            "ansible_ssh_private_key_file", theirs.get("ansible_private_key_file")
        )


def test_what_ssh_is_told_is_what_ansible_tells_it() -> None:
    """Ansible 2.19 with a program in the place of ssh that writes its arguments down: who wins of two names."""
    assert targets_of(CORPUS / "legacy.ini")["b"] == Target(
        "b", "10.0.0.2", port=1, user="x", key="/b", groups=("old",)
    )
    assert {name: target.jump for name, target in targets_of(CORPUS / "bastion.ini").items()} == {
        "app-1.internal": "bastion.example.com",
        "app-2.internal": "bastion.example.com",
        "db.internal": "ops@bastion.example.com:2222,second.internal",
        "old.internal": "ops@gateway.example.com",
        "free.internal": None,
    }


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("all", "host1 host2 host3 loner stray"),
        ("*", "host1 host2 host3 loner stray"),
        ("host1", "host1"),
        ("host2,host1", "host1 host2"),
        (" host1 , host3 ", "host1 host3"),
        ("usa,,host1", "host1 host2 host3"),
        ("host?,stray", "host1 host2 host3 stray"),
        ("atlanta,raleigh", "host1 host2 host3"),
        ("atlanta,&raleigh", "host2"),
        ("&raleigh", "host2 host3"),
        ("usa,!raleigh", "host1"),
        ("!host2", "host1 host3 loner stray"),
        ("southeast,&raleigh,!host3", "host2"),
        ("!usa,host1,loners", "loner stray"),
        ("lon*,!stray", "loner"),
    ],
)
def test_a_limit_means_what_ansible_takes_it_for(pattern: str, names: str) -> None:
    """The names are those of `ansible all -i children.ini --limit PATTERN --list-hosts`."""
    complaints = InputErrors()
    found = select(tuple(targets_of(CORPUS / "children.ini").values()), pattern, complaints)
    assert ([target.name for target in found], complaints.texts) == (names.split(), [])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web", "web"),
        ("db,web", "db1 web web.eu"),
        ("&web", "web1 web2"),
        ("db1,web,&web", ""),
        ("all,&web,!web2", "web1"),
        ("web*", "web1 web2 web web.eu db2"),
        ("web.eu", "web.eu"),
        ("&web.eu", "web.eu db2"),
        # Ansible leaves the group alone, and this the host, too
        ("!web", "db1 web.eu db2"),
    ],
)
def test_a_name_of_a_host_and_of_a_group_in_a_limit(pattern: str, names: str) -> None:
    """The names are those of `ansible all -i FILE --limit PATTERN --list-hosts`, but where it is said otherwise."""
    complaints = InputErrors()
    text = "[web]\nweb1\nweb2\n[db]\ndb1\nweb\nweb.eu\n[web.eu]\ndb2\n"
    targets = read(text.encode(), "hosts.ini", complaints)
    assert complaints.texts == []
    assert {target.name for target in select(targets, pattern, complaints)} == set(names.split())


BESIDE = Path(__file__).parent / "beside"


def seen_beside(folder: Path) -> tuple[dict[str, Target], list[str], list[str]]:
    """The hosts of a folder's INI with what lies beside it, the complaints, and the remarks."""
    complaints, remarks = InputErrors(), InputErrors()
    path = folder / "hosts.ini"
    found = read(path.read_bytes(), str(path), complaints, remarks, Posix())
    return {target.name: replace(target, where="") for target in found}, complaints.texts, remarks.texts


@pytest.mark.parametrize("case", sorted(path.name for path in BESIDE.iterdir()))
def test_the_files_beside_an_ini_mean_what_ansible_says_they_mean(case: str) -> None:
    found, complaints, _ = seen_beside(BESIDE / case)
    assert complaints == []
    assert found == targets_of(BESIDE / case / "listing.json")


def test_what_lies_beside_an_inventory_is_never_passed_over(tmp_path: Path) -> None:
    shutil.copytree(BESIDE / "example", tmp_path / "example")
    found, _, _ = seen_beside(tmp_path / "example")
    web = found["web1"]
    assert (web.address, web.user, web.port) == ("192.0.2.8", "deploy", 2222)
    assert web.options["component"] == ("cli", "pkcs11")


NAMES_BESIDE = ("web", "db", "prod", "all", "ungrouped", "web1", "web2", "db1", "stray")
VALUES_BESIDE = st.fixed_dictionaries(
    {},
    optional={
        "ansible_host": st.sampled_from(["192.0.2.7", "192.0.2.8"]),
        "ansible_user": st.sampled_from(["anna", "bert", "carl"]),
        "ansible_port": st.integers(1, 65535),
        "ansible_ssh_user": st.sampled_from(["dora", "emil"]),
    },
)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("ansible-inventory", path=BIN) is None, reason="no ansible-core beside this Python"
)
@examples(12, suppress=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(
        st.tuples(
            st.sampled_from(["group_vars", "host_vars"]),
            st.sampled_from(NAMES_BESIDE),
            st.sampled_from(["", ".yml", ".yaml", ".json", ".txt", "/a.yml", "/b", "/c/d.json", "/.e.yml"]),
        ),
        VALUES_BESIDE,
        max_size=8,
    )
)
def test_any_files_beside_an_ini_mean_what_they_mean_to_ansible(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str, str], dict[str, object]]
) -> None:
    folder = tmp_path_factory.mktemp("inventory")
    (folder / "hosts.ini").write_text(
        "stray\n[web]\nweb1 ansible_port=1\nweb2\n[db]\ndb1\nweb2\n[prod:children]\nweb\n[web:vars]\nansible_user=w\n"
    )
    (folder / "ansible.cfg").write_text("")
    for (kind, name, rest), content in files.items():
        path = folder / kind / f"{name}{rest}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        except OSError:  # a file and a folder of one name: the first of them is there
            continue
    done = subprocess.run(
        ["ansible-inventory", "-i", "hosts.ini", "--list"], cwd=folder, capture_output=True, check=True, timeout=60,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    (folder / "listing.json").write_bytes(done.stdout)
    found, complaints, _ = seen_beside(folder)
    # two names of one machine are refused, which Ansible does not
    others = [each for each in complaints if "is the same machine as" not in each]
    assert others == []
    assert complaints or found == targets_of(folder / "listing.json")


VAULT = "$ANSIBLE_VAULT;1.1;AES256\n61626364\n"


@pytest.mark.parametrize(
    ("path", "content", "complaint"),
    [
        ("group_vars/all/vault.yml", VAULT, "encrypted by ansible-vault"),
        ("host_vars/web1.yml", "ansible_host: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  61\n", "web1.yml:1: ansible_host: it is encr"),
        ("host_vars/web1.yml", "a: 1\nansible_user: '{{ user }}'\n", "web1.yml:2: ansible_user: templates are not"),
        ("host_vars/web1.yml", "hsm_agent_hsm_ip: ['{{ ip }}']\n", "templates are not evaluated"),
        ("host_vars/web1.yml", "ansible_user: '{% if x %}a{% endif %}'\n", "templates are not evaluated"),
        ("host_vars/web1.yml", "ansible_user: [\n", "not valid YAML"),
        ("host_vars/web1.yml", "- ansible_user\n", "a table of variables is wanted"),
        ("host_vars/web1.yml", "just words\n", "a table of variables is wanted"),
        ("host_vars/web1.yml", "ansible_user: !mine x\n", "not valid YAML"),
        ("host_vars/web1.yml", "a: 1\n---\nb: 2\n", "not valid YAML"),
        ("host_vars/web1.yml", "ansible_user: yes\n", "a text is wanted"),
        ("host_vars/web1.yml", b"ansible_user: \xff\n", "not UTF-8"),
        ("host_vars/web1.yml", "ansible_become_user: app\n", "'app' is not who does the work"),
        ("group_vars/web.yml", "ansible_become_method: su\n", "'su' is not how one becomes root"),
        ("group_vars/web.yml", "ansible_ssh_executable: /opt/ssh-wrapper\n", "is not run here"),
        ("group_vars/web.yml", "ansible_ssh_private_key: x\n", "ansible_ssh_private_key: it is not understood"),
        ("group_vars/web.yml", "ansible_paramiko_proxy_command: x\n", "ansible_paramiko_proxy_command"),
        ("group_vars/web.yml", "hsm_agent_hsm_pi: 10.0.0.1\n", "unknown variable `hsm_agent_hsm_pi`"),
        ("ansible.cfg", "[privilege_escalation]\nbecome_user = app\n", "ansible.cfg: become_user in [privilege"),
        ("ansible.cfg", "[defaults]\ntransport = shh\n", "'shh' is not how a host is reached"),
        ("ansible.cfg", "[defaults]\nvars_plugins_enabled = x\n", "vars_plugins_enabled in [defaults]"),
        ("ansible.cfg", "[ssh_connection]\nssh_args = -F other\n", "-F is not understood"),
        ("ansible.cfg", "[defaults\n", "it cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_beside_an_ini_is_refused_by_name(
    tmp_path: Path, path: str, content: str | bytes, complaint: str
) -> None:
    (tmp_path / "hosts.ini").write_text("[web]\nweb1\n")
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    found, complaints, _ = seen_beside(tmp_path)
    assert found == {}
    assert [complaint in text for text in complaints] == [True], complaints


def test_the_settings_of_ansible_are_weaker_than_every_variable(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("[web]\nweb1\nweb2 ansible_user=own ansible_port=7\n")
    (tmp_path / "ansible.cfg").write_text(
        "[defaults]\nremote_user = ops ; not root\nremote_port = 2222\nprivate_key_file = keys/id\n"
        "host_key_checking = False\nforks = 50\n[ssh_connection]\nssh_common_args = -J bastion\n"
        "[privilege_escalation]\nbecome = True\nbecome_method = sudo\n"
    )
    found, complaints, _ = seen_beside(tmp_path)
    assert complaints == []
    key = f"{tmp_path}/keys/id"
    assert found["web1"] == Target("web1", "web1", 2222, "ops", key, "bastion", groups=("web",))
    assert found["web2"] == Target("web2", "web2", 7, "own", key, "bastion", groups=("web",))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose inventories lie in folders of their own: one works in its root, as with Ansible."""
    (tmp_path / "inventories").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "inventories/hosts.ini").write_text("web1\n")
    (tmp_path / "inventories/fleet.json").write_text(
        '{"_meta": {"hostvars": {"web1": {"x": 1}}}, "ungrouped": {"hosts": ["web1"]}}'
    )
    return tmp_path


@pytest.mark.parametrize("name", ["inventories/hosts.ini", "inventories/fleet.json"])
@pytest.mark.parametrize(
    ("files", "user"),
    [
        ({"ansible.cfg": "cwd", "inventories/ansible.cfg": "beside"}, "cwd"),
        ({"inventories/ansible.cfg": "beside", "home/.ansible.cfg": "home"}, "beside"),
        ({"home/.ansible.cfg": "home"}, "home"),
        ({}, None),
    ],
)
def test_the_settings_are_found_where_ansible_looks(
    elsewhere: Path, name: str, files: dict[str, str], user: str | None
) -> None:
    """Read is the first: else somebody else logs in than with Ansible."""
    for path, each in files.items():
        (elsewhere / path).write_text(f"[defaults]\nremote_user = {each}\nprivate_key_file = keys/id\n")
    complaints = InputErrors()
    (found,) = read(Path(name).read_bytes(), name, complaints, None, Posix())
    assert (found.user, complaints.texts) == (user, [])
    folder = {"beside": "inventories/", "home": f"{elsewhere}/home/"}.get(user or "", "")
    assert found.key == (f"{folder}keys/id" if user else None)


@pytest.mark.parametrize("name", ["inventories/hosts.ini", "inventories/fleet.json"])
def test_the_environment_is_stronger_than_the_settings_of_ansible(
    elsewhere: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "ansible.cfg").write_text("[defaults]\nremote_user = cwd\nremote_port = 2222\n")
    (elsewhere / "named").mkdir()
    (elsewhere / "named/ansible.cfg").write_text("[defaults]\nremote_user = named\nremote_port = 2223\n")
    monkeypatch.setenv("ANSIBLE_REMOTE_USER", "variable")
    monkeypatch.setenv("ANSIBLE_SSH_COMMON_ARGS", "-J bastion")
    complaints = InputErrors()
    (found,) = read(Path(name).read_bytes(), name, complaints, None, Posix())
    assert (found.user, found.port, found.jump, complaints.texts) == ("variable", 2222, "bastion", [])
    monkeypatch.setenv("ANSIBLE_CONFIG", "named")
    (found,) = read(Path(name).read_bytes(), name, complaints, None, Posix())
    assert (found.user, found.port, complaints.texts) == ("variable", 2223, [])


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("ANSIBLE_PRECEDENCE", "all_inventory", "ANSIBLE_PRECEDENCE: this variable is not understood here"),
        ("ANSIBLE_VARS_ENABLED", "x", "ANSIBLE_VARS_ENABLED: this variable is not understood here"),
        ("ANSIBLE_REMOTE_PORT", "many", "the variable ANSIBLE_REMOTE_PORT"),
        ("ANSIBLE_TRANSPORT", "shh", "'shh' is not how a host is reached"),
        ("ANSIBLE_BECOME_USER", "app", "'app' is not who does the work"),
    ],
)
def test_what_cannot_be_read_of_ansibles_environment_is_refused_by_name(
    elsewhere: Path, variable: str, value: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    complaints = InputErrors()
    assert read(b"web1\n", "inventories/hosts.ini", complaints, None, Posix()) == ()
    assert [complaint in text for text in complaints.texts] == [True], complaints.texts
    assert elsewhere.is_dir()


def test_settings_that_everybody_could_have_put_there_do_not_count(elsewhere: Path) -> None:
    (elsewhere / "ansible.cfg").write_text("[ssh_connection]\nssh_args = -J stranger\n")
    elsewhere.chmod(0o777)
    complaints = InputErrors()
    (found,) = read(b"web1\n", "inventories/hosts.ini", complaints, None, Posix())
    assert (found.jump, complaints.texts) == (None, [])


def test_hosts_of_another_plug_in_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text(
        "[web]\nweb1 ansible_host=192.0.2.7\n[ssm]\napp1 ansible_host=i-0123456789abcdef0\n[ssm:vars]\n"
        "ansible_connection=amazon.aws.aws_ssm\nansible_aws_ssm_region=eu-central-1\n"
        "[odd]\nodd1 ansible_connection=some.collection.plugin\nodd2 ansible_connection=ansible.builtin.ssh\n"
    )
    found, complaints, remarks = seen_beside(tmp_path)
    assert (set(found), complaints) == ({"web1", "odd2"}, [])
    assert any("left out" in text and "app1, odd1" in text for text in remarks)
