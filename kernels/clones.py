"""Mutation, scoring and selection on the CPU without a compiler: the same numbers as `reference`, bit for bit.

What makes it fast in plain NumPy: the clones are walked in blocks that stay in the second-level cache; the first
two rounds of Philox are nearly free, because a counter (group, clone, face, frame) shares two of its words over all
clones and two over all groups; and scores are exact sums in a float32 matrix product, because each weight is split
into two limbs of 12 bits, whose sums over 4096 genes stay below 2^24.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from immunogate.kernels.philox import MULTIPLIERS, round_keys
from immunogate.kernels.reference import CloneKey, Indices, select, thresholds
from immunogate.structs import Floats, Masks, expect_shape

U64 = npt.NDArray[np.uint64]

BLOCK = 32
"""Clones a step: 32 x 375 groups x 8 bytes x 6 arrays is 576 KB, inside a second-level cache. Smaller blocks lose to
NumPy's cost a call, larger ones to the cache; threads lose to the interpreter's lock, so there are none."""

LIMB = 12
"""Bits of the lower limb of a weight; the upper limb of a 24-bit weight then has 12 as well."""

MAX_GENES = 4096
_M0, _M1 = (np.uint64(m) for m in MULTIPLIERS)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


class CloneDrawer:
    """Draws blocks of clones of one face.

    Args:
        probabilities: (n,) float32 in [0, 1], n <= 4096.
        key: seed and, in its first row, frame and face.
    """

    def __init__(self, probabilities: Floats, key: CloneKey) -> None:
        self.genes = len(probabilities)
        if self.genes > MAX_GENES:
            raise ValueError(f"probabilities: expected at most {MAX_GENES} genes, got {self.genes}")
        self._keys = [(np.uint64(k0), np.uint64(k1)) for k0, k1 in round_keys(key.seed)]
        groups = -(-self.genes // 4)
        limits = np.zeros(groups * 4, np.uint64)
        limits[: self.genes] = thresholds(probabilities[None])[0]
        self._limits = np.ascontiguousarray(limits.reshape(groups, 4).T)
        self._open(np.arange(groups, dtype=np.uint64), np.uint64(key.faces[0]), np.uint64(key.frames[0]))
        self._lanes = [np.empty((BLOCK, groups), np.uint64) for _ in range(6)]
        self._chosen = np.empty((BLOCK, groups, 4), np.bool_)

    def _open(self, group: U64, face: np.uint64, frame: np.uint64) -> None:
        """Rounds one and two as far as they do not depend on the clone's number."""
        (_, k1), (k2, k3) = self._keys[:2]
        product0, product1 = group * _M0, face * _M1
        self._high1 = (product1 >> _HALF) ^ self._keys[0][0]  # to be joined by the clone's number
        third = (product0 >> _HALF) ^ frame ^ k1  # lane 2 after round one, a value for each group
        product = third * _M1
        self._lane0 = (product >> _HALF) ^ (product1 & _LOW) ^ k2
        self._lane1 = product & _LOW
        self._lane2 = (product0 & _LOW) ^ k3  # to be joined by the clone's high product

    def draw(self, clones: Indices) -> npt.NDArray[np.bool_]:
        """(len(clones), n) booleans in a buffer that the next call overwrites; at most BLOCK clones at once."""
        count = len(clones)
        c0, c1, c2, c3, p0, p1 = (lane[:count] for lane in self._lanes)
        first = self._high1 ^ clones.astype(np.uint64)  # lane 0 after round one, a value for each clone
        product = (first * _M0)[:, None]
        c0[:], c1[:] = self._lane0, self._lane1
        np.bitwise_xor(product >> _HALF, self._lane2, out=c2)
        c3[:] = product & _LOW
        for k0, k1 in self._keys[2:]:
            np.multiply(c0, _M0, out=p0)
            np.multiply(c2, _M1, out=p1)
            np.right_shift(p1, _HALF, out=c0)
            np.bitwise_xor(c0, c1, out=c0)
            np.bitwise_xor(c0, k0, out=c0)
            np.bitwise_and(p1, _LOW, out=c1)
            np.right_shift(p0, _HALF, out=c2)
            np.bitwise_xor(c2, c3, out=c2)
            np.bitwise_xor(c2, k1, out=c2)
            np.bitwise_and(p0, _LOW, out=c3)
        chosen = self._chosen[:count]
        for lane, words in enumerate((c0, c1, c2, c3)):
            np.less(words, self._limits[lane], out=chosen[:, :, lane])
        return chosen.reshape(count, -1)[:, : self.genes]


def mutate(probabilities: Floats, clones: Indices, key: CloneKey) -> Masks:
    """As `reference.mutate`."""
    batch, count = clones.shape
    expect_shape("CloneKey.faces", key.faces, (batch,))
    words = -(-probabilities.shape[1] // 32)
    octets = np.zeros((batch, count, words * 4), np.uint8)
    for face in range(batch):
        drawer = CloneDrawer(probabilities[face], _row(key, face))
        for start in range(0, count, BLOCK):
            part = slice(start, start + BLOCK)
            packed = np.packbits(drawer.draw(clones[face, part]), axis=-1, bitorder="little")
            octets[face, part, : packed.shape[-1]] = packed
    return octets.view("<u4").astype(np.uint32, copy=False)


def mutate_score(probabilities: Floats, weights: Indices, count: int, key: CloneKey) -> Indices:
    """Scores of the clones 0 .. count - 1 of each face, (B, count) int64; no mask is ever stored.

    The same as ``reference.score(reference.mutate(...), weights)``.
    """
    expect_shape("weights", weights, probabilities.shape)
    expect_shape("CloneKey.faces", key.faces, (len(probabilities),))
    scores = np.empty((len(probabilities), count), np.int64)
    for face in range(len(probabilities)):
        drawer = CloneDrawer(probabilities[face], _row(key, face))
        limbs = _limbs(weights[face])
        for start in range(0, count, BLOCK):
            numbers = np.arange(start, min(start + BLOCK, count))
            sums = (drawer.draw(numbers).astype(np.float32) @ limbs).astype(np.int64)
            scores[face, numbers] = (sums[:, 0] << LIMB) + sums[:, 1]
    return scores


def select_clones(
    probabilities: Floats, weights: Indices, count: int, keep: int, key: CloneKey
) -> tuple[Indices, Masks]:
    """The ``keep`` best of the clones 0 .. count - 1: winners (B, keep) int64, best first, and masks (B, keep, W)."""
    winners = select(mutate_score(probabilities, weights, count, key), keep)
    return winners, mutate(probabilities, winners, key)


def _limbs(weights: npt.NDArray[np.int64]) -> Floats:
    """(n, 2) float32: the upper and lower part of each weight, upper * 2^LIMB + lower."""
    return np.stack([weights >> LIMB, weights & ((1 << LIMB) - 1)], axis=-1).astype(np.float32)


def _row(key: CloneKey, face: int) -> CloneKey:
    return CloneKey(key.seed, key.frames[face : face + 1], key.faces[face : face + 1])
