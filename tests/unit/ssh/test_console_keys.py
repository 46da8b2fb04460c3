"""Host keys in the text of a console: whole ones are read, and nothing that a line of the kernel made of them."""

from __future__ import annotations

import base64
import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.ssh.console_keys import read_console
from agent.ssh.known_hosts import HostKey
from tests.examples import examples


def made(kind: str, *fields: bytes) -> HostKey:
    whole = b"".join(struct.pack(">I", len(each)) + each for each in (kind.encode(), *fields))
    return HostKey(kind, whole)


ED25519 = made("ssh-ed25519", bytes(range(32)))
ECDSA = made("ecdsa-sha2-nistp256", b"nistp256", b"\x04" + bytes(range(64)))
RSA = made("ssh-rsa", b"\x01\x00\x01", b"\x00\xa7" + bytes(range(255)))
KEYS = (ECDSA, ED25519, RSA)


def line(key: HostKey, comment: str = " root@ip-10-0-1-7") -> str:
    return f"{key.kind} {base64.b64encode(key.blob).decode()}{comment}"


def block(*lines: str) -> str:
    return "\n".join(("-----BEGIN SSH HOST KEY KEYS-----", *lines, "-----END SSH HOST KEY KEYS-----", ""))


# as cloud-init prints it (tools/write-ssh-key-fingerprints): what goes through logger has a beginning
CONSOLE = f"""[    0.000000] Linux version 6.1.0
cloud-init[1201]: Cloud-init v. 22.2.2 running 'modules:final'
<14>Nov 30 09:00:00 cloud-init: #############################################################
<14>Nov 30 09:00:00 cloud-init: -----BEGIN SSH HOST KEY FINGERPRINTS-----
<14>Nov 30 09:00:00 cloud-init: 256 SHA256:8KKnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn root@vm1 (ECDSA)
<14>Nov 30 09:00:00 cloud-init: -----END SSH HOST KEY FINGERPRINTS-----
{block(*map(line, KEYS))}
ip-10-0-1-7 login:
"""


def test_the_keys_of_the_block_are_read() -> None:
    found = read_console(CONSOLE)
    assert (found.keys, found.cut, found.is_there) == (KEYS, 0, True)


def test_a_serial_line_ends_with_a_carriage_return() -> None:
    assert read_console(CONSOLE.replace("\n", "\r\n")) == read_console(CONSOLE)
    assert read_console(CONSOLE.replace("\n", "\r\r\n")) == read_console(CONSOLE)


def test_a_key_that_a_kernel_line_cuts_is_none() -> None:
    text = line(RSA)
    cut = f"{text[:100]}[   12.345678] eth0: link up\n{text[100:]}"
    found = read_console(block(line(ED25519), cut))
    assert (found.keys, found.cut) == ((ED25519,), 1)


def test_an_output_that_begins_or_ends_in_the_block_has_what_is_whole() -> None:
    text = block(*map(line, KEYS))
    assert read_console(text[10:]).is_there is False
    assert read_console(text[: text.index("ssh-rsa") + 50]).keys == (ECDSA, ED25519)


def test_of_two_boots_the_last_one_counts() -> None:
    assert read_console(block(line(ECDSA)) + block(line(ED25519))).keys == (ED25519,)
    assert read_console(block(line(ECDSA)) + block()).keys == ()


def test_lines_that_anybody_may_log_are_no_keys() -> None:
    for begin in ("<14>Nov 30 09:00:00 mallory: ", "[   12.3] ", " "):
        text = "\n".join(begin + each for each in block(line(ED25519)).split("\n"))
        assert read_console(text).keys == ()


def test_without_a_block_there_is_nothing() -> None:
    for text in ("", "login:", line(ED25519)):
        assert (read_console(text).keys, read_console(text).is_there) == ((), False)


@given(
    cuts=st.lists(st.tuples(st.integers(0, len(CONSOLE)), st.text(max_size=20)), max_size=4),
    start=st.integers(0, len(CONSOLE)),
)
@examples(300)
def test_noise_never_makes_another_key(cuts: list[tuple[int, str]], start: int) -> None:
    text = CONSOLE
    for place, noise in cuts:
        text = f"{text[:place]}{noise}{text[place:]}"
    assert set(read_console(text[start:]).keys) <= set(KEYS)


@given(data=st.binary(max_size=200), kind=st.sampled_from([each.kind for each in KEYS]))
@examples(200)
def test_bytes_that_are_no_key_are_none(data: bytes, kind: str) -> None:
    found = read_console(block(f"{kind} {base64.b64encode(data).decode()}"))
    assert all(each.blob == data and made(kind) != each for each in found.keys)
    assert not found.keys or data.startswith(struct.pack(">I", len(kind)) + kind.encode())
