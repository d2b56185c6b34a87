from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.errors import MissingExtraError
from immunogate.structs import PIXELS

pytest.importorskip("torch")

from immunogate.networks.attacks.boundary import _Nearest, hop_skip_jump
from immunogate.networks.attacks.oracle import BudgetSpentError, VerificationOracle
from immunogate.networks.attacks.square import share_at, square

WEIGHTS = np.random.default_rng(0).standard_normal((PIXELS, 6)).astype(np.float32)
COARSE = np.kron(np.random.default_rng(1).standard_normal((6, 14, 14)), np.ones((8, 8))).reshape(6, -1).T


def coarse(faces: Any, rows: Any, numbers: Any) -> Any:
    return np.tanh(faces @ COARSE.astype(np.float32) / 40)


def people(count: int = 4) -> tuple[Any, Any]:
    draw = np.random.default_rng(5)
    faces = np.clip(0.5 * draw.standard_normal((count, PIXELS)), -1, 1).astype(np.float32)
    return faces, coarse(faces, None, None)


def oracle(limit: float = 0.5, most: int | None = None, up: bool = False, embed: Any = coarse) -> VerificationOracle:
    _, templates = people()
    wanted = np.roll(templates, 1, axis=0) if up else templates
    return VerificationOracle(embed, wanted, limit, np.full(4, up), most)


def test_an_oracle_counts_every_question_and_numbers_them_for_each_sample() -> None:
    faces, templates = people()
    numbers: list[Any] = []

    def embed(asked: Any, rows: Any, counts: Any) -> Any:
        numbers.append((rows.tolist(), counts.tolist()))
        return coarse(asked, rows, counts)

    asked = oracle(embed=embed, most=3)
    scores = asked.scores(faces[[1, 1, 2]], np.array([1, 1, 2]))
    assert scores == pytest.approx([1, 1, 1], abs=1e-5)
    asked.scores(faces[[1]], np.array([1]))
    assert numbers == [([1, 1, 2], [0, 1, 0]), ([1], [2])]
    assert asked.queries.tolist() == [0, 3, 1, 0]
    with pytest.raises(BudgetSpentError):
        asked.scores(faces[[2, 1]], np.array([2, 1]))
    assert asked.queries.tolist() == [0, 3, 1, 0]
    assert len(templates) == 4
    with pytest.raises(ValueError, match="not finite"):
        oracle(embed=lambda a, r, n: coarse(a, r, n) * np.nan).scores(faces[[0]], np.array([0]))
    with pytest.raises(ValueError, match="templates"):
        VerificationOracle(coarse, np.ones((3, 2), np.float32), 0.5, np.zeros(2, bool))


def test_square_halves_its_squares_as_the_paper_says() -> None:
    steps = [0, 10, 11, 50, 51, 200, 201, 1001, 2001, 4001, 6001, 8001, 9999]
    shares = [share_at(step, 10_000) / 0.8 for step in steps]
    assert shares == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256, 1 / 256]
    assert share_at(1001, 5000) == share_at(2002, 10_000)


@given(eps=st.floats(0, 2, width=32), seed=st.integers(0, 100), up=st.booleans())
@settings(max_examples=15, deadline=None)
def test_square_stays_within_the_bound_and_counts_what_it_asks(eps: float, seed: int, up: bool) -> None:
    faces, _ = people()
    asked = oracle(limit=2.0 if up else -2.0, up=up)  # nobody is ever lost
    found = square(asked, faces, eps, 12, seed=seed)
    assert float(np.abs(found.points - faces).max()) <= eps + 1e-6
    assert float(np.abs(found.points).max()) <= 1
    assert found.queries.tolist() == [12] * 4
    again = coarse(found.points, None, None)
    wanted = np.roll(people()[1], 1, axis=0) if up else people()[1]
    cosines = (again * wanted).sum(axis=1) / np.linalg.norm(again, axis=1) / np.linalg.norm(wanted, axis=1)
    assert found.scores == pytest.approx(cosines, abs=1e-4)


