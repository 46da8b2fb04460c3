"""Options in their four spellings, and every complaint at once."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import struct
from typing import TYPE_CHECKING, Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloudhsm.client_options import ClientOptions
from agent.config.desired import Desired, from_json, resolve, to_json
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS, CaSource, duration
from agent.config.readers import read_document, read_environment, read_file, read_files, read_flags, read_text
from agent.core.errors import AgentError
from agent.core.system import LINUX, System, windows
from agent.hosts.local import local_host
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from pathlib import Path


def complaints_of(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, toml: str = ""
) -> list[str]:
    input_errors = InputErrors()
    said = (
        read_flags(flags or {}, input_errors),
        read_environment(environment or {}, input_errors),
        read_document(toml, "config.toml", input_errors),
    )
    if input_errors.texts:
        with pytest.raises(AgentError) as caught:
            resolve(said, input_errors)
        assert caught.value.code.name == "config-invalid"
    else:
        with contextlib.suppress(AgentError):
            resolve(said, input_errors)
    return input_errors.texts


def test_a_flag_wins_over_the_environment_and_that_over_the_file() -> None:
    input_errors = InputErrors()
    file = read_document(
        '[hsm]\nip = ["10.0.0.1"]\n[client]\nversion = "5.17.2"\nlog_level = "warn"', "f", input_errors
    )
    environment = read_environment(
        {"HSM_AGENT_HSM_IP": "10.0.0.2", "HSM_AGENT_CLIENT_VERSION": "5.18.0"}, input_errors
    )
    flags = read_flags({"hsm_ip": ["10.0.0.3"]}, input_errors)
    assert resolve((flags, environment, file), input_errors) == Desired(
        hsm_ip=("10.0.0.3",), client_version="5.18.0", client=ClientOptions({"log_level": "warn"})
    )


def test_every_option_can_be_said_in_the_environment() -> None:
    names = {option.variable for option in OPTIONS}
    assert "HSM_AGENT_HSM_IP" in names
    assert len(names) == len(OPTIONS)


def test_a_list_in_the_environment_is_separated_by_commas_or_blanks() -> None:
    input_errors = InputErrors()
    said = read_environment({"HSM_AGENT_HSM_IP": "10.0.0.1, 10.0.0.2 10.0.0.3"}, input_errors)
    assert (said, input_errors.texts) == ({"hsm_ip": ("10.0.0.1", "10.0.0.2", "10.0.0.3")}, [])


NO_ADDRESSES = [
    ("hsm-1.example", "a name is not accepted"),
    ("10.0.1.6:2223", "the port is always 2223"),
    ("[fd00::1]:2223", "the port is always 2223"),
    ("10.0.1.6; rm -rf /", "is not an IP address"),
    ("$(id)", "is not an IP address"),
    ("10.0.1.256", "is not an IP address"),
    ("010.0.1.6", "is not an IP address"),
    ("10.0.1.06", "is not an IP address"),
    ("::ffff:010.0.1.6", "is not an IP address"),
    ("fe80::1%a b;reboot", "no scope"),
    ("fd00::1%eth0", "no scope"),
    ("10.0.1.6%eth0", "no scope"),
    ("0.0.0.0", "means any address of this host"),
    ("::", "means any address of this host"),
    ("0:0::0", "means any address of this host"),
    ("0.1.2.3", "means this network"),
    ("127.0.0.1", "means this host itself"),
    ("127.9.9.9", "means this host itself"),
    ("::1", "means this host itself"),
    ("::ffff:127.0.0.1", "means this host itself"),
    ("::ffff:7f00:1", "means this host itself"),
    ("::127.0.0.1", "means a reserved address"),
    ("224.0.0.1", "means a multicast group"),
    ("239.255.255.255", "means a multicast group"),
    ("ff02::1", "means a multicast group"),
    ("::ffff:224.0.0.1", "means a multicast group"),
    ("255.255.255.255", "means everybody on this network"),
    ("240.0.0.1", "means a reserved address"),
    ("169.254.169.254", "means a link-local address"),
    ("fe80::1", "means a link-local address"),
    ("febf::1", "means a link-local address"),
    ("64:ff9b::10.0.1.6", "means an IPv4 address behind NAT64"),
    ("64:ff9b:1::a00:106", "means an IPv4 address behind NAT64"),
    ("2002:a00:106::1", "means an IPv4 address by 6to4"),
    ("2001:0:a00:106::1", "means an IPv4 address by Teredo"),
    ("100::6", "means an address where everything is discarded"),
    ("", "is not an IP address"),
    ("10.0.1.6\n10.0.1.7", "is not an IP address"),
]


@pytest.mark.parametrize(("address", "part"), NO_ADDRESSES)
def test_what_is_no_address_is_refused(address: str, part: str) -> None:
    (complaint,) = complaints_of({"hsm_ip": [address]})
    assert complaint.startswith("--hsm-ip: ")
    assert part in complaint


@pytest.mark.parametrize("address", [each for each, _ in NO_ADDRESSES if each and not set(each) & set(" \n")])
def test_what_is_no_address_is_refused_wherever_it_is_said(address: str) -> None:
    (complaint,) = complaints_of({}, {"HSM_AGENT_HSM_IP": address})
    assert complaint.startswith("HSM_AGENT_HSM_IP: ")
    (complaint,) = complaints_of({}, {}, f"[hsm]\nip = {json.dumps([address])}\n")
    assert "config.toml:2: hsm.ip: " in complaint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10.77.0.10", "::ffff:10.77.0.10"),
        ("10.77.0.10", "::FFFF:a4d:a"),
        ("10.77.0.10", "0:0:0:0:0:ffff:0a4d:000a"),
        ("fd00::1", "FD00:0::1"),
        ("fd00::1", " fd00:0000:0000:0000:0000:0000:0000:0001 "),
    ],
)
def test_an_address_has_one_spelling(one: str, other: str) -> None:
    assert read_flags({"hsm_ip": [other]}, InputErrors())["hsm_ip"] == (one,)
    assert complaints_of({"hsm_ip": [one, other]}) == [f"--hsm-ip: {one} is given more than once"]
    # a record of an earlier version, and a roll-out's request
    assert from_json({"hsm_ip": [other.strip(), one]}).hsm_ip == (one,)


@pytest.mark.parametrize("address", ["fe80::1%a b;reboot", "hsm-1", "", "10.0.0.1; id", "010.0.0.1"])
def test_a_record_with_what_is_no_address_is_of_another_kind(address: str) -> None:
    with pytest.raises(TypeError, match="hsm_ip"):
        from_json({"hsm_ip": [address]})


@given(st.ip_addresses())
def test_every_address_is_spelled_once_or_refused_with_a_reason(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    texts = [str(address), address.exploded, str(address).upper()]
    if isinstance(address, ipaddress.IPv4Address):
        texts += [f"::ffff:{address}", str(ipaddress.IPv6Address(0xFFFF << 32 | int(address)))]
    ends = set()
    for text in texts:
        input_errors = InputErrors()
        said = read_flags({"hsm_ip": [text]}, input_errors)
        ends.add((said.get("hsm_ip"), tuple(each.partition(" means ")[2] for each in input_errors.texts)))
    (end,) = ends
    assert end == ((str(getattr(address, "ipv4_mapped", None) or address),), ()) or end[1][0]


def test_an_address_twice_is_told_also_in_another_spelling() -> None:
    assert complaints_of({"hsm_ip": ["fd00::1", "fd00:0::1"]}) == [
        "--hsm-ip: fd00::1 is given more than once"
    ]


def test_everything_wrong_is_said_at_once() -> None:
    texts = complaints_of(
        {"hsm_ip": ["nonsense!"], "component": ["pkcs12"], "client_version": "five", "timeout": "soon"},
        {"HSM_AGENT_HSM_IPS": "10.0.0.1", "HSM_AGENT_SDK": "4"},
        '[hsm]\nip = "10.0.0.1"\n\n[client]\nverison = "5.18.0"\nlog_level = "loud"\nlog_file = "relative.log"\n',
    )
    assert len(texts) == 9
    assert any(
        text.startswith("HSM_AGENT_HSM_IPS: unknown variable; did you mean `HSM_AGENT_HSM_IP`?")
        for text in texts
    )
    assert "config.toml:5: unknown key `client.verison`; did you mean `client.version`?" in texts
    assert any("did you mean pkcs11?" in text for text in texts)
    assert any(text.startswith("config.toml:6: client.log_level") for text in texts)


def test_the_line_of_a_key_is_that_of_its_own_table() -> None:
    toml = '[client]\nversion = "5.18.0"\n[hsm]\nversion = "1"\n'
    assert complaints_of(toml=toml)[0].startswith("config.toml:4: unknown key `hsm.version`")


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"[hsm\n", "not valid TOML"),
        (b'{"hsm": ', "not valid JSON"),
        (b"\xff\xfe\x00", "not UTF-8: byte 0"),
        (b"{" * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_file_is_told(data: bytes, part: str) -> None:
    input_errors = InputErrors()
    assert read_text(data, "config.toml", input_errors) == {}
    assert part in input_errors.texts[0]


def test_json_says_the_same_as_toml() -> None:
    input_errors = InputErrors()
    as_json = read_text(
        b'{"hsm": {"ip": ["10.0.0.1"], "accept_single_hsm": true}, "client": {"sdk": 3}}', "-", input_errors
    )
    as_toml = read_text(
        b'[hsm]\nip = ["10.0.0.1"]\naccept_single_hsm = true\n[client]\nsdk = 3\n', "f", input_errors
    )
    assert as_json == as_toml == {"hsm_ip": ("10.0.0.1",), "accept_single_hsm": True, "sdk": 3}


@pytest.mark.parametrize("value", ['"yes please"', "5", "[true]"])
def test_a_switch_is_true_or_false(value: str) -> None:
    assert len(complaints_of(toml=f"[hsm]\naccept_single_hsm = {value}")) == 1


def test_one_half_of_a_pair_is_refused() -> None:
    assert complaints_of({"client_cert": "/etc/c.pem"}) == [
        "--client-cert, --client-key: each needs the other"
    ]


def test_a_group_to_attach_is_that_of_a_cluster() -> None:
    given = {"attach_group": True, "hsm_ip": ("10.0.1.6",)}
    assert complaints_of(given) == [
        "--attach-group: it is the group of a cluster: name that with --cluster-id"
    ]
    assert complaints_of({**given, "cluster_id": "cluster-2abcdefghij"}) == []


def test_sdk_3_needs_a_mirror_and_takes_none_of_sdk_5s_options() -> None:
    texts = complaints_of({"sdk": "3", "log_level": "info", "accept_single_hsm": True})
    assert [text.split(":")[0] for text in texts] == ["--sdk 3"] * 3


def test_a_ca_over_http_is_refused() -> None:
    assert len(complaints_of({"ca_cert": "http://mirror/ca.crt"})) == 1


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_a_duration_is_seconds_minutes_or_hours(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1s", "1d", "99h", "nan", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


def test_a_checksum_of_the_caller_is_normalised() -> None:
    input_errors = InputErrors()
    said = read_document(f'[client.sha256]\n"a.deb" = "{"AB" * 32}"', "f", input_errors)
    assert resolve((said,), input_errors).sha256 == {"a.deb": "ab" * 32}


def test_what_was_desired_survives_the_disk() -> None:
    desired = Desired(
        hsm_ip=("10.0.0.1", "fd00::1"), sdk=5, accept_single_hsm=True, sha256={"a.deb": "0" * 64}
    )
    assert from_json(to_json(desired)) == desired
    assert to_json(Desired()) == {}


@pytest.mark.parametrize("system", [LINUX, windows()], ids=lambda system: str(system.kind))
def test_the_files_of_a_host_are_read_in_order_and_one_that_everybody_may_write_is_not(
    system: System,
) -> None:
    memory = Memory(system=system)
    memory.place(system.configuration, b'[client]\nversion = "5.17.1"\n')
    memory.place(system.join(system.configuration_folder, "b.toml"), b'[client]\nversion = "5.18.0"\n')
    memory.place(system.join(system.configuration_folder, "a.toml"), b'[client]\nversion = "5.17.2"\n')
    input_errors = InputErrors()
    assert read_files(memory, input_errors) == {"client_version": "5.18.0"}
    assert input_errors.texts == []
    memory.place(system.configuration, b'[client]\nsource = "https://x.example"\n', mode=0o666)
    assert read_files(memory, input_errors) == {"client_version": "5.18.0"}
    (text,) = input_errors.texts
    assert text.startswith(f"{system.configuration}: everybody may write to it")


# who can change a configuration file: each of these made on this machine, and root asked


def at(path: Path, mode: int | None = None, owner: int | None = None, group: int | None = None) -> None:
    if owner is not None or group is not None:
        os.chown(path, -1 if owner is None else owner, -1 if group is None else group)
    if mode is not None:
        path.chmod(mode)


def linked(file: Path, target: Path, mode: int = 0o644, owner: int = 0) -> None:
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(os.path.relpath(target, file.parent))
    at(target, mode, owner)


def into_a_folder(file: Path, other: Path) -> None:
    linked(file, other / "t")
    at(other, 0o755, 1000)


def as_a_user(file: Path, other: Path) -> None:
    linked(file, other / "t")
    os.lchown(file, 1000, 1000)


def below_a_link(file: Path, other: Path) -> None:
    other.rmdir()
    file.parent.rename(other)
    file.parent.symlink_to(other)
    os.lchown(file.parent, 1000, 1000)


def listed(path: Path, tag: int, rights: int, number: int) -> None:
    """Give a file an access list as `setfacl` does: the owner's, one more, the group's, the mask, everybody's."""
    nobody, mask = 0xFFFFFFFF, 0x10
    entries = ((1, 6, nobody), (4, 4, nobody), (tag, rights, number), (mask, 6, nobody), (0x20, 4, nobody))
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in sorted(entries))
    os.setxattr(path, "system.posix_acl_access", data)


