"""The hall of the video codec: a video out small, and back large.

    encode   frames -> size chosen -> shrunk -> real codec + everything else -> side information -> file
    decode   file -> side information -> frames -> restored -> real codec + everything else -> file
    restore  the same for any video, with no side information needed

The sender and the receiver are its two wings; the rooms are in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from foveal.numerics import exact
from foveal.types import VideoModelInfo
from foveal.video import attention_sr
from foveal.video.basecodec import ENCODERS, EncoderSettings
from foveal.video.receiver import RestoreReport, receive
from foveal.video.sender import EncodeReport, send
from foveal.video.types import Progress

RESULT_CRF = 14  # of what is restored, where none is given


@exact()
def encode(
    source: str | Path,
    out: str | Path,
    *,
    scale: Literal["auto"] | float = "auto",
    codec: str = "svtav1",
    crf: float | None = None,
    bitrate: int | None = None,
    target_vmaf: float | None = None,
    preset: str | int | None = None,
    bits: int | None = None,
    model: str = "s",
    side_information: bool = True,
    progress: Progress | None = None,
) -> EncodeReport:
    """Code the video ``source`` at a size that pays into ``out``, which every player of the codec plays as it is.

    ``source``: a video file, or "-" for y4m on standard input (with a ``scale`` given, and without side information).
    ``out``: .mp4, .m4v, .mov, .mkv or .webm. ``scale``: the share by which width and height are reduced, 1, 1.5 or 2, or
    "auto", decided by probe encodes. ``codec``: svtav1, x265, x264 or ffv1. One of ``crf`` (the codec's own scale; None:
    its usual value), ``bitrate`` (bits per second) and ``target_vmaf`` (0..100, of what the receiver shows; needs the
    bench extra). With scale "auto" a ``crf`` means the bits that full size takes at it. ``preset``: the encoder's own.
    ``bits``: 8 or 10, None: as the source. ``model``: size of the restoring network that the side information is for.
    ``progress(done, total)`` is called at every frame of every pass; ``total`` is None where unknown.

    Sound, subtitles, chapters, attachments, metadata, times, rotation, sample aspect and colour are kept as far as the
    container holds them; a FovealWarning names what it does not. An error leaves no ``out``.

    Raises InputError (UnsupportedVideoError for videos and encoders that are not to be had), TruncatedError and
    CorruptError for damaged sources, LimitError for pictures above the limits, MissingExtraError without PyAV.
    """
    settings = EncoderSettings(codec, crf, bitrate, preset, bits)
    return send(
        source, out, settings, scale=scale, target_vmaf=target_vmaf, model=model,
        side_information=side_information, progress=progress,
    )  # fmt: skip


@exact()
def decode(
    source: str | Path,
    out: str | Path,
    *,
    codec: str = "x264",
    crf: float | None = None,
    scale: float | None = None,
    model: str | None = None,
    resume: bool = False,
    on_loss: str = "error",
    progress: Progress | None = None,
) -> RestoreReport:
    """Restore what ``encode`` made, at the size it had: by the side information in the file, or without it plainly.

    ``out``: .mp4, .m4v, .mov, .mkv or (svtav1) .webm coded with ``codec`` and ``crf`` (None: 14; ffv1 has none); .y4m or "-"
    uncompressed. ``scale``: None: as the side information says, else 2. ``model``: None: as the side information says, else
    "s". ``resume``: go on where an interrupted run stopped. ``on_loss``: 'error' refuses a file that is cut off or whose
    decoder fails on the way (what a decoder conceals by itself is a warning), 'conceal' restores what can be decoded of it,
    from the first damage on without side information, with warnings that say so. ``progress(done, total)`` is called at
    every frame written; ``total`` is None where unknown. KeyboardInterrupt after Ctrl-C, with what is done kept for
    ``resume``. Raises as ``encode`` does, and UnknownModelError for a model that is not in this installation.
    """
    settings = _result_settings(codec, crf)
    return receive(source, out, settings, scale=scale, model=model, resume=resume, on_loss=on_loss, progress=progress)


@exact()
def restore(
    source: str | Path,
    out: str | Path,
    *,
    scale: float = 2,
    model: str | None = None,
    codec: str = "x264",
    crf: float | None = None,
    resume: bool = False,
    use_side: bool = True,
    on_loss: str = "error",
    progress: Progress | None = None,
) -> RestoreReport:
    """Enlarge any video by ``scale`` (2 or 1.5) and repair what its codec took, or with 1 only repair it.

    Side information that suits the scale (and the ``model``, if one is given) is used where there is some, unless
    ``use_side`` is False. The rest is as in ``decode``.
    """
    settings = _result_settings(codec, crf)
    return receive(
        source, out, settings, scale=scale, model=model, resume=resume, use_side=use_side, on_loss=on_loss,
        progress=progress,
    )  # fmt: skip


def _result_settings(codec: str, crf: float | None) -> EncoderSettings:
    lossless = isinstance(codec, str) and codec in ENCODERS and ENCODERS[codec].crf is None
    return EncoderSettings(codec, RESULT_CRF if crf is None and not lossless else crf)


@exact()
def models() -> list[VideoModelInfo]:
    """The networks that restore video in this installation, one for each size and mode. Needs no PyAV.
    UnknownModelError for weights that cannot be loaded."""
    found = []
    for name in attention_sr.trained():
        for mode in attention_sr.modes_of(name) or attention_sr.MODES:
            network, digest = attention_sr.load_weights(name, mode), attention_sr.fingerprint(name, [mode])[:8].hex()
            found.append(VideoModelInfo(name, mode, digest, network.parameters_count, network.kmac_per_pixel))
    return found