@pytest.mark.parametrize("up", [False, True])
def test_square_gains_with_questions_stops_at_a_loss_and_is_seeded(up: bool) -> None:
    faces, _ = people()
    few, many = (square(oracle(9.0 if up else -9.0, up=up), faces, 0.3, count).scores for count in (2, 150))
    assert bool((many > few + 0.02).all() if up else (many < few - 0.02).all())
    limit = float(np.median(many))
    stopped = square(oracle(limit, up=up), faces, 0.3, 150)
    assert 0 < stopped.lost.sum() < 4
    assert bool((stopped.queries[stopped.lost] < 150).all())
    assert bool((stopped.queries[~stopped.lost] == 150).all())
    held = ~stopped.lost
    assert np.array_equal(stopped.scores[held], many[held])  # others' losses change nothing
    again = square(oracle(limit, up=up), faces, 0.3, 150, batch=1)
    assert stopped.scores == pytest.approx(again.scores, abs=1e-6)
    assert not np.array_equal(square(oracle(limit, up=up), faces, 0.3, 150, seed=1).points, stopped.points)


def test_square_refuses_impossible_calls() -> None:
    faces, _ = people()
    for eps, queries in ((0.1, 0), (-0.1, 5), (float("nan"), 5)):
        with pytest.raises(ValueError, match="expected queries"):
            square(oracle(), faces, eps, queries)


def test_hop_skip_jump_comes_nearer_with_questions_and_asks_no_more_than_it_may() -> None:
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed (extra evaluate)")
    faces, _ = people()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the library's generator
    near = {}
    for most in (60, 400):
        asked = oracle(0.5, most)
        found = hop_skip_jump(asked, faces[:2], 0.2, norm="2", seed=3)
        assert int(found.queries[:2].max()) <= most
        assert int(found.queries[:2].min()) >= most - 1
        near[most] = np.linalg.norm(found.points - faces[:2], axis=1)
        assert bool((found.scores < 0.5).all())
        assert found.scores == pytest.approx(oracle(0.5).scores(found.points, np.arange(2)), abs=1e-5)
        assert np.array_equal(found.lost, near[most] <= 0.2)
    assert bool((near[400] < near[60] - 0.1).all())
    again = hop_skip_jump(oracle(0.5, 60), faces[:2], 0.2, norm="2", seed=3)
    assert np.linalg.norm(again.points - faces[:2], axis=1) == pytest.approx(near[60])
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_the_nearest_picture_that_won_counts_not_the_last_one_nor_one_that_lost() -> None:
    faces, _ = people()
    nearest = _Nearest(oracle(0.5), faces[:1], 0, np.inf)
    far, near, refused = np.full(PIXELS, 1, np.float32), -faces[0], faces[0] * np.float32(0.99)
    assert nearest(np.stack([far, near, refused]))[:, 1].tolist() == [1, 1, 0]
    assert nearest.point is not None
    assert np.array_equal(nearest.point, min((far, near), key=lambda face: float(np.abs(face - faces[0]).max())))
    before = nearest.distance
    nearest((2 * near)[None])
    assert nearest.distance == before


def test_hop_skip_jump_without_a_first_picture_leaves_the_face_and_starts_where_it_is_told() -> None:
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed (extra evaluate)")
    faces, _ = people()
    asked = oracle(0.9, 150, up=True)
    found = hop_skip_jump(asked, faces[:1], 0.5)
    assert np.array_equal(found.points, faces[:1])
    assert np.isnan(found.scores[0])
    assert not found.lost[0]
    given_start = hop_skip_jump(oracle(0.9, 150, up=True), faces[:1], 0.5, starts=np.roll(faces, 1, axis=0)[:1])
    assert given_start.scores[0] >= 0.9
    with pytest.raises(ValueError, match="budget"):
        hop_skip_jump(oracle(), faces[:1], 0.1)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "art.attacks.evasion", None)
    with pytest.raises(MissingExtraError, match="evaluate"):
        hop_skip_jump(oracle(most=5), people()[0], 0.1)