SAFE: dict[str, Callable[[Path, Path], object]] = {
    "for a user to read, by its list": lambda file, _: listed(file, 2, 4, 1000),
    "for root to write, by its list": lambda file, _: listed(file, 2, 6, 0),
    "as it is": lambda _file, _other: None,
    "for root's group to write": lambda file, _: at(file, 0o660, 0, 0),
    "a link among folders of root": lambda file, other: linked(file, other / "target"),
    "below a folder such as /tmp": lambda file, _: at(file.parent, 0o1777),
}
UNSAFE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "everybody's": (lambda file, _: at(file, 0o666), "everybody may write to it"),
    "a user's": (lambda file, _: at(file, 0o600, 1000), "it belongs to user 1000"),
    "a group's": (lambda file, _: at(file, 0o664, 0, 1000), "group 1000 may write to it"),
    "a user's by its list": (
        lambda file, _: listed(file, 2, 6, 1000),
        "user 1000 may write to it, by its access list",
    ),
    "a group's by its list": (
        lambda file, _: listed(file, 8, 2, 1000),
        "group 1000 may write to it, by its access list",
    ),
    "in a folder of a user by its list": (
        lambda file, _: listed(file.parent, 2, 7, 1000),
        "user 1000 may write to {folder}, by its access list",
    ),
    "in a folder of everybody": (lambda file, _: at(file.parent, 0o777), "everybody may write to {folder}"),
    "in a folder of a user": (lambda file, _: at(file.parent, 0o755, 1000), "{folder} belongs to user 1000"),
    "in a folder of a group": (
        lambda file, _: at(file.parent, 0o775, 0, 1000),
        "group 1000 may write to {folder}",
    ),
    "below a folder of a user": (
        lambda file, _: at(file.parents[1], 0o755, 1000),
        "{above} belongs to user 1000",
    ),
    "a link to a user's": (
        lambda file, other: linked(file, other / "t", 0o600, 1000),
        "{other}/t belongs to user 1000",
    ),
    "a link to everybody's": (
        lambda file, other: linked(file, other / "t", 0o666),
        "everybody may write to {other}/t",
    ),
    "a link into a folder of a user": (into_a_folder, "{other} belongs to user 1000"),
    "a user's link": (as_a_user, "it belongs to user 1000"),
    "below a link of a user": (below_a_link, "{folder} belongs to user 1000"),
}


