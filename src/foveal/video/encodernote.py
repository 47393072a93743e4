"""What x264 and x265 note of their settings in what they write: the CRF, which the restoring network does better to know.

Both put a line of text into a message at the beginning of the stream that players skip (user_data_unregistered, H.264 and
HEVC Annex D); from x265 it may stand among the headers that a container keeps apart. SVT-AV1 notes nothing.
"""

from __future__ import annotations

import re

BEGINNINGS = {"h264": b"x264 - core ", "hevc": b"x265 (build "}
LONGEST = 4096  # bytes of such a line that are looked at
WORST = 51  # the highest CRF of both

_CRF = re.compile(rb"\scrf=(\d{1,2}(?:\.\d{1,4})?)\s")


def crf_in(codec: str, *places: bytes) -> float | None:
    """The CRF that the encoder of a stream says it used, 0 < CRF <= 51; None if it does not say.

    ``codec``: FFmpeg's name of the format, h264 or hevc, None for all others. ``places``: headers and first packets.
    """
    if codec not in BEGINNINGS:
        return None
    for place in places:
        at = place.find(BEGINNINGS[codec])
        found = _CRF.search(place[at : at + LONGEST]) if at >= 0 else None
        if found and 0 < float(found[1]) <= WORST:
            return float(found[1])
    return None
