"""The gate with real parts and scripted faces: whatever fails on the way is a deny, and never lets anybody in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scripted import ScriptedDetector

from immunogate.bundle import Bundle
from immunogate.runtime.align import TEMPLATE
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Templates
from immunogate.runtime.pipeline import FrameResult, Gate
from immunogate.runtime.track import TrackLimits
from immunogate.runtime.upright import VIEW
from immunogate.structs import Decision, Faces, Frame, Pixels

MakeFrame = Callable[..., Frame]
EVERY_FRAME = TrackLimits(recheck=0.0)
LENIENT = Policy(threshold=0.99, alarm=2.0, max_decision_age_ms=60_000)
"""Random networks alarm often, and a busy machine is slow; both are tested apart."""

ANN, BOB = (50, 100), (350, 200)  # places in the noise that stand for two people


def seen(*places: tuple[int, int]) -> Faces:
    """One frontal face for each place, eyes 42 pixels apart."""
    offsets = np.array(places, np.float32).reshape(-1, 1, 2)
    landmarks = (TEMPLATE * 1.2 + offsets).astype(np.float32)
    corners = np.concatenate([offsets, offsets + 134], axis=1).reshape(-1, 4)
    return Faces(corners.astype(np.float32), landmarks, np.ones(len(places), np.float32))


@dataclass
class Door:
    """A gate, its chain, and the frame that stands before it."""

    gate: Gate
    chain: FaceChain
    detector: ScriptedDetector
    pixels: Pixels
    make_frame: MakeFrame
    index: int = 0

    def look(self, faces: Faces | Exception, **options: Any) -> FrameResult:
        self.detector.next = faces
        self.index += 1
        return self.gate.process(self.make_frame(self.pixels, self.index, **options))

    def decision(self, faces: Faces | Exception, **options: Any) -> Decision:
        (decision,) = self.look(faces, **options).decisions
        return decision


def templates_of(chain: FaceChain, pixels: Pixels, **places: tuple[int, int]) -> Templates:
    crops = [chain.crop(pixels, seen(place).landmarks[0])[0] for place in places.values()]
    found = chain.recognise(np.stack(crops), [0] * len(crops), list(range(len(crops))))
    return Templates(list(places), found.purified)


OpenDoor = Callable[..., Door]


@pytest.fixture
def open_door(tiny_bundle: Bundle, noise: Pixels, frame_of: MakeFrame) -> Iterator[OpenDoor]:
    chains = []

    def make(
        policy: Policy = LENIENT,
        templates: Templates | None = None,
        mode: str = "fixed",
        limits: TrackLimits = EVERY_FRAME,
    ) -> Door:
        chain = open_chain(tiny_bundle, mode=mode, threads=1)
        chains.append(chain)
        if templates is None:
            templates = templates_of(chain, noise, ann=ANN, bob=BOB)
        detector: Any = ScriptedDetector()
        chain.detector = detector
        return Door(Gate(chain, templates, policy, tiny_bundle.sha256, limits), chain, detector, noise, frame_of)

    yield make
    for chain in chains:
        chain.close()


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_a_known_face_is_allowed_after_three_frames(open_door: OpenDoor) -> None:
    door = open_door()
    decisions = [door.decision(seen(ANN)) for _ in range(5)]
    assert [d.outcome for d in decisions] == ["deny", "deny", "allow", "allow", "allow"]
    assert [d.reason for d in decisions] == ["confirming"] * 2 + ["match"] * 3
    assert [d.confirmations for d in decisions] == [1, 2, 3, 4, 5]
    assert {d.person for d in decisions} == {"ann"}
    assert {d.track for d in decisions} == {1}


def test_two_faces_are_decided_apart(open_door: OpenDoor) -> None:
    door = open_door()
    for order in ((ANN, BOB), (BOB, ANN), (ANN, BOB)):
        result = door.look(seen(*order))
    assert {(d.person, d.outcome) for d in result.decisions} == {("ann", "allow"), ("bob", "allow")}
    assert len({d.track for d in result.decisions}) == 2


def test_a_stranger_is_never_allowed(open_door: OpenDoor) -> None:
    door = open_door()
    for _ in range(6):
        decision = door.decision(seen((200, 300)))
        assert (decision.outcome, decision.reason, decision.confirmations) == ("deny", "no_match", 0)


def test_who_steps_into_the_place_of_somebody_allowed_starts_from_nothing(open_door: OpenDoor) -> None:
    door = open_door(limits=TrackLimits())
    for _ in range(3):
        allowed = door.decision(seen(ANN))
    assert allowed.outcome == "allow"
    landmarks_of_another = replace(seen(ANN), landmarks=seen((200, 300)).landmarks)
    decision = door.decision(landmarks_of_another)
    assert (decision.outcome, decision.reason) == ("deny", "no_match")
    assert decision.track != allowed.track


class Damaged:
    """A network with one output replaced."""

    def __init__(self, inner: Any, output: str, value: float) -> None:
        self.inner, self.output, self.value = inner, output, value
        self.name, self.input_name = "damaged", inner.input_name

    def run(self, batch: Any) -> dict[str, Any]:
        outputs: dict[str, Any] = self.inner.run(batch)
        outputs[self.output][...] = self.value
        return outputs


def bad_recogniser(door: Door, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(door.chain.recogniser, "_runner", Damaged(door.chain.recogniser._runner, "embedding", np.nan))


def bad_analyzer(door: Door, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(door.chain.purifier, "_analyzer", Damaged(door.chain.purifier._analyzer, "probabilities", np.nan))


def fail_at(where: str, error: Exception) -> Callable[[Door, pytest.MonkeyPatch], None]:
    def sabotage(door: Door, patch: pytest.MonkeyPatch) -> None:
        owner, name = where.rsplit(".", 1)
        target = door.chain if owner == "chain" else getattr(door.chain, owner)
        patch.setattr(target, name, raising(error))

    return sabotage


FAULTS: dict[str, tuple[Callable[[Door, pytest.MonkeyPatch], None], str]] = {
    "purifier raises": (fail_at("purifier.purify", MemoryError("no room")), "no room"),
    "recogniser raises": (fail_at("recogniser.embed", RuntimeError("broken")), "broken"),
    "recogniser gives NaN": (bad_recogniser, "not finite"),
    "analyzer gives NaN": (bad_analyzer, "[0, 1]"),
    "crop raises ValueError": (fail_at("chain.crop", ValueError("odd landmarks")), "odd landmarks"),
    "crop raises anything": (fail_at("chain.crop", ZeroDivisionError("by zero")), "by zero"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_denies_with_its_reason_and_starts_the_count_anew(open_door: OpenDoor, fault: str) -> None:
    sabotage, words = FAULTS[fault]
    door = open_door(mode="expected")
    assert [door.decision(seen(ANN)).confirmations for _ in range(2)] == [1, 2]
    with pytest.MonkeyPatch.context() as patch:
        sabotage(door, patch)
        failed = door.decision(seen(ANN))
    assert (failed.outcome, failed.reason, failed.confirmations) == ("deny", "error", 0)
    assert words in failed.detail
    assert [door.decision(seen(ANN)).outcome for _ in range(3)] == ["deny", "deny", "allow"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_also_denies_who_was_allowed(open_door: OpenDoor, fault: str) -> None:
    door = open_door(mode="expected")
    for _ in range(3):
        allowed = door.decision(seen(ANN))
    assert allowed.outcome == "allow"
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[fault][0](door, patch)
        assert [door.decision(seen(ANN)).outcome for _ in range(4)] == ["deny"] * 4
    assert door.decision(seen(ANN)).reason == "confirming"


def test_a_face_that_can_not_be_glanced_at_is_a_new_one_each_time(open_door: OpenDoor) -> None:
    """Nothing says that it is the same face as before, hence frames do not add up."""
    door = open_door()
    with pytest.MonkeyPatch.context() as patch:
        fail_at("chain.glance", RuntimeError("no glance"))(door, patch)
        decisions = [door.decision(seen(ANN)) for _ in range(5)]
    assert [(d.outcome, d.confirmations) for d in decisions] == [("deny", 1)] * 5
    assert len({d.track for d in decisions}) == 5


def test_a_detector_that_fails_at_the_second_look_denies(open_door: OpenDoor) -> None:
    door = open_door()
    for _ in range(2):
        door.decision(seen(ANN))

    class FailsOnViews(ScriptedDetector):
        def detect(self, pixels: Pixels) -> Faces:
            if pixels.shape[:2] == (VIEW, VIEW):
                raise RuntimeError("second look")
            return super().detect(pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "detector", FailsOnViews())
        patch.setattr(door.chain, "detector", door.detector)
        failed = door.decision(seen(ANN))
    assert (failed.outcome, failed.reason, failed.confirmations) == ("deny", "error", 0)
    assert "second look" in failed.detail
    assert [door.decision(seen(ANN)).outcome for _ in range(3)] == ["deny", "deny", "allow"]


def test_a_detector_that_fails_lets_nobody_in_and_starts_counts_anew(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    door = open_door()
    for _ in range(2):
        door.decision(seen(ANN))
    result = door.look(RuntimeError("the network is gone"))
    assert (len(result.faces), result.decisions) == (0, [])
    assert "the detector failed" in caplog.text
    assert [door.decision(seen(ANN)).outcome for _ in range(3)] == ["deny", "deny", "allow"]


@pytest.mark.parametrize("age_ms", [600.0, 3600e3, -50_000.0])
def test_frames_that_are_old_or_from_the_future_are_denied(open_door: OpenDoor, age_ms: float) -> None:
    door = open_door(policy=replace(LENIENT, max_decision_age_ms=500.0))
    for _ in range(4):
        decision = door.decision(seen(ANN), age_ms=age_ms)
        assert (decision.outcome, decision.reason, decision.confirmations) == ("deny", "stale", 0)
        assert decision.age_ms == pytest.approx(age_ms, abs=400)
        assert decision.person == "ann"  # it would have matched


def test_slow_processing_makes_a_decision_stale(open_door: OpenDoor) -> None:
    door = open_door(policy=replace(LENIENT, max_decision_age_ms=150.0))
    whole = door.chain.recogniser.embed

    def slow(faces: Any) -> Any:
        time.sleep(0.2)
        return whole(faces)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door.chain.recogniser, "embed", slow)
        decision = door.decision(seen(ANN))
    assert decision.reason == "stale"
    assert decision.age_ms >= 200
    assert decision.latency_ms["recognise"] >= 200


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["landmarks", "boxes"])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_one_impossible_face_does_not_concern_the_others(open_door: OpenDoor, part: str, value: float) -> None:
    door = open_door()
    faces = seen(ANN, BOB)
    getattr(faces, part)[0, ..., 0] = value
    for _ in range(3):
        impossible, good = door.look(faces).decisions
    assert (good.person, good.outcome) == ("bob", "allow")
    assert impossible.outcome == "deny"
    assert impossible.reason == (
        "error" if part == "landmarks" else "confirming"
    )  # such a box is a new track each time
    assert all(isinstance(side, int) for side in impossible.box)
    json.loads(impossible.to_json())


def test_a_poor_face_keeps_its_reason_where_another_fails(open_door: OpenDoor) -> None:
    door = open_door()
    faces = seen(ANN, BOB)
    faces.landmarks[0] = faces.landmarks[0].mean(axis=0) + (faces.landmarks[0] - faces.landmarks[0].mean(axis=0)) / 4
    with pytest.MonkeyPatch.context() as patch:
        bad_recogniser(door, patch)
        small, failed = door.look(faces).decisions
    assert (small.outcome, small.reason) == ("deny", "poor_face")
    assert (failed.outcome, failed.reason) == ("deny", "error")


@pytest.mark.parametrize("turned", [False, True])
def test_poor_faces_are_denied_and_start_the_count_anew(open_door: OpenDoor, turned: bool) -> None:
    door, poor = open_door(), seen(ANN)
    for _ in range(2):
        door.decision(seen(ANN))
    if turned:
        poor.landmarks[0, 2, 0] += 20
    door.gate._policy = replace(LENIENT, least_eye_distance=16.0 if turned else 50.0)
    denied = door.decision(poor)
    assert (denied.outcome, denied.reason, denied.similarity) == ("deny", "poor_face", None)
    door.gate._policy = LENIENT
    assert [door.decision(seen(ANN)).outcome for _ in range(3)] == ["deny", "deny", "allow"]


def test_raw_and_purified_that_disagree_are_an_alarm(open_door: OpenDoor) -> None:
    door = open_door()
    score = door.decision(seen(ANN)).attack_score
    assert score is not None
    assert score > 0.01
    strict = open_door(policy=replace(LENIENT, alarm=score / 2))
    for _ in range(4):
        decision = strict.decision(seen(ANN))
        assert (decision.outcome, decision.reason) == ("alarm", "disagreement")


def test_clones_that_disagree_are_an_alarm_and_are_named(open_door: OpenDoor) -> None:
    first = open_door(mode="select").decision(seen(ANN))
    assert first.alarm_signal is None
    apart = first.clone_disagreement
    assert apart is not None
    assert apart > 0.001
    strict = open_door(mode="select", policy=replace(LENIENT, clone_alarm=apart / 2)).decision(seen(ANN))
    assert (strict.outcome, strict.reason) == ("alarm", "disagreement")
    assert json.loads(strict.to_json())["alarm_signal"] == "clone disagreement"
    assert strict.clone_disagreement == apart  # the same frame, the same clones


def test_a_face_that_changes_from_look_to_look_is_an_alarm(open_door: OpenDoor) -> None:
    """The same box and, to the tracker, the same face; the count begins anew, and the new look is what counts then."""
    limits = TrackLimits(recheck=0.0, least_likeness=-1.0)
    door = open_door(limits=limits, policy=replace(LENIENT, frame_alarm=1e-3))
    changed = replace(seen(ANN), landmarks=seen((200, 300)).landmarks)
    decisions = [door.decision(faces) for faces in (seen(ANN), seen(ANN), changed, changed, seen(ANN))]
    assert [d.alarm_signal for d in decisions] == [None, None, "consecutive frames", None, "consecutive frames"]
    assert [d.confirmations for d in decisions] == [1, 2, 0, 0, 0]
    apart = [d.frame_disagreement for d in decisions]
    assert apart[0] is None
    assert apart[1] == apart[3] == 0
    assert apart[2] == apart[4]
    assert {d.track for d in decisions} == {1}


def test_an_empty_gallery_denies(open_door: OpenDoor) -> None:
    door = open_door(templates=Templates([], np.zeros((0, 0), np.float32)))
    for _ in range(4):
        decision = door.decision(seen(ANN))
        assert (decision.outcome, decision.reason, decision.person) == ("deny", "empty_gallery", None)
        assert (decision.similarity, decision.similarity_raw, decision.margin) == (None, None, None)


def test_templates_of_another_length_deny(open_door: OpenDoor) -> None:
    door = open_door(templates=Templates(["ann"], np.full((1, 9), 1 / 3, np.float32)))
    decision = door.decision(seen(ANN))
    assert (decision.outcome, decision.reason) == ("deny", "error")


def test_almost_equal_people_are_ambiguous(open_door: OpenDoor) -> None:
    door = open_door()
    vector = door.gate._templates.vectors[0]
    twins = open_door(templates=Templates(["ann", "her twin"], np.stack([vector, vector])))
    for _ in range(4):
        decision = twins.decision(seen(ANN))
        assert (decision.outcome, decision.reason, decision.margin) == ("deny", "ambiguous", 0)


def test_no_face_makes_no_decision(open_door: OpenDoor) -> None:
    result = open_door().look(Faces.none())
    assert (result.tracks, result.looks, result.decisions) == ([], [], [])


@pytest.mark.parametrize("mode", ["fixed", "expected", "select"])
def test_decisions_say_everything_in_one_line_of_json(open_door: OpenDoor, tiny_bundle: Bundle, mode: str) -> None:
    door = open_door(mode=mode, policy=replace(LENIENT, threshold=-1.0))
    result = door.look(seen(ANN, BOB))
    for decision in result.decisions:
        line = decision.to_json()
        assert "\n" not in line
        record = json.loads(line, parse_constant=raising(ValueError("not JSON")))
        assert record["schema"] == 1
        assert record["bundle"] == tiny_bundle.sha256
        assert record["antibody"]["mode"] == mode
        assert record["antibody"]["clones"] == (32 if mode == "select" else 0)
        assert set(record["latency_ms"]) == {"detect", "align", "track", "purify", "recognise", "match"}
        assert record["captured_at"] <= record["decided_at"]
        assert record["captured_at"].endswith("Z")
        assert -1.001 <= record["similarity"] <= 1.001
        assert 0 <= record["attack_score"] <= 2
        assert record["frame"] == 1
    assert result.decisions[0].box == (50, 100, 184, 234)


def test_decision_names_are_unique_and_sort_by_time(open_door: OpenDoor) -> None:
    door, names = open_door(), []
    for _ in range(30):
        names.append([d.decision_id for d in door.look(seen(ANN, BOB)).decisions])
        time.sleep(0.002)  # a frame is never younger than that
    flat = [name for frame in names for name in frame]
    assert len(set(flat)) == 60
    assert all(max(earlier) < min(later) for earlier, later in pairwise(names))


def test_a_replayed_frame_gives_the_same_numbers(open_door: OpenDoor) -> None:
    """In mode select clones are drawn from seed, frame and track: nothing else may matter."""
    first, second = (open_door(mode="select").decision(seen(BOB)) for _ in range(2))
    assert first.antibody == second.antibody
    assert (first.similarity, first.attack_score) == (second.similarity, second.attack_score)
