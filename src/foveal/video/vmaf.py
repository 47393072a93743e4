"""VMAF of one y4m file against another, measured by libvmaf in the ffmpeg program that imageio-ffmpeg brings."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from foveal.errors import FovealError, MissingExtraError

MODEL = "vmaf_v0.6.1"


def program() -> str:
    """The ffmpeg program. MissingExtraError when imageio-ffmpeg is not installed."""
    try:
        import imageio_ffmpeg
    except ImportError:
        raise MissingExtraError.of("imageio-ffmpeg", "bench") from None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def vmaf(reference: Path, test: Path, threads: int = 2) -> float:
    """Mean VMAF over the pictures, 0 to 100, model MODEL. Both files have the same size and number of pictures.

    Raises FovealError, with ffmpeg's last words, when it fails or has no libvmaf.
    """
    log = test.with_suffix(".json")
    measure = f"libvmaf=model=version={MODEL}:n_threads={threads}:log_fmt=json:log_path={log.name}"
    words = [program(), "-v", "error", "-nostdin", "-i", str(test.resolve()), "-i", str(reference.resolve())]
    done = subprocess.run(
        [*words, "-lavfi", f"[0:v][1:v]{measure}", "-f", "null", "-"], cwd=test.parent, capture_output=True, text=True
    )
    if done.returncode or not log.is_file():
        said = done.stderr.strip().splitlines()[-1:] or ["it does not say why"]
        raise FovealError(f"ffmpeg could not measure VMAF: {said[0]}")
    score = json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"]
    return float(score)
