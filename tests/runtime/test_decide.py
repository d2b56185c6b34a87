from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.errors import UsageError
from immunogate.runtime.align import Quality
from immunogate.runtime.decide import Disagreement, Policy, Reason, attack_score, disagreement, is_poor, judge
from immunogate.runtime.track import Track
from immunogate.structs import CLONE_DISAGREEMENT, CONSECUTIVE_FRAMES, RAW_AGAINST_PURIFIED, Match

POLICY = Policy(threshold=0.5, alarm=0.6, margin=0.1, confirm_frames=3, least_eye_distance=16, most_yaw=0.35)
NAN = math.nan

numbers = st.one_of(st.floats(-1.2, 2.2), st.sampled_from([NAN, math.inf, -math.inf, 0.5, 0.6, 0.1]))
matches = st.builds(Match, st.sampled_from([None, "ann", "bob"]), numbers, numbers)
looks = st.lists(st.tuples(matches, numbers), max_size=25)
good_looks = st.lists(
    st.one_of(
        st.tuples(st.builds(Match, st.sampled_from(["ann", "bob"]), st.just(0.8), st.just(math.inf)), st.just(0.1)),
        st.tuples(matches, numbers),
    ),
    max_size=40,
)


def fresh() -> Track:
    return Track(1, np.zeros(4, np.float32), np.zeros(196, np.float32), 0.0)


def fits(found: Match, score: float) -> bool:
    """What the policy asks for, written another way than the code: only plain numbers on the right side count."""
    if found.person is None or any(map(math.isnan, (found.similarity, found.margin, score))):
        return False
    return min(found.similarity - 0.5, found.margin - 0.1, 0.6 - score) >= 0


@given(looks=st.one_of(looks, good_looks), frames=st.integers(1, 6))
@settings(max_examples=300)
def test_allow_means_so_many_fitting_looks_of_one_person_in_a_row(
    looks: list[tuple[Match, float]], frames: int
) -> None:
    policy, track = dataclasses.replace(POLICY, confirm_frames=frames), fresh()
    for last, (found, score) in enumerate(looks):
        verdict = judge(found, Disagreement(score), policy, track)
        recent = looks[max(0, last + 1 - frames) : last + 1]
        agreed = (
            len(recent) == frames
            and all(fits(*look) for look in recent)
            and len({look[0].person for look in recent}) == 1
        )
        assert (verdict.outcome == "allow") == agreed
        assert (verdict.reason is Reason.MATCH) == agreed
        if not fits(found, score):
            assert (track.person, track.agreeing, verdict.confirmations) == (None, 0, 0)


@given(where=st.sampled_from(["similarity", "margin", "score"]), before=st.integers(0, 5))
def test_nan_denies_and_starts_the_count_anew(where: str, before: int) -> None:
    track = fresh()
    for _ in range(before):
        judge(Match("ann", 0.9), Disagreement(0.0), POLICY, track)
    found = Match("ann", NAN if where == "similarity" else 0.9, NAN if where == "margin" else 1.0)
    verdict = judge(found, Disagreement(NAN if where == "score" else 0.0), POLICY, track)
    assert verdict.outcome == ("alarm" if where == "score" else "deny")
    assert track.agreeing == 0
    assert judge(Match("ann", 0.9), Disagreement(0.0), POLICY, track).reason is Reason.CONFIRMING


@pytest.mark.parametrize(
    ("found", "score", "outcome", "reason"),
    [
        (Match(None, -1.0), 0.0, "deny", Reason.EMPTY_GALLERY),
        (Match("ann", 0.49), 0.0, "deny", Reason.NO_MATCH),
        (Match("ann", 0.9, 0.09), 0.0, "deny", Reason.AMBIGUOUS),
        (Match("ann", 0.9), 0.61, "alarm", Reason.DISAGREEMENT),
        (Match("ann", 0.1), 0.61, "alarm", Reason.DISAGREEMENT),
        (Match("ann", 0.5, 0.1), 0.6, "deny", Reason.CONFIRMING),
    ],
)
def test_reasons(found: Match, score: float, outcome: str, reason: Reason) -> None:
    verdict = judge(found, Disagreement(score), POLICY, fresh())
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_another_person_starts_at_one() -> None:
    track = fresh()
    people = ["ann", "ann", "bob", "bob", "bob", "ann"]
    verdicts = [judge(Match(person, 0.9), Disagreement(0.0), POLICY, track) for person in people]
    assert [v.confirmations for v in verdicts] == [1, 2, 1, 2, 3, 1]
    assert [v.outcome for v in verdicts] == ["deny"] * 4 + ["allow", "deny"]


