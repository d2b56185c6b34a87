"""Masks: every implementation draws the bits of the definition, whatever stands beside them in the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.kernels import reference
from immunogate.kernels.philox import philox4x32
from immunogate.kernels.reference import CloneKey, pack, thresholds, unpack

MakeKey = Callable[..., CloneKey]
word = st.integers(0, 2**32 - 1)
gene_counts = st.integers(1, 4096) | st.sampled_from([127, 1499, 1500, 4093, 4096])
clone_counts = st.integers(1, 70) | st.sampled_from([31, 32, 33, 64, 65])


def numbers(batch: int, count: int) -> Any:
    return np.broadcast_to(np.arange(count), (batch, count))


@st.composite
def draws(draw: st.DrawFn) -> tuple[Any, Any, CloneKey]:
    """Probabilities with exact zeros and ones among them, clone numbers, and a key."""
    batch, genes, count = draw(st.integers(1, 3)), draw(gene_counts), draw(clone_counts)
    random = np.random.default_rng(draw(word))
    probabilities = random.random((batch, genes), dtype=np.float32)
    special = random.random((batch, genes)) < 0.1
    probabilities[special] = random.choice(np.array([0, 1, 0.5, 2**-32, 1 - 2**-24], np.float32), int(special.sum()))
    clones = random.integers(0, 2 ** draw(st.integers(1, 32)), (batch, count))
    words = [random.integers(0, 2**32, batch, dtype=np.uint32) for _ in range(2)]
    return probabilities, clones, CloneKey(draw(st.integers(0, 2**64 - 1)), words[0], words[1])


@settings(max_examples=150, deadline=None)
@given(draws())
def test_bits_are_those_of_the_definition(backend: Any, drawn: tuple[Any, Any, CloneKey]) -> None:
    found, want = backend.mutate(*drawn), reference.mutate(*drawn)
    assert found.dtype == np.uint32
    assert np.array_equal(found, want)


def test_a_gene_is_its_own_draw_below_its_threshold(backend: Any, make_key: MakeKey) -> None:
    """The documented counter (group, clone, face, frame), gene by gene with the scalar arithmetic of Python."""
    probabilities = np.random.default_rng(3).random((1, 37), dtype=np.float32)
    masks = backend.mutate(probabilities, np.array([[5]]), make_key(99, [11], [22]))
    for gene in range(37):
        drawn = philox4x32(np.array([gene // 4, 5, 22, 11], np.uint32), 99)[gene % 4]
        want = int(drawn) < math.floor(float(probabilities[0, gene]) * 2**32)
        assert bool(masks[0, 0, gene // 32] >> np.uint32(gene % 32) & np.uint32(1)) == want


def test_a_draw_at_its_threshold_is_not_chosen(backend: Any, make_key: MakeKey) -> None:
    """Draws that float32 can state become probabilities: exactly they are not below, one step more and they are."""
    counters = np.zeros((1024, 4), np.uint32)
    counters[:, 0] = np.arange(1024)
    drawn = philox4x32(counters, 5).reshape(1, -1).astype(np.float64) / 2**32
    exact = drawn.astype(np.float32)
    stated = (exact.astype(np.float64) == drawn) & (drawn >= 2.0**-8)  # where one step is at least 2^-32
    assert stated.sum() > 10
    key = make_key(5, [0], [0])
    at = unpack(backend.mutate(np.where(stated, exact, 0).astype(np.float32), numbers(1, 1), key), 4096)
    assert not at.any()
    more = np.nextafter(exact, np.float32(2))
    above = unpack(backend.mutate(np.where(stated, more, 0).astype(np.float32), numbers(1, 1), key), 4096)
    assert np.array_equal(above[:, 0], stated)


@pytest.mark.parametrize("genes", [1, 31, 33, 1500, 4093, 4096])
def test_bits_behind_the_last_gene_are_zero(backend: Any, make_key: MakeKey, genes: int) -> None:
    masks = backend.mutate(np.ones((1, genes), np.float32), numbers(1, 3), make_key(1, [0], [0]))
    assert masks.shape == (1, 3, -(-genes // 32))
    assert np.array_equal(unpack(masks, masks.shape[-1] * 32).sum(axis=-1), np.full((1, 3), genes))


def test_batch_order_of_faces_and_order_of_clones_do_not_matter(backend: Any, make_key: MakeKey) -> None:
    random = np.random.default_rng(5)
    probabilities = random.random((8, 1499), dtype=np.float32)
    frames, faces = list(range(100, 108)), [7, 7, 3, 2**32 - 1, 0, 9, 8, 1]
    whole = backend.mutate(probabilities, numbers(8, 40), make_key(42, frames, faces))
    for row in range(8):
        alone = backend.mutate(probabilities[row : row + 1], numbers(1, 40), make_key(42, [frames[row]], [faces[row]]))
        assert np.array_equal(alone[0], whole[row])
    order, clones = random.permutation(8), random.permutation(40)
    key = make_key(42, [frames[i] for i in order], [faces[i] for i in order])
    shuffled = backend.mutate(probabilities[order], np.broadcast_to(clones, (8, 40)), key)
    assert np.array_equal(shuffled, whole[order][:, clones])


def test_the_first_clones_are_a_prefix_of_more(backend: Any, make_key: MakeKey) -> None:
    probabilities = np.random.default_rng(6).random((2, 333), dtype=np.float32)
    key = make_key(8, [1, 2], [3, 4])
    few, many = (backend.mutate(probabilities, numbers(2, count), key) for count in (37, 74))
    assert np.array_equal(few, many[:, :37])


def test_each_part_of_the_key_changes_the_genes(backend: Any, make_key: MakeKey) -> None:
    probabilities = np.full((1, 256), 0.5, np.float32)
    keys = [make_key(0, [0], [0]), make_key(1, [0], [0]), make_key(2**32, [0], [0])]
    keys += [make_key(0, [1], [0]), make_key(0, [0], [1])]
    drawn = [backend.mutate(probabilities, np.array([[0]]), key).tobytes() for key in keys]
    drawn.append(backend.mutate(probabilities, np.array([[1]]), keys[0]).tobytes())
    assert len(set(drawn)) == 6


def test_threads_at_once_draw_the_same(backend: Any, make_key: MakeKey) -> None:
    probabilities = np.random.default_rng(7).random((6, 1000), dtype=np.float32)
    keys = [make_key(3, [row], [row]) for row in range(6)]

    def draw(row: int) -> Any:
        return backend.mutate(probabilities[row : row + 1], numbers(1, 64), keys[row])

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, list(range(6)) * 3))
    assert all(np.array_equal(masks, draw(i % 6)) for i, masks in enumerate(together))


def test_genes_come_as_often_as_their_probability_says(backend: Any, make_key: MakeKey) -> None:
    """20,000 clones of 64 genes. Six standard deviations: a true generator fails once in 8 million such tests."""
    probabilities = np.linspace(0, 1, 64, dtype=np.float32)[None]
    masks = backend.mutate(probabilities, numbers(1, 20_000), make_key(123, [4], [5]))
    shares = unpack(masks, 64)[0].mean(axis=0)
    p = probabilities[0].astype(np.float64)
    assert np.all(np.abs(shares - p) <= 6 * np.sqrt(p * (1 - p) / 20_000))


def test_neighbouring_genes_and_clones_are_independent(backend: Any, make_key: MakeKey) -> None:
    """Correlations of 62,500 pairs of fair bits stay below six standard deviations, 6 / 250."""
    masks = backend.mutate(np.full((1, 250), 0.5, np.float32), numbers(1, 251), make_key(77, [0], [0]))
    bits = unpack(masks, 250)[0].astype(np.float64) * 2 - 1
    for left, right in ((bits[:-1], bits[1:]), (bits[:, :-1], bits[:, 1:]), (bits[:, :-4], bits[:, 4:])):
        assert abs(float((left * right).mean())) < 6 / 248


def test_a_zero_is_never_and_a_one_always_drawn(backend: Any, make_key: MakeKey) -> None:
    """1 means 2^32 - 1 of 2^32 draws: none of these 400,000 is the missing one."""
    probabilities = np.tile(np.array([0, 1], np.float32), 200)[None]
    chosen = unpack(backend.mutate(probabilities, numbers(1, 2000), make_key(0, [0], [0])), 400)[0]
    assert not chosen[:, 0::2].any()
    assert chosen[:, 1::2].all()


@pytest.mark.parametrize("bad", [math.nan, -1e-7, 1 + 2**-20, math.inf, -math.inf])
def test_what_is_no_probability_is_refused(backend: Any, make_key: MakeKey, bad: float) -> None:
    probabilities = np.full((2, 40), 0.5, np.float32)
    probabilities[1, 39] = bad
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        backend.mutate(probabilities, numbers(2, 2), make_key(0, [0, 0], [0, 1]))
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        backend.mutate_score(probabilities, np.zeros((2, 40), np.int64), 2, make_key(0, [0, 0], [0, 1]))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_key_of_another_number_of_faces_is_refused(backend: Any, make_key: MakeKey, rows: int) -> None:
    probabilities = np.full((2, 40), 0.5, np.float32)
    key = make_key(0, [0] * rows, [0] * rows)
    with pytest.raises(ValueError, match=rf"expected shape \(2,\), got \({rows},\)"):
        backend.mutate(probabilities, numbers(2, 2), key)
    with pytest.raises(ValueError, match=rf"expected shape \(2,\), got \({rows},\)"):
        backend.mutate_score(probabilities, np.zeros((2, 40), np.int64), 2, key)


@pytest.mark.parametrize(
    ("probability", "threshold"),
    [
        (0.0, 0),
        (1e-45, 0),  # the smallest subnormal
        (2.0**-33, 0),
        (2.0**-32, 1),
        (1.75 * 2.0**-32, 1),  # the floor, not the nearest
        (0.5, 2**31),
        (1 - 2.0**-24, 2**32 - 2**8),
        (1.0, 2**32 - 1),
    ],
)
def test_thresholds(probability: float, threshold: int) -> None:
    found = thresholds(np.array([[probability]], np.float32))
    assert found.dtype == np.uint32
    assert found.tolist() == [[threshold]]


@pytest.mark.parametrize("wrong", [(np.zeros(2), np.zeros(3)), (np.zeros((1, 2)), np.zeros((1, 2)))])
def test_a_key_whose_words_do_not_pair_is_refused(wrong: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="frames and faces of one shape"):
        CloneKey(0, wrong[0].astype(np.uint32), wrong[1].astype(np.uint32))


def test_a_key_of_other_words_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CloneKey\.faces: expected dtype uint32, got int64"):
        CloneKey(0, np.zeros(1, np.uint32), np.zeros(1, np.int64))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_pack_and_unpack(bits: list[bool]) -> None:
    packed = pack(np.array([bits]))
    assert unpack(packed, len(bits)).tolist() == [bits]
    value = sum(1 << i for i, bit in enumerate(bits) if bit)  # gene i is bit i % 32 of word i // 32
    assert sum(int(w) << 32 * i for i, w in enumerate(packed[0])) == value
    strided = np.repeat(packed, 2, axis=-1)[:, ::2]
    assert unpack(strided, len(bits)).tolist() == [bits]
