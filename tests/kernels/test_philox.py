from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.kernels.philox import philox4x32, round_keys

word = st.integers(0, 2**32 - 1)

# Known answers of the Random123 library, file kat_vectors: counter, key, answer, in words of 32 bits.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(part, 16) for part in text.split()]


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """Ten rounds in whole numbers of Python, written from the paper (SC 2011, section 4.2) and from nothing else."""
    (r0, l0, r1, l1), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * r0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * r1, 2**32)
        r0, l0, r1, l1 = high1 ^ k0 ^ l0, low1, high0 ^ k1 ^ l1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [r0, l0, r1, l1]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_published_answers(counter: str, key: str, answer: str) -> None:
    low, high = words(key)
    found = philox4x32(np.array(words(counter), np.uint32), low | high << 32)
    assert [f"{int(w):08x}" for w in found] == answer.split()
    assert scalar_philox(words(counter), words(key)) == words(answer)


@settings(deadline=None)
@given(st.lists(st.tuples(word, word, word, word), min_size=1, max_size=5), word, word)
def test_equals_the_scalar_generator_for_any_counter_and_seed(
    counters: list[tuple[int, int, int, int]], low: int, high: int
) -> None:
    found = philox4x32(np.array(counters, np.uint32), low | high << 32)
    assert found.dtype == np.uint32
    assert found.tolist() == [scalar_philox(list(counter), [low, high]) for counter in counters]


def test_shape_of_the_counters_does_not_matter() -> None:
    counters = np.random.default_rng(1).integers(0, 2**32, (2, 3, 5, 4), dtype=np.uint32)
    flat = philox4x32(counters.reshape(-1, 4), 7).reshape(counters.shape)
    assert np.array_equal(philox4x32(counters, 7), flat)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_beyond_64_bits_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"expected 0 .. 2\\*\\*64 - 1, got {seed}"):
        round_keys(seed)


def test_words_are_uniform() -> None:
    """256 bins of each lane: chi-square with 255 degrees of freedom; its 1e-6 quantiles are about 159 and 378."""
    counters = np.zeros((1 << 15, 4), np.uint32)
    counters[:, 0] = np.arange(1 << 15)
    words_of_lane = philox4x32(counters, 20240611)
    for lane in range(4):
        counts = np.bincount(words_of_lane[:, lane] >> 24, minlength=256)
        expected = (1 << 15) / 256
        assert 159 < float(((counts - expected) ** 2 / expected).sum()) < 378