RANGES = {
    "threshold": (-1, 1),
    "alarm": (0, 2),
    "margin": (0, 2),
    "confirm_frames": (1, 1000),
    "max_decision_age_ms": (1, 60_000),
    "least_eye_distance": (0, 10_000),
    "most_yaw": (0, 10),
    "clone_alarm": (0, 2),
    "frame_alarm": (0, 2),
}


def test_every_number_of_a_policy_has_a_range() -> None:
    assert set(RANGES) == {field.name for field in dataclasses.fields(Policy)}


@pytest.mark.parametrize("name", RANGES)
def test_policy_ranges(name: str) -> None:
    low, high = RANGES[name]
    for fitting in (low, high):
        assert getattr(dataclasses.replace(POLICY, **{name: fitting}), name) == fitting
    for wrong in (low - 0.01, high + 0.01, NAN, math.inf, -math.inf):
        with pytest.raises(UsageError, match=name.replace("_", "-")):
            dataclasses.replace(POLICY, **{name: wrong})  # type: ignore[arg-type]


def test_attack_score_is_one_less_the_cosine() -> None:
    first, second = np.eye(2, dtype=np.float32)
    assert attack_score(first, first) == 0
    assert attack_score(first, second) == 1
    assert attack_score(first, -first) == 2
    assert attack_score(first * np.float32(1.001), first) == 0  # rounding never leaves [0, 2]
    assert math.isnan(attack_score(first * np.float32(NAN), first))


@pytest.mark.parametrize(
    ("eyes", "yaw", "poor"),
    [(16, 0.35, False), (15.9, 0.0, True), (100, 0.36, True), (NAN, 0.0, True), (100, NAN, True)],
)
def test_poor_faces(eyes: float, yaw: float, poor: bool) -> None:
    assert is_poor(Quality(eyes, yaw, 100.0), POLICY) == poor


ALL_LIMITS = dataclasses.replace(POLICY, clone_alarm=0.2, frame_alarm=0.3, confirm_frames=1)


@pytest.mark.parametrize(
    ("apart", "signal"),
    [
        (Disagreement(0.6, 0.2, 0.3), None),
        (Disagreement(0.6, 0.2), None),
        (Disagreement(0.61, 0.2, 0.3), RAW_AGAINST_PURIFIED),
        (Disagreement(0.6, 0.21, 0.3), CLONE_DISAGREEMENT),
        (Disagreement(0.6, 0.2, 0.31), CONSECUTIVE_FRAMES),
        (Disagreement(0.7, 0.7, 0.7), RAW_AGAINST_PURIFIED),
        (Disagreement(0.1, 0.7, 0.7), CLONE_DISAGREEMENT),
        (Disagreement(NAN, 0.0, 0.0), RAW_AGAINST_PURIFIED),
        (Disagreement(0.0, NAN, 0.0), CLONE_DISAGREEMENT),
        (Disagreement(0.0, 0.0, NAN), CONSECUTIVE_FRAMES),
        (Disagreement(0.0, None, 0.0), CLONE_DISAGREEMENT),
    ],
)
def test_any_signal_beyond_its_limit_is_an_alarm_and_is_named(apart: Disagreement, signal: str | None) -> None:
    """A signal that is no number, or that has a limit and was not to be had, is a doubt."""
    track = fresh()
    track.person, track.agreeing = "ann", 5
    verdict = judge(Match("ann", 0.9), apart, ALL_LIMITS, track)
    assert (verdict.outcome, verdict.signal) == (("alarm", signal) if signal else ("allow", None))
    assert track.agreeing == (0 if signal else 6)


def test_signals_without_a_limit_raise_nothing() -> None:
    track = fresh()
    verdict = judge(Match("ann", 0.9), Disagreement(0.0, 2.0, 2.0), POLICY, track)
    assert (verdict.reason, verdict.signal) == (Reason.CONFIRMING, None)


def test_each_look_is_compared_with_the_one_before() -> None:
    first, second = np.eye(2, dtype=np.float32)
    track = fresh()
    found = [disagreement(first, look, 0.25, track) for look in (first, second, second, -second)]
    assert [one.frames for one in found] == [None, 1, 0, 2]
    assert [one.raw for one in found] == [0, 1, 1, 1]
    assert {one.clones for one in found} == {0.25}
