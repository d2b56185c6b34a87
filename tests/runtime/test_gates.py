"""Several cameras through one chain: in turn, together, each by its own limits; none holds up or spoils another."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outages import COMMAND, QUICK, order
from scripted import ScriptedDetector

from immunogate.bundle import Bundle
from immunogate.runtime.align import TEMPLATE
from immunogate.runtime.camera.several import Cameras
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gates import Gates
from immunogate.runtime.pipeline import FrameResult, Gate
from immunogate.runtime.track import TrackLimits
from immunogate.structs import Faces, Frame, Pixels

MakeFrame = Callable[..., Frame]
LENIENT = Policy(threshold=0.99, alarm=2.0, max_decision_age_ms=60_000, confirm_frames=1)


def ann() -> Faces:
    """One frontal face at a place in the noise that stands for ann."""
    landmarks = (TEMPLATE * 1.2 + np.float32([50, 100]))[None].astype(np.float32)
    return Faces(np.array([[50, 100, 184, 234]], np.float32), landmarks, np.ones(1, np.float32))


class Waiting:
    """Cameras in whose place a test puts frames."""

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames

    def next(self, passing_over: Collection[str] = (), *, wait: bool = True) -> Frame | None:
        for frame in self.frames:
            if frame.camera not in passing_over:
                self.frames.remove(frame)
                return frame
        return None


@pytest.fixture
def chain(tiny_bundle: Bundle) -> Iterator[FaceChain]:
    with open_chain(tiny_bundle, mode="fixed", threads=1) as opened:
        detector: Any = ScriptedDetector()
        detector.next = ann()
        opened.detector = detector
        yield opened


@pytest.fixture
def decide(
    chain: FaceChain, noise: Pixels, frame_of: MakeFrame
) -> Callable[..., tuple[list[FrameResult], list[Frame]]]:
    crop, _ = chain.crop(noise, ann().landmarks[0])
    templates = Templates(["ann"], chain.recognise(crop[None], [0], [0]).purified)

    def run(budget_ms: float = 60_000, **policies: Policy) -> tuple[list[FrameResult], list[Frame]]:
        gates = {
            name: Gate(chain, templates, policy, "0" * 64, TrackLimits(recheck=0.0))
            for name, policy in policies.items()
        }
        first, *rest = [replace(frame_of(noise, 1), camera=name) for name in policies]
        waiting: Any = Waiting(rest)
        return Gates(gates, chain, budget_ms).round(first, waiting), waiting.frames

    return run


def counted(chain: FaceChain, monkeypatch: pytest.MonkeyPatch, fail: Callable[[int, int], bool]) -> list[int]:
    """The sizes of batches that the chain is asked for; it fails where ``fail(turn, faces)`` says so."""
    sizes: list[int] = []
    recognise = chain.recognise

    def count(crops: Any, *args: Any, **options: Any) -> Any:
        sizes.append(len(crops))
        if fail(len(sizes), len(crops)):
            raise ValueError("a fault of the network")
        return recognise(crops, *args, **options)

    monkeypatch.setattr(chain, "recognise", count)
    return sizes


def test_faces_of_all_cameras_are_one_batch(
    chain: FaceChain, decide: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(chain, monkeypatch, lambda turn, faces: False)
    results, _ = decide(front=LENIENT, back=LENIENT, yard=LENIENT)
    assert sizes == [3]
    assert [result.decisions[0].camera for result in results] == ["front", "back", "yard"]
    assert {result.decisions[0].outcome for result in results} == {"allow"}


def test_each_camera_decides_by_its_own_limits(decide: Callable[..., Any]) -> None:
    strict = replace(LENIENT, least_eye_distance=500.0)
    patient = replace(LENIENT, confirm_frames=2)
    results, _ = decide(front=LENIENT, far=strict, slow=patient)
    assert [result.decisions[0].reason for result in results] == ["match", "poor_face", "confirming"]


def test_a_fault_of_the_batch_denies_only_who_has_it(
    chain: FaceChain, decide: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(chain, monkeypatch, lambda turn, faces: faces == 2 or turn == 2)
    results, _ = decide(front=LENIENT, back=LENIENT)
    assert sizes == [2, 1, 1]
    assert [(r.decisions[0].outcome, r.decisions[0].reason) for r in results] == [("deny", "error"), ("allow", "match")]
    assert [r.decisions[0].confirmations for r in results] == [0, 1], "a face was counted twice"


def test_the_oldest_frame_does_not_wait_beyond_its_budget(decide: Callable[..., Any]) -> None:
    results, waiting = decide(budget_ms=0, front=LENIENT, back=LENIENT)
    assert len(results) == 1
    assert [frame.camera for frame in waiting] == ["back"]


def test_a_frame_that_came_too_late_is_denied(decide: Callable[..., Any]) -> None:
    late = replace(LENIENT, max_decision_age_ms=1.0)
    (result,), _ = decide(front=late)
    assert (result.decisions[0].outcome, result.decisions[0].reason) == ("deny", "stale")


def test_a_detector_of_another_size_finds_the_same_network(tiny_bundle: Bundle, noise: Pixels) -> None:
    with open_chain(tiny_bundle, mode="fixed", threads=1, longest_side=640) as opened:
        detector = opened.detector_of(320)
        assert max(detector.sizes((720, 1280))[1]) == 320
        detector.detect(noise)
        detector.close()


@pytest.fixture
def cameras(tmp_path: Path) -> Iterator[Callable[..., Cameras]]:
    opened: list[Cameras] = []

    def make(**plans: list[str]) -> Cameras:
        orders = {name: (order(tmp_path / f"{name}.log", plan=plan), QUICK) for name, plan in plans.items()}
        opened.append(Cameras(orders, command=COMMAND, seed=1))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_no_camera_starves_however_slow_the_gate_is(cameras: Callable[..., Cameras]) -> None:
    gate = cameras(a=[], b=[], c=[])
    gate.expect_any()
    time.sleep(0.5)
    taken = []
    for _ in range(24):
        frame = gate.next()
        assert frame is not None
        taken.append(frame.camera)
        time.sleep(0.03)  # slower than each of them
    assert all(taken[-15:].count(name) == 5 for name in "abc"), taken


def test_frames_are_the_newest_also_after_waiting_for_their_turn(cameras: Callable[..., Cameras]) -> None:
    gate = cameras(a=[], b=[])
    for _ in range(10):
        gate.next()
        time.sleep(0.1)
    frame = gate.next()
    assert frame is not None
    assert time.monotonic_ns() - frame.captured_ns < 80_000_000
    assert sum(counts["skipped"] for counts in gate.counts().values()) > 20


def test_a_camera_that_refuses_does_not_keep_the_others_from_starting(cameras: Callable[..., Cameras]) -> None:
    gate = cameras(dead=["refuse"] * 500, fine=[])
    gate.expect_any()
    frame = gate.next()
    assert frame is not None
    assert frame.camera == "fine"


def test_where_no_camera_opens_that_is_an_error(cameras: Callable[..., Cameras]) -> None:
    from immunogate.errors import CameraError

    with pytest.raises(CameraError, match="busy"):
        cameras(a=["refuse"] * 500, b=["refuse"] * 500).expect_any()


def test_recordings_that_are_over_end_the_round(cameras: Callable[..., Cameras]) -> None:
    gate, frames = cameras(a=["over"], b=["over"]), 0
    while gate.next() is not None:
        frames += 1
    assert frames > 0
    assert gate.next() is None
