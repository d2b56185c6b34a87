from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.runtime.track import Track, Tracker, TrackLimits, overlap_of_boxes
from immunogate.structs import Faces, Floats

LIMITS = TrackLimits()
ANN, BOB = np.eye(2, dtype=np.float32)
"""Thumbnails of two people."""

Box = tuple[float, float, float, float]
corner = st.integers(-20, 20)
boxes = st.lists(st.tuples(corner, corner, corner, corner), min_size=1, max_size=5)


def faces(*found: Box) -> Faces:
    count = len(found)
    return Faces(
        np.array(found, np.float32).reshape(-1, 4), np.zeros((count, 5, 2), np.float32), np.ones(count, np.float32)
    )


def square(x: float, y: float = 0, side: float = 100) -> Box:
    return (x, y, x + side, y + side)


def numbers(tracker: Tracker, now: float, *seen: tuple[Box, Floats]) -> list[int]:
    thumbnails = np.array([glance for _, glance in seen], np.float32)
    return [track.number for track in tracker.update(faces(*(box for box, _ in seen)), thumbnails, now)]


def cells(box: Any) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@given(first=boxes, second=boxes)
@settings(max_examples=60, deadline=None)
def test_overlap_counts_whole_cells(first: list[Any], second: list[Any]) -> None:
    """Whole numbers, so that areas can be counted cell by cell; boxes turned inside out are empty."""
    found = overlap_of_boxes(np.array(first, np.float32), np.array(second, np.float32))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            one, other = cells(a), cells(b)
            wanted = len(one & other) / len(one | other) if one | other else 0
            assert found[i, j] == pytest.approx(wanted, abs=1e-9)


def test_overlap_with_what_is_no_box_is_none() -> None:
    good = np.array([square(0)], np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        wrong = np.array([square(0), (bad, 0, 100, 100)], np.float32)
        with np.errstate(invalid="ignore"):
            overlaps = overlap_of_boxes(good, wrong)
        assert overlaps[0, 0] == 1
        assert not overlaps[0, 1] > 0


def test_a_face_keeps_its_number_while_it_moves_and_others_come_and_go() -> None:
    tracker = Tracker()
    assert numbers(tracker, 0.0, (square(0), ANN)) == [1]
    assert numbers(tracker, 0.1, (square(300), BOB), (square(20), ANN)) == [2, 1]
    assert numbers(tracker, 0.2, (square(40), ANN)) == [1]
    assert numbers(tracker, 0.3, (square(60), ANN), (square(310), BOB)) == [1, 2]


def test_a_lost_face_is_found_again_until_it_ends() -> None:
    tracker = Tracker()
    numbers(tracker, 0.0, (square(0), ANN))
    assert numbers(tracker, LIMITS.lost_after, (square(0), ANN)) == [1]
    assert numbers(tracker, 2 * LIMITS.lost_after + 0.01, (square(0), ANN)) == [2]
    assert [track.number for track in tracker.tracks] == [2]


def test_tracks_end_while_no_face_is_there() -> None:
    tracker = Tracker()
    numbers(tracker, 0.0, (square(0), ANN))
    assert numbers(tracker, 5.0) == []
    assert tracker.tracks == []


def test_a_face_missed_in_a_frame_starts_its_count_anew() -> None:
    """Frames must agree in a row: what was tried in between, in another track or unseen, may not be passed over."""
    tracker = Tracker()
    first = tracker.update(faces(square(0)), np.array([ANN]), 0.0)[0]
    first.person, first.agreeing = "ann", 2
    tracker.update(faces(square(0)), np.array([ANN]), 0.08)
    assert first.agreeing == 2
    tracker.update(faces(square(0)), np.array([BOB]), 0.16)
    assert [first.person, first.agreeing] == [None, 0]
    assert tracker.update(faces(square(0)), np.array([ANN]), 0.24)[0] is first


def test_somebody_else_in_the_same_place_is_another_track() -> None:
    tracker = Tracker()
    numbers(tracker, 0.0, (square(0), ANN))
    assert numbers(tracker, 0.08, (square(0), BOB)) == [2]
    close = np.array([LIMITS.least_likeness + 0.01, (1 - (LIMITS.least_likeness + 0.01) ** 2) ** 0.5], np.float32)
    assert numbers(tracker, 0.16, (square(0), close)) != [2]
    assert numbers(Tracker(tracks=[Track(7, np.array(square(0)), ANN, 0.0)], started=7), 0.1, (square(0), close)) == [7]


def test_no_thumbnail_is_like_nobody() -> None:
    """What impossible landmarks give: the zero vector."""
    tracker, nothing = Tracker(), np.zeros(2, np.float32)
    assert numbers(tracker, 0.0, (square(0), nothing)) == [1]
    assert numbers(tracker, 0.1, (square(0), nothing)) == [2]


def test_faces_that_cross_keep_their_people() -> None:
    """At the crossing both boxes overlap both tracks; a track must never go on with the other's face."""
    tracker, owner = Tracker(), dict[int, int]()
    for step in range(21):
        seen = [(square(20.0 * step), ANN), (square(400 - 20.0 * step, 5), BOB)]
        order = seen if step % 2 else seen[::-1]
        for number, (_, glance) in zip(numbers(tracker, 0.08 * step, *order), order, strict=True):
            assert owner.setdefault(number, int(glance[1])) == int(glance[1])
    assert len(owner) == 2


def test_the_best_overlap_is_joined_first() -> None:
    tracker = Tracker()
    numbers(tracker, 0.0, (square(0), ANN), (square(50), ANN))
    assert numbers(tracker, 0.1, (square(45), ANN), (square(5), ANN)) == [2, 1]


sights = st.tuples(st.sampled_from([0, 30, 60, 200, 400]), st.sampled_from([0, 1]))


@given(frames=st.lists(st.tuples(st.floats(0, 1), st.lists(sights, max_size=4)), max_size=25))
@settings(deadline=None)
def test_numbers_count_up_and_are_never_used_again(frames: list[tuple[float, list[tuple[int, int]]]]) -> None:
    tracker, now, ended, highest = Tracker(), 0.0, set[int](), 0
    for pause, seen in frames:
        now += pause
        found = numbers(tracker, now, *((square(x), (ANN, BOB)[who]) for x, who in seen))
        assert len(set(found)) == len(found) == len(seen)
        assert not ended & set(found)
        new = [number for number in found if number > highest]
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)
        ended |= set(range(1, highest + 1)) - {track.number for track in tracker.tracks}


