"""What a converted bundle may lose, and the refusal of one that lost more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.calib.precision.accuracy import Accuracy, Seen, compare, refuse_below
from immunogate.errors import BundleError, InputError


@pytest.fixture
def people() -> tuple[Any, Any]:
    """(120, 16) embeddings of 60 people, two each, and whose they are."""
    draw = np.random.default_rng(4)
    centres = np.repeat(draw.standard_normal((60, 16)), 2, axis=0)
    rows = centres + 0.4 * draw.standard_normal(centres.shape)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit, np.repeat([f"p{i}" for i in range(60)], 2)


def _moved(rows: Any, size: float) -> Any:
    other = rows + size * np.random.default_rng(5).standard_normal(rows.shape)
    return (other / np.linalg.norm(other, axis=1, keepdims=True)).astype(np.float32)


def _judged(people: tuple[Any, Any], size: float) -> Accuracy:
    rows, names = people
    genes = np.full((len(rows), 10), 0.6, np.float32)
    return compare(Seen(rows, rows, genes), Seen(_moved(rows, size), _moved(rows, size), genes - 0.2), names)


def test_nothing_lost(people: tuple[Any, Any]) -> None:
    rows, names = people
    same = compare(Seen(rows, rows), Seen(rows, rows), names)
    assert same.purified.least == pytest.approx(1, abs=1e-6)
    assert same.tar_lost == same.genuine_flipped == same.impostor_flipped == 0
    assert same.genes is None
    refuse_below(same, 0.9999, 0.0)


def test_changes_are_counted(people: tuple[Any, Any]) -> None:
    found = _judged(people, 0.2)
    assert found.purified.least < found.purified.worst_percent < found.purified.mean < 0.9
    assert found.genuine_flipped > 0
    assert found.genes is not None
    assert found.genes.flipped == 1
    assert found.genes.mean_change == pytest.approx(0.2, abs=1e-6)
    assert found.as_data()["tar_lost_points"] == pytest.approx(found.tar_lost, abs=1e-3)


def test_a_bundle_below_a_limit_is_refused_with_figures_and_remedy(people: tuple[Any, Any]) -> None:
    found = _judged(people, 0.2)
    with pytest.raises(BundleError, match=rf"{found.purified.mean:.5f}, the limit is 0\.995.*--percentile"):
        refuse_below(found, 0.995, 100)
    assert found.tar_lost > 1
    with pytest.raises(BundleError, match=rf"fell by {found.tar_lost:.2f} points.*the limit is 1\b.*--method"):
        refuse_below(found, 0.5, 1.0)


def test_nan_is_no_agreement(people: tuple[Any, Any]) -> None:
    rows, names = people
    broken = rows.copy()
    broken[::2] = np.nan
    with pytest.raises(BundleError):
        refuse_below(compare(Seen(rows, rows), Seen(broken, rows), names), 0.9, 100)


def test_too_few_pairs_are_no_judgement(people: tuple[Any, Any]) -> None:
    rows, names = people
    part = Seen(rows[:40], rows[:40])
    with pytest.raises(InputError, match="support"):
        compare(part, part, names[:40])
