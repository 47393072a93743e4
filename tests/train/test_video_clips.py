"""Clips for training: colours, motion, and real files read."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import torch

from foveal.errors import InputError
from foveal.train import video_clips
from foveal.video.types import Planes


def write(path, width=96, height=64, frames=5):
    """A clip whose frames are brighter and brighter, losslessly coded."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane, value in zip(frame.planes, (40 * n + 16, 100, 150), strict=True):
                plane.update(np.full((plane.height, plane.line_size), value, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("colour", "code"),
    [((0, 0, 0), (16, 128, 128)), ((255, 255, 255), (235, 128, 128)), ((255, 0, 0), (63, 102, 240)),
     ((0, 0, 255), (32, 240, 118))],
)  # fmt: skip
def test_colours_are_bt709_in_limited_range(colour, code):
    planes = video_clips.to_planes(torch.tensor(colour, dtype=torch.float32)[:, None, None].expand(3, 6, 8))
    assert planes.y.shape == (6, 8) and planes.u.shape == planes.v.shape == (3, 4)
    for plane, value in zip((planes.y, planes.u, planes.v), code, strict=True):
        assert (plane == value).all()


def test_chroma_is_beside_even_columns_and_between_lines():
    x = torch.arange(16.0)[None].expand(8, 16)
    blue = torch.stack([torch.zeros_like(x), torch.zeros_like(x), 10 * x])
    u = video_clips.to_planes(blue).u[:, 1:-1].astype(float)
    step = 224 * 20 * (1 - 0.0722) / 1.8556 / 255
    np.testing.assert_allclose(u - 128, step * np.arange(1, 7)[None].repeat(4, 0), atol=0.51)


def test_moving_pictures_move_and_repeat_with_their_seed(images):
    one, same, other = (video_clips.moving(images[0], 64, 4, np.random.default_rng(s)) for s in (3, 3, 4))
    assert len(one) == 4 and one[0].y.shape == (64, 64) and one[0].y.dtype == np.uint8
    assert all((a.y == b.y).all() and (a.v == b.v).all() for a, b in zip(one, same, strict=True))
    assert (one[0].y != other[0].y).any()
    changes = [
        np.abs(clip[0].y.astype(int) - clip[-1].y).mean()
        for clip in (video_clips.moving(images[1], 64, 4, np.random.default_rng(s)) for s in range(12))
    ]
    assert min(changes) < 1 and max(changes) > 4


def test_small_photographs_are_enlarged():
    small = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    assert video_clips.moving(small, 64, 2, np.random.default_rng(0))[1].y.shape == (64, 64)


def test_clips_are_read_at_half_and_full_size_and_held_out_by_name(tmp_path, monkeypatch):
    write(tmp_path / "a.mkv")
    write(tmp_path / "bottle.mkv", 64, 48)
    (tmp_path / "notes.txt").write_text("not a clip")
    train, held = video_clips.read_clips(tmp_path, "bottle")
    assert [len(c) for c in train + held] == [5] * 4
    assert [c[0].y.shape for c in train + held] == [(32, 48), (64, 96), (24, 32), (48, 64)]
    assert train[0][0].u.shape == (16, 24) and train[1][0].u.shape == (32, 48)
    for clip in train:
        assert [int(p.y[3, 3]) for p in clip] == [16, 56, 96, 136, 176] and (clip[2].v == 150).all()
    assert [len(part) for part in video_clips.read_clips(tmp_path, "")] == [4, 0]
    monkeypatch.setattr(video_clips, "LARGEST", 64 * 48)
    assert [len(part) for part in video_clips.read_clips(tmp_path, "")] == [3, 0]


def test_folders_without_clips_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="no 8-bit 4:2:0 clip"):
            video_clips.read_clips(folder, "")


def test_a_piece_follows_the_frames_and_is_continued_by_reflection():
    values = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) % 251
    clip = [Planes(*((p + n).astype(np.uint8) for p in (values, values[:10, :15], values[:10, :15]))) for n in range(4)]
    taken = video_clips.piece(clip, 16, 3, np.random.default_rng(1))
    assert [t.y.shape for t in taken] == [(16, 16)] * 3 and taken[0].u.shape == (8, 8)
    assert all((b.y == a.y + np.uint8(1)).all() for a, b in pairwise(taken))
    large = video_clips.piece(clip, 32, 6, np.random.default_rng(1))
    assert len(large) == 6 and (large[0].y[20:32, :30] == large[0].y[19:7:-1, :30]).all()
    assert (large[5].y == large[3].y).all()
