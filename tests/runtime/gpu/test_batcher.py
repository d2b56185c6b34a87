"""Faces of several cameras gathered into batches, on a clock that the test turns."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.runtime.gpu.batcher import Batcher

WINDOW = 0.002
ARRIVALS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3000)), max_size=60)
"""Camera, and microseconds after the arrival before."""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@given(ARRIVALS, st.integers(1, 8), st.integers(0, 1500))
def test_no_face_is_lost_doubled_or_moved_and_none_waits_too_long(
    arrivals: list[tuple[str, int]], largest: int, work_us: int
) -> None:
    """One worker takes what is due, works for a while, and takes again.

    While no more faces come than the worker can do, each leaves within the window and one batch's work. Where more
    come, those before it in the queue are worked on first, in full batches: none leaves later than that.
    """
    clock = Clock()
    batcher = Batcher[tuple[str, int]](largest, WINDOW, clock)
    came: dict[tuple[str, int], tuple[float, int]] = {}
    left: list[tuple[str, int]] = []
    work, free_at, coming, at = work_us / 1e6, clock.now, [], clock.now
    for number, (camera, gap) in enumerate(arrivals):
        at += gap / 1e6
        coming.append((at, (camera, number)))
    while coming or len(batcher):
        due = batcher.due_in()
        takes_at = math.inf if due is None else max(clock.now + due, free_at)
        if coming and coming[0][0] <= takes_at:
            clock.now, face = coming.pop(0)
            came[face] = clock.now, len(batcher)
            batcher.put(face)
            continue
        clock.now = takes_at
        batch = batcher.take()
        assert 0 < len(batch) <= largest or batcher.due_in() != 0
        for face in batch:
            arrived, before = came[face]
            assert clock.now - arrived <= WINDOW + work * (1 + before // largest) + 1e-9
        left += batch
        free_at = clock.now + work
    assert left == [(camera, number) for number, (camera, _) in enumerate(arrivals)]


def test_a_batch_is_due_when_it_is_full_or_its_oldest_face_has_waited() -> None:
    clock = Clock()
    batcher = Batcher[str](3, WINDOW, clock)
    assert (batcher.due_in(), batcher.take()) == (None, [])
    batcher.put("a")
    clock.now += 0.0015
    batcher.put("b")
    assert batcher.due_in() == pytest.approx(0.0005)
    assert batcher.take() == []
    batcher.put("c")
    batcher.put("d")
    assert batcher.due_in() == 0
    assert batcher.take() == ["a", "b", "c"]
    assert batcher.take() == []
    clock.now += 0.0021
    assert batcher.take() == ["d"]
    assert len(batcher) == 0


def test_without_a_window_nobody_waits() -> None:
    batcher = Batcher[int](8, 0)
    batcher.put(1)
    assert batcher.take() == [1]


def test_threads_may_put_at_once() -> None:
    batcher = Batcher[tuple[int, int]](7, 0)
    threads = [threading.Thread(target=lambda c=c: [batcher.put((c, i)) for i in range(500)]) for c in range(4)]
    for thread in threads:
        thread.start()
    taken: list[tuple[int, int]] = []
    while any(thread.is_alive() for thread in threads) or len(batcher):
        taken += batcher.take()
    for camera in range(4):
        assert [i for c, i in taken if c == camera] == list(range(500))


@pytest.mark.parametrize(("largest", "window"), [(0, 1.0), (1, -1.0), (1, math.nan)])
def test_numbers_out_of_range_are_refused(largest: int, window: float) -> None:
    with pytest.raises(ValueError, match="expected largest of 1 or more"):
        Batcher(largest, window)