@pytest.fixture
def above(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of others")
    for each in ("above", "above/folder", "other"):
        (tmp_path / each).mkdir()
        (tmp_path / each).chmod(0o755)
    (tmp_path / "above/folder/site.toml").write_text('[client]\nversion = "5.18.0"\n')
    at(tmp_path / "above/folder/site.toml", 0o644)
    return tmp_path / "above"


@pytest.mark.parametrize("how", SAFE)
def test_a_file_that_root_alone_can_change_is_taken(above: Path, how: str) -> None:
    file, input_errors = above / "folder" / "site.toml", InputErrors()
    SAFE[how](file, above.parent / "other")
    assert read_file(local_host(), str(file), input_errors) == {"client_version": "5.18.0"}
    assert input_errors.texts == []


@pytest.mark.parametrize("how", UNSAFE)
@pytest.mark.parametrize("typed", ["as it is", "with dots", "relative"])
def test_a_file_that_somebody_else_can_change_is_not_taken(above: Path, how: str, typed: str) -> None:
    file, input_errors = above / "folder" / "site.toml", InputErrors()
    make, said = UNSAFE[how]
    make(file, above.parent / "other")
    path = str(file)
    if typed == "with dots":
        path = f"{above}/./../{above.name}//folder/site.toml"
    elif typed == "relative":
        path = os.path.relpath(file)
    assert read_file(local_host(), path, input_errors) == {}
    (complaint,) = input_errors.texts
    said = said.format(folder=above / "folder", above=above, other=above.parent / "other")
    if typed == "as it is":
        assert complaint == f"{path}: {said}; make it writable for root alone"


def test_a_file_that_is_not_there_is_none_and_a_circle_of_links_is_named(above: Path) -> None:
    input_errors = InputErrors()
    assert read_file(local_host(), str(above / "nothing"), input_errors) is None
    (above / "circle").symlink_to("circle")
    with pytest.raises(AgentError) as caught:
        read_file(local_host(), str(above / "circle"), input_errors)
    assert caught.value.code.name == "unreadable"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/mirror/", "/mirror"),
        ("D:\\mirror\\", "D:\\mirror"),
        ("D:/mirror/", "D:/mirror"),
        ("https://mirror.example/x/", "https://mirror.example/x"),
        ("s3://bucket/mirror/", "s3://bucket/mirror"),
        ("S3://bucket", "s3://bucket"),
        ("s3://bucket/a?region=eu-west-1", "s3://bucket/a?region=eu-west-1"),
        ("/odd\\", "/odd\\"),
        ("odd\\", "odd\\"),
        ("\\", "\\"),
        ("\\\\server\\share\\", "\\\\server\\share"),
        ("D:\\", "D:"),
        ("/", "/"),
    ],
)
def test_a_package_source_ends_without_a_stroke(given: str, kept: str) -> None:
    assert read_flags({"package_source": given}, InputErrors()) == {"package_source": kept}


