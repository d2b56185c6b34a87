"""Random numbers that depend on a seed, a step and a purpose alone.

There is no generator state to save: a run that was killed and resumed draws what it would have drawn, and every
process of a parallel run draws the whole batch and takes its own rows, so that their number changes nothing.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def digest(seed: int, step: int, purpose: str) -> bytes:
    """32 bytes to seed a generator of its own for one purpose in one step, block or epoch."""
    return hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()


def generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for one purpose in one step."""
    return torch.Generator().manual_seed(int.from_bytes(digest(seed, step, purpose)[:8], "big") >> 1)


def uniform(seed: int, step: int, purpose: str, *shape: int) -> Tensor:
    """Values in (0, 1), both excluded."""
    return torch.rand(shape, generator=generator(seed, step, purpose)).clamp_(1e-6, 1 - 1e-6)


def normal(seed: int, step: int, purpose: str, *shape: int) -> Tensor:
    """Standard normal values."""
    return torch.randn(shape, generator=generator(seed, step, purpose))


def batch_indices(seed: int, step: int, batch: int, faces: int) -> Tensor:
    """The faces of a step: every face once an epoch, in an order of the epoch's own.

    Args:
        seed: of the run.
        step: from 0.
        batch: faces a step.
        faces: faces there are.
    """
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // faces
    indices = torch.empty(batch, dtype=torch.long)
    for epoch in sorted(set(epochs.tolist())):
        order = torch.randperm(faces, generator=generator(seed, int(epoch), "epoch"))
        mine = epochs == epoch
        indices[mine] = order[positions[mine] % faces]
    return indices
