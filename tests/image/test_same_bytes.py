"""The integer border: threads and instruction sets change neither a byte of a stream nor a decoded integer."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import foveal
from foveal import registry
from foveal.image.codec import golden_digest

SCRIPT = """
import hashlib, sys
import numpy as np, torch
import foveal
from foveal import container
from foveal.image.decoder import decode
from foveal.image.network import Network
torch.set_num_threads(int(sys.argv[1]))
y, x = np.mgrid[:130, :200]
rgb = np.stack([x * 5 + y * 3, (x * y) // 7, (x // 9 * 40 + y // 11 * 23) ^ (x * x // 50)], -1).astype(np.uint8)
found = hashlib.sha256()
for model, quality in (("s", 5), ("s", 60), ("s", 100), ("m", 50)):
    data = foveal.compress(rgb, quality=quality, packets=2, model=model)
    decoded = decode(Network.load(model), container.read(data), "error")
    found.update(data + decoded.values.to(torch.int32).numpy().tobytes())
print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), found.hexdigest())
"""


# The matrix products' own libraries look at the processor themselves.
LIBRARIES = {
    "DEFAULT": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}


def capabilities():
    """What this processor can be told to use; "default" is plain scalar code."""
    order = ["DEFAULT", "AVX2", "AVX512"]
    most = torch.backends.cpu.get_cpu_capability()
    return order[: order.index(most) + 1] if most in order else [most]


def run(threads, capability=None):
    path = os.pathsep.join([str(Path(foveal.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    if capability is not None:
        env |= {"ATEN_CPU_CAPABILITY": capability.lower(), **LIBRARIES.get(capability, {})}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(threads)], env=env, capture_output=True, text=True, check=True
    )
    used, count, digest = done.stdout.split()
    assert int(count) == threads and capability in (None, used)
    return digest


@pytest.fixture(scope="module")
def reference():
    return run(1)


@pytest.mark.parametrize("capability", capabilities())
def test_instruction_sets(reference, capability):
    assert run(1, capability) == reference


def test_threads(reference):
    assert run(2) == reference


@pytest.mark.parametrize("model", registry.IDS)
def test_golden_stream_is_the_one_stored_with_the_weights(model):
    assert golden_digest(model) == registry.load(model).facts["golden"]
    assert hashlib.sha256(registry.path_of(model).read_bytes()).digest()[:8] == registry.digest_of(model)
