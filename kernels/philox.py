"""Philox4x32-10, the counter-based generator behind every drawn clone.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. NumPy's own Philox is
the 4x64 variant, which no GPU library shares, so the 32-bit one is written out here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def round_keys(seed: int) -> list[tuple[int, int]]:
    """The ten key pairs that a 64-bit seed expands to; the low half of the seed is the first key word.

    Raises:
        ValueError: the seed is not in 0 .. 2**64 - 1.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed: expected 0 .. 2**64 - 1, got {seed}")
    low, high = seed & 0xFFFFFFFF, seed >> 32
    return [((low + r * WEYL[0]) & 0xFFFFFFFF, (high + r * WEYL[1]) & 0xFFFFFFFF) for r in range(ROUNDS)]


def philox4x32(counters: U32, seed: int) -> U32:
    """Random words for each counter.

    Args:
        counters: (..., 4) uint32, the four counter words in the order of the paper.
        seed: 64-bit key.

    Returns:
        (..., 4) uint32, independent of everything but its own counter and the seed.
    """
    c0, c1, c2, c3 = (counters[..., lane].astype(np.uint64) for lane in range(4))
    for k0, k1 in round_keys(seed):
        product0 = c0 * np.uint64(MULTIPLIERS[0])
        product1 = c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)
