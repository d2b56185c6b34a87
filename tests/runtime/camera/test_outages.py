"""Outages at instants drawn from seeds: cameras come back, nobody is held up, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from outages import is_alive, run_outages


def expect_clean(counted: dict[str, Any]) -> None:
    assert counted["frames_torn"] == counted["frames_out_of_order"] == 0
    assert set(counted["left_behind"].values()) == {0}, counted
    assert sum(counted["outages_by_what_the_fake_did"].values()) == counted["outages_planned"]
    seen = sum(counted["outages_by_what_the_gate_saw"].values())
    assert seen >= counted["outages_planned"]  # on a machine that stands still a healthy worker is taken for hung too
    assert counted["seconds_to_close"] < 5


def test_thirty_outages(tmp_path: Path) -> None:
    counted = run_outages(tmp_path, total=30, seed=1)
    expect_clean(counted)
    assert set(counted["outages_by_what_the_fake_did"]) == {"stall", "die", "garbage", "fail", "refuse"}
    assert set(counted["outages_by_what_the_gate_saw"]) == {"hung", "died", "garbage", "failed"}
    assert counted["longest_gap_of_the_healthy_camera_s"] < 3, "a dead camera held the healthy one up"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_two_hundred_outages(tmp_path: Path, seed: int) -> None:
    expect_clean(run_outages(tmp_path, total=200, seed=seed, cameras=4))


KEEPER = """
import sys, time
from immunogate.runtime.camera.patience import Patience
from immunogate.runtime.camera.several import Cameras
from immunogate.runtime.camera.worker.messages import Order
cameras = Cameras({name: (Order("synthetic://?frames=0"), Patience()) for name in "ab"})
for _ in range(4):
    cameras.next()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("is_hung", [False, True])
def test_workers_end_with_a_gate_that_is_killed(is_hung: bool) -> None:
    gate = subprocess.Popen([sys.executable, "-c", KEEPER], stdout=subprocess.PIPE, text=True)
    assert gate.stdout is not None
    assert gate.stdout.readline() == "ready\n"
    workers = children(gate.pid)
    assert len(workers) == 2
    for pid in workers if is_hung else []:
        os.kill(pid, signal.SIGSTOP)  # deaf to the socket, as in a driver that hangs: the kernel's word remains
    gate.kill()
    gate.communicate()
    deadline = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    survivors = list(filter(is_alive, workers))
    for pid in survivors:
        os.kill(pid, signal.SIGKILL)
    assert not survivors


def children(pid: int) -> list[int]:
    """Of all its threads: a camera's thread starts the worker."""
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
