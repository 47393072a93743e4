"""The receiver's side: a video restored by the network, with the side information where there is some.

Pictures pass one at a time. What is written is `<out>.part-000<suffix>` until it is whole; Ctrl-C ends it so that it
plays, and a run that resumes goes on behind it in `part-001` and joins the parts at the end (y4m has no parts: Ctrl-C
leaves nothing). What a resumed run shows is what an uninterrupted one shows: the restorer forgets every 64 frames what
was before, and a resumed run begins at such a frame.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from foveal.errors import CorruptError, FormatError, FovealWarning, InputError, LimitError, UnknownModelError
from foveal.video import copying, encodernote, lastlayer, sidecar
from foveal.video.attention_sr import SIZES
from foveal.video.basecodec import ENCODERS, EncoderSettings, frame_count
from foveal.video.frames import CONCEAL, Reader
from foveal.video.moments import Moments
from foveal.video.mux import Writer
from foveal.video.output import Output
from foveal.video.restorer import Parts, Restorer, mode_of, weights_id
from foveal.video.sidecode import SideReader, check_of
from foveal.video.types import GROUP, Frame, Progress, Steps, VideoFormat


@dataclass(frozen=True)
class RestoreReport:
    """What was done. ``frames``: in the output. ``reused``: share of the blocks whose result was taken from the frame
    before, 0..1. ``side_information``: whether it was used to the end. ``why``: one line on scale, model and side
    information. ``seconds``: that it took."""

    frames: int
    reused: float
    side_information: bool
    why: str
    seconds: float


@dataclass
class Plan:
    """How a video is restored. ``side``: None without side information, and then ``reason`` says why. ``crf``: what the
    video's encoder says of itself, which is used where there is no side information."""

    scale: float
    model: str
    side: SideReader | None
    reason: str = ""
    crf: float | None = None

    @property
    def why(self) -> str:
        """One line about it."""
        told = "side information used" if self.side else self.reason
        known = f"; coded at crf {self.crf:g}, as its encoder notes" if self.crf and not self.side else ""
        return f"x{self.scale:g}, model {self.model}; {told}{known}"

    def quality(self) -> float | None:
        """CRF of the coded video as a share of its range: what side information says, or the video where there is none."""
        facts = self.side.facts if self.side else None
        if facts is None and self.crf is not None:
            return self.crf / encodernote.WORST
        if facts is None or facts.crf is None or facts.codec not in ENCODERS or not ENCODERS[facts.codec].worst:
            return None
        return min(facts.crf / ENCODERS[facts.codec].worst, 1.0)

    def size(self, video: VideoFormat) -> tuple[int, int]:
        """Width and height of the output: what side information says, else scale times the input's."""
        if self.side:
            return self.side.facts.width, self.side.facts.height
        return round(video.width * self.scale), round(video.height * self.scale)


def receive(
    source: str | Path,
    out: str | Path,
    settings: EncoderSettings,
    *,
    scale: float | None = None,
    model: str | None = None,
    resume: bool = False,
    use_side: bool = True,
    on_loss: str = "error",
    progress: Progress | None = None,
) -> RestoreReport:
    """Restore the video ``source`` into ``out``, as ``foveal.video.decode`` and ``restore`` describe it.

    KeyboardInterrupt after Ctrl-C, when the part that is done plays and waits for ``resume``; of y4m nothing is left.
    InputError for a scale that there is none.
    """
    if on_loss not in ("error", "conceal"):
        raise InputError(f"on_loss {on_loss!r} is not known; use 'error' or 'conceal'")
    if scale is not None:
        mode_of(scale)  # refuses others
    began, source = time.monotonic(), str(source)
    copying.refuse_pipe(source)
    parts = Output(out, source, resume)
    with Reader(source, tolerant=on_loss == "conceal") as reader:
        plan = choose(source, reader.format, scale, model, use_side)
        run = Run(reader, plan, parts, settings, progress)
        with interruptible() as interrupted:
            run.go(interrupted)
    return RestoreReport(run.steps.done, run.reused, plan.side is not None, plan.why, time.monotonic() - began)


# --- side information ---


