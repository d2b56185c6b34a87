"""A FAKE camera's worker: it stalls, dies, sends garbage and changes its size, each at an instant drawn from a seed.

    python fake_camera.py LINK MEMORY

It speaks the layout of `immunogate.runtime.camera.worker.messages`, written down here once more so that a change of it
is seen, and imports nothing, so that hundreds of lives take seconds. What it does stands in the order's address, JSON:

    {"log": PATH, "seed": 1, "outages": 10}      so many lives that end in a drawn outage, then one that does not
    {"log": PATH, "plan": ["die", "stall"]}      lives that end so, in this order, then one that does not

An end "garbage 3" is the fourth kind of garbage. Each life appends its process number and its end to the log. All bytes
of frame n have the value n mod 251.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

HEAD = struct.Struct("<4sBBHIIQQd")
OPENED, FRAME, ENDED, FAILED, WRONG_USE = 1, 2, 3, 4, 5
SLOTS, SLOT_BYTES = 4, 192_000_000
PERIOD_S = 0.004
SIZES = ((48, 64), (90, 120), (33, 47), (240, 320))

Random = random.Random


class FakeCamera:
    """One life."""

    def __init__(self, link: int, memory: int) -> None:
        self.socket = socket.socket(fileno=link)
        self.memory = mmap.mmap(memory, SLOTS * SLOT_BYTES)
        self.free = deque(range(SLOTS))
        self.stubborn = False
        order = json.loads(self.socket.recv(65_536))
        self.plan: dict[str, Any] = json.loads(order["uri"])
        self.index = 0
        self.size = SIZES[0]
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        while data := self.socket.recv(16):
            self.free.append(data[0])
        if not self.stubborn:
            os._exit(0)

    def send(self, kind: int, text: bytes = b"", **other: Any) -> None:
        values = {"magic": b"IGC1", "slot": 0, "height": 0, "width": 0, "ns": time.monotonic_ns(), "wall": time.time()}
        values |= {"index": self.index} | other
        head = HEAD.pack(values["magic"], kind, values["slot"], len(text), values["height"], values["width"],
                         values["index"], values["ns"], values["wall"])  # fmt: skip
        self.socket.send(head + text)

    def frame(self, **other: Any) -> None:
        time.sleep(PERIOD_S)
        if self.free:
            slot, (height, width) = self.free.popleft(), self.size
            count = height * width * 3
            self.memory[slot * SLOT_BYTES : slot * SLOT_BYTES + count] = bytes([self.index % 251]) * count
            self.send(FRAME, **({"slot": slot, "height": height, "width": width} | other))
        self.index += 1

    def run(self, end: str, draw: Random) -> None:
        if end == "refuse":
            self.send(FAILED, b"the camera is busy\nClose other programs")
            return
        if end == "wrong use":
            self.send(WRONG_USE, b"there is no such camera\nList them")
            return
        self.send(OPENED)
        count = 10**9 if end == "never" else draw.randint(1, 12)
        for _ in range(count):
            if draw.random() < 0.3:
                self.size = draw.choice(SIZES)
            self.frame(**({"wall": draw.uniform(0, 4e9)} if draw.random() < 0.1 else {}))  # a wall clock that jumps
        name, _, way = end.partition(" ")
        getattr(self, name)(draw, *filter(None, [way]))

    def stall(self, draw: Random) -> NoReturn:
        """As a driver that hangs: deaf to everything but SIGKILL."""
        self.stubborn = True
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        while True:
            time.sleep(60)

    def die(self, draw: Random) -> None:
        os.kill(os.getpid(), draw.choice([signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT]))

    def fail(self, draw: Random) -> None:
        self.send(FAILED, b"it gives no more frames\n")

    def over(self, draw: Random) -> None:
        self.send(ENDED)

    def garbage(self, draw: Random, way: str = "") -> None:
        ways: list[Any] = [
            lambda: self.socket.send(draw.randbytes(draw.randint(1, 900))),
            lambda: self.send(FRAME, magic=b"PNG\r", height=9, width=9),
            lambda: self.send(FRAME, slot=200, height=9, width=9),
            lambda: self.send(FRAME, height=0, width=9),
            lambda: self.send(FRAME, height=60_000, width=60_000),
            lambda: self.send(FRAME, height=9, width=9, ns=time.monotonic_ns() + 10**12),
            lambda: self.send(FRAME, height=9, width=9, ns=1),
            lambda: self.send(FRAME, height=9, width=9, index=0),
            lambda: self.send(FRAME, height=9, width=9, index=1 << 60),
            lambda: self.send(FRAME, height=9, width=9, wall=float("nan")),
            lambda: self.send(FRAME, height=9, width=9, wall=1e300),
            lambda: self.send(99),
            lambda: self.send(FAILED, b"\xff\xfe"),
        ]
        self.frame()  # so that a frame of index 0 comes twice
        (ways[int(way)] if way else draw.choice(ways))()
        time.sleep(60)


def main(link: str, memory: str) -> None:
    camera = FakeCamera(int(link), int(memory))
    log = Path(camera.plan["log"])
    life = len(log.read_text().splitlines()) if log.exists() else 0
    draw = Random(f"{camera.plan.get('seed', 0)} {life}")
    planned = camera.plan.get("plan")
    if planned is None:
        drawn = draw.choice(["stall", "die", "garbage", "fail", "refuse"])
        end = drawn if life < camera.plan["outages"] else "never"
    else:
        end = planned[life] if life < len(planned) else "never"
    with log.open("a") as lines:
        lines.write(f"{os.getpid()} {end}\n")
    camera.run(end, draw)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:3])
