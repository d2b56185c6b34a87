"""Whole grey levels within a bound, filters with a gradient, faces in frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.calib.robustness.filters import FILTERS, filtered  # noqa: E402 - needs torch
from immunogate.calib.robustness.frames import SIDE, framed, landmarks_in  # noqa: E402
from immunogate.calib.robustness.pixels import bound, crops_of, crops_within, tensor_of  # noqa: E402
from immunogate.networks.attacks.frame import Warp, points_from_frames  # noqa: E402
from immunogate.runtime.align import TEMPLATE, align, similarity_to_large_crop  # noqa: E402


@given(levels=st.sampled_from([1, 2, 5.1, 8, 64]), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_rounding_stays_within_the_bound(levels: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    crops = draw.integers(0, 256, (2, 112, 112)).astype(np.uint8)
    clean = tensor_of(crops)
    assert np.array_equal(crops_of(clean), crops)
    noise = torch.from_numpy(draw.uniform(-1, 1, clean.shape).astype(np.float32))
    found = (clean + bound(levels) * noise.sign() * noise.abs().clamp_min(0.5)).clamp(-1, 1)
    near = crops_within(found, clean, levels)
    assert int(np.abs(near.astype(int) - crops).max()) <= int(levels)
    away = np.abs(near - ((found.numpy().reshape(near.shape) + 1) * 127.5)).max()
    assert away <= 1  # a bound of 5.1 levels may cost more than rounding
    assert np.array_equal(crops_within(found, clean, None), crops_of(found))


@pytest.mark.parametrize("key", list(FILTERS))
def test_a_filter_is_the_same_with_a_gradient_and_as_a_picture(key: str, people: Any) -> None:
    crops = np.roll(people.images[:3], 3, axis=(1, 2))  # JPEG leaves even blocks of 8 as they are
    points = tensor_of(crops).requires_grad_()
    passed = filtered(key, points)
    pictures = FILTERS[key][1](crops)
    assert np.array_equal(crops_of(passed), pictures)
    assert not np.array_equal(pictures, crops)
    (gradient,) = torch.autograd.grad(passed.sum(), points)
    assert bool((gradient != 0).any(dim=1).all())


def test_the_gradient_of_the_blur_is_its_own(people: Any) -> None:
    points = tensor_of(people.images[:1]).requires_grad_()
    centre = 56 * 112 + 56
    (gradient,) = torch.autograd.grad(filtered("blur", points)[0, centre], points)
    assert 0.1 < float(gradient[0, centre]) < 0.3
    assert float(gradient.sum()) == pytest.approx(1, abs=1e-5)


def test_a_face_in_a_frame_comes_back_by_the_gates_own_alignment_and_by_the_warp(people: Any) -> None:
    crops = people.images[:2]
    frames, landmarks = framed(crops), landmarks_in(TEMPLATE)
    back = np.stack([align(frame, landmarks) for frame in frames])
    inner = np.s_[:, 2:-2, 2:-2]
    assert np.abs(back.astype(int) - crops)[inner].mean() < 3
    matrix, shrink = similarity_to_large_crop(landmarks)
    assert shrink == 2
    warp = Warp([(matrix, shrink)] * 2, SIDE, SIDE)
    warped = crops_of(warp(points_from_frames(frames), torch.arange(2)))
    assert np.abs(warped.astype(int) - back).max() <= 2