def choose(source: str, video: VideoFormat, scale: float | None, model: str | None, use_side: bool) -> Plan:
    """Scale and model, and the side information if it is whole and about this file, this scale and this model.

    A FovealWarning when it is damaged or does not fit, and when it is missing although no ``scale`` was asked for.
    """
    fallback = Plan(2.0 if scale is None else scale, "s" if model is None else model, None, crf=video.crf)
    if not use_side:
        return replace(fallback, reason="side information left aside")
    if copying.is_y4m(source):
        return replace(fallback, reason="y4m has no side information")
    found = sidecar.find(source)
    if found.data is None:
        if scale is None:
            _warn(source, found.reason)
        return replace(fallback, reason=found.reason)
    try:
        side = SideReader(found.data)
    except (FormatError, LimitError) as fault:
        _warn(source, str(fault))
        return replace(fallback, reason=str(fault))
    if reason := unfit(side, video, scale, model):
        _warn(source, reason)
        return replace(fallback, scale=side.facts.scale if scale is None else scale, reason=reason)
    return Plan(side.facts.scale, side.facts.model, side, crf=video.crf)


def unfit(side: SideReader, video: VideoFormat, scale: float | None, model: str | None) -> str:
    """Why side information is not for this video at this scale with this model; "" if it is."""
    facts = side.facts
    if scale is not None and facts.scale != scale:
        return f"side information is for scale {facts.scale:g}, not for {scale:g}"
    if model is not None and facts.model != model:
        return f"side information is for model {facts.model}, not for {model}"
    try:
        installed = weights_id(facts.model, facts.scale)
    except UnknownModelError:
        return (
            f"side information is for model {facts.model}, which is not in this installation for scale {facts.scale:g}"
        )
    if facts.weights != installed:
        return f"side information is for other weights of model {facts.model} than this installation has"
    for size, small in ((facts.width, video.width), (facts.height, video.height)):
        if not size <= small * facts.scale < size + 2 * facts.scale + 2:
            size_in = f"{video.width}x{video.height}"
            return f"side information is for {facts.width}x{facts.height}, which {size_in} does not become"
    if facts.channels not in (0, SIZES[facts.model].c):
        return f"side information is for {facts.channels} channels, model {facts.model} has {SIZES[facts.model].c}"
    if video.frames is not None and video.frames != facts.frames:
        return f"side information is for {facts.frames} frames, the file has {video.frames}"
    return ""


def _warn(source: str, reason: str) -> None:
    warnings.warn(f"{source}: {reason}; restored without", FovealWarning, stacklevel=5)


# --- frames ---


