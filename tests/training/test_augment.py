from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.training import augment  # noqa: E402 - needs torch
from immunogate.training.augment import jittered, softened  # noqa: E402
from immunogate.training.draws import normal, uniform  # noqa: E402

SIDE = 112


@pytest.fixture(scope="module")
def faces() -> Any:
    """(12, D) smooth pictures that reach both ends of the range."""
    coarse = np.random.default_rng(1).uniform(-1.2, 1.2, (12, 9, 9)).astype(np.float32)
    large = [cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for one in coarse]
    return torch.from_numpy(np.clip(np.stack(large), -1, 1).reshape(12, -1))


def test_an_amount_of_nothing_changes_nothing(faces: Any) -> None:
    assert torch.equal(jittered(faces, 1, 2, 0.0), faces)
    assert torch.equal(jittered(faces[3:5], 1, 2, 0.0, slice(3, 5), 12), faces[3:5])


def test_hardly_any_amount_leaves_each_face_or_its_mirror_image(faces: Any) -> None:
    moved = jittered(faces, 1, 2, 1e-6)
    turned = faces.reshape(-1, SIDE, SIDE).flip(2).reshape(12, -1)
    mirrored = uniform(1, 2, "mirror", 12) < 0.5
    assert 2 < int(mirrored.sum()) < 10
    torch.testing.assert_close(moved, torch.where(mirrored[:, None], turned, faces), atol=1e-3, rtol=0)
    assert float((turned - faces).abs().amax(dim=1).min()) > 0.5


def test_half_of_many_are_mirrored() -> None:
    ramp = torch.linspace(-1, 1, SIDE).repeat(SIDE)[None].repeat(400, 1)
    moved = jittered(ramp, 0, 0, 1.0).reshape(-1, SIDE, SIDE)
    share = float((moved[:, :, -1].mean(dim=1) < moved[:, :, 0].mean(dim=1)).float().mean())
    assert share == pytest.approx(0.5, abs=0.1)


def test_draws_depend_on_seed_and_step_alone(faces: Any) -> None:
    first = jittered(faces, 1, 2, 1.0)
    torch.rand(3)
    assert torch.equal(jittered(faces, 1, 2, 1.0), first)
    assert not torch.equal(jittered(faces, 2, 2, 1.0), first)
    assert not torch.equal(jittered(faces, 1, 3, 1.0), first)
    shuffled = jittered(faces.flip(0), 1, 2, 1.0)
    assert not torch.equal(shuffled.flip(0), first)  # a row has its own draw, whatever face is in it


@given(start=st.integers(0, 11), rows=st.integers(1, 12), step=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_a_share_of_the_batch_is_the_rows_of_the_whole(faces: Any, start: int, rows: int, step: int) -> None:
    part = slice(start, min(12, start + rows))
    whole = jittered(faces, 4, step, 1.0)
    assert torch.equal(jittered(faces[part], 4, step, 1.0, part, 12), whole[part])


@given(seed=st.integers(0, 99), amount=st.floats(0.0625, 5, width=32))
@settings(max_examples=15, deadline=None)
def test_results_stay_pictures(seed: int, amount: float) -> None:
    harsh = torch.where(uniform(seed, 0, "dots", 3, SIDE * SIDE) < 0.5, -1.0, 1.0)
    moved = jittered(harsh, seed, 1, amount)
    assert moved.shape == harsh.shape
    assert -1 <= float(moved.min()) <= float(moved.max()) <= 1
    assert bool(torch.isfinite(moved).all())


def test_turn_scale_and_shift_are_those_that_were_drawn() -> None:
    """A dot goes where the stated similarity takes it: centre of the picture fixed, then shifted."""
    dot = torch.full((8, SIDE, SIDE), -1.0)
    dot[:, 29:32, 79:82] = 1.0  # centre (x, y) = (80, 30)
    moved = jittered(dot.reshape(8, -1), 3, 5, 1.0).reshape(-1, SIDE, SIDE)
    draws, mirror = normal(3, 5, "jitter", 8, 4), uniform(3, 5, "mirror", 8)
    middle = (SIDE - 1) / 2
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for face in range(8):
        weight = (moved[face] + 1).clamp_min(0)
        x, y = ((grid * weight).sum() / weight.sum() for grid in (columns, rows))
        angle = math.radians(augment.TURN * float(draws[face, 0]))
        scale = math.exp(-augment.SCALE * float(draws[face, 1]))
        across = (float(x) - middle) * (-1 if mirror[face] < 0.5 else 1)
        down = float(y) - middle
        source_x = scale * (math.cos(angle) * across - math.sin(angle) * down) + augment.SHIFT * float(draws[face, 2])
        source_y = scale * (math.sin(angle) * across + math.cos(angle) * down) + augment.SHIFT * float(draws[face, 3])
        assert (source_x + middle, source_y + middle) == pytest.approx((80, 30), abs=0.15)


def test_gradients_flow_to_the_faces(faces: Any) -> None:
    point = faces[:2].clone().requires_grad_()
    jittered(point, 0, 0, 1.0).sum().backward()
    assert float(point.grad.abs().sum()) > 0


def test_softening_blurs_its_share_and_leaves_the_others() -> None:
    faces = uniform(3, 0, "grain", 200, SIDE * SIDE) * 2 - 1
    soft = softened(faces, 5, 1, 0.3)
    changed = (soft != faces).any(dim=1)
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.1)
    assert float(soft[changed].std(dim=1).max()) < 0.9 * float(faces.std())
    torch.testing.assert_close(soft.mean(dim=1), faces.mean(dim=1), atol=5e-3, rtol=0)
    assert torch.equal(softened(faces, 5, 1, 0.0), faces)
    assert not torch.equal(softened(faces, 5, 2, 0.3), soft)


def test_a_softened_share_of_the_batch_is_the_rows_of_the_whole_and_lets_gradients_through(faces: Any) -> None:
    whole = softened(faces, 4, 2, 0.7)
    part = faces[3:9].clone().requires_grad_()
    found = softened(part, 4, 2, 0.7, slice(3, 9), 12)
    torch.testing.assert_close(found, whole[3:9])
    (gradient,) = torch.autograd.grad(found.sum(), part)
    torch.testing.assert_close(gradient.sum(), torch.tensor(float(part.numel())), rtol=1e-4, atol=0)
