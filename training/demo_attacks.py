"""The demo's attacks: noise that misleads a bare recogniser in every one of many frames of a walk-up.

Expectation over transformation (Athalye et al., "Synthesizing Robust Adversarial Examples", ICML 2018) with the sign
steps of Madry et al. (ICLR 2018) on an averaged gradient (Dong et al., "Boosting Adversarial Attacks with Momentum",
CVPR 2018): one piece of noise serves several frames, is laid over the frame where the face is, and is seen again
through the gate's own alignment, which is a little off each time. The purifier is unknown to the attack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from immunogate.errors import UsageError
from immunogate.networks.attacks import Embed
from immunogate.structs import CROP_SIZE, Floats, Pixels, expect_shape

Matrices = npt.NDArray[np.float64]
Noise = npt.NDArray[np.int8]
WINDOW = 256
"""Side in pixels of the part of a frame that is simulated around the face."""

_LAY, _SEE, _LIGHT, _CHOOSE = range(4)


@dataclass(frozen=True)
class AttackSettings:
    """How the noise is computed.

    Attributes:
        levels: largest change of a pixel in grey levels.
        pieces: pieces of noise over the whole walk-up; each serves the frames next to each other.
        steps: gradient steps for each piece.
        batch: frames in one step, drawn with their alignment's jitter.
        momentum: share of the gradients before that is kept.
        shift: jitter of the alignment in pixels of the face.
        turn: jitter in degrees.
        scale: jitter of the size, as a share.
        seed: of all draws.

    Raises:
        UsageError: a number is out of its range.
    """

    levels: int = 8
    pieces: int = 9
    steps: int = 120
    batch: int = 8
    momentum: float = 0.8
    shift: float = 0.7
    turn: float = 1.0
    scale: float = 0.012
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "levels": (1, 16), "pieces": (1, 100), "steps": (1, 100_000), "batch": (1, 256), "momentum": (0, 0.999),
            "shift": (0, 16), "turn": (0, 45), "scale": (0, 0.3), "seed": (0, 2**31),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} must be in {low} .. {high}, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class SeenFaces:
    """The clean frames as the gate sees them.

    Attributes:
        crops: (T, 112, 112) uint8 aligned faces of the frames in order.
        laid: (T, 2, 3) from each frame to the face's coordinates in which the noise is laid over it.
        seen: (T, 2, 3) from each frame to the crop that the gate takes.
    """

    crops: Pixels
    laid: Matrices
    seen: Matrices

    def __post_init__(self) -> None:
        expect_shape("crops", self.crops, (None, CROP_SIZE, CROP_SIZE))
        for name in ("laid", "seen"):
            expect_shape(name, getattr(self, name), (len(self.crops), 2, 3))

    def __len__(self) -> int:
        return len(self.crops)


def find_noise(
    embed: Embed,
    faces: SeenFaces,
    template: Floats,
    towards: bool,
    settings: AttackSettings,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Noise:
    """(K, 112, 112) int8: one piece for each run of frames.

    Args:
        embed: the bare recogniser.
        faces: what the gate sees without noise.
        template: (E,) of the person to be taken for, or not to be recognised as.
        towards: impersonate (True) or dodge (False).
        settings: bounds, steps, seed.
        progress: wraps the numbers of the pieces.

    Raises:
        UsageError: there are fewer frames than pieces.
    """
    if len(faces) < settings.pieces:
        raise UsageError(f"{settings.pieces} pieces of noise need as many frames, got {len(faces)}")
    owner = np.arange(len(faces)) * settings.pieces // len(faces)
    target = functional.normalize(torch.from_numpy(np.asarray(template, np.float32)), dim=0)
    found = [
        _one_piece(embed, faces, np.flatnonzero(owner == piece), target, towards, settings, piece)
        for piece in progress(range(settings.pieces))
    ]
    return np.stack(found)


def _one_piece(
    embed: Embed,
    faces: SeenFaces,
    members: npt.NDArray[np.intp],
    target: Tensor,
    towards: bool,
    settings: AttackSettings,
    piece: int,
) -> Noise:
    """Ascend (or descend) the cosine, averaged over drawn views of the frames, inside the box of +-levels."""
    sign = 1.0 if towards else -1.0
    sights = Sights(faces.laid[members], faces.seen[members])
    noise = torch.zeros(CROP_SIZE, CROP_SIZE)
    trend = torch.zeros_like(noise)
    for step in range(settings.steps):
        chosen = _draw(settings.seed, piece, step, _CHOOSE).permutation(len(members))[: settings.batch]
        light = _draw(settings.seed, piece, step, _LIGHT).uniform(0.92, 1.08, (len(chosen), 1)).astype(np.float32)
        clean = torch.from_numpy(faces.crops[members[chosen]].astype(np.float32))
        point = noise.clone().requires_grad_()
        seen = (clean + sights.views(point, chosen, _jitters(len(chosen), settings, piece, step))).clamp(0, 255)
        planes = (seen.flatten(1) * torch.from_numpy(light)).clamp(0, 255) / 127.5 - 1
        cosine = functional.cosine_similarity(embed(planes), target[None], dim=1)
        (gradient,) = torch.autograd.grad(sign * cosine.mean(), point)
        if not bool(torch.isfinite(gradient).all()):
            raise UsageError("the recogniser's gradient is not finite", "Check the checkpoint")
        trend = settings.momentum * trend + gradient / gradient.abs().mean().clamp_min(1e-12)
        size = settings.levels * (0.02 + 0.23 * 0.5 * (1 + math.cos(math.pi * step / settings.steps)))
        noise = (noise + size * trend.sign()).clamp(-settings.levels, settings.levels)
    return noise.round().to(torch.int8).numpy()


class Sights:
    """Noise as it comes out of the gate's alignment; differentiable.

    It is read bilinearly twice: at the frame's pixels, as laying it over a frame does, and at the crop's.

    Args:
        laid: (T, 2, 3) from each frame to the noise.
        seen: (T, 2, 3) from each frame to the crop.
    """

    def __init__(self, laid: Matrices, seen: Matrices) -> None:
        self._back = np.linalg.inv(_square(seen))
        corner = np.tile(np.eye(3), (len(seen), 1, 1))  # from a window around the face to the frame
        corner[:, :2, 2] = np.floor((self._back @ np.array([CROP_SIZE / 2, CROP_SIZE / 2, 1.0]))[:, :2]) - WINDOW // 2
        self._to_window = np.linalg.inv(corner)
        self._frames = _grid(_square(laid) @ corner, WINDOW, CROP_SIZE)

    def views(self, noise: Tensor, chosen: npt.NDArray[np.intp], jitters: Matrices) -> Tensor:
        """(B, 112, 112) grey levels.

        Args:
            noise: (112, 112) grey levels.
            chosen: (B,) frames.
            jitters: (B, 3, 3) from the crop to what the gate takes for it this time.
        """
        frames = _read(noise.expand(len(chosen), 1, -1, -1), self._frames[torch.from_numpy(chosen)])
        crops = _grid(self._to_window[chosen] @ self._back[chosen] @ jitters, CROP_SIZE, WINDOW)
        return _read(frames, crops)[:, 0]


def _grid(matrices: Matrices, size: int, source: int) -> Tensor:
    """(B, size, size, 2): where (B, 3, 3) matrices take the pixels of a square, for reading a square ``source``."""
    side = np.arange(size, dtype=np.float32)
    across, down, shift = (matrices[:, None, None, :2, part].astype(np.float32) for part in range(3))
    points = across * side[None, None, :, None] + down * side[None, :, None, None] + shift
    return torch.from_numpy(points * np.float32(2 / (source - 1)) - 1)


def _read(pictures: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(pictures, grid, mode="bilinear", align_corners=True)  # 0 outside


def _square(matrices: Matrices) -> Matrices:
    """(B, 3, 3) of (B, 2, 3)."""
    last = np.tile(np.array([[[0.0, 0.0, 1.0]]]), (len(matrices), 1, 1))
    return np.concatenate([matrices, last], axis=1)


def _jitters(count: int, settings: AttackSettings, piece: int, step: int) -> Matrices:
    """(B, 3, 3) small similarities of the face about its centre."""
    draw = _draw(settings.seed, piece, step, _SEE)
    angle = np.deg2rad(settings.turn) * draw.standard_normal(count)
    scale = np.exp(settings.scale * draw.standard_normal(count))
    shift = settings.shift * draw.standard_normal((count, 2))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    centre = np.full(2, CROP_SIZE / 2)
    matrices = np.tile(np.eye(3), (count, 1, 1))
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2] = centre - linear @ centre + shift
    return matrices


def _draw(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
