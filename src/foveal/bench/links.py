"""Links that lose datagrams, and what each codec sends over them and shows of what arrives.

| sender    | what it sends                                             | what shows it                            |
|-----------|-----------------------------------------------------------|------------------------------------------|
| foveal    | `foveal.pack` of a file cut for the MTU, 30 % parity      | `foveal.unpack`, lost patches concealed  |
| jpeg-prog | progressive JPEG, 4:2:0, optimised tables                 | Pillow, truncated files allowed          |
| jpeg-rst  | baseline JPEG, 4:2:0, a restart marker after every row    | Pillow, truncated files allowed          |
| webp      | lossy WebP, method 6                                      | Pillow, truncated files allowed          |
| avif      | libaom at speed 4, 4:2:0                                  | Pillow, truncated files allowed          |
| avif-rs   | the same in fewer bytes, and 30 % Reed-Solomon parity     | the same, all of it if enough arrives    |

Foveal's datagrams count with their headers. The others' have none to pay for: their receiver is told which bytes are
missing. It tries the file with those bytes zero and the file cut before the first of them, and keeps the better
picture, by PSNR, as no real receiver could. All this errs in their favour.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

import foveal
from foveal.bench.metrics import psnr_db
from foveal.bench.rivals import Spec, build, extra
from foveal.errors import FovealError, InputError

__all__ = ["CHANNELS", "GREY", "SENDERS", "Cut", "Sent", "losses", "rebuild", "receive", "send", "with_parity"]

Pixels = NDArray[np.uint8]
Show = Callable[[Sequence[bytes | None]], Pixels | None]

BURST = 4  # datagrams that a Gilbert-Elliott link loses at a time, on average
PARITY = 0.3  # parity datagrams per datagram of the file
GREY = 128  # what counts as shown when nothing can be
CHANNELS = ("bernoulli", "gilbert-elliott")


@dataclass(frozen=True)
class Cut:
    """How files become datagrams: bytes of one at most; and of Foveal's, how many times the base layer is sent, and
    how many datagrams of parity for each packet."""

    mtu: int = 1200
    copies: float = 2.25
    parity: float = 0.3


@dataclass(frozen=True)
class Sent:
    """One picture under way: its datagrams, and how to show what is left when some are None."""

    sender: str
    setting: float
    datagrams: tuple[bytes, ...]
    show: Show

    @property
    def bytes(self) -> int:
        return sum(map(len, self.datagrams))


def losses(channel: str, rate: float, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(count,) bool, True = lost. "bernoulli": each by itself. "gilbert-elliott" (Gilbert 1960): a good state loses
    nothing and a bad one everything; the bad one lasts for BURST datagrams on average and a share `rate` of the time.
    """
    draws = rng.random(count + 1)
    if channel == "bernoulli":
        return draws[1:] < rate
    leave = 1 / BURST
    enter = min(leave * rate / (1 - rate), 1.0)
    bad, lost = bool(draws[0] < rate), np.zeros(count, bool)
    for i, draw in enumerate(draws[1:]):
        lost[i] = bad
        bad = draw >= leave if bad else draw < enter
    return lost


def send(name: str, picture: Image.Image, budget: int, cut: Cut) -> Sent:
    """An RGB picture, coded by this sender so that its datagrams have `budget` bytes or a little less.

    InputError for an unknown sender, or when its smallest file is larger.
    """
    if name not in SENDERS:
        raise InputError(f"unknown sender {name!r}; choose from {', '.join(SENDERS)}")
    low, high = 1, 100
    smallest = best = SENDERS[name](picture, low, cut)
    if smallest.bytes > budget:
        raise InputError(f"{name} needs {smallest.bytes} bytes where {budget} are allowed; give more bits per pixel")
    while high - low > 1:
        middle = (low + high) // 2
        found = SENDERS[name](picture, middle, cut)
        if found.bytes <= budget:
            low, best = middle, found
        else:
            high = middle
    return best


def _foveal(picture: Image.Image, quality: int, cut: Cut) -> Sent:
    data = foveal.compress(picture, quality=quality, mtu=cut.mtu)
    messages = foveal.pack(data, mtu=cut.mtu, copies=cut.copies, parity=cut.parity)

    @lru_cache(maxsize=8)  # what arrives is often the same: everything, thanks to parity
    def decoded(file: bytes) -> Pixels:
        return np.asarray(foveal.decompress(file, on_loss="conceal").convert("RGB"))

    def show(arrived: Sequence[bytes | None]) -> Pixels | None:
        try:
            return decoded(foveal.unpack(message for message in arrived if message is not None))
        except FovealError:
            return None

    return Sent("foveal", quality, tuple(messages), show)


def _file(name: str, save: dict[str, object], picture: Image.Image, quality: int, cut: Cut) -> Sent:
    """A file that Pillow writes, cut into datagrams."""
    file = io.BytesIO()
    picture.save(file, name.split("-")[0], quality=quality, **save)
    return _cut(name, quality, file.getvalue(), picture, cut.mtu)


