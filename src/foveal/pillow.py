"""`import foveal.pillow` makes Pillow open and save .fov files."""

from foveal.io.pillow import FORMAT, MIME, FovealImageFile, register

__all__ = ["FORMAT", "MIME", "FovealImageFile", "register"]
