"""Restoring files: side information used or left aside aloud, everything else kept, interrupted and resumed, piped."""

from __future__ import annotations

import gc
import io
import itertools
import signal
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
import video_clips as made

from foveal.errors import FovealWarning, InputError, TruncatedError, UnknownModelError
from foveal.video import attention_sr, receiver, restorer, sidecar
from foveal.video.attention_sr import SIZES, AttentionSR
from foveal.video.basecodec import EncoderSettings
from foveal.video.blend import Facts, SideWriter, Sums
from foveal.video.frames import Reader
from foveal.video.moments import Moments
from foveal.video.mux import Writer, concat
from foveal.video.receiver import RestoreReport, receive
from foveal.video.resize import resize_planes
from foveal.video.restorer import Parts, Restorer
from foveal.video.sender import send
from foveal.video.types import Planes

LOSSLESS, FAST = EncoderSettings("ffv1"), EncoderSettings("x264", crf=14, preset="ultrafast")
WIDTH, HEIGHT = 2 * made.WIDTH, 2 * made.HEIGHT - 2  # of the originals: the coded frames are a line larger than half
LONG = 21  # frames of the clips that are interrupted
pytestmark = pytest.mark.usefixtures("interruptible")


def network(mode: str) -> AttentionSR:
    torch.manual_seed(2)
    net = AttentionSR(SIZES["s"], mode)
    torch.nn.init.normal_(net.end.weight, std=0.02)
    return net.eval()


