"""Text subtitles from one container's form to another's: SubRip, MP4's timed text, ASS, WebVTT.

Only the text goes on, without styles; its time belongs to the packet. Bitmap subtitles cannot be changed so.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

TEXT_FORMATS = {"subrip", "mov_text", "ass", "ssa", "webvtt", "text"}
ACCEPTED = {
    "mp4": ("mov_text",),
    "mov": ("mov_text",),
    "matroska": ("subrip", "ass", "ssa", "webvtt", "text"),
    "webm": ("webvtt",),
}  # by FFmpeg's name of the container; the first is what others become
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""  # what FFmpeg's encoders of text subtitles are opened with
_ASS_CODE = re.compile(r"\{\\[^}]*\}")
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")

Change = Callable[[bytes], bytes | None]


def converter(old: str, new: str) -> Change:
    """A function from the payload of a packet in form ``old`` to one in form ``new``; None for a packet without text."""

    def change(payload: bytes) -> bytes | None:
        text = text_of(payload, old).strip()
        return payload_of(text, new) if text else None

    return change


def text_of(payload: bytes, form: str) -> str:
    """The text of one subtitle; MP4's is 16 bits of length, then UTF-8 or marked UTF-16 (3GPP TS 26.245, 5.17)."""
    if form == "mov_text":
        length = struct.unpack(">H", payload[:2].ljust(2, b"\0"))[0]
        raw = payload[2 : 2 + length]
        coding = "utf-16" if raw[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8"
        return raw.decode(coding, "replace").replace("\r", "\n")
    text = payload.decode("utf-8", "replace")
    if form in ("ass", "ssa"):  # ReadOrder, Layer, Style, Name, three margins, Effect, Text
        text = text.split(",", 8)[-1].replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    return _ASS_CODE.sub("", text).replace("\r\n", "\n")


def payload_of(text: str, form: str) -> bytes:
    """The packet of one subtitle, the inverse of ``text_of``."""
    if form == "mov_text":
        raw = _TAG.sub("", text).encode("utf-8")[:65535]
        return struct.pack(">H", len(raw)) + raw
    return text.encode("utf-8")