@pytest.mark.parametrize("source", ["s3:bucket/x", "s3://b/x", "s3://bucket/x?versionId=1", "gs://bucket/x"])
def test_a_package_source_that_names_no_bucket_is_refused(source: str) -> None:
    assert len(complaints_of({"package_source": source})) == 1


@pytest.mark.parametrize("path", ["/x", r"C:\x", "C:/x", r"\\server\share\x"])
def test_an_absolute_path_of_either_system_is_taken(path: str) -> None:
    assert complaints_of({"log_file": path}) == []


@pytest.mark.parametrize("path", ["x", "//x", "C:x", r"\x", r"\\server", "C:\\x\n"])
def test_a_path_that_is_not_absolute_is_a_complaint(path: str) -> None:
    (text,) = complaints_of({"log_file": path})
    assert "is not an absolute path" in text


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"hsm": {"ip": ["10.0.1.6"]}, "hsm": {"ip": ["10.0.2.9"]}}', "not valid JSON: `hsm` stands there twice"),
        ('{"hsm": {"ip": ["10.0.1.6"], "ip": ["10.0.2.9"]}}', "not valid JSON: `ip` stands there twice"),
        ('{"hsm": {"ip": ["10.0.1.6"]}, "hsm.ip": ["10.0.2.9"]}', "`hsm.ip` stands there twice"),
        ('"hsm.ip" = ["10.0.1.6"]\n[hsm]\nip = ["10.0.2.9"]\n', "`hsm.ip` stands there twice"),
        ('"client.sdk" = 5\nclient.sdk = 3\n', "`client.sdk` stands there twice"),
    ],
)  # fmt: skip
def test_what_is_said_twice_is_not_taken_once_in_silence(text: str, words: str) -> None:
    input_errors = InputErrors()
    read_document(text, "x", input_errors, is_json=text.startswith("{"))
    assert any(words in each for each in input_errors.texts), input_errors.texts


