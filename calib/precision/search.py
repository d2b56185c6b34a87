"""What each layer costs, and which of them have to stay in float until a limit is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from immunogate.structs import Floats

Judge = Callable[[bytes], Floats]
"""From the content of a candidate network to (N, E) embeddings that the whole chain gives with it."""

MARGIN = 0.2
"""Share of what a limit allows that is held back while layers are chosen: other faces come out a little worse."""


@dataclass(frozen=True)
class LayerCost:
    """What converting one layer alone costs.

    Attributes:
        node: its name.
        op: ONNX operator.
        cost: 1 - mean cosine between the embeddings with and without.
    """

    node: str
    op: str
    cost: float


def cosines(one: Floats, other: Floats) -> Floats:
    """(N,) cosines between the rows of (N, E) arrays; 0 where a row is not finite."""
    length = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.einsum("ij,ij->i", one.astype(np.float64), other.astype(np.float64)) / np.maximum(length, 1e-12)
    return np.where(np.isfinite(found), found, 0.0)


def cosine_cost(found: Floats, reference: Floats) -> float:
    """1 - mean cosine."""
    return float(1 - cosines(found, reference).mean())


def keep_until(
    order: Sequence[str], convert: Callable[[list[str]], bytes], judge: Judge, reference: Floats, limit: float
) -> tuple[list[str], bytes, float]:
    """The fewest leading nodes of ``order``, found by doubling and halving, that kept in float meet the limit.

    More kept nodes do not always help, so this is no proof of the least number; it takes about 2 log2 n trials.

    Args:
        order: nodes, the costliest first.
        convert: makes the network with these nodes kept.
        judge: of a network.
        reference: embeddings with the float network.
        limit: on the mean cosine; a `MARGIN` of what it allows is held back.

    Returns:
        The kept nodes, the network and its cosine; all kept if nothing less will do.
    """

    def tried(count: int) -> tuple[list[str], bytes, float]:
        kept = list(order[:count])
        network = convert(kept)
        return kept, network, 1 - cosine_cost(judge(network), reference)

    aim = limit + MARGIN * (1 - limit)
    low, count = -1, 0
    best = tried(count)
    while best[2] < aim and count < len(order):
        low, count = count, min(max(1, 2 * count), len(order))
        best = tried(count)
    while count - low > 1:
        middle = (low + count) // 2
        between = tried(middle)
        if between[2] >= aim:
            best, count = between, middle
        else:
            low = middle
    return best
