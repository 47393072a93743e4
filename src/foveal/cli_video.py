"""The commands for video: `foveal video encode`, `foveal video decode` and `foveal restore`."""

from __future__ import annotations

from functools import partial

import typer

from foveal import InputError
from foveal.cli_support import clips as opt
from foveal.cli_support import jobs as work
from foveal.cli_support.options import Jobs

__all__ = ["register", "video_app"]

video_app = typer.Typer(no_args_is_help=True, help="Code video small with a real codec, and restore it.")


restore_app = typer.Typer()


def register(app: typer.Typer) -> None:
    """Add the commands to the command line's."""
    app.add_typer(video_app, name="video")
    app.add_typer(restore_app)


@video_app.command()
def encode(
    inputs: opt.Clips,
    output: opt.Out = None,
    scale: opt.Scale = "auto",
    codec: opt.Codec = "svtav1",
    crf: opt.Crf = None,
    bitrate: opt.Bitrate = None,
    target_vmaf: opt.TargetVmaf = None,
    preset: opt.Preset = None,
    bits: opt.Bits = None,
    model: opt.Model = "s",
    side_info: opt.SideInfo = True,
    jobs: Jobs = 1,
) -> None:
    """Code videos at a size that pays, with a codec that every player has."""
    _refuse_rates(codec, crf=crf, bitrate=bitrate, target_vmaf=target_vmaf)
    options = {"scale": opt.factor(scale), "codec": codec, "crf": crf, "bitrate": opt.per_second(bitrate),
               "target_vmaf": target_vmaf, "preset": preset, "bits": bits, "model": model,
               "side_information": side_info}  # fmt: skip
    task = partial(opt.encode_one, options=options, watched=jobs == 1)
    work.run_each(opt.pairs(inputs, output, "-small", None, (".mov",) if codec == "svtav1" else ()), task, jobs)


@video_app.command()
def decode(
    inputs: opt.Clips,
    output: opt.Out = None,
    scale: opt.DecodeScale = None,
    model: opt.DecodeModel = None,
    codec: opt.OutCodec = "x264",
    crf: opt.OutCrf = None,
    resume: opt.Resume = False,
    on_loss: opt.OnLoss = "error",
    jobs: Jobs = 1,
) -> None:
    """Restore what `video encode` made, by its side information."""
    _refuse_rates(codec, crf=crf)
    options = {"scale": scale, "model": model, "codec": codec, "crf": crf, "resume": resume,
               "on_loss": on_loss}  # fmt: skip
    task = partial(opt.decode_one, options=options, watched=jobs == 1)
    work.run_each(opt.pairs(inputs, output, "-restored", ".mkv"), task, jobs)


@restore_app.command()
def restore(
    inputs: opt.Clips,
    output: opt.Out = None,
    scale: opt.RestoreScale = 2,
    model: opt.DecodeModel = None,
    codec: opt.OutCodec = "x264",
    crf: opt.OutCrf = None,
    resume: opt.Resume = False,
    on_loss: opt.OnLoss = "error",
    side_info: opt.UseSide = True,
    jobs: Jobs = 1,
) -> None:
    """Enlarge any compressed video, or repair it at its own size with --scale 1."""
    _refuse_rates(codec, crf=crf)
    options = {"scale": scale, "model": model, "codec": codec, "crf": crf, "resume": resume, "on_loss": on_loss,
               "use_side": side_info}  # fmt: skip
    task = partial(opt.restore_one, options=options, watched=jobs == 1)
    work.run_each(opt.pairs(inputs, output, "-restored", ".mkv"), task, jobs)


def _refuse_rates(codec: str, **rates: float | str | None) -> None:
    """InputError, in the command line's words, for a rate that was asked of FFV1, which is lossless."""
    for name, value in rates.items() if codec == "ffv1" else ():
        if value is not None:
            option, told = name.replace("_", "-"), str(value).removesuffix(".0")
            raise InputError(f"--{option} {told}: ffv1 is lossless; leave it out, or take another codec")