@pytest.mark.parametrize(
    "text",
    [
        f"[client]\nsdk = {DIGITS}\n",
        f"client.sdk = [{DIGITS}]\n",
        f'{{"client": {{"sdk": {DIGITS}}}}}',
        f'{{"x": -{DIGITS}}}',
    ],
    ids=lambda text: text[:20],
)
def test_a_number_without_end_is_a_complaint(text: str) -> None:
    input_errors = InputErrors()
    assert read_document(text, "x", input_errors, is_json=text.startswith("{")) == {}
    assert input_errors.texts


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("/root/ca.crt", CaSource("file", "/root/ca.crt")),
        ("C:\\ca.crt", CaSource("file", "C:\\ca.crt")),
        ("https://desk.example/ca.crt", CaSource("https", "https://desk.example/ca.crt")),
        ("https:ca.crt", CaSource("file", "https:ca.crt")),
        ("-", CaSource("stdin", "-")),
        ("inline:", CaSource("inline")),
        ("inline:text", CaSource("inline", "text")),
        ("-----BEGIN CERTIFICATE-----", CaSource("inline", "-----BEGIN CERTIFICATE-----")),
        # as records of older versions have them
        ("file:/root/ca.crt", CaSource("file", "/root/ca.crt")),
        ("file:///root/ca.crt", CaSource("file", "/root/ca.crt")),
    ],
)
def test_ca_source_reads_every_spelling(text: str, source: CaSource) -> None:
    assert CaSource.of(text) == source
    assert from_json({"ca_cert": text}) == Desired(ca_cert=source)
    assert from_json(to_json(Desired(ca_cert=source))) == Desired(ca_cert=source)


