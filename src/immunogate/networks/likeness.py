"""What a state dict looks like, and which architectures come near it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Shapes = dict[str, tuple[int, ...]]

COUNTER = ".num_batches_tracked"
LEAST_LIKENESS = 0.02
"""Architectures that share fewer of their names and shapes are not worth naming."""


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    """Names and shapes of an architecture's weights, found without a byte of memory for them."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build().state_dict().items()}


def fits(shapes: Shapes, state: Mapping[str, Tensor]) -> bool:
    """Whether names and shapes agree; counters that old versions of torch did not write may be absent."""
    own = {key: tuple(value.shape) for key, value in state.items()}
    return all(own.get(key, shape if key.endswith(COUNTER) else None) == shape for key, shape in shapes.items()) and (
        own.keys() <= shapes.keys()
    )


def nearest(state: Mapping[str, Tensor], architectures: Mapping[str, Shapes], count: int = 3) -> list[str]:
    """The architectures that share most names and shapes with the state, as phrases, the nearest first.

    The measure is the share of common (name, shape) pairs among all of both, the counters left out.
    """
    own = _pairs({key: tuple(value.shape) for key, value in state.items()})
    scored = []
    for name, shapes in architectures.items():
        theirs = _pairs(shapes)
        common = len(own & theirs)
        scored.append((common / max(len(own | theirs), 1), name, common, len(theirs)))
    best = sorted(scored, key=lambda entry: (-entry[0], entry[1]))[:count]
    return [f"{name} ({common} of its {total} agree)" for share, name, common, total in best if share >= LEAST_LIKENESS]


def look(state: Mapping[str, Tensor]) -> str:
    """The state in a phrase: how many tensors and values, the first and the last of its weights."""
    weights = [(key, value) for key, value in state.items() if value.ndim > 1] or list(state.items())
    ends = [f"{key} {tuple(value.shape)}" for key, value in (weights[0], weights[-1])]
    values = sum(value.numel() for value in state.values())
    return f"{len(state)} tensors of {values / 1e6:.1f} million values, {ends[0]} to {ends[1]}"


def _pairs(shapes: Shapes) -> set[tuple[str, tuple[int, ...]]]:
    return {(key, shape) for key, shape in shapes.items() if not key.endswith(COUNTER)}
