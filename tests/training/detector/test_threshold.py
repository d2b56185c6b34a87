from __future__ import annotations

import numpy as np
import pytest

from immunogate.training.detector.threshold import HIGHEST, LOWEST, MOST_EXTRA, USUAL, caution


def lowered(scores: np.ndarray, by: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(np.log(scores / (1 - scores)) - by))))


def test_a_detector_without_mistakes_may_be_bolder() -> None:
    faces = np.linspace(0.31, 0.99, 400)
    by = caution(faces, np.zeros(0))
    assert lowered(np.array([LOWEST]), by)[0] == pytest.approx(USUAL)
    assert caution(faces, np.array([0.62])) == by  # one in four hundred is not too many
    assert caution(np.zeros(0), np.zeros(0)) == by


def test_a_detector_with_mistakes_below_the_usual_limit_is_as_bold_as_they_allow() -> None:
    faces, extra = np.linspace(0.31, 0.99, 400), np.linspace(0.31, 0.45, 30)
    by = caution(faces, extra)
    assert by < 0
    assert (lowered(extra, by) > USUAL).sum() <= MOST_EXTRA * 400
    assert lowered(np.array([0.46]), by)[0] > USUAL


def test_after_it_few_mistakes_are_above_the_usual_limit_and_no_more_is_taken_than_needed() -> None:
    draw = np.random.default_rng(1)
    faces, extra = draw.uniform(0.7, 0.99, 1000), draw.uniform(0.5, 0.9, 60)
    by = caution(faces, extra)
    assert by > 0
    above, wrong = (lowered(faces, by) > USUAL).sum(), (lowered(extra, by) > USUAL).sum()
    assert wrong <= MOST_EXTRA * (above + wrong)
    less = lowered(extra, by - 0.1)
    assert (less > USUAL).sum() > MOST_EXTRA * ((lowered(faces, by - 0.1) > USUAL).sum() + (less > USUAL).sum())


def test_a_stubborn_mistake_does_not_cost_all_faces() -> None:
    by = caution(np.linspace(0.7, 0.98, 50), np.full(5, 0.999))
    assert lowered(np.array([HIGHEST]), by)[0] == pytest.approx(USUAL)
