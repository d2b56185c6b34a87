"""The inference modes: what each makes of probabilities and coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.errors import UsageError
from immunogate.kernels import reference
from immunogate.kernels.antibody import MODES, AntibodySettings, make_antibodies
from immunogate.kernels.reference import CloneKey, ScoreTerms, gene_weights, score, unpack

MakeKey = Callable[..., CloneKey]
GENES, PIXELS = 203, 12544


@pytest.fixture(scope="module")
def coefficients() -> Any:
    return np.random.default_rng(1).normal(0, 20, (3, GENES)).astype(np.float32)


@pytest.fixture(scope="module")
def probabilities() -> Any:
    return np.random.default_rng(2).random((3, GENES), dtype=np.float32)


@pytest.fixture(scope="module")
def key(make_key: MakeKey) -> CloneKey:
    return make_key(17, [5, 5, 6], [1, 2, 1])


def masks_of(probabilities: Any, clones: Any, key: CloneKey) -> Any:
    return unpack(reference.mutate(probabilities, clones, key), GENES).astype(np.float32)


@pytest.mark.parametrize("given_probabilities", [True, False])
def test_fixed_keeps_the_leading_eigenfaces(
    coefficients: Any, probabilities: Any, key: CloneKey, given_probabilities: bool
) -> None:
    settings = AntibodySettings("fixed", top_k=7)
    made = make_antibodies(settings, coefficients, probabilities if given_probabilities else None, key, PIXELS)
    assert made.weights.shape == (3, 1, GENES)
    assert np.array_equal(made.weights[:, 0].sum(axis=1), [7, 7, 7])
    assert made.weights[:, :, :7].all()
    assert (made.mode, made.clones, made.winners) == ("fixed", 0, None)


def test_fixed_with_more_than_there_are_keeps_all(coefficients: Any, key: CloneKey) -> None:
    made = make_antibodies(AntibodySettings("fixed", top_k=GENES + 1), coefficients, None, key, PIXELS)
    assert made.weights.all()


def test_expected_is_the_probabilities_themselves(coefficients: Any, probabilities: Any, key: CloneKey) -> None:
    made = make_antibodies(AntibodySettings("expected"), coefficients, probabilities, key, PIXELS)
    assert np.array_equal(made.weights[:, 0], probabilities)
    assert (made.clones, made.winners) == (0, None)


def test_threshold_is_strictly_above_one_half(coefficients: Any, probabilities: Any, key: CloneKey) -> None:
    edge = probabilities.copy()
    edge[0, :3] = 0.5, np.nextafter(np.float32(0.5), np.float32(1)), np.nextafter(np.float32(0.5), np.float32(0))
    made = make_antibodies(AntibodySettings("threshold"), coefficients, edge, key, PIXELS)
    assert made.weights[0, 0, :3].tolist() == [0, 1, 0]
    assert np.array_equal(made.weights[:, 0], (edge > 0.5).astype(np.float32))
    assert made.sizes().tolist() == (edge > 0.5).sum(axis=1).tolist()


def test_sample_is_clone_zero(coefficients: Any, probabilities: Any, key: CloneKey) -> None:
    made = make_antibodies(AntibodySettings("sample", seed=17), coefficients, probabilities, key, PIXELS)
    assert np.array_equal(made.weights, masks_of(probabilities, np.zeros((3, 1), np.int64), key))
    assert (made.mode, made.seed, made.clones) == ("sample", 17, 1)
    assert made.winners is not None
    assert made.winners.tolist() == [[0]] * 3


def test_select_keeps_the_best_of_its_clones(coefficients: Any, probabilities: Any, key: CloneKey) -> None:
    settings = AntibodySettings("select", clones=50, keep=3, seed=17, terms=ScoreTerms(1.0, 0.01, 0.1))
    made = make_antibodies(settings, coefficients, probabilities, key, PIXELS)
    weights = gene_weights(probabilities, coefficients, settings.terms, PIXELS)
    masks = reference.mutate(probabilities, np.broadcast_to(np.arange(50), (3, 50)), key)
    scores = score(masks, weights)
    assert made.winners is not None
    assert made.clones == 50
    for face in range(3):
        ranked = sorted(range(50), key=lambda clone: (-int(scores[face, clone]), clone))
        assert made.winners[face].tolist() == ranked[:3]
        assert np.array_equal(made.weights[face], unpack(masks[face][ranked[:3]], GENES))


def test_select_of_one_clone_is_sample(coefficients: Any, probabilities: Any, key: CloneKey) -> None:
    one = AntibodySettings("select", clones=1, keep=1)
    made = [
        make_antibodies(settings, coefficients, probabilities, key, PIXELS).weights
        for settings in (one, replace(one, mode="sample"))
    ]
    assert np.array_equal(made[0], made[1])


@pytest.mark.parametrize("mode", MODES)
def test_a_face_does_not_depend_on_its_batch(
    coefficients: Any, probabilities: Any, key: CloneKey, make_key: MakeKey, mode: str
) -> None:
    settings = AntibodySettings(mode, top_k=9, clones=40, keep=2, seed=17)
    whole = make_antibodies(settings, coefficients, probabilities, key, PIXELS).weights
    alone = make_antibodies(settings, coefficients[1:2], probabilities[1:2], make_key(17, [5], [2]), PIXELS).weights
    assert np.array_equal(whole[1:2], alone)


def test_expected_is_the_mean_of_all_clones(make_basis: Callable[..., tuple[Any, Any]], make_key: MakeKey) -> None:
    """x_hat is linear in a. 20,000 clones; a pixel's mean may stray by six of its standard deviations."""
    mean, basis = make_basis(40, 120)
    draw = np.random.default_rng(8)
    probabilities = draw.random((1, 40), dtype=np.float32)
    faces = draw.uniform(-1, 1, (1, 120)).astype(np.float32)
    coefficients = reference.project(faces, mean, basis)
    key = make_key(3, [1], [1])
    bits = unpack(reference.mutate(probabilities, np.arange(20_000)[None], key), 40).astype(np.float32)
    of_clones = reference.act(coefficients, bits, mean, basis)[0].mean(axis=0)
    made = make_antibodies(AntibodySettings("expected"), coefficients.astype(np.float32), probabilities, key, 120)
    soft = reference.act(coefficients, made.weights, mean, basis)[0, 0]
    p = probabilities[0].astype(np.float64)
    spread = np.sqrt((p * (1 - p) * coefficients[0] ** 2) @ basis.astype(np.float64) ** 2 / 20_000)
    assert np.all(np.abs(of_clones - soft) < 6 * spread)
    assert np.abs(of_clones - soft).max() > 0  # drawn, not computed from p


