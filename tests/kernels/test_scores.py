"""Scores are exact whole numbers, and selection breaks ties by the lowest clone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.kernels import clones, reference
from immunogate.kernels.reference import (
    POINT,
    WEIGHT_LIMIT,
    CloneKey,
    ScoreTerms,
    gene_weights,
    pack,
    score,
    unpack,
)

MakeKey = Callable[..., CloneKey]
PIXELS = 12544
gene_counts = st.integers(1, 4096) | st.sampled_from([127, 1499, 1500, 4093, 4096])
clone_counts = st.integers(1, 70) | st.sampled_from([31, 32, 33, 64, 65])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), gene_counts, clone_counts, st.integers(1, 3))
def test_scores_are_those_of_the_definition(backend: Any, state: int, genes: int, count: int, batch: int) -> None:
    random = np.random.default_rng(state)
    probabilities = random.random((batch, genes), dtype=np.float32)
    weights = random.integers(-WEIGHT_LIMIT, WEIGHT_LIMIT + 1, (batch, genes))
    key = CloneKey(state, *random.integers(0, 2**32, (2, batch), dtype=np.uint32))
    found = backend.mutate_score(probabilities, weights, count, key)
    masks = reference.mutate(probabilities, np.broadcast_to(np.arange(count), (batch, count)), key)
    exact = [[sum(w for w, a in zip(weights[b].tolist(), bits, strict=True) if a) for bits in rows]
             for b, rows in enumerate(unpack(masks, genes).tolist())]  # fmt: skip
    assert found.dtype == np.int64
    assert found.tolist() == exact
    assert score(masks, weights).tolist() == exact


@pytest.mark.parametrize("left_out", [0, 1])  # an even number of equal terms might be exact by luck
@pytest.mark.parametrize(
    "weight",
    [
        WEIGHT_LIMIT,  # both limbs at their largest: the lower ones sum to 4095 * 4096, just below 2^24
        -WEIGHT_LIMIT,  # the upper limb at its lowest, the lower at 1
        4095,
        -1,  # upper limb -1, lower limb 4095
        -(2**23) + 4095,  # upper limb -2048, lower limb 4095: both at their ends
    ],
)
def test_the_worst_case_is_exact(backend: Any, make_key: MakeKey, weight: int, left_out: int) -> None:
    """4096 genes, all of them drawn, all of one weight: the largest sums there can be."""
    weights = np.full((1, clones.MAX_GENES), weight, np.int64)
    weights[0, :left_out] = 0
    scores = backend.mutate_score(np.ones((1, clones.MAX_GENES), np.float32), weights, 40, make_key(3, [1], [2]))
    assert scores.tolist() == [[weight * (clones.MAX_GENES - left_out)] * 40]


def test_the_last_bit_counts_beside_the_largest_sum(backend: Any, make_key: MakeKey) -> None:
    weights = np.full((1, 4096), WEIGHT_LIMIT, np.int64)
    weights[0, ::2] = -WEIGHT_LIMIT
    weights[0, 17] += -1
    scores = backend.mutate_score(np.ones((1, 4096), np.float32), weights, 3, make_key(3, [1], [2]))
    assert scores.tolist() == [[-1] * 3]


def test_limbs_of_every_gene_stay_exact_in_float32() -> None:
    """Why the fast path is exact: no sum of limbs of 4096 genes leaves the whole numbers that float32 can state."""
    ends = np.array([WEIGHT_LIMIT, -WEIGHT_LIMIT, -1, 4095, -(2**23) + 4095, 0])
    upper, lower = ends >> clones.LIMB, ends & ((1 << clones.LIMB) - 1)
    assert np.array_equal((upper << clones.LIMB) + lower, ends)
    assert clones.MAX_GENES * int(np.abs(upper).max()) <= 1 << 24
    assert clones.MAX_GENES * int(lower.max()) <= 1 << 24


def test_more_genes_than_are_exact_are_refused(make_key: MakeKey) -> None:
    probabilities = np.zeros((1, 4097), np.float32)
    with pytest.raises(ValueError, match="at most 4096 genes, got 4097"):
        clones.mutate_score(probabilities, np.zeros((1, 4097), np.int64), 1, make_key(0, [0], [0]))


def test_scores_do_not_depend_on_the_batch(backend: Any, make_key: MakeKey) -> None:
    random = np.random.default_rng(2)
    probabilities = random.random((8, 700), dtype=np.float32)
    weights = random.integers(-(2**20), 2**20, (8, 700))
    whole = backend.mutate_score(probabilities, weights, 65, make_key(9, list(range(8)), list(range(8))))
    for row in range(8):
        one = slice(row, row + 1)
        alone = backend.mutate_score(probabilities[one], weights[one], 65, make_key(9, [row], [row]))
        assert np.array_equal(alone[0], whole[row])


def test_weights_of_another_shape_are_refused(make_key: MakeKey) -> None:
    with pytest.raises(ValueError, match=r"weights: expected shape \(1, 40\), got \(1, 39\)"):
        clones.mutate_score(np.zeros((1, 40), np.float32), np.zeros((1, 39), np.int64), 2, make_key(0, [0], [0]))


def test_gene_weights_by_hand() -> None:
    """One half has logit 0: what is left is c^2 / D - size, in units of 2^-16."""
    found = gene_weights(np.array([[0.5]], np.float32), np.array([[112.0]]), ScoreTerms(1.0, 0.25, 1.0), PIXELS)
    assert found.dtype == np.int64
    assert found.tolist() == [[round(0.75 * 2**POINT)]]
    likely = gene_weights(np.array([[0.75]], np.float32), np.zeros((1, 1)), ScoreTerms(0, 0, 2.0), PIXELS)
    assert likely.tolist() == [[round(2 * math.log(3) * 2**POINT)]]


def test_gene_weights_round_to_the_nearest_step() -> None:
    step = 2.0**-POINT
    sizes = [0.4 * step, 0.6 * step, 1.4 * step, -0.6 * step]
    found = [gene_weights(np.array([[0.5]], np.float32), np.zeros((1, 1)), ScoreTerms(0, s, 0), 1)[0, 0] for s in sizes]
    assert found == [0, -1, -1, 1]


@pytest.mark.parametrize("coefficient", [1e6, 1e30, math.inf])
def test_gene_weights_saturate(coefficient: float) -> None:
    coefficients = np.array([[coefficient, 0.0]], np.float32)
    probabilities = np.full((1, 2), 0.5, np.float32)
    assert gene_weights(probabilities, coefficients, ScoreTerms(), PIXELS)[0, 0] == WEIGHT_LIMIT
    assert gene_weights(probabilities, coefficients, ScoreTerms(residual=-1.0), PIXELS)[0, 0] == -WEIGHT_LIMIT
    assert abs(gene_weights(probabilities, coefficients, ScoreTerms(), PIXELS)[0, 1]) < 2**POINT


def test_certain_genes_have_finite_weights() -> None:
    """0 and 1 are kept 2^-24 away from the logarithm's ends, and they are each other's opposite."""
    certain = np.array([[0.0, 1.0]], np.float32)
    found = gene_weights(certain, np.zeros((1, 2)), ScoreTerms(0, 0, 1.0), PIXELS)[0]
    assert found[1] == -found[0] == round(math.log(2**24 - 1) * 2**POINT)


@pytest.mark.parametrize("where", ["probabilities", "coefficients", "terms"])
def test_gene_weights_refuse_nan(where: str) -> None:
    nan = {name: math.nan if name == where else 0.5 for name in ("probabilities", "coefficients", "terms")}
    with pytest.raises(ValueError, match="got NaN"):
        gene_weights(
            np.array([[nan["probabilities"]]], np.float32),
            np.array([[nan["coefficients"]]]),
            ScoreTerms(size=nan["terms"]),
            PIXELS,
        )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_no_clone_beats_the_mask_known_in_closed_form(backend: Any, state: int, genes: int) -> None:
    random = np.random.default_rng(state)
    probabilities = random.random((1, genes), dtype=np.float32)
    weights = gene_weights(probabilities, random.normal(0, 30, (1, genes)), ScoreTerms(), PIXELS)
    best = score(pack(weights[:, None, :] > 0), weights)[0, 0]
    scores = backend.mutate_score(probabilities, weights, 32, CloneKey(state, *np.zeros((2, 1), np.uint32)))
    assert scores.max() <= best == weights[weights > 0].sum()


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_select_is_a_sort_by_score_and_number(backend: Any, scores: list[int], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(scores)))
    want = sorted(range(len(scores)), key=lambda clone: (-scores[clone], clone))[:keep]
    found = backend.select(np.array([scores, scores[::-1]]), keep)
    assert found.dtype == np.int64
    assert found[0].tolist() == want


def test_select_takes_the_lowest_of_equals(backend: Any) -> None:
    assert backend.select(np.array([[5, 7, 7, 5, 7]]), 4).tolist() == [[1, 2, 4, 0]]


def test_select_tells_the_largest_scores_apart(backend: Any) -> None:
    top = WEIGHT_LIMIT * 4096
    assert backend.select(np.array([[top - 1, top, -top, -top - 1]]), 4).tolist() == [[1, 0, 2, 3]]


@pytest.mark.parametrize("keep", [0, 4, -1])
def test_select_refuses_to_keep_what_is_not_there(backend: Any, keep: int) -> None:
    with pytest.raises(ValueError, match=rf"expected 1 .. 3, got {keep}"):
        backend.select(np.zeros((1, 3), np.int64), keep)