@given(st.sampled_from(["inline", "https", "file"]), st.text(max_size=20))
def test_ca_source_is_read_as_it_was_written(kind: Any, value: str) -> None:
    source = CaSource(kind, f"https://{value}" if kind == "https" else value)
    if kind == "https" and "-----BEGIN" in value:
        return
    assert CaSource.of(source.text) == source


def test_a_file_with_the_name_of_another_source_stays_a_file() -> None:
    for name in ("inline:x", "-", "https://x", "file:x"):
        source = CaSource("file", name)
        assert from_json(to_json(Desired(ca_cert=source))).ca_cert == source


def test_resolve_wants_an_address_where_no_record_completes_it() -> None:
    for said, texts in (
        ({}, ["--hsm-ip: at least one address of an HSM is needed, or `--cluster-id`"]),
        ({"cluster_id": "cluster-2abcdefghij"}, []),
        ({"hsm_ip": ("10.0.0.1",)}, []),
    ):
        input_errors = InputErrors()
        with contextlib.suppress(AgentError):
            resolve((said,), input_errors, complete=True)
        assert input_errors.texts == texts
        resolve((said,), InputErrors())
    wrong = InputErrors(["--hsm-ip: 'x' is not an IP address", "--sdk: 'y'"])
    with pytest.raises(AgentError):
        resolve(({},), wrong, complete=True)
    assert len(wrong.texts) == 2


def test_a_cluster_id_that_is_wrong_is_not_missing_as_well() -> None:
    input_errors = InputErrors()
    flags = read_flags({"cluster_id": "2abc", "region": "Frankfurt"}, input_errors)
    with pytest.raises(AgentError) as refused:
        resolve((flags,), input_errors, complete=True)
    assert [text.partition(":")[0] for text in refused.value.saw.splitlines()] == ["--cluster-id", "--region"]
