"""Every error Foveal raises on purpose, in one tree.

    FovealError
    ├── InputError               a bad argument or picture; names the value and the remedy
    │   ├── UnsupportedImageError    a kind of picture Foveal does not store, e.g. an animation
    │   └── UnsupportedVideoError    a kind of video Foveal does not code, e.g. one without pictures, or an absent encoder
    ├── FormatError              the data is not a valid .fov file
    │   ├── NotFovealError           the signature is missing
    │   ├── TruncatedError           the file ends too early
    │   ├── CorruptError             a checksum fails or the contents contradict each other
    │   ├── VersionError             written by a newer Foveal, or uses a critical part this one lacks
    │   └── UnknownModelError        needs model weights that are not in this installation
    ├── LimitError               larger than a limit; raised before anything is allocated
    └── MissingExtraError        an optional dependency is absent; names the pip line

    FovealWarning (a UserWarning)    a conversion lost something, and the result is still usable

The command line prints any FovealError as one line and exits with status 2.
"""

from __future__ import annotations

__all__ = [
    "CorruptError",
    "FormatError",
    "FovealError",
    "FovealWarning",
    "InputError",
    "LimitError",
    "MissingExtraError",
    "NotFovealError",
    "TruncatedError",
    "UnknownModelError",
    "UnsupportedImageError",
    "UnsupportedVideoError",
    "VersionError",
]


class FovealError(Exception):
    """Base of every error that Foveal raises on purpose."""


class InputError(FovealError):
    """An argument or a picture that cannot be used as given."""


class UnsupportedImageError(InputError):
    """A kind of picture that Foveal does not store, such as an animation."""


class UnsupportedVideoError(InputError):
    """A kind of video that Foveal does not code, such as one without pictures, or one for an encoder that is absent."""


class FormatError(FovealError):
    """The data is not a valid .fov file."""


class NotFovealError(FormatError):
    """The data does not begin with the Foveal signature."""


class TruncatedError(FormatError):
    """The data ends before the file does."""


class CorruptError(FormatError):
    """A checksum fails, or parts of the file contradict each other."""


class VersionError(FormatError):
    """The file needs a newer Foveal: its version or a critical chunk is unknown here."""


class UnknownModelError(FormatError):
    """The file was written with model weights that this installation does not have."""


class LimitError(FovealError):
    """A size is above a limit. Raised before any memory is allocated for it."""


class MissingExtraError(FovealError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtraError:
        """The error for `package`, which is among what the extra `extra` installs."""
        return cls(f"{package} is not installed; in Foveal's source folder: pip install '.[{extra}]'")


class FovealWarning(UserWarning):
    """Something was converted with loss, and the result is still usable."""
