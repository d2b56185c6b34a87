"""Pairs and halves, pictures within their bound, thresholds and rates of clean pairs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.calib.robustness.clean import curve, lowest_rate, threshold_on
from immunogate.calib.robustness.pairs import genuine_pairs, impostor_pairs, posed
from immunogate.calib.threshold import PairScores, pair_scores
from immunogate.errors import InputError
from immunogate.faces_file import AlignedFaces

SIZES = st.lists(st.integers(1, 5), min_size=3, max_size=8)


def _names(sizes: list[int]) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    return np.repeat([f"p{place}" for place in range(len(sizes))], sizes)


@given(sizes=SIZES, count=st.integers(1, 30), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_genuine_pairs_take_everybody_once_before_anybody_twice(sizes: list[int], count: int, seed: int) -> None:
    names = _names(sizes)
    pairs = genuine_pairs(names, count, seed)
    there = sum(size * (size - 1) // 2 for size in sizes)
    assert len(pairs) == min(count, there)
    assert all(names[first] == names[second] and first != second for first, second in pairs)
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
    turns = Counter(names[pairs[:, 0]].tolist())
    able = {f"p{place}": size * (size - 1) // 2 for place, size in enumerate(sizes)}
    for person, most in able.items():
        assert turns[person] >= min(most, max(turns.values(), default=0) - 1)


@given(sizes=SIZES, count=st.integers(1, 30), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_impostor_pairs_are_of_two_people(sizes: list[int], count: int, seed: int) -> None:
    names = _names(sizes)
    pairs = impostor_pairs(names, count, seed)
    assert len(pairs) == min(count, len(sizes) * (len(sizes) - 1))
    assert all(names[first] != names[second] for first, second in pairs)
    attackers = Counter(names[pairs[: len(sizes), 0]].tolist())
    assert max(attackers.values()) == 1


def test_nobody_who_is_reported_gives_a_threshold(people: AlignedFaces) -> None:
    problem = posed(people, 5, 0, 2)
    sides = [set(problem.identities[rows].tolist()) for rows in (problem.calibrating, problem.reported)]
    assert not sides[0] & sides[1]
    assert len(problem.images) == 2 * 16
    for pairs in (problem.genuine, problem.impostors):
        assert len(pairs) == 5
        assert set(problem.identities[pairs].ravel().tolist()) <= sides[1]
    assert problem.pairs("dodging") is problem.genuine
    assert problem.pairs("impersonation") is problem.impostors


def test_too_few_people_are_refused(people: AlignedFaces) -> None:
    with pytest.raises(InputError, match="no pairs to evaluate"):
        posed(people.take(np.arange(12)), 5, 0, 2)
    single = people.take(np.arange(0, 48, 3))
    with pytest.raises(InputError, match="0 genuine"):
        posed(single, 5, 0, 2)


def test_a_threshold_of_few_pairs_says_so() -> None:
    draw = np.random.default_rng(0)
    scores = PairScores(np.array([0.9], np.float32), np.sort(draw.normal(0, 0.1, 2000)).astype(np.float32))
    threshold, words = threshold_on(scores, 0.01)
    assert words == "2,000 impostor pairs of people who are not reported on"
    assert 0 < scores.false_matches(threshold) < 20
    few = PairScores(scores.genuine, scores.impostor[:50])
    threshold, words = threshold_on(few, 0.01)
    assert few.false_matches(threshold) == 0
    assert "only 50" in words


def test_the_error_curve_falls_and_stays_within_what_the_pairs_support() -> None:
    draw = np.random.default_rng(1)
    scores = PairScores(
        draw.normal(0.4, 0.1, 300).astype(np.float32), np.sort(draw.normal(0, 0.1, 5000)).astype(np.float32)
    )
    det = curve("bundle", scores)
    assert min(det.fmr) >= 1 / 5000
    assert list(det.fnmr) == sorted(det.fnmr, reverse=True)
    for rate, missed in zip(det.fmr, det.fnmr, strict=True):
        threshold = np.sort(scores.impostor)[::-1][int(rate * 5000)]
        assert missed == pytest.approx(float(np.mean(scores.genuine <= threshold)))


def test_drawing_people_anew_gives_a_lower_end_below_the_rate_and_above_nothing() -> None:
    draw = np.random.default_rng(2)
    vectors = draw.standard_normal((60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.repeat([f"p{place}" for place in range(30)], 2)
    rate = pair_scores(vectors, names).false_matches(0.3) / (60 * 59 / 2 - 30)
    low = lowest_rate(vectors, names, 0.3, 0)
    assert 0.5 * rate < low < rate
    assert lowest_rate(vectors, names, 1.1, 0) == 0
