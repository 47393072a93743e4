"""The sender's side: a video made small, coded by a real codec, with all that goes with it, and the side information.

Pictures pass one at a time, so memory does not grow with the length. The finished file takes its place at the end, with
its side information in it; an error or Ctrl-C before that leaves nothing behind.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foveal.errors import CorruptError, FovealWarning, InputError, UnknownModelError, UnsupportedVideoError
from foveal.video import copying, lastlayer, scout, sidecar
from foveal.video.attention_sr import MODES, SIZES, fingerprint, load_weights, modes_of
from foveal.video.basecodec import EncoderSettings, frame_count
from foveal.video.blend import VALUE_OF_A_BIT, SideWriter, best, bits_per_frame
from foveal.video.choice import Choice, Coded, Receiver, Show, choose, name, shrink, small_size
from foveal.video.frames import Reader
from foveal.video.mux import Writer
from foveal.video.restorer import Parts, Restorer, mode_of, weights_id
from foveal.video.sampling import at_bits
from foveal.video.sidecode import Facts
from foveal.video.types import GROUP, SCALES, Frame, Plane, Planes, Progress, Steps, VideoFormat

LAYER_SHARE = 0.75  # of the bits that side information may have, at most, for changes of the last layer
TRIED, TRIED_EACH = 13, 4  # of the first frames every so many show whether the network should be told the CRF


@dataclass(frozen=True)
class EncodeReport:
    """What was done. ``scale``: 1, 1.5 or 2, and ``why``, one line. ``crf``: as given to the encoder, None for a bitrate.
    ``bytes``: of the file, ``side_bytes`` of them side information. ``seconds``: that it took. ``gain_db``: luma PSNR that
    the network brings over plain resampling, None without side information."""

    scale: float
    why: str
    codec: str
    crf: float | None
    bytes: int
    side_bytes: int
    frames: int
    seconds: float
    gain_db: float | None


def send(
    source: str | Path,
    out: str | Path,
    settings: EncoderSettings,
    *,
    scale: Literal["auto"] | float = "auto",
    target_vmaf: float | None = None,
    model: str = "s",
    side_information: bool = True,
    progress: Progress | None = None,
) -> EncodeReport:
    """Code the video ``source`` into the file ``out``, as ``foveal.video.encode`` describes it."""
    began, source, out = time.monotonic(), str(source), Path(out)
    _refuse(source, out, settings, scale, target_vmaf)
    if source == "-" and side_information:
        warnings.warn("standard input is read once: no side information", FovealWarning, stacklevel=4)
        side_information = False
    asked = side_information or scale == "auto" or target_vmaf is not None
    network = _usable(model) if asked else None
    with Reader(source) as reader:
        video = _with_siting(reader.format, settings, out)
        receiver = _receiver(video, network, side_information)
        choice = _choose(source, video, settings, scale, target_vmaf, receiver)
        told = side_information and network is not None and _usable(network, choice.scale) is not None
        count = frame_count(video)
        steps = Steps(progress, count and count * (1 + told))
        side = Side(source, choice, model, steps) if told else None
        frames = _code(reader, video, source, out, choice, steps, side)
    return EncodeReport(
        choice.scale, choice.why, settings.codec, choice.settings.used_crf, out.stat().st_size,
        side.bytes if side else 0, frames, time.monotonic() - began, side.gain_db if side else None,
    )  # fmt: skip


def _refuse(source: str, out: Path, settings: EncoderSettings, scale: object, target_vmaf: float | None) -> None:
    """InputError for what cannot be meant."""
    copying.refuse_pipe(source)
    if scale != "auto" and scale not in SCALES:
        raise InputError(f"scale {scale!r}: auto, 1, 1.5 or 2")
    if out.suffix.lower() not in copying.SUFFIXES:
        raise UnsupportedVideoError(f"{out}: encode writes {', '.join(copying.SUFFIXES)}")
    if copying.is_input(out, source):
        raise InputError(f"{out}: is the input; choose another name")
    if source == "-" and (scale == "auto" or target_vmaf is not None):
        raise InputError(
            "standard input is read once and cannot be probed: give --scale 1, 1.5 or 2, and a crf or bitrate"
        )
    if target_vmaf is not None and (settings.crf is not None or settings.bitrate is not None):
        raise InputError("crf, bitrate and target-vmaf: give one of the three")
    if target_vmaf is not None and not (isinstance(target_vmaf, Real) and 0 < target_vmaf <= 100):
        raise InputError(f"target-vmaf {target_vmaf}: a number above 0, at most 100")


def _choose(
    source: str,
    video: VideoFormat,
    settings: EncoderSettings,
    scale: Literal["auto"] | float,
    target_vmaf: float | None,
    receiver: Receiver,
) -> Choice:
    if scale != "auto" and target_vmaf is None:
        return Choice(float(scale), settings, f"{name(float(scale))}: as asked for")
    scales = SCALES if scale == "auto" else (float(scale),)
    return choose(source, video, settings, receiver, scales, target_vmaf)


def _receiver(video: VideoFormat, model: str | None, side_information: bool) -> Receiver:
    """What a receiver with ``model`` makes of the probes; None: one that resamples alone, as any does at a scale that its
    model was not trained for."""
    modes = modes_of(model) if model else []

    def receiver(scale: float, settings: EncoderSettings, coded: Coded) -> Show:
        bits = settings.bits or video.bits
        network = load_weights(model, mode_of(scale)) if model and mode_of(scale) in modes else None
        helped = side_information and network is not None
        restorer = Restorer(
            network, scale, video.width, video.height, bits, settings.quality, chroma_location=video.chroma_location
        )
        if model and helped:
            limit = LAYER_SHARE * bits_per_frame(video.width, video.height)
            pairs = ((at_bits(original, bits), small) for small, original in coded.ahead)
            told = scout.change(pairs, coded.pictures, restorer, SIZES[model].c, VALUE_OF_A_BIT / coded.bits, limit)
            restorer.adapt(lastlayer.added(told))

        def show(small: Planes, original: Planes) -> Planes:
            parts, y = _helped(restorer, small, at_bits(original, bits) if helped else None)
            return Planes(*(_rounded(p, bits) for p in (y, parts.u, parts.v)))  # nobody looks at chroma here

        return show

    return receiver


def _helped(restorer: Restorer, small: Planes, original: Planes | None) -> tuple[Parts, NDArray[np.float32]]:
    """A frame in parts and its restored luma, not rounded: with the side information that is best for this frame alone where
    the ``original`` is given, else without."""
    parts = restorer.parts(small)
    y, _, _ = parts.restored(*(best(original, parts) if original else (None, None)))
    return parts, y.numpy()


def _rounded(plane: NDArray[np.float32], bits: int) -> Plane:
    whole = np.rint(plane).clip(0, 255 if bits == 8 else 1023)
    return whole.astype(np.uint8) if bits == 8 else whole.astype(np.uint16)


def _usable(model: str, scale: float | None = None) -> str | None:
    """``model``, or None with a warning when it was not trained yet, or not for ``scale``. UnknownModelError for one that
    there never is."""
    try:
        fingerprint(model, MODES if scale is None else [mode_of(scale)])
    except UnknownModelError as fault:
        if model not in SIZES:
            raise
        warnings.warn(f"{fault}; coded for plain resampling, without side information", FovealWarning, stacklevel=5)
        return None
    return model


class Side:
    """Side information of a coded file, measured against its source and put into it. ``bytes``, ``gain_db``: of it."""

    def __init__(self, source: str, choice: Choice, model: str, steps: Steps) -> None:
        self.source, self.choice, self.model, self.steps = source, choice, model, steps
        self.bytes, self.gain_db = 0, 0.0

    def put(self, coded: Path) -> None:
        """Decode the finished file, restore it with the original at hand, and put what that tells into it."""
        scale, settings, count = self.choice.scale, self.choice.settings, 0
        with Reader(self.source, quiet=True) as originals, Reader(coded) as smalls:
            size = originals.format.width, originals.format.height
            bits, place = smalls.format.bits, smalls.format.chroma_location
            crf, restorer = self._told(coded, (*size, bits, place))
            facts = Facts(
                scale, settings.codec, crf, "lanczos", self.model, weights_id(self.model, scale), *size,
                channels=SIZES[self.model].c,
            )  # fmt: skip
            video_bits = 8 * copying.coded_bytes(coded) / max(1, self.steps.done)
            writer, changes = SideWriter(facts, video_bits), self._changes(coded, facts, restorer, video_bits)
            for original, small in zip(originals, smalls, strict=False):
                if count % GROUP == 0:
                    change = next(changes, None)
                    if change is None:  # the reader ahead found fewer frames
                        break
                    restorer.adapt(writer.begin(change))
                writer.add(at_bits(original.planes, bits), restorer, small.planes)
                count += 1
                self.steps.step()
        if 2 * count != self.steps.done:
            coded_frames = self.steps.done - count
            raise CorruptError(
                f"{self.source}: {coded_frames} frames were coded, {count} come back; try --no-side-info"
            )
        data = writer.finish()
        sidecar.put(coded, data)
        self.bytes, self.gain_db = len(data), writer.gain_db

    def _changes(self, coded: Path, facts: Facts, restorer: Restorer, video_bits: float) -> Iterator[list[int]]:
        """The change of the last layer in each group, found by reading both files a group ahead."""
        limit = LAYER_SHARE * bits_per_frame(facts.width, facts.height)
        with Reader(self.source, quiet=True) as originals, Reader(coded) as smalls:
            pairs = ((at_bits(x.planes, restorer.bits), y.planes) for x, y in zip(originals, smalls, strict=False))
            yield from scout.changes(pairs, restorer.alike(), facts.channels, VALUE_OF_A_BIT / video_bits, limit)

    def _told(self, coded: Path, picture: tuple[int, int, int, int]) -> tuple[float | None, Restorer]:
        """The CRF for the receiver to know, and a restorer that knows as much: the true one, or None where the network does
        better on the first frames when it is not told. ``picture``: width, height, bits, place of the chroma."""
        settings, (width, height, bits, place) = self.choice.settings, picture
        known = {
            crf: Restorer.for_model(self.model, self.choice.scale, width, height, bits, quality, place)
            for crf, quality in ((settings.used_crf, settings.quality), (None, None))
        }
        if len(known) == 1:  # coded for a bitrate: there is no CRF
            return None, known[None]
        left = dict.fromkeys(known, 0.0)
        with Reader(self.source, quiet=True) as originals, Reader(coded) as smalls:
            for original, small in itertools.islice(zip(originals, smalls, strict=False), 0, TRIED, TRIED_EACH):
                planes = at_bits(original.planes, bits)
                for crf, restorer in known.items():
                    _, y = _helped(restorer, small.planes, planes)
                    left[crf] += float(np.square(y - planes.y, dtype=np.float64).sum())
        crf = min(left, key=left.__getitem__)  # if equal, the true one
        known[crf].restart()
        return crf, known[crf]


def _with_siting(video: VideoFormat, settings: EncoderSettings, out: Path) -> VideoFormat:
    """The format with the chroma where the file can say that it is. Where it cannot, chroma goes down and up again as if
    it lay to the left, as players take it that are told nothing: so it does not drift, and a label is lost."""
    if settings.keeps_siting(video.chroma_location, out.suffix.lower()):
        return video
    warnings.warn(
        f"{out}: {settings.codec} in {out.suffix} does not say where chroma lies (FFmpeg's location "
        f"{video.chroma_location}); players take it to be on the left", FovealWarning, stacklevel=5,
    )  # fmt: skip
    return replace(video, chroma_location=0)


def _code(
    reader: Reader, video: VideoFormat, source: str, out: Path, choice: Choice, steps: Steps, side: Side | None
) -> int:
    """Read, shrink, write, and describe what was written; how many pictures there were."""
    count = 0
    width, height = small_size(video.width, video.height, choice.scale)
    small, finishing = replace(video, width=width, height=height), side.put if side else None
    with Writer(out, small, choice.settings, copy_from=source, finishing=finishing) as writer:
        for frame in reader:
            planes = shrink(frame.planes, choice.scale, video.chroma_location)
            writer.write(Frame(planes, frame.pts, frame.duration, frame.key))
            count += 1
            steps.step()
    return count
