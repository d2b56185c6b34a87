"""The kernels mean_embedding and match, run on a host, against the runtime's own functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immunogate.runtime.gallery import Templates
from immunogate.runtime.match import match
from immunogate.runtime.recognise import mean_embedding

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def unit(random: Any, *shape: int) -> Any:
    vectors = random.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def matched(emulator: Any, templates: Any, persons: Any, embeddings: Any, blocks: int) -> tuple[Any, Any, Any]:
    batch = len(embeddings)
    best, similarity, margin = np.empty(batch, np.int32), np.empty(batch, np.float32), np.empty(batch, np.float32)
    arrived = np.zeros(batch, np.uint32)
    scratch = np.empty((batch, blocks, 6), np.uint32)
    given = templates, np.asarray(persons, np.int32), embeddings, scratch, arrived, best, similarity, margin
    emulator.launch("match", (blocks, batch), (256,), *given, *templates.shape)
    assert not arrived.any()
    return best, similarity, margin


@pytest.mark.parametrize(("rows", "length"), [(1, 512), (4, 512), (16, 128), (3, 77)])
def test_mean_embedding(emulator: Any, rows: int, length: int) -> None:
    random = np.random.default_rng(rows)
    given = unit(random, 3, rows, length)
    stretched = np.ascontiguousarray(given * random.uniform(0.1, 30, (3, rows, 1)).astype(np.float32))
    found, status = np.empty((3, length), np.float32), np.zeros(3, np.uint32)
    emulator.launch("mean_embedding", (3,), (256,), stretched, found, status, rows, length, shared=4 * length)
    assert np.abs(found - mean_embedding(given)).max() < 1e-6
    assert not status.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_embedding_that_is_not_finite_is_reported_and_matches_nobody(emulator: Any, bad: float) -> None:
    rows = unit(np.random.default_rng(0), 2, 3, 64)
    rows[1, 2, 63] = bad
    found, status = np.empty((2, 64), np.float32), np.zeros(2, np.uint32)
    emulator.launch("mean_embedding", (2,), (256,), rows, found, status, 3, 64, shared=256)
    assert status.tolist() == [0, 4]
    best, similarity, margin = matched(emulator, unit(np.random.default_rng(1), 9, 64), np.arange(9), found, 2)
    assert best[0] >= 0
    assert (best[1], similarity[1], margin[1]) == (-1, -1, math.inf)


@few
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 4), st.integers(1, 5))
def test_one_template_a_person_is_the_runtimes_match(
    emulator: Any, state: int, people: int, batch: int, blocks: int
) -> None:
    random = np.random.default_rng(state)
    templates, embeddings = unit(random, people, 96), unit(random, batch, 96)
    embeddings[0] = templates[people // 2]
    best, similarity, margin = matched(emulator, templates, np.arange(people), embeddings, blocks)
    for face in range(batch):
        want = match(Templates([str(i) for i in range(people)], templates), embeddings[face])
        assert str(best[face]) == want.person
        assert similarity[face] == pytest.approx(want.similarity, abs=1e-6)
        assert margin[face] == pytest.approx(want.margin, abs=2e-6)


@few
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 9), st.integers(1, 6))
def test_the_runner_up_is_another_person_and_ties_go_to_the_lowest(
    emulator: Any, state: int, count: int, people: int, blocks: int
) -> None:
    """Whole numbers, so that sums are exact and many are equal."""
    random = np.random.default_rng(state)
    templates = random.integers(-1, 2, (count, 40)).astype(np.float32)
    embeddings = random.integers(-1, 2, (2, 40)).astype(np.float32)
    persons = random.integers(0, people, count)
    best, similarity, margin = matched(emulator, templates, persons, embeddings, blocks)
    exact = embeddings @ templates.T
    for face in range(2):
        first = int(np.argmax(exact[face]))
        others = exact[face][persons != persons[first]]
        assert best[face] == first
        assert similarity[face] == exact[face, first]
        assert margin[face] == (exact[face, first] - others.max() if len(others) else math.inf)
