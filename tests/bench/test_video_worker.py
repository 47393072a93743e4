"""The process that restores and keeps the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.bench import video_media as media
from foveal.bench.video_plan import Job
from foveal.bench.video_worker import VideoWorker, reused
from foveal.errors import FovealError


def test_a_job_is_done_in_another_process_and_timed(clip, tmp_path: Path) -> None:
    made, small, shown = clip(), tmp_path / "small.mkv", tmp_path / "shown.y4m"
    media.ffmpeg("-i", made.path, "-vf", "scale=32:24", "-c:v", "ffv1", small)
    with VideoWorker(1, bound=True) as worker:
        answer = worker.show("lanczos", Job("a", "x264", 30, "half"), small, shown, made, {"scale": 2}, 1)
        assert media.read_clip(shown).frames == made.frames
        assert answer["seconds"] > 0 and answer["cpu_seconds"] > 0 and 10 < answer["peak_mib"] < 4000
        assert reused(answer) is None and reused({"report": {"reused": 0.5}}) == 0.5
        with pytest.raises(FovealError, match="ffmpeg failed"):
            worker.call("lanczos", source=tmp_path / "none.mkv", out=shown, clip=made.path)
        with pytest.raises(FovealError, match="no_such_call"):
            worker.call("no_such_call")
        assert worker.call("lanczos", source=small, out=shown, clip=made.path)["report"] is None
