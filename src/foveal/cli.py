"""The command line: encode, decode, truncate, pack, unpack, info, compare, importance, bench, train, models, doctor.

Every command reads its options, calls one room or the public door, and prints. Errors that Foveal raises on
purpose become one line on standard error and exit status 2, as do unknown options.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import foveal
from foveal import cli_video
from foveal.cli_support import jobs as work
from foveal.cli_support import options as opt
from foveal.cli_support import show, tasks
from foveal.io import images

__all__ = ["app", "main"]


class Refusing(TyperGroup):
    """A group of commands in which a FovealError is the end of the command, not of the interpreter, and a FovealWarning
    one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with work.warnings_in_lines():
                return super().invoke(ctx)
        except foveal.FovealError as error:
            typer.echo(f"foveal: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:  # what closes the pipe that is written to is no fault
                raise
            typer.echo(f"foveal: cannot write the output: {error.strerror}; make room, or name another place", err=True)
            raise typer.Exit(2) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """`bench video` and `bench loss` are `bench-video` and `bench-loss`."""
        joined = "-".join(args[:2])
        return super().resolve_command(ctx, [joined, *args[2:]] if joined in ("bench-video", "bench-loss") else args)


app = typer.Typer(
    cls=Refusing,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_app = typer.Typer(no_args_is_help=True, help="Train a model on your own pictures.")
app.add_typer(train_app, name="train")
cli_video.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foveal {foveal.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A learned image codec that spends its bits where the information is."""


@app.command()
def encode(
    ctx: typer.Context,
    inputs: opt.Inputs,
    output: opt.Output = None,
    quality: opt.Quality = 60,
    effort: opt.Effort = 4,
    keep: opt.Keep = "auto",
    threshold: opt.Threshold = None,
    alpha: opt.Alpha = None,
    mask: opt.Mask = None,
    target_bpp: opt.TargetBpp = None,
    target_bytes: opt.TargetBytes = None,
    target_psnr: opt.TargetPsnr = None,
    packets: opt.Packets = 1,
    mtu: opt.Mtu = None,
    layers: opt.Layers = 1,
    model: opt.Model = "s",
    tune: opt.Tune = "psnr",
    jobs: opt.Jobs = 1,
) -> None:
    """Compress pictures to .fov files."""
    targets = {"target_bpp": target_bpp, "target_bytes": target_bytes, "target_psnr": target_psnr}
    opt.refuse_both(ctx, "quality", targets)
    settings = {"quality": quality, "effort": effort, "packets": packets, "mtu": mtu, "layers": layers, "model": model,
                "tune": tune}  # fmt: skip
    task = partial(tasks.encode_one, choice=opt.Choice(keep, threshold, alpha, mask), settings=settings | targets)
    work.run_each(images.outputs(inputs, output, ".fov"), task, jobs)


@app.command()
def decode(
    inputs: opt.Inputs,
    output: opt.Output = None,
    on_loss: opt.OnLoss = "auto",
    loss_mask: opt.LossMask = None,
    jobs: opt.Jobs = 1,
) -> None:
    """Decompress .fov files to pictures: PNG, or what the suffix of OUT says."""
    if loss_mask and len(inputs) > 1:
        raise foveal.InputError("--loss-mask names one picture; decode one file at a time")
    task = partial(tasks.decode_one, on_loss=on_loss, loss_mask=loss_mask)
    work.run_each(images.outputs(inputs, output, ".png", also=loss_mask), task, jobs)


@app.command()
def truncate(
    source: Annotated[str, typer.Argument(metavar="IN", help="File to cut; - reads standard input.")],
    size: Annotated[int, typer.Option("--bytes", min=1, help="Size that the result keeps under.")],
    output: opt.Output = None,
) -> None:
    """Cut a .fov file to a size: base layer first, then whole packets by importance."""
    work.run_each(images.outputs([source], output, "-cut.fov"), partial(tasks.truncate_one, size=size))


@app.command()
def pack(
    source: Annotated[str, typer.Argument(metavar="IN", help=".fov file; - reads standard input.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="DIR", help="Folder for the datagrams.")],
    mtu: Annotated[int, typer.Option(help="Bytes of a datagram at most.")] = 1200,
    copies: Annotated[float, typer.Option(help="How many times the base layer is sent.")] = 2.25,
    parity: opt.Parity = 0.3,
) -> None:
    """Part a .fov file into datagrams, a file each, of which any subset decodes."""
    work.run_each([(source, output)], partial(tasks.pack_one, mtu=mtu, copies=copies, parity=parity))


@app.command()
def unpack(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder with the datagrams that arrived.")],
    output: opt.Output = None,
) -> None:
    """Make a .fov file of any of its datagrams, in any order."""
    work.run_each(images.outputs([folder], output, ".fov"), tasks.unpack_one)


@app.command()
def info(
    inputs: opt.Inputs,
    as_json: opt.AsJson = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check every checksum.")] = False,
) -> None:
    """Say what .fov files hold: sizes, model, level, patches dropped, the bytes of each chunk."""
    task = partial(tasks.describe_one, verify=verify, as_json=as_json)
    work.run_each([(name, "-") for name in inputs], task, say=work.print_line)


@app.command()
def compare(
    reference: Annotated[Path, typer.Argument(help="The original picture.")],
    test: Annotated[Path, typer.Argument(help="The coded picture, .fov or any other.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Picture of both to write.")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Measure a coded picture against its original: PSNR, MS-SSIM, bits per pixel."""
    from foveal.bench.compare import compare as measure

    found = measure(reference, test, output)
    typer.echo(show.json_line(found.as_dict()) if as_json else str(found))


@app.command()
def importance(
    inputs: opt.Inputs,
    output: opt.Output = None,
    quality: opt.Quality = 60,
    keep: opt.Keep = "auto",
    threshold: opt.Threshold = None,
    alpha: opt.Alpha = None,
    mask: opt.Mask = None,
    jobs: opt.Jobs = 1,
) -> None:
    """Draw the gradient of pictures, the patches that would be kept, and their classes."""
    task = partial(tasks.draw_one, choice=opt.Choice(keep, threshold, alpha, mask), quality=quality)
    work.run_each(images.outputs(inputs, output, "-importance.png"), task, jobs)


@app.command()
def bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of lossless pictures.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for a JSON line per measurement.")],
    rivals: Annotated[str, typer.Option(help="Codecs beside Foveal, with commas.")] = "jpeg,webp,avif,jxl",
    report: Annotated[Path | None, typer.Option(help="Folder for plots, tables and a page.")] = None,
    model: opt.Model = "s",
    effort: opt.Effort = 4,
    keep: opt.Keep = "auto",
    threads: opt.Threads = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timings of which the median counts.")] = 3,
    with_foveal: Annotated[bool, typer.Option("--foveal/--no-foveal", help="Foveal itself, or rivals alone.")] = True,
    resume: Annotated[bool, typer.Option("--resume/--afresh", help="Keep the lines OUT already has.")] = True,
) -> None:
    """Measure Foveal beside other codecs on a folder: real bytes, decoded in a fresh process."""
    from foveal.bench.run import bench as measure

    names = [name.strip() for name in rivals.split(",") if name.strip()]
    found = measure(folder, rivals=names, output=output, report=report, model=model, effort=effort,
                    threads=threads, keep=opt.share_or_word(keep), limit=limit, repeats=repeats,
                    with_foveal=with_foveal, resume=resume)  # fmt: skip
    typer.echo(str(found))


@app.command()
def bench_loss(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of lossless pictures.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for a JSON line per measurement.")],
    report: Annotated[Path | None, typer.Option(help="Folder for the plot, the strip and a table.")] = None,
    bpp: Annotated[float, typer.Option(min=0.01, help="Bits per pixel, parity included, of all codecs.")] = 0.5,
    seeds: Annotated[int, typer.Option(min=1, help="Losses drawn for each rate.")] = 20,
    mtu: Annotated[int, typer.Option(help="Bytes of a datagram at most.")] = 1200,
    copies: Annotated[float, typer.Option(help="How many times Foveal's base layer is sent.")] = 2.25,
    parity: opt.Parity = 0.3,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures.")] = None,
) -> None:
    """Lose datagrams of Foveal's files and of other codecs', and measure what is left. Resumes where it stopped."""
    from foveal.bench.loss import bench_loss as measure

    found = measure(folder, output=output, report=report, bpp=bpp, seeds=seeds, mtu=mtu, copies=copies,
                    parity=parity, limit=limit)  # fmt: skip
    typer.echo(found)


@app.command()
def bench_video(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of clips.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File for a JSON line per measurement.")],
    report: Annotated[Path | None, typer.Option(help="Folder for plots, tables and a page.")] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Only so many frames from the middle of each clip.")] = None,
    clips: Annotated[str, typer.Option(help="Beginnings of file names, with commas; all by default.")] = "",
    codecs: Annotated[str, typer.Option(help="Encoders, with commas.")] = "x264,x265,svtav1",
    models: Annotated[str, typer.Option(help="Sizes of the restoring network, with commas.")] = "s",
    rates: Annotated[list[str], typer.Option(help="CRFs at full and half size: x264=37,40/28,31.")] = [],  # noqa: B006
    parts: Annotated[str, typer.Option(help="Of rates,side,auto,x1,rival,speed.")] = "rates,auto,rival,speed",
    threads: opt.Threads = 1,
    resume: Annotated[bool, typer.Option("--resume/--afresh", help="Keep the lines OUT already has.")] = True,
) -> None:
    """Measure full size, half size and half size restored, on clips: real files, decoded; BD-rates and speed."""
    from foveal.bench.video_run import bench_video as measure

    asked = [[word.strip() for word in words.split(",") if word.strip()] for words in (clips, codecs, models, parts)]
    typer.echo(measure(folder, output=output, report=report, frames=frames, clips=asked[0], codecs=asked[1],
                       models=asked[2], parts=asked[3], rates=rates, threads=threads, resume=resume))  # fmt: skip


@app.command()
def models(as_json: opt.AsJson = False) -> None:
    """List the models in this installation: those of pictures, and the networks that restore video (not with --json)."""
    found = foveal.models()
    if as_json:
        typer.echo("\n".join(map(show.json_line, map(dataclasses.asdict, found))))
    else:
        typer.echo("\n".join([*show.model_lines(found), "", *show.video_model_lines(foveal.video.models())]))


@app.command()
def doctor() -> None:
    """Check this installation: versions, extras, weights, and a picture there and back."""
    typer.echo("\n".join(show.installation_lines()))
    checks = [*foveal.selftest(), *show.video_checks()]
    typer.echo("\n".join(f"  {'ok' if c.ok else 'FAILED':7}  {c.name}: {c.detail}" for c in checks))
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


@train_app.command("image")
def train_image(
    data: Annotated[Path, typer.Option(help="Folder of pictures, or of tar files of pictures.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Weights to write, .safetensors.")],
    weights: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the schedule of the output file.")] = False,
    size: Annotated[str, typer.Option(help="Model size.")] = "s",
    minutes: Annotated[float, typer.Option(min=0, help="Length of the schedule.")] = 10,
    steps: Annotated[int | None, typer.Option(min=1, help="Length in steps, instead of minutes.")] = None,
    slice_minutes: Annotated[float | None, typer.Option(help="Stop and save before so many minutes are over.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops a step and process; 8 on a CPU, 32 on CUDA.")] = None,
    crop: Annotated[int, typer.Option(min=128, help="Side of a crop, pixels: a multiple of 128.")] = 256,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1.3e-3,
    finish_lr: Annotated[float | None, typer.Option(help="That of the last convolutions; default: --lr.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to torch.")] = 0,
    log: Annotated[Path | None, typer.Option(help="JSON lines of the progress.")] = None,
    preview: Annotated[Path | None, typer.Option(help="Picture of the state, PNG.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of crops and noise.")] = 0,
    hard_from: Annotated[float, typer.Option(min=0, max=1, help="Share of the run before symbols are hard.")] = 0.6,
    finish_alone: Annotated[bool, typer.Option("--finish-alone", help="Train the last convolutions only.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile: slow to start, then faster.")] = False,
) -> None:
    """Train an image model, or go on training one; writes a checkpoint."""
    from foveal.train.loop import train

    train(data, output, size=size, weights=weights, resume=resume, minutes=minutes, steps=steps,
          slice_minutes=slice_minutes, batch=batch, crop=crop, lr=lr, finish_lr=finish_lr, device=device,
          threads=threads, log=log, preview=preview, seed=seed, hard_from=hard_from,
          finish_alone=finish_alone, compiled=compiled)  # fmt: skip


@train_app.command("export")
def train_export(
    checkpoint: Annotated[Path, typer.Argument(help="What 'train image' wrote.")],
    data: Annotated[Path, typer.Option(help="Training pictures, to count symbol frequencies on.")],
    keep: Annotated[Path | None, typer.Option(help="Keep the checkpoint in half precision here too.")] = None,
) -> None:
    """Turn a checkpoint into the weights this installation codes with: integers, tables, checked hash."""
    from foveal.train.finish import publish

    typer.echo(publish(checkpoint, data, keep), err=True)


@train_app.command("video")
def train_video(
    data: Annotated[Path, typer.Option(help="Folder of pictures, or of tar files of pictures.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Checkpoint to write, .safetensors.")],
    pool: Annotated[Path, typer.Option(help="File of coded pairs; made first if it is not there.")],
    clips: Annotated[Path | None, typer.Option(help="Folder of clips to make pairs of too.")] = None,
    hold_out: Annotated[str, typer.Option(help="Clips with this in their names are for validation.")] = "",
    pairs: Annotated[int, typer.Option(min=4, help="Pairs to make.")] = 4000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that make them.")] = 1,
    size: Annotated[str, typer.Option(help="Model size: s, m or l.")] = "s",
    mode: Annotated[str, typer.Option(help="x2 (twice the size) or x1 (same size, and x1.5).")] = "x2",
    weights: Annotated[Path | None, typer.Option(help="Checkpoint to start from.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Time to train for.")] = 20,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps to train for, instead of a time.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    crop: Annotated[int, typer.Option(min=16, help="Side of a crop, half-size pixels.")] = 64,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to torch.")] = 0,
    log: Annotated[Path | None, typer.Option(help="JSON lines of the progress.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of crops and weights.")] = 0,
    compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile: slow to start, then faster.")] = False,
    structure_from: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the run after which MS-SSIM and gradients count too; 1: never."),
    ] = 2 / 3,
) -> None:
    """Train a restoration network on frames that real codecs have coded; writes a checkpoint."""
    from foveal.train.video_loop import train

    train(data, output, pool=pool, clips=clips, hold_out=hold_out, pairs=pairs, workers=workers, size=size, mode=mode,
          weights=weights, minutes=minutes, steps=steps, batch=batch, crop=crop, lr=lr, device=device, threads=threads,
          log=log, seed=seed, compiled=compiled, structure_from=structure_from)  # fmt: skip


@train_app.command("export-video")
def train_export_video(
    checkpoints: Annotated[list[Path], typer.Argument(help="What 'train video' wrote, one for each mode.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File instead of the installed weights.")
    ] = None,
) -> None:
    """Turn checkpoints of one size into the weights this installation restores with."""
    from foveal.train.video_export import publish

    typer.echo(publish(checkpoints, output), err=True)


def main() -> None:
    """Entry of the command `foveal` and of `python -m foveal`."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text, or not in this encoding
    app(prog_name="foveal")