class Run:
    """One video on its way. ``steps``: counts the frames that are written, in all parts."""

    def __init__(
        self, reader: Reader, plan: Plan, parts: Output, settings: EncoderSettings, progress: Progress | None
    ) -> None:
        self.reader, self.plan, self.parts, self.settings = reader, plan, parts, settings
        self.steps = Steps(progress, frame_count(reader.format))
        self.reused = 0.0
        self.adapted = False  # whether the network is changed as side information tells
        self.moments: Moments[Parts, tuple[int, Frame]] = Moments()
        self.writer: Writer | None = None

    def go(self, interrupted: threading.Event) -> None:
        """Restore all frames, or until interrupted: then KeyboardInterrupt, with the parts kept."""
        self.steps.done = behind = self.parts.frames()
        seen = 0
        try:
            for number, frame in enumerate(self.reader):
                if number == 0:
                    restorer, video = self._begin(frame)
                seen += 1
                if interrupted.is_set() and number < behind:
                    break
                if number < behind - behind % GROUP:
                    continue
                for shown in self._restored(restorer, number, frame):
                    self._write(shown, video, behind)
                self.reused = restorer.reused
                if interrupted.is_set():
                    break
            else:
                for shown in self._ended():
                    self._write(shown, video, behind)
                self._count(seen)
            dropped = interrupted.is_set() and self.parts.whole
            if self.writer and dropped:
                self.writer.abort()
            elif self.writer:
                self.writer.close()
        except BaseException:
            if self.writer:
                self.writer.abort()
            raise
        if seen < behind and not interrupted.is_set():
            raise InputError(f"the parts hold {behind} frames, the input has {seen}; they are not of the same video")
        if dropped:
            raise KeyboardInterrupt(f"{self.steps.done} frames were done; y4m cannot be resumed, nothing of it is kept")
        if interrupted.is_set():
            raise KeyboardInterrupt(f"{self.steps.done} frames are done; resume goes on behind them")
        self.parts.join()

    def _count(self, seen: int) -> None:
        """Whether there were as many frames as side information tells: decoders drop some without a word."""
        if self.plan.side and seen < self.plan.side.facts.frames:
            told = f"{seen} of its {self.plan.side.facts.frames} frames can be decoded"
            if not self.reader.tolerant:
                raise CorruptError(f"{self.parts.source}: {told}; {CONCEAL}")
            self._drop(told)

    def _begin(self, first: Frame) -> tuple[Restorer, VideoFormat]:
        """The restorer and the format of the output, once the first frame tells whether side information is for it."""
        plan, video = self.plan, self.reader.format
        if plan.side and plan.side.facts.check != check_of(first.planes):
            self._drop("side information is of another clip, or this one was coded anew")
        width, height = plan.size(video)
        found = replace(video, width=width, height=height)
        self.parts.check(found, self.settings)
        self.parts.begins = first.pts * video.time_base
        place = video.chroma_location
        return Restorer.for_model(plan.model, plan.scale, width, height, video.bits, plan.quality(), place), found

    def _restored(self, restorer: Restorer, number: int, frame: Frame) -> list[tuple[int, Frame]]:
        """The frames that can be shown now, with their numbers: this one, or with side information those of a bit before."""
        ended, side = list[tuple[int, Frame]](), self.plan.side
        if side and (number >= side.facts.frames or self.reader.damaged):
            ended = self._ended()
            self._drop(f"the video is damaged near frame {number}" if self.reader.damaged
                       else f"side information ends at frame {number}")  # fmt: skip
        elif side and number % GROUP == 0:
            self._adapt(restorer, side, number)
        if self.plan.side is None:
            ended += self._ended()
            if self.adapted:
                restorer.adapt(None)
                self.adapted = False
            return [*ended, (number, replace(frame, planes=restorer.restore(frame.planes)))]
        return self._filtered(self.moments.push(restorer.parts(frame.planes), (number, frame)))

    def _ended(self) -> list[tuple[int, Frame]]:
        """The frames that still wait for others."""
        return self._filtered(self.moments.end())

    def _filtered(self, waiting: list[tuple[Parts, tuple[int, Frame]]]) -> list[tuple[int, Frame]]:
        out = []
        for parts, (number, frame) in waiting:
            taps, blend = self._told(number)
            out.append((number, replace(frame, planes=parts.rounded(taps, blend))))
        return out

    def _adapt(self, restorer: Restorer, side: SideReader, number: int) -> None:
        """At the head of a group: the network with the change that is told of it."""
        try:
            change = side.change(number)
        except FormatError as fault:
            self._drop(f"{fault} (frame {number})")
            return
        restorer.adapt(lastlayer.added(change) if any(change) else None)
        self.adapted = True

    def _told(self, number: int) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Taps and blend of a frame; neither from the frame on at which what tells them turns out to be damaged."""
        if self.plan.side is None:
            return None, None
        try:
            blend, taps = self.plan.side.frame(number)
        except FormatError as fault:
            self._drop(f"{fault} (frame {number})")
            return None, None
        return taps, blend

    def _write(self, shown: tuple[int, Frame], video: VideoFormat, behind: int) -> None:
        """Write a frame, unless it is in the parts that are there."""
        number, frame = shown
        if number < behind:
            return
        self.writer = self.writer or self.parts.writer(video, self.settings)
        self.writer.write(frame)
        self.steps.step()

    def _drop(self, reason: str) -> None:
        warnings.warn(f"{reason}; restored without", FovealWarning, stacklevel=5)
        self.plan.side, self.plan.reason = None, reason


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that a frame is not torn; the second one interrupts at once. Only the main
    thread gets signals: in others, and where Ctrl-C is ignored, the event is never set."""
    event = threading.Event()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield event
        return

    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def first(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, first)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
