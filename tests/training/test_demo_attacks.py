"""Noise for the demo: the simulated way through frame and alignment is the real one, and the attack attacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.errors import UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.demo.noise import paste  # noqa: E402
from immunogate.runtime.align import TEMPLATE, align, similarity_to_template  # noqa: E402
from immunogate.training.demo_attacks import AttackSettings, SeenFaces, Sights, find_noise  # noqa: E402

SMALL = AttackSettings(levels=8, pieces=2, steps=12, batch=3)


def _landmarks(scale: float, degrees: float, x: float, y: float) -> Any:
    turn = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return ((TEMPLATE - 56) @ linear.T + [x, y]).astype(np.float32)


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0), (1.7, 9), (1.1, -20)])
def test_the_simulated_view_is_what_the_real_frame_shows(scale: float, degrees: float) -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(0).standard_normal((112, 112)), (0, 0), 2)
    noise = np.rint(16 * smooth / np.abs(smooth).max()).astype(np.int8)
    laid, seen = _landmarks(scale, degrees, 310, 205), _landmarks(scale * 1.01, degrees + 1, 310.8, 204.5)
    matrices = [similarity_to_template(points)[None] for points in (laid, seen)]
    frame = np.full((480, 640, 3), 128, np.uint8)
    real = align(paste(frame, noise, matrices[0][0]), seen).astype(float) - 128
    sights = Sights(matrices[0], matrices[1])
    simulated = sights.views(torch.from_numpy(noise.astype(np.float32)), np.array([0]), np.eye(3)[None])[0].numpy()
    assert np.abs(simulated - real).max() < 1.6, "rounded to whole levels twice"
    assert np.corrcoef(simulated.ravel(), real.ravel())[0, 1] > 0.98


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Keep torch on one thread: on a busy machine its waiting threads cost more than they give here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_jitter_moves_the_view() -> None:
    matrices = similarity_to_template(_landmarks(1.3, 0, 310, 205))[None]
    noise = torch.zeros(112, 112)
    noise[40:44, 60:64] = 8
    moved = np.eye(3)[None].copy()
    moved[0, 0, 2] = 5
    views = [Sights(matrices, matrices).views(noise, np.array([0]), jitter)[0] for jitter in (np.eye(3)[None], moved)]
    centres = [float((view.sum(0) * torch.arange(112)).sum() / view.sum()) for view in views]
    assert centres[1] == pytest.approx(centres[0] - 5, abs=0.1)


@pytest.fixture(scope="module")
def embed() -> Any:
    """A smooth network of random weights."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(64, 14 * 14, generator=generator) / 14
    second = torch.randn(16, 64, generator=generator) / 8

    def run(faces: Any) -> Any:
        cells = torch.nn.functional.avg_pool2d(faces.reshape(-1, 1, 112, 112), 8).flatten(1)
        return torch.tanh(4 * cells @ first.T) @ second.T

    return run


@pytest.fixture(scope="module")
def faces() -> SeenFaces:
    """Six frames of one smooth picture, each a little different."""
    draw = np.random.default_rng(1)
    base = np.kron(draw.uniform(60, 200, (14, 14)), np.ones((8, 8)))
    crops = np.rint(base + draw.normal(0, 3, (6, 112, 112))).clip(0, 255).astype(np.uint8)
    matrices = np.stack([similarity_to_template(_landmarks(1.3, angle, 300, 200)) for angle in range(6)])
    return SeenFaces(crops, matrices, matrices)


def _cosines(embed: Any, faces: SeenFaces, noise: Any, template: Any) -> Any:
    owner = np.arange(len(faces)) * len(noise) // len(faces)
    sights = Sights(faces.laid, faces.seen)
    found = []
    for frame, piece in enumerate(owner):
        view = sights.views(torch.from_numpy(noise[piece].astype(np.float32)), np.array([frame]), np.eye(3)[None])
        planes = (torch.from_numpy(faces.crops[frame].astype(np.float32)) + view).flatten(1) / 127.5 - 1
        found.append(float(torch.cosine_similarity(embed(planes), torch.from_numpy(template)[None])[0]))
    return np.array(found)


def _own(embed: Any, faces: SeenFaces) -> Any:
    found = embed(torch.from_numpy(faces.crops[:1].astype(np.float32)).flatten(1) / 127.5 - 1)[0]
    return (found / found.norm()).numpy()


def test_dodging_lowers_the_similarity_in_every_frame(embed: Any, faces: SeenFaces) -> None:
    template = _own(embed, faces)
    noise = find_noise(embed, faces, template, False, SMALL)
    assert noise.shape == (2, 112, 112)
    assert noise.dtype == np.int8
    assert 4 < np.abs(noise.astype(int)).max() <= 8
    before, after = (_cosines(embed, faces, n, template) for n in (np.zeros_like(noise), noise))
    assert (after < before - 0.2).all()


def test_impersonation_raises_it(embed: Any, faces: SeenFaces) -> None:
    template = np.random.default_rng(2).standard_normal(16).astype(np.float32)
    noise = find_noise(embed, faces, template, True, SMALL)
    before, after = (_cosines(embed, faces, n, template) for n in (np.zeros_like(noise), noise))
    assert (after > before + 0.2).all()


def test_the_same_seed_gives_the_same_noise_and_threads_do_not_matter(embed: Any, faces: SeenFaces) -> None:
    template, few = _own(embed, faces), replace(SMALL, steps=3)
    torch.manual_seed(1)
    first = find_noise(embed, faces, template, False, few)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, find_noise(embed, faces, template, False, few))
    assert (first != find_noise(embed, faces, template, False, replace(few, seed=1))).any()


def test_what_does_not_fit_is_refused(embed: Any, faces: SeenFaces) -> None:
    with pytest.raises(UsageError, match="7 pieces"):
        find_noise(embed, faces, _own(embed, faces), False, replace(SMALL, pieces=7))
    with pytest.raises(UsageError, match=r"levels must be in 1 .. 16, got 17"):
        AttackSettings(levels=17)
    with pytest.raises(ValueError, match="laid"):
        SeenFaces(faces.crops, faces.laid[:2], faces.seen)
    with pytest.raises(UsageError, match="not finite"):
        find_noise(lambda planes: embed(planes) * float("nan"), faces, _own(embed, faces), False, SMALL)
