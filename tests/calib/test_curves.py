from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.calib.curves import FEWEST, det_curve, measures, rate_of, slices
from immunogate.calib.intervals import wilson
from immunogate.calib.threshold import PairScores


def test_the_curve_falls_from_many_errors_of_one_kind_to_many_of_the_other() -> None:
    draw = np.random.default_rng(1)
    scores = PairScores(
        draw.normal(0.6, 0.1, 500).astype(np.float32), np.sort(draw.normal(0.2, 0.1, 5000).astype(np.float32))
    )
    curve = det_curve(scores)
    assert {len(values) for values in curve.values()} == {len(curve["fmr"])}
    assert np.all(np.diff(curve["fmr"]) < 0)
    assert np.all(np.diff(curve["fnmr"]) >= 0)
    assert curve["fmr"][0] == 0.5
    assert curve["fmr"][-1] == 1 / 5000
    for fmr, fnmr, threshold in zip(*curve.values(), strict=True):
        assert fmr == (scores.impostor >= threshold).mean()
        assert fnmr == pytest.approx((scores.genuine < threshold).mean())


def test_each_measure_says_what_it_is_called() -> None:
    draw = np.random.default_rng(0)
    plain = np.full((112, 112), 100, np.uint8)
    noisy = draw.integers(80, 120, (112, 112)).astype(np.uint8)
    bright = np.full((112, 112), 200, np.uint8)
    halves = np.repeat([[60], [140]], 56, axis=0).repeat(112, axis=1).astype(np.uint8)
    found = measures(np.stack([plain, noisy, bright, halves]))
    assert found["brightness"] == pytest.approx([100, noisy.mean(), 200, 100])
    assert found["contrast"] == pytest.approx([0, noisy.std(), 0, 40], abs=1e-3)
    assert found["sharpness"].argmax() == 1
    assert found["sharpness"][[0, 2]].tolist() == [0, 0]


def people(count: int) -> tuple[Any, Any, Any]:
    """Two faces of each; those of the darker third are embedded at random, the others near their person's own."""
    draw = np.random.default_rng(3)
    centres = np.repeat(draw.normal(size=(count, 32)), 2, axis=0)
    level = np.repeat(np.linspace(40, 220, count).astype(int), 2)
    embeddings = centres + np.where(level[:, None] < 100, 3.0, 0.1) * draw.normal(size=centres.shape)
    images = np.clip(level[:, None, None] + draw.integers(-9, 9, (2 * count, 112, 112)), 0, 255).astype(np.uint8)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return unit.astype(np.float32), np.repeat([f"p{i}" for i in range(count)], 2), images


def test_slices_show_where_it_fails_and_hold_every_comparison_once() -> None:
    embeddings, names, images = people(150)
    found = {(part.by, part.part): part for part in slices(embeddings, names, images, 0.6)}
    assert len(found) == 9
    dark, bright = found["brightness", "low"].tar, found["brightness", "high"].tar
    assert dark.high is not None
    assert bright.low is not None
    assert dark.high < bright.low
    for by in ("sharpness", "brightness", "contrast"):
        parts = [found[by, part] for part in ("low", "middle", "high")]
        assert sum(part.tar.of for part in parts) == 150
        assert sum(part.fmr.of for part in parts) == 300 * 299 // 2 - 150
        assert parts[0].least < parts[0].most == parts[1].least
    tar = bright
    assert tar.rate == tar.accepted / tar.of
    assert (tar.low, tar.high) == wilson(tar.accepted, tar.of)


def test_too_few_comparisons_state_no_rate() -> None:
    some = np.ones(FEWEST - 1, bool)
    assert rate_of(some, FEWEST).rate is None
    assert rate_of(some, FEWEST).of == FEWEST - 1
    assert rate_of(np.ones(FEWEST, bool), FEWEST).rate == 1
    assert rate_of(np.zeros(0, bool)).rate is None
    embeddings, names, images = people(20)
    assert any(part.tar.rate is None and part.fmr.rate is not None for part in slices(embeddings, names, images, 0.6))
