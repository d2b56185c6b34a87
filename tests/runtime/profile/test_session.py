"""A real gate on drawn portraits and on a clip, listened to."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from immunogate.bundle import open_bundle
from immunogate.cli.profile_scene import scene
from immunogate.cli.profile_setup import made_up_people
from immunogate.default_models import shipped_bundle
from immunogate.errors import UsageError
from immunogate.runtime.camera import open_camera
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.runtime.decide import Policy
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.profile.looped import looped_camera
from immunogate.runtime.profile.recorder import Recorder
from immunogate.runtime.profile.session import Until, record
from immunogate.runtime.profile.spans import listening
from immunogate.runtime.track import TrackLimits
from immunogate.structs import Frame, Pixels

ALWAYS = TrackLimits(eager_looks=sys.maxsize, pause=0.0, recheck=0.0)
STAGES = {
    "detect", "detect/letterbox", "detect/network", "detect/decode", "track", "track/glance", "align", "align/upright",
    "align/upright/letterbox", "align/upright/network", "align/upright/decode", "align/crop", "purify",
    "purify/project", "purify/analyze", "purify/analyze/network", "purify/antibodies", "purify/act", "recognise",
    "recognise/views", "recognise/planes", "recognise/network", "match", "decide",
}  # fmt: skip


@pytest.fixture(scope="module")
def chain() -> Iterator[FaceChain]:
    with open_chain(open_bundle(shipped_bundle()), mode="select", threads=1, clones=8) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    return scene(2)


def gate(chain: FaceChain, limits: TrackLimits = ALWAYS) -> Gate:
    policy = Policy(threshold=0.5, alarm=1.0, least_eye_distance=1.0, max_decision_age_ms=60_000)
    dimension = open_bundle(shipped_bundle()).manifest.recogniser.embedding_dimension
    people = made_up_people(5, dimension)
    return Gate(chain, people, policy, "0" * 64, limits)


def test_every_stage_of_every_frame_is_heard(chain: FaceChain, pictures: list[Pixels]) -> None:
    recorder = Recorder()
    with looped_camera("loop", pictures, 0) as camera:
        run = record(gate(chain), camera, Until(60, 3), recorder=recorder)
    assert [row.number for row in run.frames] == [0, 1, 2]
    assert all(row.faces == 2 and row.size == (480, 640) for row in run.frames)
    stages = run.stages
    assert set(stages) == STAGES | {"decode", "age", "wait", "pick-up", "frame"}
    for path in STAGES:
        assert len(stages[path]) == 3, path
        parts = [
            stages[part] for part in stages if part.startswith(f"{path}/") and part.count("/") == path.count("/") + 1
        ]
        assert np.all(sum(parts, np.zeros(3)) <= stages[path] + 1e-6), path
    top = sum(stages[path] for path in STAGES if "/" not in path)
    assert np.all(top <= stages["frame"])
    assert top.sum() > 0.7 * stages["frame"].sum()
    assert len(stages["age"]) == 6
    assert stages["age"].min() >= (stages["detect"] + stages["recognise"]).min()
    names = list(stages)
    assert names.index("decode") < names.index("detect") < names.index("detect/network") < names.index("purify")


def test_decisions_do_not_depend_on_who_listens(chain: FaceChain, pictures: list[Pixels]) -> None:
    def decided(listens: bool) -> list[tuple[object, ...]]:
        mine, found = gate(chain, TrackLimits()), []
        for index, pixels in enumerate(pictures[:4]):
            frame = Frame(pixels, index, time.monotonic_ns(), time.time(), index / 25, "loop")
            if listens:
                with listening(Recorder()):
                    result = mine.process(frame)
            else:
                result = mine.process(frame)
            found += [
                (one.track, one.outcome, one.similarity, one.similarity_raw, one.attack_score, one.antibody, one.box)
                for one in result.decisions
            ]
            assert all(set(one.latency_ms) == {"detect", "track", "align", "purify", "recognise", "match"}
                       for one in result.decisions)  # fmt: skip
        return found

    without = decided(False)
    assert len(without) == 8
    assert decided(True) == without


def test_a_live_loop_is_paced_and_loses_frames_to_a_slow_gate(pictures: list[Pixels]) -> None:
    recorder = Recorder()
    with listening(recorder), looped_camera("loop", pictures, 100) as camera:
        start = time.monotonic()
        first = [next(camera) for _ in range(10)]
        spent = time.monotonic() - start
        time.sleep(0.2)
        later = next(camera)
    assert 0.08 < spent < 1
    assert later.skipped >= 5
    assert first[3].media_time < first[8].media_time
    threads = {one.thread: one.path for one in recorder.spans()}
    assert len(threads) == 1
    assert {one.path for one in recorder.spans()} == {"decode"}
    captured = {one.index: one.captured_ns for one in first}
    decoded = {one.frame: one for one in recorder.spans() if one.path == "decode"}
    for index, at in captured.items():  # spans are marked with the frame that they are of
        assert 0 <= decoded[index].start_ns - at < 50e6


def test_a_recorded_source_ends_the_run(chain: FaceChain, data_dir: Path) -> None:
    with open_camera(str(data_dir / "video/head-pose-face-detection-male.gif")) as camera:
        run = record(gate(chain, replace(ALWAYS, eager_looks=1, pause=9.0)), camera, Until(60, 5), recorder=Recorder())
    assert len(run.frames) == 5
    assert 0 < run.seconds < 60
    with looped_camera("loop", [np.zeros((64, 64, 3), np.uint8)], 0) as camera:
        run = record(gate(chain), camera, Until(0.3))
    assert run.spans == []
    assert run.frames[-1].ended_ns - run.frames[0].asked_ns >= 0.2e9


@pytest.mark.parametrize("rate", [-1, 1001, float("nan")])
def test_an_impossible_rate_is_wrong_use(rate: float) -> None:
    with pytest.raises(UsageError, match="--rate"):
        looped_camera("loop", [np.zeros((4, 4, 3), np.uint8)], rate)
