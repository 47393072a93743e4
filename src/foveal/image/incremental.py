"""A file decoded while it arrives: the picture after the base layer, and a better one after every packet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal import container, registry
from foveal.errors import CorruptError, FovealError, InputError, LimitError
from foveal.header import DEFAULT_LIMITS
from foveal.image import viewing
from foveal.image.decoder import Decoding, begin, check_whole
from foveal.image.network import Network
from foveal.numerics import exact

_EDGE = 12  # bytes of a chunk around its payload


class Decoder:
    """Feed it the bytes of a .fov file as they come; it gives a picture whenever there is a better one.

        decoder = foveal.Decoder()
        for part in stream:
            if (picture := decoder.feed(part)) is not None:
                show(picture)
        picture = decoder.flush()

    The first picture is there as soon as header and base layer are, or the first part of it. What ``flush`` returns equals
    ``foveal.decompress(all bytes, on_loss=on_loss)``, which is 'conceal' or 'error' here. Bytes are kept until then. Raises
    what ``decompress`` raises.
    """

    def __init__(self, *, on_loss: str = "conceal") -> None:
        if on_loss not in ("error", "conceal"):
            raise InputError(f"on_loss {on_loss!r} is not known; use 'error' or 'conceal'")
        self.on_loss = on_loss
        self.finished = False
        self._arriving = container.Expander()
        self._data, self._at = bytearray(), len(container.SIGNATURE)  # in chunks, whatever arrives
        self._damaged = False
        self._decoding: Decoding | None = None
        self._contents: container.Contents | None = None
        self._rgb: NDArray[np.uint8] | None = None
        self._image: Image.Image | None = None

    @property
    def image(self) -> Image.Image | None:
        """The best picture so far, None before the first part of the base layer is there."""
        return self._image

    @property
    def concealed(self) -> NDArray[np.uint8] | None:
        """(h, w) uint8, 1 = a patch whose packet has not come (yet); None before the first part of the base
        layer is there."""
        return viewing.concealed(self._decoding.lost, self._decoding.grid) if self._decoding else None

    def feed(self, data: bytes) -> Image.Image | None:
        """Take more bytes; the picture when they make a better one, else None."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise InputError(f"expected bytes of a .fov file, got {type(data).__name__}")
        if self.finished and len(data) and self.on_loss == "error":
            raise CorruptError(f"{len(data)} bytes behind the end of the file; it should end there")
        if self.finished:  # what follows the end is not kept
            return None
        self._data += self._arriving.feed(bytes(data))
        if len(self._data) > DEFAULT_LIMITS.max_bytes:
            raise LimitError(f"the file is longer than {DEFAULT_LIMITS.max_bytes} bytes")
        before = self._image
        if self._contents is None and len(self._data) >= len(container.SIGNATURE) + _EDGE + 24:
            container.read_header(self._data[: len(container.SIGNATURE) + _EDGE + 24])
        while not (self._damaged or self.finished) and (chunk := self._next_chunk()):
            self._take(*chunk)
        if not self.finished:  # else it is rendered
            self._render()
        return self._image if self._image is not before else None

    def flush(self) -> Image.Image:
        """The picture of all that has come, which is taken to be all there is."""
        if not self.finished:
            self._finish()
        assert self._image is not None
        return self._image

    def _next_chunk(self) -> tuple[bytes, bytes] | None:
        """(type, whole chunk) of the next chunk if all of it is there. Damage behind the base layer is noted."""
        left = len(self._data) - self._at
        if left < _EDGE:
            return None
        start = bytes(self._data[self._at : self._at + 8])
        length, type_ = int.from_bytes(start[:4], "big"), start[4:]
        if length > DEFAULT_LIMITS.of_chunk(type_):
            self._fault(type_, LimitError(f"chunk of {length} bytes at byte {self._at} is too long"))
            return None
        if left < _EDGE + length:
            return None
        whole = bytes(self._data[self._at : self._at + _EDGE + length])
        if not container.list_chunks(container.SIGNATURE + whole)[0].crc_ok:
            self._fault(type_, CorruptError(f"chunk at byte {self._at} has a wrong checksum; get the file again"))
            return None
        self._at += len(whole)
        return type_, whole

    def _fault(self, type_: bytes, error: FovealError) -> None:
        """After damage nothing more is shown until ``flush``, which looks for what can be saved in all the bytes."""
        if self.on_loss == "error" or not (self._contents or type_ == b"iCCP"):
            raise error
        self._damaged = True

    @exact()
    def _take(self, type_: bytes, chunk: bytes) -> None:
        if type_ == b"IEND":
            self._finish()
        elif type_ == b"BASE" or (type_ in (*container.MORE, b"fILT") and self._decoding):
            self._contents = container.read(bytes(self._data[: self._at]), tolerant=True)
            if type_ == b"fILT" and self._decoding:
                if self._decoding.lost.any():
                    return  # patches whose packets are to come are not filtered: the picture stays
            else:
                self._decoding = begin(self._network(self._contents), self._contents)
            self._rgb = self._image = None
        elif not (self._decoding and self._contents):
            return
        elif type_ == b"PCKT" and self._contents.whole_base:
            if self._decoding.add(container.read_packet(chunk, self._contents.header, self._at - len(chunk))):
                self._rgb = self._image = None
        elif type_ == b"ALPH" and self._contents.header.alpha:
            self._contents, self._image = replace(self._contents, alpha=chunk[8:-4]), None

    @exact()
    def _finish(self) -> None:
        """Judge the whole file by the rules of ``container.read``, and show it with all that belongs to it."""
        contents = container.read(bytes(self._data), tolerant=self.on_loss == "conceal")
        waiting = self._at < len(self._data)  # for a chunk that is cut, or whose length is damaged and swallows others
        if self._damaged or waiting or self._decoding is None:
            self._decoding, self._rgb = begin(self._network(contents), contents), None
            for packet in contents.packets:
                self._decoding.add(packet)
        check_whole(self._decoding, self.on_loss)
        self._contents, self._image, self.finished = contents, None, True
        self._render()

    def _render(self) -> None:
        """Make the picture, if it is not made; synthesise it only when there are new symbols."""
        if self._image is None and self._decoding and self._contents:
            if self._rgb is None:
                with exact():
                    self._rgb = viewing.show(self._decoding.network, self._decoding.so_far(), self._contents)
            self._image = viewing.frame(self._rgb, self._contents)

    @staticmethod
    def _network(contents: container.Contents) -> Network:
        return Network.load(registry.name_of(contents.header.model, contents.header.weights))