@pytest.fixture(autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights of a model "s" that changes pictures visibly."""
    folder = tmp_path_factory.mktemp("weights")
    attention_sr.save_weights(folder / "video-s.safetensors", {mode: network(mode) for mode in ("x2", "x1")}, {})
    monkeypatch.setattr(attention_sr, "WEIGHTS", folder)
    attention_sr.load_weights.cache_clear()
    yield
    attention_sr.load_weights.cache_clear()


def pictures(path: Path) -> list[Planes]:
    with Reader(path) as reader:
        return [frame.planes for frame in reader]


def times(path: Path) -> list[object]:
    with Reader(path) as reader:
        return [frame.pts * reader.format.time_base for frame in reader]


def alike(a: list[Planes], b: list[Planes]) -> bool:
    pairs = [(x, y) for p, q in zip(a, b, strict=True) for x, y in ((p.y, q.y), (p.u, q.u), (p.v, q.v))]
    return all(np.array_equal(x, y) for x, y in pairs)


def plainly(coded: Path, scale: float = 2) -> list[Planes]:
    """What a receiver shows that knows nothing but the CRF which the encoder notes."""
    with Reader(coded) as reader:
        crf, small = reader.format.crf, [frame.planes for frame in reader]
    height, width = (round(n * scale) for n in small[0].y.shape)
    run = Restorer.for_model("s", scale, width, height, small[0].bits, None if crf is None else crf / 51, 0)
    return [run.restore(planes) for planes in small]


def silently(*args: object, **named: object) -> RestoreReport:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return receive(*args, **named)  # type: ignore[arg-type]


def side_information(path: Path, **changes: object) -> tuple[Facts, bytes]:
    """Put into a coded file what its sender would tell of originals that are sharper than plain upscaling."""
    facts = Facts(2.0, "x264", 23.0, "lanczos", "s", restorer.weights_id("s", 2), WIDTH, HEIGHT)
    facts = replace(facts, **changes)  # type: ignore[arg-type]
    writer, run = SideWriter(facts), Restorer.for_model("s", 2, WIDTH, HEIGHT, 8, 23 / 51, 0)
    for small in pictures(path):
        plain = run.plain(small)
        rows = np.arange(HEIGHT)[:, None] < 64
        better = np.where(rows, Restorer.for_model("s", 2, WIDTH, HEIGHT, 8, 23 / 51, 0).restore(small).y, plain.y)
        writer.add(Planes(better.astype(np.uint8), plain.u, plain.v), run, small)
    data = writer.finish()
    sidecar.put(path, data)
    return facts, data


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return made.clip(tmp_path / "small.mkv")


def test_side_information_is_used(small: Path, tmp_path: Path) -> None:
    _, data = side_information(small)
    report = silently(small, tmp_path / "out.mkv", LOSSLESS)
    assert report.side_information and report.frames == made.COUNT and "side information used" in report.why
    found = pictures(tmp_path / "out.mkv")
    assert found[0].y.shape == (HEIGHT, WIDTH)
    reader, run = receiver.SideReader(data), Restorer.for_model("s", 2, WIDTH, HEIGHT, 8, 23 / 51, 0)
    moments, wanted = Moments[Parts, int](), []
    pushed = [moments.push(run.parts(planes), number) for number, planes in enumerate(pictures(small))]
    for parts, number in itertools.chain(*pushed, moments.end()):
        blend, taps = reader.frame(number)
        assert blend[0].max() > 0 and not blend[1].any()
        wanted.append(parts.rounded(taps, blend))
    assert alike(found, wanted)


def test_without_side_information(small: Path, tmp_path: Path) -> None:
    with pytest.warns(FovealWarning, match="no side information.*restored without"):
        report = receive(small, tmp_path / "out.mkv", LOSSLESS)
    assert not report.side_information and "no side information" in report.why
    assert alike(pictures(tmp_path / "out.mkv"), plainly(small))
    silently(small, tmp_path / "again.mkv", LOSSLESS, scale=2, model="s")
    assert alike(pictures(tmp_path / "again.mkv"), pictures(tmp_path / "out.mkv"))


@pytest.mark.parametrize("scale", [1, 1.5])
def test_other_scales(scale: float, small: Path, tmp_path: Path) -> None:
    silently(small, tmp_path / "out.mkv", LOSSLESS, scale=scale)
    found = pictures(tmp_path / "out.mkv")
    assert found[0].y.shape == (round(scale * made.HEIGHT), round(scale * made.WIDTH))
    assert alike(found, plainly(small, scale))


@pytest.mark.parametrize("scale", [0, -1, 3, float("nan"), float("inf")])
def test_scales_that_there_are_not(scale: float, small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"scale {scale:g} is not 1, 1.5 or 2"):
        receive(small, tmp_path / "out.mkv", FAST, scale=scale)
    assert [p.name for p in tmp_path.iterdir()] == ["small.mkv"]


def damaged(path: Path, data: bytes) -> None:
    sidecar.put(path, data[:40] + bytes([data[40] ^ 1]) + data[41:])


def coded_anew(path: Path, data: bytes) -> None:
    made.clip(path, options={"crf": "40"})
    sidecar.put(path, data)


@pytest.mark.parametrize(
    ("spoil", "options", "match"),
    [
        (damaged, {}, "CRC"),
        (lambda path, data: sidecar.put(path, b"FVSI\x07" + data[5:]), {}, "version 7"),
        (lambda path, data: sidecar.put(path, data[:20]), {}, "20 bytes"),
        (coded_anew, {}, "coded anew"),
        (lambda path, data: None, {"scale": 1.5}, "not for 1.5"),
        (lambda path, _: side_information(path, weights=bytes(8)), {}, "other weights"),
        (lambda path, _: side_information(path, width=400), {}, "400x94"),
    ],
)
def test_side_information_that_does_not_hold_is_left_aside_aloud(
    spoil: Callable[[Path, bytes], object], options: dict[str, float], match: str, small: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, data = side_information(small)
    with monkeypatch.context() as patch:
        patch.setattr(SideWriter, "_measured", _lenient(SideWriter._measured))
        spoil(small, data)
    with pytest.warns(FovealWarning, match=match):
        report = receive(small, tmp_path / "out.mkv", LOSSLESS, **options)  # type: ignore[arg-type]
    assert not report.side_information
    assert alike(pictures(tmp_path / "out.mkv"), plainly(small, options.get("scale", 2)))


def _lenient(measured: Callable[..., None]) -> Callable[..., None]:
    """Facts of another size than the frames': the sums are taken of what is there."""

    def run(self: SideWriter, frames: list[tuple[Parts, Planes]]) -> None:
        measured(self, frames)
        if self.facts.width != WIDTH:
            new = self.facts.blocks
            self._group = [
                Sums(np.resize(luma, (*new, luma.shape[-1])), np.resize(chroma, (*chroma.shape[:2], *new)))
                for luma, chroma in self._group
            ]

    return run


def test_side_information_of_more_or_fewer_frames(tmp_path: Path) -> None:
    """MP4 tells how many frames it has, Matroska does not."""
    for kind, match in (("mp4", "for 6 frames, the file has 8"), ("mkv", "ends at frame 6")):
        short = made.clip(tmp_path / f"short.{kind}", times=range(6))
        _, data = side_information(short)
        whole = made.clip(tmp_path / f"whole.{kind}")
        check = receiver.check_of(pictures(whole)[0])
        facts = replace(receiver.SideReader(data).facts, check=check).to_bytes()
        body = facts + data[len(facts) : -4]
        sidecar.put(whole, body + zlib.crc32(body).to_bytes(4, "big"))
        with pytest.warns(FovealWarning, match=match):
            assert not receive(whole, tmp_path / "out.mkv", LOSSLESS).side_information
        assert len(pictures(tmp_path / "out.mkv")) == made.COUNT
        assert alike(pictures(tmp_path / "out.mkv")[6:], plainly(whole)[6:]) == (kind == "mp4")


def test_it_can_be_left_aside_and_models_have_to_be_there(small: Path, tmp_path: Path) -> None:
    side_information(small)
    report = silently(small, tmp_path / "out.mkv", LOSSLESS, scale=2, use_side=False)
    assert not report.side_information and "left aside" in report.why
    with pytest.warns(FovealWarning, match="not for m"), pytest.raises(UnknownModelError, match="'m'"):
        receive(small, tmp_path / "m.mkv", LOSSLESS, model="m")
    assert not (tmp_path / "m.mkv").exists()


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_everything_else_is_kept(kind: str, tmp_path: Path) -> None:
    source, out = made.rich(tmp_path / f"in.{kind}"), tmp_path / f"out.{kind}"
    sidecar.put(source, b"anything")
    with pytest.warns(FovealWarning):
        receive(source, out, FAST)
    before, after = made.facts(source), made.facts(out)
    before["streams"] = [s for s in before["streams"] if s.get("name") != sidecar.NAME]
    assert after["size"] == (2 * made.WIDTH, 2 * made.HEIGHT)
    assert sidecar.find(out).data is None
    for what in ("times", "packets", "chapters", "rotation", "aspect", "colour", "streams"):
        assert after[what] == before[what], what


def test_ten_bits(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "libx265", bits=10)
    silently(source, tmp_path / "out.mkv", LOSSLESS, scale=2)
    found = pictures(tmp_path / "out.mkv")
    assert found[0].bits == 10 and found[0].y.max() > 600
    assert alike(found, plainly(source))


def test_what_stands_still_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "planes", lambda seed, *size: _still(*size))
    source = made.clip(tmp_path / "still.mkv")
    report = silently(source, tmp_path / "out.mkv", LOSSLESS, scale=2)
    assert report.reused > 0.5


