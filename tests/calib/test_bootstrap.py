from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.calib.bootstrap import REPLICATES, Blocks, most_errors
from immunogate.calib.intervals import wilson
from immunogate.calib.threshold import pair_scores, threshold_at


def unit(array: Any) -> Any:
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def blocks(faces: list[int], seed: int, count: int) -> Blocks:
    """People with so many faces, and errors between drawn ones."""
    draw = np.random.default_rng(seed)
    pairs = np.array([draw.choice(len(faces), 2, replace=False) for _ in range(count)], np.int64).reshape(-1, 2)
    return Blocks(np.array(faces, np.int64), pairs[:, 0], pairs[:, 1])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=7), st.integers(0, 99))
def test_a_replicate_counts_whole_people_with_all_their_comparisons(faces: list[int], seed: int) -> None:
    """Written out: everybody's faces as often as he is drawn, all pairs of different people, errors among them."""
    made = blocks(faces, seed, 6)
    wanted = []
    for drawn in made.drawn[:40]:
        copies = [person for person, times in enumerate(drawn) for _ in range(times) for _ in range(faces[person])]
        total = sum(a != b for a, b in combinations(copies, 2))
        assert total == made.comparisons[len(wanted)]
        errors = sum(int(drawn[a] * drawn[b]) for a, b in zip(made.first, made.second, strict=True))
        wanted.append(errors / total if total else 1.0)
    some = Blocks(made.faces, made.first, made.second)
    some.__dict__["drawn"], some.__dict__["comparisons"] = made.drawn[:40], made.comparisons[:40]
    found = some.upper(np.array([6]))[0]
    assert found == pytest.approx(np.quantile(wanted, 0.975, method="higher"))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([0.01, 0.05, 0.2]), st.integers(2, 7))
def test_most_errors_is_what_trying_every_number_gives(seed: int, rate: float, grid: int) -> None:
    made = blocks([2] * 12, seed, 25)
    every = made.upper(np.arange(26))
    assert np.all(np.diff(every) >= 0)
    assert every[0] == 0
    wanted = max(number for number in range(26) if every[number] <= rate)
    assert most_errors(made, rate, 25, grid) == wanted
    assert most_errors(made, rate, 3, grid) == min(wanted, 3)


def test_replicates_are_seeded() -> None:
    one, other = (blocks([1, 2, 3], 0, 4) for _ in range(2))
    assert np.array_equal(one.drawn, other.drawn)
    assert one.drawn.shape == (REPLICATES, 3)
    assert set(one.drawn.sum(axis=1)) == {3}


def crowd(likeness: float) -> Any:
    """90 people of four faces; a third of them share a look, so that their errors come together."""
    draw = np.random.default_rng(4)
    centres = draw.normal(size=(90, 24))
    centres[:30] += likeness * draw.normal(size=24)
    faces = np.repeat(centres, 4, axis=0) + 0.3 * draw.normal(size=(360, 24))
    return unit(faces), np.repeat([f"p{i}" for i in range(90)], 4)


def test_errors_that_come_together_widen_the_interval_and_raise_the_threshold() -> None:
    scores = pair_scores(*crowd(1.0))
    found = threshold_at(scores, 1e-2)
    assert found is not None
    assert found.upper_of_pairs is not None
    assert found.upper_of_people is not None
    assert found.fmr_upper == max(found.upper_of_pairs, found.upper_of_people) <= 1e-2
    assert found.upper_of_people > 1.2 * found.upper_of_pairs
    by_pairs = threshold_at(type(scores)(scores.genuine, scores.impostor), 1e-2)
    assert by_pairs is not None
    assert (by_pairs.upper_of_people, by_pairs.fmr_upper) == (None, by_pairs.upper_of_pairs)
    assert found.threshold > by_pairs.threshold
    lower = scores.false_matches(by_pairs.threshold)  # one notch laxer and the people's bound is passed
    assert scores.blocks is not None
    assert scores.blocks.upper(np.array([scores.false_matches(found.threshold) + 1]))[0] > 1e-2 or lower == 0


def test_without_errors_wilsons_end_is_the_wider_one() -> None:
    draw = np.random.default_rng(2)
    apart = unit(np.repeat(np.eye(64)[:60], 3, axis=0) + 0.01 * draw.normal(size=(180, 64)))
    scores = pair_scores(apart, np.repeat([f"p{i}" for i in range(60)], 3))
    found = threshold_at(scores, 2.5e-4)  # what no error in 15,930 pairs supports, and no more
    assert found is not None
    assert found.upper_of_people == 0
    assert found.fmr_upper == found.upper_of_pairs
    assert found.upper_of_pairs == wilson(scores.false_matches(found.threshold), len(scores.impostor))[1]


def test_owners_are_those_of_the_strongest_comparisons() -> None:
    embeddings, names = crowd(0.5)
    scores = pair_scores(embeddings, names)
    assert scores.blocks is not None
    people = np.unique(names)
    strongest = scores.impostor[::-1]
    for place in (0, 1, 50, len(scores.blocks.first) - 1):
        first, second = (people[owner[place]] for owner in (scores.blocks.first, scores.blocks.second))
        assert first != second
        between = embeddings[names == first] @ embeddings[names == second].T
        assert np.isclose(between, strongest[place], atol=1e-6).any()
    assert len(scores.blocks.first) == pytest.approx(0.1 * len(strongest), abs=2)
