"""Cameras that go away again and again, on the FAKE camera: what came back, what was left behind, who was held up."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from immunogate.runtime.camera.patience import Patience
from immunogate.runtime.camera.several import Cameras
from immunogate.runtime.camera.worker.messages import Order

FAKE = Path(__file__).with_name("fake_camera.py")
COMMAND = (sys.executable, "-S", "-E", str(FAKE))
QUICK = Patience(
    open_s=1.0, read_s=0.5, slack_s=0.1, start_s=30.0, first_delay_s=0.01, longest_delay_s=0.04, grace_s=0.5
)
HEALTHY = "healthy"


def order(log: Path, **plan: Any) -> Order:
    return Order(json.dumps({"log": str(log), **plan}))


def lives(log: Path) -> list[tuple[int, str]]:
    """Process number and end of each life so far."""
    if not log.exists():
        return []
    return [(int(pid), end) for pid, _, end in (line.partition(" ") for line in log.read_text().splitlines())]


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie of ours."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def run_outages(folder: Path, total: int, seed: int, cameras: int = 3, longest_s: float = 600.0) -> dict[str, Any]:
    """Let cameras go away ``total`` times in all, beside one that never does.

    Every frame handed out is looked at: whole, of one life, in order. Ends once each camera gave frames after its last
    outage.

    Returns:
        Counts: outages by kind, frames, frames that were torn, longest gaps, what was left behind.
    """
    names = [f"camera {number}" for number in range(cameras)]
    shares = [total // cameras + (number < total % cameras) for number in range(cameras)]
    logs = {name: folder / f"{name}.log" for name in (*names, HEALTHY)}
    orders = {
        name: (order(logs[name], seed=seed * 100 + number, outages=share), QUICK)
        for number, (name, share) in enumerate(zip(names, shares, strict=True))
    }
    orders[HEALTHY] = (order(logs[HEALTHY], plan=[]), QUICK)
    before = _left_behind()
    frames: Counter[str] = Counter()
    torn, out_of_order, longest_gap_s, healed = 0, 0, 0.0, set[str]()
    last_index = dict.fromkeys(orders, -1)
    seen = started = time.monotonic()
    gate = Cameras(orders, command=COMMAND, seed=seed)
    with gate:
        while len(healed) < len(orders):
            assert time.monotonic() - started < longest_s, f"only {sorted(healed)} came back"
            frame = gate.next()
            assert frame is not None, "all cameras are over"
            torn += int(frame.pixels.min() != frame.pixels.max())
            out_of_order += int(frame.index <= last_index[frame.camera])
            last_index[frame.camera] = frame.index
            frames[frame.camera] += 1
            if frame.camera == HEALTHY:
                longest_gap_s, seen = max(longest_gap_s, time.monotonic() - seen), time.monotonic()
            if lives(logs[frame.camera])[-1][1] == "never":
                healed.add(frame.camera)
        closing = time.monotonic()
    closed_s = time.monotonic() - closing
    pids = [pid for log in logs.values() for pid, _ in lives(log)]
    found: Counter[str] = sum((camera.outages for camera in gate), Counter())
    gone = _gone(pids)
    return {
        "seed": seed,
        "cameras": cameras,
        "outages_planned": total,
        "outages_by_what_the_fake_did": dict(Counter(end for name in names for _, end in lives(logs[name])[:-1])),
        "outages_by_what_the_gate_saw": dict(found),
        "reopened": sum(camera.reopened for camera in gate),
        "workers_started": len(pids),
        "frames": sum(frames.values()),
        "frames_torn": torn,
        "frames_out_of_order": out_of_order,
        "longest_gap_of_the_healthy_camera_s": round(longest_gap_s, 3),
        "seconds": round(time.monotonic() - started, 1),
        "seconds_to_close": round(closed_s, 3),
        "left_behind": {
            "processes": 0 if gone else sum(map(is_alive, pids)),
            "abandoned": sum(camera.abandoned for camera in gate),
            **{what: count - before[what] for what, count in _left_behind().items()},
            "threads": len([one for one in threading.enumerate() if one.name.startswith("camera ")]),
        },
    }


def _gone(pids: list[int], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_alive, pids))


def _left_behind() -> dict[str, int]:
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {
        "names_in_dev_shm": sum("immunogate" in name for name in os.listdir("/dev/shm")),  # noqa: PTH208
        "memory_still_mapped": sum("immunogate-frames" in line for line in maps),
        "open_files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    }
