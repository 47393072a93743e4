"""A picture over a link that loses datagrams: sender, lossy proxy and receiver over UDP on this machine.

    python examples/udp_link.py photo.png --loss 0.3 -o refining/

The sender parts the picture into datagrams (`foveal.pack`) and sends each once. The proxy, a thread between the two,
drops some, doubles some and lets some overtake others. The receiver rebuilds the file from what has come
(`foveal.unpack`) and writes the picture whenever there is a better one, as refining/00.png, 01.png, ... It stops by
itself when nothing has come for a second (on a slow link: for the time of three datagrams), or after --seconds; nobody
tells it what was sent.
"""

from __future__ import annotations

import argparse
import random
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import foveal

LOCAL = "127.0.0.1"
LARGEST = 65_535  # bytes of a datagram
QUIET_S = 1.0  # the receiver takes such a silence for the end, or the time of three datagrams if that is longer
PICTURES = 12  # written at most


@dataclass
class Tally:
    """What the proxy did."""

    forwarded: int = 0
    dropped: int = 0
    doubled: int = 0


class Proxy(threading.Thread):
    """Forwards what comes to one port to another, with losses, duplicates and changes of order."""

    def __init__(self, target: int, loss: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.inlet = bound_socket()
        self.target, self.loss, self.random = target, loss, random.Random(seed)
        self.tally, self.running = Tally(), True

    def run(self) -> None:
        held: list[bytes] = []
        with self.inlet, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet:
            while self.running or held:
                for message in self._through(held):
                    outlet.sendto(message, (LOCAL, self.target))
                    self.tally.forwarded += 1

    def _through(self, held: list[bytes]) -> list[bytes]:
        """The messages to forward now; `held` keeps one that others may overtake."""
        try:
            message = self.inlet.recv(LARGEST)
        except TimeoutError:
            late, held[:] = list(held), []
            return late
        if self.random.random() < self.loss:
            self.tally.dropped += 1
            return []
        out = [message, *held]
        held.clear()
        if self.random.random() < 0.1:
            self.tally.doubled += 1
            out.append(message)
        if self.random.random() < 0.2:
            held.append(out.pop(0))
        return out


def bound_socket() -> socket.socket:
    """A UDP socket on a free port of this machine that waits a tenth of a second at most."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((LOCAL, 0))
    made.settimeout(0.1)
    return made


def send(messages: list[bytes], port: int, rate: float) -> None:
    """Send every datagram once, `rate` bytes a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet:
        for message in messages:
            outlet.sendto(message, (LOCAL, port))
            time.sleep(len(message) / rate)


def receive(
    inlet: socket.socket, folder: Path, original: Image.Image, seconds: float, quiet: float, every: int
) -> list[str]:
    """Collect datagrams until they stop; write the picture as it refines. A line about each picture."""
    messages: list[bytes] = []
    known: set[bytes] = set()
    lines: list[str] = []
    end, last, tried = time.monotonic() + seconds, time.monotonic(), 0
    while time.monotonic() < end and time.monotonic() - last < quiet:
        try:
            message = inlet.recv(LARGEST)
        except TimeoutError:
            continue
        last = time.monotonic()
        if message not in known:
            known.add(message)
            messages.append(message)
        if len(messages) >= tried + every and len(lines) < PICTURES - 1:
            show(messages, folder, original, lines)
            tried, last = len(messages), time.monotonic()
    if len(messages) > tried:
        show(messages, folder, original, lines)
    return lines


def show(messages: list[bytes], folder: Path, original: Image.Image, lines: list[str]) -> None:
    """Write the picture that these datagrams make, if they make one and it is a better one, and a line about it."""
    try:
        report = foveal.decode_report(foveal.unpack(messages), on_loss="conceal")
    except foveal.FovealError:  # the base layer is not complete yet
        return
    packets = f"{report.packets_read} of {report.packets} packets"
    if lines and packets in lines[-1]:
        return
    error = np.square(np.asarray(original, float) - np.asarray(report.image.convert("RGB"), float)).mean()
    psnr_db = 10 * np.log10(255**2 / max(error, 1e-9))
    path = folder / f"{len(lines):02}.png"
    report.image.save(path)
    lines.append(
        f"{path.name}: {len(messages)} datagrams, {packets}, "
        f"{int(report.concealed.sum())} of {report.concealed.size} patches concealed, {psnr_db:.2f} dB"
    )
    print(lines[-1], flush=True)


def main(arguments: list[str] | None = None) -> list[str]:
    options = parse(arguments)
    original = Image.open(options.picture).convert("RGB")
    messages = foveal.pack(foveal.compress(original, quality=options.quality, mtu=options.mtu), mtu=options.mtu)
    print(f"{len(messages)} datagrams, {sum(map(len, messages)):,} bytes", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    with bound_socket() as inlet:
        proxy = Proxy(inlet.getsockname()[1], options.loss, options.seed)
        port = proxy.inlet.getsockname()[1]
        sender = threading.Thread(target=send, args=(messages, port, options.rate), daemon=True)
        proxy.start()
        sender.start()
        quiet = max(QUIET_S, 3 * options.mtu / options.rate)
        lines = receive(inlet, options.output, original, options.seconds, quiet, max(1, len(messages) // 10))
        proxy.running = False
        proxy.join(2)
    tally = proxy.tally
    print(
        f"link: {tally.forwarded} forwarded, {tally.dropped} dropped, {tally.doubled} doubled; "
        + (f"last picture: {lines[-1]}" if lines else "too little came for a picture")
    )
    return lines


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send a picture over a lossy UDP link on this machine.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("refining"), help="folder for the pictures")
    parser.add_argument("--loss", type=float, default=0.3, help="share of datagrams that the link drops")
    parser.add_argument("--rate", type=float, default=20_000, help="bytes a second")
    parser.add_argument("--seconds", type=float, default=30, help="time after which the receiver stops in any case")
    parser.add_argument("--mtu", type=int, default=1200)
    parser.add_argument("--quality", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of the link's losses")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
