"""VVC intra pictures with libvvenc, through the ffmpeg program of imageio-ffmpeg.

A file is width and height (u16 big-endian each), then the raw VVC stream of one 4:2:0 10-bit frame, padded to
even sides. Colour is converted here rather than in ffmpeg, so that nothing is lost beyond the halved chroma
(about 49 dB by itself): BT.601 full range, chroma halved and doubled with a Lanczos kernel.
The times include starting the program twice; a few hundredths of a second each.
"""

from __future__ import annotations

import struct
import subprocess

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.errors import FovealError, MissingExtraError

__all__ = ["OPTIONS", "compress", "decompress", "version"]

OPTIONS = "libvvenc preset slow, qpa 0, 4:2:0 10 bit"

YCC_FROM_RGB = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
RGB_FROM_YCC = np.linalg.inv(YCC_FROM_RGB)
RAW = ["-f", "rawvideo", "-pix_fmt", "yuv420p10le"]

Pixels = NDArray[np.uint8]
Planes = list[NDArray[np.float32]]  # Y (H, W) in [0, 255]; Cb, Cr (H/2, W/2) in [-128, 127]


def version(program: str) -> str:
    """The program's version. Raises MissingExtraError when it was built without libvvenc."""
    if b"libvvenc" not in _call([program, "-hide_banner", "-encoders"], b""):
        raise MissingExtraError(
            "this ffmpeg is built without libvvenc; in Foveal's source folder: pip install -U '.[bench]'"
        )
    return "ffmpeg " + _call([program, "-version"], b"").split()[2].decode()


def compress(program: str, rgb: Pixels, qp: int, threads: int) -> bytes:
    """(H, W, 3) uint8 -> file. `qp` 0..63, larger is coarser."""
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    size = f"{padded.shape[1]}x{padded.shape[0]}"
    source = [*RAW, "-s", size, "-r", "1", "-i", "-", "-frames:v", "1"]
    coder = ["-c:v", "libvvenc", "-preset", "slow", "-qp", str(qp), "-qpa", "0", "-threads", str(threads)]
    stream = _call([program, "-v", "error", *source, *coder, "-f", "vvc", "-"], _pack(_split(padded)))
    return struct.pack(">HH", width, height) + stream


def decompress(program: str, data: bytes, threads: int) -> Pixels:
    """File -> (H, W, 3) uint8."""
    width, height = struct.unpack(">HH", data[:4])
    call = [program, "-v", "error", "-threads", str(threads), "-f", "vvc", "-i", "-", *RAW, "-"]
    planes = _unpack(_call(call, data[4:]), width + width % 2, height + height % 2)
    return _join(planes)[:height, :width]


def _split(rgb: Pixels) -> Planes:
    luma, *chroma = np.moveaxis(rgb.astype(np.float64) @ YCC_FROM_RGB.T, 2, 0)
    return [
        luma.astype(np.float32),
        *(_resize(plane, plane.shape[0] // 2, plane.shape[1] // 2) for plane in chroma),
    ]


def _join(planes: Planes) -> Pixels:
    height, width = planes[0].shape
    full = np.stack([planes[0], *(_resize(plane, height, width) for plane in planes[1:])], axis=2)
    rgb: Pixels = np.clip(np.rint(full @ RGB_FROM_YCC.T), 0, 255).astype(np.uint8)
    return rgb


def _resize(plane: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    picture = Image.fromarray(plane.astype(np.float32))  # mode F
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def _pack(planes: Planes) -> bytes:
    """Planes -> little-endian 10-bit samples."""
    samples = [4 * planes[0], 4 * planes[1] + 512, 4 * planes[2] + 512]
    return b"".join(np.clip(np.rint(plane), 0, 1023).astype("<u2").tobytes() for plane in samples)


def _unpack(data: bytes, width: int, height: int) -> Planes:
    samples = np.frombuffer(data, "<u2").astype(np.float32)
    luma, chroma = np.split(samples, [height * width])
    cb, cr = chroma.reshape(2, height // 2, width // 2) / 4 - 128
    return [luma.reshape(height, width) / 4, cb, cr]


def _call(command: list[str], data: bytes) -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise FovealError(
            f"ffmpeg stopped with status {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}"
        )
    return done.stdout
