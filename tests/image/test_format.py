"""A second decoder, written from FORMAT.md alone, in whole numbers: numpy int64 and Python's own. It must agree."""

import bisect
import itertools
import re
import struct
from pathlib import Path

import numpy as np
import pytest

import foveal
from foveal import container, registry
from foveal.image.decoder import decode

MASK = (1 << 64) - 1
CUTS = (6, 24, 64, 128, 224, 384)
RING = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def offsets(name):
    """A row of neighbours as the page prints it."""
    page = (Path(__file__).parents[2] / "FORMAT.md").read_text(encoding="utf-8")
    row = re.search(rf"^{name} +(\(.*?\)) +pass", page, re.MULTILINE)
    assert row is not None
    return [(int(y), int(x)) for y, x in re.findall(r"\((-?\d),(-?\d)\)", row[1])]


class Stream:
    def __init__(self, data):
        data += bytes(-len(data) % 4)
        self.words = iter(struct.unpack(f">{len(data) // 4}I", data))
        self.low, self.range = 0, MASK
        self.point = next(self.words, 0) << 32 | next(self.words, 0)

    def decode(self, cum):
        scale = self.range >> 24
        q = ((self.point - self.low) & MASK) // scale
        assert q < 1 << 24
        k = bisect.bisect_right(cum, q) - 1
        self.low = (self.low + scale * cum[k]) & MASK
        self.range = scale * (cum[k + 1] - cum[k])
        if self.range < 1 << 32:
            self.low, self.range = self.low << 32 & MASK, self.range << 32
            self.point = (self.point << 32 & MASK) | next(self.words, 0)
        return k