def _rival(name: str, picture: Image.Image, quality: int, cut: Cut) -> Sent:
    """A file of one of the benchmark's codecs, cut into datagrams."""
    return _cut(name, quality, _coded(name, picture.size, picture.tobytes(), quality), picture, cut.mtu)


def _avif_rs(picture: Image.Image, quality: int, cut: Cut) -> Sent:
    data = _coded("avif", picture.size, picture.tobytes(), quality)
    messages = with_parity(data, cut.mtu)
    needed = -(-len(data) // cut.mtu)
    whole = _opened(data, picture)

    def show(arrived: Sequence[bytes | None]) -> Pixels | None:
        # A Reed-Solomon code corrects as many erasures as it has parity symbols; `rebuild` does it, tests compare.
        if sum(message is not None for message in arrived) >= needed:
            return whole
        return _best_of(arrived[:needed], len(data), messages[0], picture)

    return Sent("avif-rs", quality, messages, show)


def with_parity(data: bytes, mtu: int) -> tuple[bytes, ...]:
    """A file's datagrams, evenly long, then PARITY as many (rounded up) of Reed-Solomon parity over GF(256)."""
    needed = -(-len(data) // mtu)
    more = math.ceil(PARITY * needed)
    if needed + more > 255:
        raise InputError(f"{needed} datagrams and {more} of parity are more than the 255 of one code; raise the MTU")
    length = -(-len(data) // needed)
    rows = np.frombuffer(data.ljust(needed * length, b"\0"), np.uint8).reshape(needed, length)
    code = extra("reedsolo", "reedsolo").RSCodec(more)
    columns = [bytes(code.encode(column.tobytes())[needed:]) for column in rows.T]
    parity = np.frombuffer(b"".join(columns), np.uint8).reshape(length, more).T
    return tuple(row.tobytes() for row in (*rows, *parity))


def rebuild(arrived: Sequence[bytes | None], needed: int) -> bytes | None:
    """The inverse of `with_parity` (with its padding), None when too few of the datagrams arrived."""
    gone = [i for i, message in enumerate(arrived) if message is None]
    if len(gone) > len(arrived) - needed:
        return None
    length = next(len(message) for message in arrived if message is not None)
    rows = np.stack([np.frombuffer(message or bytes(length), np.uint8) for message in arrived])
    code = extra("reedsolo", "reedsolo").RSCodec(len(arrived) - needed)
    columns = [bytes(code.decode(column.tobytes(), erase_pos=gone)[0]) for column in rows.T]
    return np.frombuffer(b"".join(columns), np.uint8).reshape(length, needed).T.tobytes()


@lru_cache(maxsize=16)
def _coded(name: str, size: tuple[int, int], pixels: bytes, quality: int) -> bytes:
    """A picture in one of the benchmark's codecs; kept for a while, as two senders look for their quality in turn."""
    return build(Spec(name)).compress(Image.frombytes("RGB", size, pixels), quality)


def _cut(name: str, quality: int, data: bytes, picture: Image.Image, mtu: int) -> Sent:
    messages = tuple(data[i : i + mtu] for i in range(0, len(data), mtu))
    show = partial(_best_of, size=len(data), like=messages[0], picture=picture)
    return Sent(name, quality, messages, show)


def _best_of(arrived: Sequence[bytes | None], size: int, like: bytes, picture: Image.Image) -> Pixels | None:
    """The better picture of two ways to treat missing bytes; None when neither opens."""
    filled = b"".join(bytes(len(like)) if message is None else message for message in arrived)[:size]
    first = next((i for i, message in enumerate(arrived) if message is None), len(arrived))
    cut = filled[: first * len(like)]
    tries = [filled] if first == len(arrived) else [filled, cut]
    shown = [pixels for data in tries if (pixels := _opened(data, picture)) is not None]
    return max(shown, key=lambda pixels: psnr_db(np.asarray(picture), pixels), default=None)


def _opened(data: bytes, picture: Image.Image) -> Pixels | None:
    """What Pillow makes of a file, None when it makes no picture of the right size."""
    with _truncated_images_allowed():
        try:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        except Exception:  # Pillow's decoders raise whatever they meet in a damaged file
            return None
    return pixels if pixels.shape[1::-1] == picture.size else None


@contextmanager
def _truncated_images_allowed() -> Iterator[None]:
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def receive(sent: Sent, lost: NDArray[np.bool_]) -> Pixels | None:
    """What a receiver shows, (H, W, 3), when these of the datagrams are lost; None = nothing."""
    return sent.show([None if gone else message for message, gone in zip(sent.datagrams, lost, strict=True)])


SENDERS: dict[str, Callable[[Image.Image, int, Cut], Sent]] = {
    "foveal": _foveal,
    "jpeg-prog": partial(_file, "jpeg-prog", {"progressive": True, "optimize": True}),
    "jpeg-rst": partial(_file, "jpeg-rst", {"restart_marker_rows": 1}),
    "webp": partial(_rival, "webp"),
    "avif": partial(_rival, "avif"),
    "avif-rs": _avif_rs,
}
