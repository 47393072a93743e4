"""From training checkpoints to the weights this installation restores with: folded, fp16, both modes in one file."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from foveal import registry
from foveal.errors import InputError, UnknownModelError
from foveal.train import checkpoint
from foveal.video import attention_sr
from foveal.video.attention_sr import MODES, SIZES, AttentionSR


def mode_in(path: Path) -> str | None:
    """The mode of the network in a training checkpoint; None if it holds none. InputError if it cannot be read."""
    try:
        with safe_open(path, "pt") as f:
            keys = set(f.keys())
            planes = f.get_tensor("head.weight").shape[1] if "head.weight" in keys else 0
    except (OSError, SafetensorError) as e:
        raise InputError(f"{path}: not a training checkpoint ({e}); 'foveal train video' writes one") from e
    return {n: m for m, n in MODES.items()}.get(planes)


def restore_checkpoint(path: Path) -> tuple[AttentionSR, dict[str, object]]:
    """The network that 'foveal train video' saved, in evaluation, and the facts saved with it."""
    mode = mode_in(path)
    name = checkpoint.size_of(path)
    if name not in SIZES or mode is None:
        raise InputError(f"{path}: not a checkpoint of a restoration network; 'foveal train video' writes one")
    network = AttentionSR(SIZES[name], mode)
    return network, checkpoint.load(path, network)


def facts_of(path: Path) -> dict[str, object]:
    """What a weights file says of itself; nothing if there is none."""
    try:
        with safe_open(path, "pt") as f:
            return checkpoint.facts_in(f)
    except (OSError, SafetensorError, ValueError):
        return {}


def publish(checkpoints: list[Path], out: Path | None = None) -> str:
    """Put checkpoints of one size, one for each mode, into the weights file of that size (or into ``out``).

    A mode that none of them has stays as the file holds it. Returns a line about what was written. Raises InputError if the
    checkpoints are of different sizes, or the file holds another one.
    """
    networks: dict[str, AttentionSR] = {}
    new: dict[str, object] = {}
    for path in checkpoints:
        network, known = restore_checkpoint(path)
        networks[network.mode] = network.eval()
        new[network.mode] = known
    sizes = sorted({network.size.name for network in networks.values()})
    if len(sizes) != 1 or len(networks) != len(checkpoints):
        raise InputError(
            f"{len(checkpoints)} checkpoints of sizes {', '.join(sizes)}: give one of each mode, of one size"
        )
    name = sizes[0]
    target = out or attention_sr.WEIGHTS / f"video-{name}.safetensors"
    checkpoint.ready(target)
    old = facts_of(target)
    if old.get("size", name) != name:
        raise InputError(f"{target} holds a model of size {old['size']!r}, not {name!r}; name another output")
    facts = old | {"size": name} | new
    for mode in [m for m in MODES if m not in networks and target.is_file()]:
        try:
            networks[mode] = attention_sr.read_weights(target, name, mode)
        except UnknownModelError:
            continue  # it never held that mode
    attention_sr.save_weights(target, networks, facts)
    if target.parent.resolve() == registry.WEIGHTS.resolve():
        registry.note_sum(target)
    attention_sr.load_weights.cache_clear()
    count = sum(n.parameters_count for n in networks.values())
    return f"{target.name}: {', '.join(sorted(networks))}, {count} numbers, {target.stat().st_size} bytes"
