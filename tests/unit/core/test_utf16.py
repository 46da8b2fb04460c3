"""What programs of Windows write is read as what it is, and nothing with a NUL in it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.utf16 import text_of

REFUSED = "Der angeforderte Vorgang erfordert erhöhte Rechte.\r\n"
TEXTS = (
    REFUSED, "Access is denied.\r\n", "no end of line", "x", "Zugriff \u2013 \u201everweigert\u201c\r\n", "アクセスが拒否されました。\r\n",
    "一\r\n", "請求的作業需要提升權限\uff0c請以系統管理員身分執行。一一\r\n第二行\r\n", "Отказано в доступе.\r\n" * 40,
    "1 program, 😀\r\n", "",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_mark_says_which_it_is(text: str) -> None:
    for mark, coding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        assert text_of(mark + text.encode(coding), "cp850") == text


@pytest.mark.parametrize("text", TEXTS)
def test_without_a_mark_it_is_told_by_its_zeros(text: str) -> None:
    assert text_of(text.encode("utf-16-le"), "cp850") == text
    assert text_of(text.encode("utf-8"), "cp850") == text


def test_what_is_neither_is_of_the_code_page() -> None:
    assert text_of(REFUSED.encode("cp850"), "cp850") == REFUSED
    assert text_of(REFUSED.encode("cp1252"), "cp1252") == REFUSED


@pytest.mark.parametrize("before", ["Installing:\n", "Installing: \n", "ü\n"])
def test_one_program_after_the_other(before: str) -> None:
    """A script writes bytes, and what it starts writes UTF-16."""
    said = before.encode() + "Access is denied.\r\n".encode("utf-16-le") + b"exit 5\r\n"
    assert text_of(said, "cp850") == f"{before}Access is denied.\r\nexit 5\r\n"


def test_what_was_cut_in_the_midst_of_a_letter_is_read_all_the_same() -> None:
    said = "Access is denied.\r\n".encode("utf-16-le")
    assert text_of(said[:-1], "cp850") == "Access is denied.\r"
    assert text_of(said[1:], "cp850") == "\N{REPLACEMENT CHARACTER}ccess is denied.\r\n"


@given(st.binary(max_size=200))
def test_no_bytes_fail_and_no_zero_goes_on(data: bytes) -> None:
    assert "\0" not in text_of(data, "cp850")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x17F), max_size=80))
def test_whatever_is_written_in_latin_letters_comes_back(text: str) -> None:
    assert text_of(f"{text}\r\n".encode("utf-16-le"), "cp850") == f"{text}\r\n"
