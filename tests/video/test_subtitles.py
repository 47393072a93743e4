"""Text subtitles from one form to another."""

from __future__ import annotations

import pytest

from foveal.video.subtitles import converter, payload_of, text_of


@pytest.mark.parametrize(
    ("payload", "form", "text"),
    [
        (b"one\r\ntwo", "subrip", "one\ntwo"),
        (b"{\\an8}<i>up</i>", "subrip", "<i>up</i>"),
        (b"\0\5hello\0\0\0\x0cstyl....", "mov_text", "hello"),
        (b"\0\x06\xfe\xff\0h\0i", "mov_text", "hi"),
        (b"3,0,Default,,0,0,0,,{\\b1}a, b{\\b0}\\Nc\\hd", "ass", "a, b\nc d"),
        ("grüß".encode(), "webvtt", "grüß"),
        (b"", "mov_text", ""),
        (b"\xff\xfe", "subrip", "��"),
    ],
)
def test_text_is_found(payload: bytes, form: str, text: str) -> None:
    assert text_of(payload, form) == text


def test_timed_text_is_there_and_back() -> None:
    assert payload_of("<i>grüß</i>", "mov_text") == b"\0\6gr\xc3\xbc\xc3\x9f"
    assert text_of(payload_of("a\nb", "mov_text"), "mov_text") == "a\nb"
    assert len(payload_of("x" * 70000, "mov_text")) == 65537


def test_gaps_become_nothing() -> None:
    assert converter("mov_text", "subrip")(b"\0\0") is None
    assert converter("ass", "mov_text")(b"0,0,Default,,0,0,0,,{\\p1}") is None
    assert converter("mov_text", "subrip")(b"\0\3abc") == b"abc"