def counts(c):
    sums = itertools.accumulate(map(int, c[:-1]), initial=0)
    return [s * ((1 << 24) - len(c)) // 65536 + k for k, s in enumerate(sums)] + [1 << 24]


def uniform(n):
    return [k * ((1 << 24) // n) for k in range(n)] + [1 << 24]


class Decoder:
    def __init__(self, tensors, head):
        self.t = {
            k.removeprefix("prior."): v.numpy().astype(np.int64)
            for k, v in tensors.items()
            if v.ndim < 3 and k.split(".")[0] in ("prior", "tables")
        }
        self.reach, self.silent = self.t["tables.reach"], int(self.t["tables.silent"][0])
        self.tables = [counts(c[: 2 * k + 2]) for c, k in zip(self.t["tables.counts"], self.reach, strict=True)]
        self.h, self.w, self.level = -(-head.height // 16), -(-head.width // 16), head.level
        last = head.to_bytes()[23]
        self.version, self.layers, self.complete = head.version, max(last & 127, 1), last > 127
        self.escaped = 0
        self.places = list(itertools.product(range(self.h), range(self.w)))

    def batch(self, stream, index):
        out, escapes = np.zeros(index.size, np.int64), []
        flat = index.ravel()
        for t in range(self.silent, 64):
            for at in np.nonzero(flat == t)[0]:
                j, reach = stream.decode(self.tables[t]), int(self.reach[t])
                out[at] = j - reach
                if j == 2 * reach + 1:
                    escapes.append((at, reach))
        for at, reach in escapes:
            negative, e = stream.decode(uniform(2)), stream.decode(uniform(13))
            magnitude = reach + 2**e + (stream.decode(uniform(2**e)) if e else 0)
            out[at] = -magnitude if negative else magnitude
        self.escaped += len(escapes)
        return out.reshape(index.shape)

    def row(self, name, level):
        a, whole, part = self.t[name], level // 16, level % 16
        return (a[whole] * (16 - part) + a[min(whole + 1, 79)] * part) // 16

    def layer(self, name, x, e=0):
        weight, bias, shift = (self.t[f"{name}.{k}"] for k in ("weight", "bias", "shift"))
        return (x @ weight.T + bias + e) // 2**shift

    def relu(self, name, x, e=0):
        return self.layer(name, x, e).clip(0, 511)

    def squash(self, v):
        entries = np.searchsorted(self.t["squash_from"], np.minimum(abs(v), 131071), side="right")
        return np.sign(v) * entries

    def predict(self, o, s):
        n = o.shape[1] // 2
        index = ((o[:, n:] + s + 8) // 16).clip(0, 63)
        return (o[:, :n].clip(-512, 511) * self.t["scale_q8"][index] + 128) // 256, index

    def near(self, values, y, x, dy, dx):
        for sign in (1, -1):
            ny, nx = y + sign * dy, x + sign * dx
            if 0 <= ny < self.h and 0 <= nx < self.w:
                return values[ny * self.w + nx]
        return np.zeros(values.shape[1], np.int64)

    def classes(self, payload, count):
        if count == 1:
            return np.ones(self.h * self.w, np.int64)
        stream, pairs = Stream(payload), [[1, 1] for _ in range(9 * count)]
        out = np.zeros((self.h, self.w), np.int64)

        def above(y, x, d):
            return int(y >= 0 and 0 <= x < self.w and out[y, x] > d)

        for y, x in self.places:
            for d in range(count - 1):
                context = 9 * d + 3 * (above(y, x - 1, d) + above(y - 1, x, d))
                pair = pairs[context + above(y - 1, x - 1, d) + above(y - 1, x + 1, d)]
                p = 65536 * (2 * pair[1] - 1) // (2 * sum(pair) - 2)
                yes = stream.decode(counts([65536 - p, p]))
                pair[yes] += 1
                if sum(pair) > 255:
                    pair[:] = [(n + 1) // 2 for n in pair]
                out[y, x] += yes
                if not yes:
                    break
        return out.ravel()

    def base(self, payloads):
        streams = [Stream(payload) for payload in payloads]
        streams = [streams[0]] * 5 if self.version == 1 else [streams[i] for i in (0, 0, 1, 1, 2)]
        stream = streams[0]
        zh, zw = -(-self.h // 4), -(-self.w // 4)
        index = ((self.row("z_index", self.level) + 8) // 16).clip(0, 63)
        z = value(self.batch(stream, np.broadcast_to(index, (zh, zw, len(index)))), self.row("z_mean", self.level))
        padded = np.pad(z.clip(-511, 511), ((1, 1), (1, 1), (0, 0)))
        features = np.zeros((4 * zh, 4 * zw, 64), np.int64)
        for y, x in itertools.product(range(zh), range(zw)):
            inputs = padded[y : y + 3, x : x + 3].reshape(1, -1)
            out = self.relu("z2", self.relu("z1", inputs, self.row("z_level", self.level)))
            features[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = out.reshape(4, 4, 64)
        features = features[: self.h, : self.w].reshape(-1, 64)
        thumbnail = np.zeros((self.h * self.w, 6), np.int64)
        for number, tokens in enumerate(self.passes()):
            if tokens:
                mean, index = self.pass_(number, tokens, thumbnail, features)
                thumbnail[tokens] = value(self.batch(streams[number], index), mean)
        return thumbnail, features

    def passes(self):
        which = [[], [], [], [], []]
        for number, (y, x) in enumerate(self.places):
            even, pair = y % 2 == 0 and x % 2 == 0, (y % 4, x % 4)
            coarse = {(0, 0): 0, (2, 2): 1}.get(pair, 2)
            which[coarse if even else 3 if y % 2 and x % 2 else 4].append(number)
        return which

    def pass_(self, number, tokens, thumbnail, features):
        chosen, stride = offsets("diagonal" if number in (1, 3) else "axial"), 2 if number in (1, 2) else 1
        v = np.array(
            [[self.near(thumbnail, *self.places[t], dy * stride, dx * stride) for dy, dx in chosen] for t in tokens]
        )
        guess = np.zeros((len(tokens), 6), np.int64)
        delta = np.zeros((len(tokens), 72), np.int64)
        if number:
            guess = (v.reshape(len(v), -1) @ self.t[f"linear.{number}"] + 8192) // 16384
            delta = self.squash(v - guess[:, None]).reshape(len(v), -1)
        hidden = self.relu(f"b2.{number}", self.relu(f"b1.{number}", np.concatenate([delta, features[tokens]], 1)))
        mean, index = self.predict(self.layer(f"b3.{number}", hidden), self.row(f"base_spread.{number}", self.level))
        return mean + guess, index

    def order(self, classes, thumbnail):
        def salience(token):
            y, x = self.places[token]
            inside = [(y + dy) * self.w + x + dx for dy, dx in RING if 0 <= y + dy < self.h and 0 <= x + dx < self.w]
            steps = [abs(thumbnail[n, 0] - thumbnail[token, 0]) for n in inside]
            return abs(thumbnail[token, 3:]).sum() + max(steps, default=0)

        def numbered(wanted):
            chosen = [t for t in range(len(classes)) if classes[t] in wanted]
            ranked = sorted(chosen, key=lambda t: (-classes[t], -salience(t), t))
            if self.version == 1:
                return ranked
            out = []
            for c in sorted(wanted, reverse=True):
                own = [t for t in ranked if classes[t] == c]
                quarter = {t: 4 * i // len(own) for i, t in enumerate(own)}
                point = {t: (49472 * self.places[t][0] + 37345 * self.places[t][1]) % 65536 for t in own}
                out += sorted(own, key=lambda t, q=quarter, p=point: (q[t], p[t], t))
            return out

        kept = numbered({1, 2, 3})
        units = [(t, range(j * 5 // self.layers, (j + 1) * 5 // self.layers)) for j in range(self.layers) for t in kept]
        return units + [(t, range(5)) for t in numbered({0})] * self.complete

    def group(self, tokens, slices, known, classes, thumbnail, features, stream):
        levels = [min(self.level + 64 * max(int(classes[t]) - 1, 0), 1264) for t in tokens]
        own = thumbnail[tokens]
        around = np.array([[self.near(thumbnail, *self.places[t], *o) for o in RING] for t in tokens])
        delta = self.squash(around - own[:, None]).reshape(len(tokens), -1)
        e = np.array([self.row("c_level", level) for level in levels])
        context = self.relu("c2", self.relu("c1", np.concatenate([delta, self.squash(own), features[tokens]], 1), e))
        spread, values = np.array([self.row("spread", level) for level in levels]), own
        for k, (a, b) in enumerate(itertools.pairwise(CUTS)):
            x = np.concatenate([context, self.squash(values)], 1)
            out = self.layer(f"s3.{k}", self.relu(f"s2.{k}", self.relu(f"s1.{k}", x)))
            mean, index = self.predict(out, spread[:, a:b])
            symbols = self.batch(stream, index) if stream and k in slices else np.zeros_like(mean)
            fresh = value(symbols, mean) if k >= slices.start else known[:, a:b]
            values = np.concatenate([values, fresh], 1)
        return values

    def values(self, contents):
        classes = self.classes(contents.classes, contents.header.classes)
        thumbnail, features = self.base((contents.base, *contents.more))
        units = self.order(classes, thumbnail)
        every = list(range(len(classes)))
        out = self.group(every, range(0), None, classes, thumbnail, features, None)
        for packet in contents.packets:
            payload = packet.payload
            if contents.header.version == 1:  # all units in one packet
                payload = struct.pack(">II", 0, len(units)) + payload
            first, count = struct.unpack(">II", payload[:8])
            run, stream = units[first : first + count], Stream(payload[8:])
            assert len({slices for _, slices in run}) == 1
            for i in range(0, count, 16384):
                part = [t for t, _ in run[i : i + 16384]]
                out[part] = self.group(part, run[0][1], out[part], classes, thumbnail, features, stream)
        return out


def value(symbol, mean):
    return (64 * symbol + mean).clip(-131071, 131071)


def agree(network, data):
    """Both decoders on one file; returns the second."""
    contents = container.read(data)
    second = Decoder(registry.load("s").tensors, contents.header)
    assert (second.values(contents) == decode(network, contents, "error").values.numpy()).all()
    return second


@pytest.mark.parametrize(
    ("quality", "classes", "packets", "layers"),
    [
        (0, "all", 1, 1),
        (33, "all", 2, 1),
        (70, "mixed", 3, 1),
        (100, "refined", 1, 1),
        (50, "dropped", 1, 1),
        (40, "all", 1, 5),
        (75, "mixed", 2, 3),
        (90, "dropped", 2, 2),
    ],
)
def test_the_page_is_enough_to_decode(network, photo, quality, classes, packets, layers):
    grid = {
        "all": np.ones((7, 10), np.uint8),
        "mixed": np.random.default_rng(0).integers(0, 4, (7, 10)),
        "refined": np.full((7, 10), 2),
        "dropped": np.zeros((7, 10), np.uint8),
    }[classes]
    data = foveal.compress(photo[:100, :150], quality=quality, mask=grid, packets=packets, layers=layers)
    assert container.read(data).header.version == 1 + (packets * layers > 1)
    second = agree(network, data)
    contents = container.read(data)
    assert (second.classes(contents.classes, contents.header.classes) == grid.ravel()).all()


def test_the_page_is_enough_for_escapes(network):
    """White noise at the finest level, so that symbols leave the tables."""
    rgb = (np.random.default_rng(3).integers(0, 2, (48, 32, 3)) * 255).astype(np.uint8)
    assert agree(network, foveal.compress(rgb, quality=100, keep="all", effort=1)).escaped > 0