def _still(width: int, height: int, bits: int) -> Planes:
    y = np.arange(width * height, dtype=np.uint8).reshape(height, width) // 2
    return Planes(y, y[::2, ::2].copy(), y[1::2, 1::2].copy())


@pytest.mark.parametrize("stops", [(11,), (1, 8), (LONG,)])
@pytest.mark.parametrize(("kind", "settings"), [("mkv", LOSSLESS), ("mkv", FAST), ("mp4", FAST)])
def test_interrupted_and_resumed_equals_in_one_go(
    kind: str, settings: EncoderSettings, stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.groups_of(4, monkeypatch)
    uneven = [i + i // 3 for i in range(LONG)]
    source = made.clip(tmp_path / f"in.{kind}", times=uneven, options={"crf": "30"})
    whole, out = tmp_path / f"whole.{kind}", tmp_path / f"out.{kind}"
    silently(source, whole, settings, scale=2)
    for number, stop in enumerate(stops):
        with pytest.raises(KeyboardInterrupt, match=f"{stop} frames are done"):
            receive(source, out, settings, scale=2, resume=True, progress=made.interrupt_at(stop))
        part = tmp_path / f"out.{kind}.part-{number:03d}.{kind}"
        assert len(pictures(part)) == stop - (stops[number - 1] if number else 0)  # it plays
        assert not out.exists()
        with pytest.raises(InputError, match="left of an interrupted run"):
            receive(source, out, settings, scale=2)
    seen: list[int] = []
    report = silently(source, out, settings, scale=2, resume=True, progress=lambda done, total: seen.append(done))
    assert report.frames == LONG and seen == list(range(stops[-1] + 1, LONG + 1))
    assert times(out) == times(whole)
    assert len(pictures(out)) == LONG
    if settings is LOSSLESS:
        assert alike(pictures(out), pictures(whole))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, whole.name, out.name])


