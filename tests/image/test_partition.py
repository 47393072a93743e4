"""Packets by size, and the same symbols in other packets."""

import numpy as np
import pytest

import foveal
from foveal import container, datagrams
from foveal.errors import InputError
from foveal.image import packets


def sizes(data):
    return [len(p.payload) + datagrams.OVERHEAD for p in container.read(data).packets]


@pytest.mark.parametrize("quality", [10, 60, 95])
@pytest.mark.parametrize("mtu", [400, 1200])
def test_datagrams_fit_the_mtu_and_are_nearly_full(photo, quality, mtu):
    found = sizes(foveal.compress(photo, quality=quality, mtu=mtu))
    assert max(found) <= mtu
    assert all(size > 0.75 * mtu for size in found[:-1])


@pytest.mark.parametrize("keep", ["auto", "all", 0.4])
def test_repacking_changes_packets_and_nothing_else(photo, keep):
    one, small = foveal.compress(photo, keep=keep, quality=80), foveal.compress(photo, keep=keep, quality=80, mtu=400)
    assert foveal.repack(one, mtu=400) == small
    assert foveal.repack(small, packets=1) == one
    assert foveal.repack(one, packets=3) == foveal.compress(photo, keep=keep, quality=80, packets=3)
    shown = [np.asarray(foveal.decompress(data)) for data in (one, small)]
    assert np.array_equal(*shown)


def test_packets_cost_little(photo):
    one = foveal.compress(photo, quality=95)
    assert len(foveal.repack(one, mtu=1200)) <= 1.05 * len(one)


def test_a_target_size_counts_the_packets(photo):
    data = foveal.compress(photo, target_bytes=2500, mtu=300)
    assert 2200 < len(data) <= 2500
    assert max(sizes(data)) <= 300


def test_repacking_keeps_alpha_and_metadata(photo):
    picture = np.dstack([photo, photo[..., 0]])
    one = foveal.compress(picture, exif=b"II*\0" + bytes(8), icc_profile=b"profile")
    again = foveal.repack(foveal.repack(one, packets=5), packets=1)
    assert again == one


def test_a_picture_without_kept_tokens_has_no_packets(photo):
    data = foveal.compress(photo, mask=np.zeros((10, 13), np.uint8), mtu=1200)
    assert sizes(data) == []
    assert foveal.repack(data, mtu=300) == data


@pytest.mark.parametrize(
    "options",
    [{}, {"packets": 0}, {"packets": 65536}, {"packets": 1.5}, {"mtu": 100}, {"mtu": 1e3}, {"packets": 2, "mtu": 900}],
)
def test_options_out_of_range_are_refused(photo, options):
    data = foveal.compress(photo[:32, :32])
    with pytest.raises(InputError):
        foveal.repack(data, **options)
    if options:
        with pytest.raises(InputError):
            foveal.compress(photo[:32, :32], **options)


def test_only_whole_files_are_repacked(photo):
    data = foveal.compress(photo, packets=4)
    contents = container.read(data)
    with pytest.raises(foveal.CorruptError, match="missing"):
        foveal.repack(foveal.truncate(data, len(data) - 40), packets=2)
    assert len(contents.packets) == 4


def test_a_patch_larger_than_a_datagram_is_refused(photo):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    with pytest.raises(InputError, match="a patch takes"):
        foveal.compress(noise, quality=100, mtu=128)


def test_wrong_estimates_are_put_right():
    true = np.random.default_rng(1).integers(1, 90, 300)  # bytes of each token
    calls = []

    def code(first, count):
        calls.append((first, count))
        return bytes(int(true[first : first + count].sum()))

    for wrong in (0.5, 1.0, 2.0):
        calls.clear()
        payloads = packets.by_size(true * 8.0 * wrong, 200, code)
        runs = [packets.unwrap(p, 300)[0] for _, _, p in payloads]
        assert runs == [(first, count) for first, count, _ in payloads]
        assert max(len(p) for _, _, p in payloads) <= 200
        assert [first for first, _ in runs] == [0, *np.cumsum([count for _, count in runs])[:-1]]
        assert sum(count for _, count in runs) == 300