@pytest.mark.parametrize("mode", ["expected", "threshold", "sample", "select"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: None, "needs them, got None"),
        (lambda p: p[:, 1:], r"probabilities: expected shape \(3, 203\), got \(3, 202\)"),
        (lambda p: p[:1], r"probabilities: expected shape \(3, 203\), got \(1, 203\)"),
        (lambda p: np.where(p == p.max(), math.nan, p), r"expected values in \[0, 1\]"),
        (lambda p: np.where(p == p.max(), np.float32(1.01), p), r"expected values in \[0, 1\]"),
        (lambda p: -p, r"expected values in \[0, 1\]"),
    ],
)
def test_what_are_no_probabilities_is_refused(
    coefficients: Any, probabilities: Any, key: CloneKey, mode: str, change: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_antibodies(AntibodySettings(mode), coefficients, change(probabilities), key, PIXELS)


def test_select_refuses_coefficients_that_are_nan(coefficients: Any, probabilities: Any, key: CloneKey) -> None:
    broken = np.where(coefficients == coefficients.max(), np.float32(math.nan), coefficients)
    with pytest.raises(ValueError, match="got NaN"):
        make_antibodies(AntibodySettings("select"), broken, probabilities, key, PIXELS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "expcted"}, "unknown mode 'expcted'. Use one of: fixed, expected, threshold, sample, select"),
        ({"mode": "fixed"}, "top_k of at least 1, got 0"),
        ({"mode": "fixed", "top_k": -1}, "top_k of at least 1, got -1"),
        ({"mode": "select", "keep": 0}, "expected 1 <= keep <= clones <= 4096, got 0 and 64"),
        ({"mode": "select", "clones": 3}, "got 4 and 3"),
        ({"mode": "select", "clones": 4097}, "got 4 and 4097"),
        ({"mode": "sample", "seed": -1}, "seed must be in 0 .. 2**64 - 1, got -1"),
        ({"mode": "sample", "seed": 2**64}, "got 18446744073709551616"),
    ],
)
def test_settings_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        AntibodySettings(**fields)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@settings(deadline=None)
@given(st.sampled_from(MODES), st.integers(1, 4096), st.integers(1, 4096), st.integers(0, 2**64 - 1))
def test_settings_in_range_are_taken(mode: str, one: int, other: int, seed: int) -> None:
    settings = AntibodySettings(mode, 1, max(one, other), min(one, other), seed)
    assert settings.needs_probabilities == (mode != "fixed")
    assert settings.is_random == (mode in {"sample", "select"})
