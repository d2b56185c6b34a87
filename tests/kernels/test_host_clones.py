"""The host build draws, scores and selects the bits of the definition, and so do the CUDA kernels, run on a host."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immunogate.kernels import reference
from immunogate.kernels.antibody import AntibodySettings, make_antibodies
from immunogate.kernels.host import HostKernels
from immunogate.kernels.queued import BAD_PROBABILITY, BAD_WEIGHT
from immunogate.kernels.reference import WEIGHT_LIMIT, CloneKey, ScoreTerms, gene_weights, thresholds, unpack

MakeKey = Callable[..., CloneKey]
PIXELS = 12544
KNOWN = [  # Random123, kat_vectors: counter, key, answer
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_published_answers(host: HostKernels, counter: Any, key: Any, answer: Any) -> None:
    found = host.philox4x32(np.array(counter, np.uint32), key[0] | key[1] << 32)
    assert tuple(found.tolist()) == answer


@st.composite
def faces(draw: st.DrawFn, most_genes: int = 4096) -> tuple[Any, Any, CloneKey]:
    """Probabilities with certain ones among them, weights with many ties, and a key."""
    batch, genes = draw(st.integers(1, 3)), draw(st.integers(1, most_genes))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probabilities = random.random((batch, genes), dtype=np.float32)
    special = random.random((batch, genes)) < 0.2
    probabilities[special] = random.choice(np.array([0, 1, 0.5, 2**-32, 1 - 2**-24], np.float32), int(special.sum()))
    limit = draw(st.sampled_from([0, 1, 2**16, WEIGHT_LIMIT]))
    weights = random.integers(-limit, limit + 1, (batch, genes))
    key = CloneKey(draw(st.integers(0, 2**64 - 1)), *random.integers(0, 2**32, (2, batch), dtype=np.uint32))
    return probabilities, weights, key


def defined(probabilities: Any, weights: Any, count: int, keep: int, key: CloneKey) -> tuple[Any, Any, Any]:
    masks = reference.mutate(probabilities, np.broadcast_to(np.arange(count), (len(probabilities), count)), key)
    scores = reference.score(masks, weights)
    winners = reference.select(scores, keep)
    return scores, winners, np.take_along_axis(masks, winners[:, :, None], axis=1)


@many
@given(faces(), st.integers(1, 90), st.data())
def test_scores_winners_and_masks_are_those_of_the_definition(
    host: HostKernels, drawn: Any, count: int, data: st.DataObject
) -> None:
    probabilities, weights, key = drawn
    keep = data.draw(st.integers(1, min(16, count)))
    scores, winners, masks = defined(probabilities, weights, count, keep, key)
    assert np.array_equal(host.mutate_score(probabilities, weights, count, key), scores)
    found = host.select_clones(probabilities, weights, count, keep, key)
    assert np.array_equal(found[0], winners)
    assert np.array_equal(found[1], masks)


def padded(array: Any, to: int) -> Any:
    return np.ascontiguousarray(np.pad(array, ((0, 0), (0, to - array.shape[1]))))


def selected(emulator: Any, drawn: Any, count: int, keep: int, blocks: int, rows: int) -> dict[str, Any]:
    """Run the select_clones kernel; the arrays it wrote."""
    probabilities, weights, key = drawn
    batch, genes = probabilities.shape
    full = -(-genes // 4) * 4
    out = {
        "scores": np.empty((batch, count), np.int64),
        "arrived": np.zeros(batch, np.uint32),
        "winners": np.empty((batch, keep), np.int32),
        "masks": np.empty((batch, keep, -(-genes // 32)), np.uint32),
        "lists": np.full((batch, keep, rows), 0xFFFF, np.uint16),
        "counts": np.empty((batch, keep), np.int32),
        "gates": np.empty((batch, keep), np.float32),
    }
    limits, held = padded(thresholds(probabilities), full), padded(weights.astype(np.int32), full)
    sizes = ctypes.c_uint64(key.seed), count, keep, genes, full, rows
    given_arrays = limits, held, key.frames, key.faces, *out.values()
    emulator.launch("select_clones", (blocks, batch), (256,), *given_arrays, *sizes, shared=8 * full)
    return out


@few
@given(faces(700), st.integers(1, 40), st.integers(1, 5), st.booleans(), st.data())
def test_the_select_kernel_is_the_definition(
    emulator: Any, drawn: Any, count: int, blocks: int, gated: bool, data: st.DataObject
) -> None:
    """And its lists hold the rows whose gene differs from the gate, ascending."""
    probabilities, weights, key = drawn
    genes = probabilities.shape[1]
    rows = genes - 1 if gated and genes > 1 else genes
    keep = data.draw(st.integers(1, min(16, count)))
    out = selected(emulator, drawn, count, keep, blocks, rows)
    scores, winners, masks = defined(probabilities, weights, count, keep, key)
    assert np.array_equal(out["scores"], scores)
    assert np.array_equal(out["winners"], winners)
    assert np.array_equal(out["masks"], masks)
    assert not out["arrived"].any()
    chosen = unpack(masks, genes)
    for place in np.ndindex(*winners.shape):
        gate = bool(chosen[place][rows]) if rows < genes else False
        acting = np.flatnonzero(chosen[place][:rows] != gate)
        assert out["counts"][place] == len(acting)
        assert out["gates"][place] == gate
        assert np.array_equal(out["lists"][place][: len(acting)], acting)
        assert (out["lists"][place][len(acting) :] == 0xFFFF).all()


def test_the_select_kernel_at_its_largest(emulator: Any, make_key: MakeKey) -> None:
    """4096 clones of few genes (all threads hold 16 scores), 16 kept, and ties; then 4096 genes, all of one weight."""
    random = np.random.default_rng(0)
    drawn = random.random((1, 5), dtype=np.float32), random.integers(-1, 2, (1, 5)), make_key(1, [2], [3])
    out = selected(emulator, drawn, 4096, 16, 2, 5)
    scores, winners, masks = defined(*drawn[:2], 4096, 16, drawn[2])
    assert np.array_equal(out["scores"], scores)
    assert np.array_equal(out["winners"], winners)
    assert np.array_equal(out["masks"], masks)
    for weight in (WEIGHT_LIMIT, -WEIGHT_LIMIT):
        drawn = np.ones((1, 4096), np.float32), np.full((1, 4096), weight), make_key(3, [1], [2])
        out = selected(emulator, drawn, 3, 2, 1, 4096)
        assert out["scores"].tolist() == [[weight * 4096] * 3]
        assert out["winners"].tolist() == [[0, 1]]
        assert out["counts"].tolist() == [[4096] * 2]


@few
@given(faces(300), st.integers(1, 20))
def test_the_mutate_kernel_is_the_definition(emulator: Any, drawn: Any, count: int) -> None:
    probabilities, _, key = drawn
    batch, genes = probabilities.shape
    full = -(-genes // 4) * 4
    clones = np.random.default_rng(count).integers(0, 2**32, (batch, count), dtype=np.uint32)
    masks = np.empty((batch, count, -(-genes // 32)), np.uint32)
    limits, seed = padded(thresholds(probabilities), full), ctypes.c_uint64(key.seed)
    given_arrays = limits, key.frames, key.faces, clones, masks
    emulator.launch("mutate", (-(-count // 8), batch), (256,), *given_arrays, seed, count, genes, full)
    assert np.array_equal(masks, reference.mutate(probabilities, clones.astype(np.int64), key))


@few
@given(faces(300), st.booleans())
def test_the_take_likely_kernel_is_mode_threshold(emulator: Any, drawn: Any, gated: bool) -> None:
    probabilities = drawn[0]
    batch, genes = probabilities.shape
    rows = genes - 1 if gated and genes > 1 else genes
    masks, lists = np.empty((batch, -(-genes // 32)), np.uint32), np.empty((batch, rows), np.uint16)
    counts, gates = np.empty(batch, np.int32), np.empty(batch, np.float32)
    status = np.zeros(batch, np.uint32)
    given = probabilities, masks, lists, counts, gates, status, genes, rows
    emulator.launch("take_likely", (batch,), (32,), *given)
    assert not status.any()
    assert np.array_equal(unpack(masks, genes), probabilities > 0.5)
    for face in range(batch):
        gate = bool(probabilities[face, rows] > 0.5) if rows < genes else False
        assert np.array_equal(lists[face, : counts[face]], np.flatnonzero((probabilities[face, :rows] > 0.5) != gate))
    probabilities[-1, -1] = np.nan
    emulator.launch("take_likely", (batch,), (32,), *given)
    assert status.tolist() == [0] * (batch - 1) + [BAD_PROBABILITY]


terms = st.builds(ScoreTerms, st.floats(-2, 2), st.floats(-1, 1), st.floats(-1, 1))


@many
@given(faces(), terms, st.sampled_from([0.0, 1e-3, 30.0, 1e6, 1e30]))
def test_gene_weights_are_those_of_numpy(host: HostKernels, drawn: Any, terms: ScoreTerms, spread: float) -> None:
    """The logarithms differ in their last bits, which could only be seen at the middle between two steps."""
    probabilities = drawn[0]
    coefficients = np.random.default_rng(1).normal(0, spread, probabilities.shape).astype(np.float32)
    found = host.gene_weights(probabilities, coefficients, terms, PIXELS)
    assert np.array_equal(found, gene_weights(probabilities, coefficients, terms, PIXELS))


@many
@given(st.floats(2.0**-24, 1 - 2.0**-24, width=32))
def test_the_logarithm_is_as_good_as_numpys(host: HostKernels, p: float) -> None:
    """Enlarged a million times and brought back into range, where an error of 1e-10 would be six steps."""
    likelihood = 1e6
    terms = ScoreTerms(0, likelihood * (np.log(p) - np.log1p(-p)), likelihood)
    given_arrays = np.array([[p]], np.float32), np.zeros((1, 1), np.float32), terms, PIXELS
    assert abs(int(host.gene_weights(*given_arrays)[0, 0]) - int(gene_weights(*given_arrays)[0, 0])) <= 1


def test_the_gene_weights_kernel_is_the_host_build(emulator: Any, host: HostKernels) -> None:
    random = np.random.default_rng(4)
    probabilities = random.random((2, 301), dtype=np.float32)
    probabilities[:, :2] = 0, 1
    spectrum = random.normal(0, 40, (2, 302)).astype(np.float32)  # as `inputs` of a gated network: one number more
    limits, weights, status = np.empty((2, 304), np.uint32), np.empty((2, 304), np.int32), np.zeros(2, np.uint32)
    doubles = [ctypes.c_double(value) for value in (1.0, 3e-3, 1e-2)]
    launch = ("gene_weights", (3, 2), (128,))
    emulator.launch(*launch, probabilities, spectrum, limits, weights, status, 301, 304, 302, PIXELS, *doubles)
    assert np.array_equal(limits, padded(thresholds(probabilities), 304))
    assert np.array_equal(weights[:, :301], host.gene_weights(probabilities, spectrum[:, :301], ScoreTerms(), PIXELS))
    assert not weights[:, 301:].any()
    assert not status.any()
    probabilities[1, 7], spectrum[0, 3] = np.nan, np.nan
    emulator.launch(*launch, probabilities, spectrum, limits, weights, status, 301, 304, 302, PIXELS, *doubles)
    assert status.tolist() == [BAD_WEIGHT, BAD_PROBABILITY]  # each face has its own


def test_what_can_not_be_scored_is_refused(host: HostKernels, make_key: MakeKey) -> None:
    key, half = make_key(0, [0], [0]), np.full((1, 40), 0.5, np.float32)
    with pytest.raises(ValueError, match="at most 4096 genes, got 4097"):
        host.mutate(np.zeros((1, 4097), np.float32), np.zeros((1, 1), np.int64), key)
    with pytest.raises(ValueError, match=r"weights: expected shape \(1, 40\), got \(1, 39\)"):
        host.mutate_score(half, np.zeros((1, 39), np.int64), 2, key)
    with pytest.raises(ValueError, match="weights: expected values within"):
        host.mutate_score(half, np.full((1, 40), WEIGHT_LIMIT + 1), 2, key)
    with pytest.raises(ValueError, match="dtype float32, got float64"):
        host.mutate_score(half.astype(np.float64), np.zeros((1, 40), np.int64), 2, key)
    for count, keep in ((0, 1), (4097, 1), (3, 0), (3, 4)):
        with pytest.raises(ValueError, match=r"expected 1 \.\."):
            host.select_clones(half, np.zeros((1, 40), np.int64), count, keep, key)


@pytest.mark.parametrize("mode", ["sample", "select"])
def test_antibodies_are_the_same_with_and_without_the_host_build(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch, host: HostKernels, mode: str
) -> None:
    random = np.random.default_rng(3)
    probabilities = random.random((3, 203), dtype=np.float32)
    coefficients = random.normal(0, 20, (3, 203)).astype(np.float32)
    made = []
    for found in (host, None):
        monkeypatch.setattr("immunogate.kernels.antibody.host_kernels", lambda found=found: found)
        wanted = AntibodySettings(mode, clones=70, keep=5, seed=11)
        made.append(make_antibodies(wanted, coefficients, probabilities, make_key(11, [5, 5, 6], [1, 2, 1]), PIXELS))
    assert np.array_equal(made[0].weights, made[1].weights)
    assert np.array_equal(made[0].winners, made[1].winners)
