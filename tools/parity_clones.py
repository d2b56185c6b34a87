"""The kernels gene_weights, mutate, select_clones and take_likely against their definitions."""

from __future__ import annotations

from contextlib import closing

import numpy as np
from parity_place import Array, Place, near, same

from immunogate.kernels import clones, reference
from immunogate.kernels.queued import MOST_KEPT, Clones
from immunogate.kernels.reference import CloneKey, ScoreTerms, thresholds, unpack

MOST_DRAWS = 1 << 26
"""Genes of all clones of a check, so that the definition takes a second at most."""


def _faces(place: Place) -> tuple[Array, Array, CloneKey, int, int]:
    """Probabilities with certain ones among them, weights with ties, a key; how many clones, and whether gated."""
    limits, draw = place.limits, place.draw
    batch, genes, count = place.size(limits.batch), place.size(limits.genes), place.size(limits.clones)
    while batch * genes * count > MOST_DRAWS:
        batch, count = max(1, batch // 2), max(1, count * 3 // 4)
    p = draw.random((batch, genes)).astype(np.float32)
    certain = draw.random((batch, genes)) < 0.1
    p[certain] = draw.choice(np.array([0, 1, 0.5], np.float32), int(certain.sum()))
    weights = draw.integers(-40, 41, (batch, genes))
    words = draw.integers(0, 2**32, (2, batch), dtype=np.uint32)
    key = CloneKey(int(draw.integers(0, 2**63)) * 2 + 1, words[0].copy(), words[1].copy())
    return p, weights, key, count, int(genes > 1 and draw.random() < 0.5)


def _padded(values: Array) -> Array:
    return np.pad(values, ((0, 0), (0, -values.shape[1] % 4)))


def _lists(name: str, masks: Array, genes: int, rows: int, found: tuple[Array, Array, Array]) -> None:
    """The rows whose gene differs from the gate, ascending, how many, and the gate."""
    lists, counts, gates = found
    chosen = unpack(masks, genes)
    for at in np.ndindex(*counts.shape):
        gate = bool(chosen[at][rows]) if rows < genes else False
        listed = np.flatnonzero(chosen[at][:rows] != gate)
        assert (counts[at], gates[at]) == (len(listed), gate), f"{name}: count or gate"
        same(f"{name}: list", lists[at][: len(listed)], listed)


def check_select(place: Place) -> None:
    """select_clones, twice over the same counters, and replayed from a graph."""
    p, weights, key, count, gated = _faces(place)
    (batch, genes), keep = p.shape, int(place.draw.integers(1, min(MOST_KEPT, count) + 1))
    rows, kept = genes - gated, (len(p), keep)
    held = Clones(
        place.put(_padded(thresholds(p))), place.put(_padded(weights.astype(np.int32))), place.put(key.frames),
        place.put(key.faces), place.rubbish((batch, count), np.int64), place.memory.zeros((batch,), np.uint32),
        place.rubbish(kept, np.int32), place.rubbish((*kept, -(-genes // 32)), np.uint32),
        place.rubbish((*kept, rows), np.uint16), place.rubbish(kept, np.int32), place.rubbish(kept, np.float32),
    )  # fmt: skip
    scores = clones.mutate_score(p, weights, count, key)
    winners = reference.select(scores, keep)
    masks = reference.mutate(p, winners, key)

    def work() -> None:
        place.queued.select_clones(place.stream, held, key.seed, genes, rows)

    def compare() -> None:
        same("scores", place.get(held.scores), scores)
        same("winners", place.get(held.winners), winners)
        same("masks", place.get(held.masks), masks)
        _lists("select", masks, genes, rows, (place.get(held.lists), place.get(held.counts), place.get(held.gates)))
        assert not place.get(held.arrived).any(), "the counters are not back at zero"
        held.scores.zero(place.stream)
        held.winners.zero(place.stream)

    work()
    compare()
    with closing(place.stream.capture(work)) as graph:
        for _ in range(2):
            graph.launch(place.stream)
            compare()


def check_mutate(place: Place) -> None:
    """Mutate of drawn numbers, and take_likely with what is no probability."""
    p, _, key, count, gated = _faces(place)
    (batch, genes), count = p.shape, min(count, 64)
    numbers = place.draw.integers(0, 2**32, (batch, count), dtype=np.uint32)
    masks = place.rubbish((batch, count, -(-genes // 32)), np.uint32)
    keys = place.put(key.frames), place.put(key.faces)
    limits = place.put(_padded(thresholds(p)))
    place.queued.mutate(place.stream, limits, *keys, place.put(numbers), masks, key.seed, genes)
    same("mutate", place.get(masks), reference.mutate(p, numbers.astype(np.int64), key))
    rows, kept = genes - gated, (batch, 1)
    words = place.rubbish((*kept, -(-genes // 32)), np.uint32)
    lists, counts = place.rubbish((*kept, rows), np.uint16), place.rubbish(kept, np.int32)
    gates, status = place.rubbish(kept, np.float32), place.memory.zeros((batch,), np.uint32)
    p[-1, -1] = np.nan
    place.queued.take_likely(place.stream, place.put(p), words, lists, counts, gates, status, rows)
    same("take_likely", place.get(words), reference.pack(p > 0.5)[:, None])
    _lists("take_likely", place.get(words), genes, rows, (place.get(lists), place.get(counts), place.get(gates)))
    same("status", place.get(status), np.arange(batch) == batch - 1)


def check_gene_weights(place: Place) -> None:
    """Limits to the bit; weights to one step, for NumPy's logarithm is another."""
    p, _, _, _, _ = _faces(place)
    batch, genes = p.shape
    stride, padded = genes + int(place.draw.integers(0, 3)), -(-genes // 4) * 4
    c = place.draw.normal(0, 30, (batch, stride)).astype(np.float32)
    terms = ScoreTerms()
    limits, weights = place.rubbish((batch, padded), np.uint32), place.rubbish((batch, padded), np.int32)
    status = place.memory.zeros((batch,), np.uint32)
    numbers = terms.residual, terms.size, terms.likelihood
    place.queued.gene_weights(place.stream, place.put(p), place.put(c), limits, weights, status, 12544, numbers)
    same("limits", place.get(limits), _padded(thresholds(p)))
    want = reference.gene_weights(p, c[:, :genes], terms, 12544)
    near("gene_weights", place.get(weights), _padded(want), 1)
    assert not place.get(status).any(), "gene_weights found fault with numbers"