def track(**changes: Any) -> Track:
    return Track(1, np.array(square(0), np.float32), ANN, 0.0, **changes)


@pytest.mark.parametrize(
    ("state", "now", "eyes", "due"),
    [
        ({}, 0.0, 40.0, True),
        ({"looks": 1, "looked_size": 40.0, "outcome": "deny"}, 0.01, 40.0, True),
        ({"looks": 7, "looked_size": 40.0, "outcome": "deny"}, 0.01, 40.0, True),
        ({"looks": 8, "looked_size": 40.0, "outcome": "deny"}, 0.49, 40.0, False),
        ({"looks": 8, "looked_size": 40.0, "outcome": "deny"}, 0.5, 40.0, True),
        ({"looks": 99, "looked_size": 40.0, "outcome": "deny", "agreeing": 1}, 0.01, 40.0, True),
        ({"looks": 99, "looked_size": 40.0, "outcome": "alarm"}, 0.49, 40.0, False),
        ({"looks": 3, "looked_size": 40.0, "outcome": "allow", "agreeing": 3}, 0.99, 40.0, False),
        ({"looks": 3, "looked_size": 40.0, "outcome": "allow", "agreeing": 3}, 1.0, 40.0, True),
        ({"looks": 3, "looked_size": 40.0, "outcome": "allow", "agreeing": 3}, 0.1, 49.9, False),
        ({"looks": 3, "looked_size": 40.0, "outcome": "allow", "agreeing": 3}, 0.1, 50.0, True),
    ],
)
def test_when_a_face_is_due(state: dict[str, Any], now: float, eyes: float, due: bool) -> None:
    assert track(**state).is_due(now, eyes, LIMITS) == due


def test_a_face_is_never_forgotten_for_longer_than_a_pause() -> None:
    face, looked = track(), []
    for step in range(200):
        now = 0.04 * step
        if face.is_due(now, 40.0, LIMITS):
            face.looks, face.looked_at, face.looked_size, face.outcome = face.looks + 1, now, 40.0, "deny"
            looked.append(now)
    assert looked[: LIMITS.eager_looks] == pytest.approx([0.04 * i for i in range(LIMITS.eager_looks)])
    assert np.diff(looked).max() <= LIMITS.pause + 0.041
    assert np.diff(looked)[LIMITS.eager_looks :].min() >= LIMITS.pause - 1e-9
