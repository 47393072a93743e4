"""The class map of a picture <-> the CLAS payload of its file. Part of the hall, and free of torch.

A picture of class 1 everywhere has no payload, and says so by ``header.classes == 1``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveal import container
from foveal.errors import CorruptError
from foveal.image import importance, packets, patches, rangecoder


def class_count(classes: NDArray[np.uint8]) -> int:
    """Classes in use as HEAD states them: 1 (class 1 everywhere), 2 (0 and 1) or 4 (0..3)."""
    if (classes == 1).all():
        return 1
    return importance.CLASSES if classes.max(initial=0) > 1 else 2


def compress(classes: NDArray[np.uint8]) -> bytes | None:
    """(h, w) classes 0..3 -> payload, None when there is nothing to say."""
    count = class_count(classes)
    if count == 1:
        return None
    coder = rangecoder.Pusher()
    packets.push_classes(classes, count, coder)
    return coder.finish()


def decompress(contents: container.Contents) -> NDArray[np.uint8]:
    """(h, w) uint8 classes of a file. CorruptError when the payload is no entropy-coded stream."""
    head = contents.header
    h, w = patches.grid(head.height, head.width)
    if contents.classes is None:
        return np.ones((h, w), np.uint8)
    try:
        return packets.pull_classes(h, w, head.classes, rangecoder.Puller(contents.classes))
    except AssertionError as e:
        raise CorruptError(f"class map is invalid ({e}); get the file again") from e