def test_resumed_with_everything_else_and_side_information(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.groups_of(2, monkeypatch)
    source, out = made.rich(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    side_information(source)
    with pytest.raises(KeyboardInterrupt):
        receive(source, out, LOSSLESS, progress=made.interrupt_at(3))
    assert silently(source, out, LOSSLESS, resume=True).side_information
    silently(source, tmp_path / "whole.mkv", LOSSLESS)
    assert made.facts(out) == made.facts(tmp_path / "whole.mkv")
    assert alike(pictures(out), pictures(tmp_path / "whole.mkv"))


def test_parts_of_something_else_are_refused(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    part = made.clip(tmp_path / "out.mkv.part-000.mkv")
    with pytest.raises(InputError, match=r"is 64x48 h264, the rest would be 128x96 ffv1"):
        receive(small, out, LOSSLESS, scale=2, resume=True)
    made.clip(part, width=128, height=96, times=range(10), options={"crf": "14"})
    with pytest.raises(InputError, match="hold 10 frames, the input has 8"):
        receive(small, out, FAST, scale=2, resume=True)
    assert part.exists() and not out.exists()


def test_the_second_interrupt_does_not_wait_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    def twice(done: int, total: int | None) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        receive(small, tmp_path / "out.mkv", FAST, scale=2, progress=twice)
    assert [p.name for p in tmp_path.iterdir()] == ["small.mkv"]
    assert signal.getsignal(signal.SIGINT) is before


def test_beside_the_main_thread(small: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=receive, args=(small, tmp_path / "out.mkv", FAST), kwargs={"scale": 2})
    thread.start()
    thread.join()
    assert len(pictures(tmp_path / "out.mkv")) == made.COUNT


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "in.y4m"
    frame = bytes(64 * 48 * 3 // 2)
    source.write_bytes(b"YUV4MPEG2 W64 H48 F25:1 C420\n" + (b"FRAME\n" + frame) * 3 + b"FRAME\n" + frame[:100])
    with pytest.raises(TruncatedError):
        receive(source, tmp_path / "out.mkv", FAST, scale=2)
    assert [p.name for p in tmp_path.iterdir()] == ["in.y4m"]


def test_pipes(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk = [resize_planes(planes, 32, 24) for planes in pictures(small)]
    data = b"YUV4MPEG2 W32 H24 F30000:1001 Ip A1:1 C420jpeg\n"
    data += b"".join(b"FRAME\n" + b"".join(p.tobytes() for p in (x.y, x.u, x.v)) for x in shrunk)
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=out))
    report = silently("-", "-", FAST)
    monkeypatch.undo()
    assert report.why == "x2, model s; y4m has no side information"
    path = tmp_path / "out.y4m"
    path.write_bytes(out.getvalue())
    assert path.read_bytes().startswith(b"YUV4MPEG2 W64 H48 F30000:1001")
    assert len(pictures(path)) == made.COUNT


def test_y4m_files_have_no_parts_to_resume(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.Y4M"
    for target in ("-", out):
        with pytest.raises(InputError, match="cannot be resumed"):
            receive(small, target, FAST, resume=True)
    with pytest.raises(KeyboardInterrupt, match="3 frames were done; y4m cannot be resumed, nothing of it is kept"):
        receive(small, out, FAST, scale=2, progress=made.interrupt_at(3))
    assert [p.name for p in tmp_path.iterdir()] == ["small.mkv"]
    silently(small, out, FAST, scale=2)
    assert len(pictures(out)) == made.COUNT and alike(pictures(out), plainly(small))


@pytest.mark.parametrize("side", [False, True])
def test_pictures_are_let_go_however_long_the_video_is(side: bool, tmp_path: Path) -> None:
    """Side information waits for the two frames after; nothing waits longer."""
    source, small, held = (
        made.clip(tmp_path / "in.mkv", times=range(40)),
        tmp_path / "small.mkv",
        list[tuple[int, int]](),
    )
    send(source, small, EncoderSettings("x264", crf=20, preset="ultrafast"), scale=2, side_information=side)

    def count(done: int, total: int | None) -> None:
        kinds = [type(found) for found in gc.get_objects()]
        held.append((kinds.count(Planes), kinds.count(torch.Tensor)))

    silently(small, tmp_path / "out.mkv", FAST, scale=2, progress=count)
    assert len(held) == 40 and 0 < max(planes for planes, _ in held) < 14
    assert max(tensors for _, tensors in held[20:]) <= max(tensors for _, tensors in held[:20])


@pytest.mark.parametrize("codec", ["x264", "x265"])
@pytest.mark.parametrize("crf", [30, 29.75])
def test_a_run_is_not_resumed_at_another_crf(codec: str, crf: float, small: Path, tmp_path: Path) -> None:
    """Parts of x264 at other CRFs have other headers, and joined under those of the first they were garbled."""
    out, begun = tmp_path / "out.mkv", EncoderSettings(codec, crf=crf, preset="ultrafast")
    with pytest.raises(KeyboardInterrupt):
        receive(small, out, begun, scale=2, progress=made.interrupt_at(3))
    with pytest.raises(InputError, match=r"was coded at crf (30|29.8), the rest would be at 14; resume with --crf"):
        receive(small, out, replace(begun, crf=14), scale=2, resume=True)
    receive(small, out, begun, scale=2, resume=True)
    assert len(pictures(out)) == made.COUNT


def test_parts_of_x265_are_joined_whatever_it_notes_of_the_cpu(tmp_path: Path) -> None:
    for number, more in enumerate(("", ":asm=sse4.2")):
        with av.open(str(tmp_path / f"{number}.mkv"), "w") as out:
            stream = out.add_stream("libx265", rate=25, width=64, height=48, pix_fmt="yuv420p")
            stream.options = {"x265-params": f"log-level=none{more}", "preset": "ultrafast"}
            for n in range(3):
                out.mux(stream.encode(made.picture(made.planes(n), n + 40 * number, Fraction(1, 25))))
            out.mux(stream.encode(None))
    concat([tmp_path / "0.mkv", tmp_path / "1.mkv"], tmp_path / "out.mkv")
    shown = pictures(tmp_path / "0.mkv") + pictures(tmp_path / "1.mkv")
    assert alike(pictures(tmp_path / "out.mkv"), shown)


def test_parts_of_other_headers_are_not_joined(tmp_path: Path) -> None:
    for number, crf in enumerate((14, 40)):
        with Writer(tmp_path / f"{number}.mkv", made.video_format(), EncoderSettings("x264", crf=crf)) as out:
            for frame in made.frames(3):
                out.write(replace(frame, pts=frame.pts + number * 10**5))
    with pytest.raises(InputError, match="coded with other settings than the part before"):
        concat([tmp_path / "0.mkv", tmp_path / "1.mkv"], tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


def test_the_input_is_not_overwritten(small: Path) -> None:
    before = small.read_bytes()
    with pytest.raises(InputError, match="cannot read"):  # and one that is not there is told of, output or not
        receive(small.with_name("missing.mkv"), small, FAST)
    with pytest.raises(InputError, match="is the input"):
        receive(small, small, FAST)
    assert small.read_bytes() == before


def test_progress_knows_the_total_of_a_file_that_says_it(tmp_path: Path) -> None:
    source, told = made.clip(tmp_path / "in.mp4"), []
    silently(source, tmp_path / "out.mp4", FAST, scale=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(n + 1, made.COUNT) for n in range(made.COUNT)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == made.COUNT
