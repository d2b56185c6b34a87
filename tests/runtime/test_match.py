from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.runtime.gallery import Templates
from immunogate.runtime.match import match, similarity_to
from immunogate.structs import Floats


def unit(vectors: Any) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def gallery(seed: int, people: int, length: int = 8) -> Templates:
    return Templates([f"p{i}" for i in range(people)], unit(np.random.default_rng(seed).normal(size=(people, length))))


@given(seed=st.integers(0, 10**6), people=st.integers(1, 12))
def test_the_best_and_the_distance_to_the_next(seed: int, people: int) -> None:
    templates, probe = gallery(seed, people), unit(np.random.default_rng(seed + 1).normal(size=8))
    ranked = sorted(
        (
            (float(np.dot(vector.astype(float), probe)), name)
            for name, vector in zip(templates.names, templates.vectors, strict=True)
        ),
        reverse=True,
    )
    found = match(templates, probe)
    assert found.person == ranked[0][1]
    assert found.similarity == pytest.approx(ranked[0][0], abs=1e-6)
    if people == 1:
        assert found.margin == math.inf
    else:
        assert found.margin == pytest.approx(ranked[0][0] - ranked[1][0], abs=1e-6)
    for similarity, name in ranked:
        assert similarity_to(templates, name, probe) == pytest.approx(similarity, abs=1e-6)


def test_an_empty_gallery_matches_nobody() -> None:
    empty = Templates([], np.zeros((0, 0), np.float32))
    found = match(empty, unit(np.ones(8)))
    assert (found.person, found.similarity) == (None, -1.0)
    assert similarity_to(empty, None, unit(np.ones(8))) is None


def test_twins_have_no_margin() -> None:
    vector = unit(np.ones((1, 8)))
    assert match(Templates(["a", "b"], np.concatenate([vector, vector])), vector[0]).margin == 0


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_template_that_is_not_finite_never_gives_a_number(row: int) -> None:
    """A comparison with a threshold fails on NaN, so this is a deny and not a match of somebody else."""
    templates = gallery(3, 3)
    templates.vectors[row] = np.nan
    found = match(templates, unit(np.ones(8)))
    assert math.isnan(found.similarity)
    assert not found.similarity >= -1


def test_an_embedding_that_is_not_finite_never_gives_a_number() -> None:
    assert math.isnan(match(gallery(3, 3), np.full(8, np.nan, np.float32)).similarity)
