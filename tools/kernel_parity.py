"""Every CUDA kernel against its definition, over drawn shapes: one function a group of kernels.

Used by the tests on a GPU and on the host's fake, and by ``sanitize_kernels.py``. A check draws its own shapes up to a
limit, fills what is written to with rubbish before, and raises AssertionError where a result is not the definition's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from immunogate.basis import LEAST_REMAINDER, MOST_GRAIN
from immunogate.faces_file import faces_from_pixels
from immunogate.kernels import clones, reference
from immunogate.kernels.device import Buffer, Device, View
from immunogate.kernels.launch import ELEMENTS, chosen_rows, stored_rows
from immunogate.kernels.queued import MOST_KEPT, SLICE, Clones, DeviceBasis, Pictures, Queued
from immunogate.kernels.reference import CloneKey, ScoreTerms, thresholds, unpack
from immunogate.runtime.align import TEMPLATE, align, similarity_to_template
from immunogate.runtime.detect import letterbox
from immunogate.runtime.gpu.memory import Memory
from immunogate.structs import CROP_SIZE

Array = npt.NDArray[Any]
GREY = 127.5
TOLERANCE = 1e-3
"""Grey levels by which float32 sums may differ from float64's."""

MOST_UNEQUAL = 0.01
"""Share of pixels of a picture that may be one level beside OpenCV's."""

MOST_DRAWS = 1 << 26
"""Genes of all clones of a check, so that the definition takes a second at most."""


@dataclass(frozen=True)
class Limits:
    """Up to where shapes are drawn, each from 1: faces, clones, genes (or eigenfaces), pixels, templates."""

    batch: int
    clones: int
    genes: int
    pixels: int
    templates: int


class Place:
    """A device with its kernels and memory for one check."""

    def __init__(self, device: Device, seed: int, limits: Limits) -> None:
        self.device, self.limits = device, limits
        self.draw = np.random.default_rng(seed)
        self.stream = device.stream()
        self.memory = Memory(device, self.stream)
        self.queued = Queued(device)

    def size(self, most: int) -> int:
        """1 to ``most``, small ones as likely as large ones; now and then the largest itself."""
        return most if self.draw.random() < 0.1 else int(np.exp(self.draw.uniform(0, np.log(most + 1))))

    def put(self, values: Array) -> Buffer:
        """On the device."""
        return self.memory.upload(np.ascontiguousarray(values))

    def rubbish(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
        """Memory to be written to: NaN, or numbers that nobody computes."""
        octets = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 0xFF, np.uint8)
        return self.put(octets.view(dtype).reshape(shape))

    def get(self, view: View) -> Array:
        """From the device."""
        return view.get(self.stream)

    def close(self) -> None:
        """Give everything back."""
        self.memory.close()
        self.queued.close()
        self.stream.close()


Check = Callable[[Place], None]


def same(name: str, found: Array, want: Array) -> None:
    """Equal to the bit."""
    assert np.array_equal(found, want), f"{name}: not the definition's, first at {np.argwhere(found != want)[:1]}"


def near(name: str, found: Array, want: Array, most: float) -> None:
    """Within a tolerance; NaN is not."""
    worst = float(np.abs(found.astype(np.float64) - want).max(initial=0.0))
    assert worst <= most, f"{name}: off by {worst:g}, more than {most:g}"


def picture_near(name: str, found: Array, want: Array) -> None:
    """Levels equal OpenCV's, or their neighbours in less than one pixel of a hundred."""
    apart = np.abs(found.astype(np.float64) - want)
    assert apart.max() <= 1 and (apart > 0).mean() <= MOST_UNEQUAL, f"{name}: differs from OpenCV's"  # noqa: PT018


# ---- products


def _basis(place: Place, precision: str, pixels: int, rows: int) -> tuple[DeviceBasis, Array, Array]:
    """On the device; the mean; and the rows as they are stored, in float64. Half of a face is explained."""
    exact = (place.draw.standard_normal((rows, pixels)) * (0.5 / rows) ** 0.5).astype(np.float32)
    mean = place.draw.uniform(-0.5, 0.5, pixels).astype(np.float32)
    stored, scales = stored_rows(exact, precision)
    held = None if scales is None else place.put(scales)
    rows64 = stored[:, :pixels].astype(np.float64) * (1 if scales is None else scales[:, None].astype(np.float64))
    return DeviceBasis(place.put(stored), held, place.put(mean), ELEMENTS[precision]), mean, rows64


def _grain(faces: Array, side: int) -> Array:
    if side < 2:
        return np.zeros(len(faces))
    rows = faces.astype(np.float64).reshape(-1, side, side)
    mixed = rows[:, 1:, 1:] - rows[:, :-1, 1:] - rows[:, 1:, :-1] + rows[:, :-1, :-1]
    found: Array = np.minimum(np.abs(mixed) / 2, MOST_GRAIN).mean(axis=(1, 2))
    return found


def check_project(place: Place) -> None:
    """project in each precision and form, spectrum with and without an analyzer's inputs."""
    for precision in ELEMENTS:
        side = max(1, int(place.size(place.limits.pixels) ** 0.5))
        rows, most = place.size(place.limits.genes), place.limits.batch
        basis, mean, exact = _basis(place, precision, side * side, rows)
        for batch in {1, min(3, most), min(8, most), place.size(most)}:
            faces = place.draw.uniform(-1, 1, (batch, side * side)).astype(np.float32)
            held, slices = place.put(faces), -(-side * side // SLICE)
            partial = place.rubbish((slices, batch, rows), np.float32)
            c, inputs = place.rubbish((batch, rows), np.float32), place.rubbish((batch, rows + 2), np.float32)
            place.queued.project(place.stream, basis, held, partial)
            place.queued.spectrum(place.stream, basis, partial, held, c, inputs, side)
            found = place.get(c)
            near(f"project {precision}", found, reference.project(faces, mean, exact), TOLERANCE / GREY * 20)
            all_found = place.get(inputs)
            same("inputs", all_found[:, :rows], found)
            lengths = reference.spectrum(faces, mean, found)[:, -1]
            near("remainder", all_found[:, rows], lengths, 1e-5 * float(lengths.max()) + LEAST_REMAINDER * 1e-6)
            near("grain", all_found[:, rows + 1], _grain(faces, side), 1e-7)
            again = place.rubbish((batch, rows), np.float32)
            place.queued.spectrum(place.stream, basis, partial, held, again, None, side)
            same("spectrum without inputs", place.get(again), found)


def _planes(purified: Array, side: int, views: Array, crop: tuple[int, int, int], gain: float, bias: float) -> Array:
    left, height, width = crop
    seen = []
    for mirrored, right, down in views:
        faces = purified.reshape(-1, side, side)[:, :, :: -1 if mirrored else 1]
        rows, columns = (np.clip(np.arange(side) - shift, 0, side - 1) for shift in (down, right))
        seen.append(faces[:, rows[:, None], columns[None]])
    grey = np.stack(seen, axis=1).reshape(-1, side, side)[:, :height, left : left + width]
    return np.repeat((grey * np.float32(gain) + np.float32(bias))[:, None], 3, axis=1)


def check_act(place: Place) -> None:
    """act, listed and dense, gated or not, hard and soft, with the recogniser's planes; and planes of faces as they are."""
    for precision in ELEMENTS:
        side = max(1, int(place.size(place.limits.pixels) ** 0.5))
        rows, pixels = place.size(place.limits.genes), side * side
        basis, mean, exact = _basis(place, precision, pixels, rows)
        batch, keep = place.size(max(1, place.limits.batch // 4)), place.size(4)
        c = place.draw.normal(0, 1, (batch, rows)).astype(np.float32)
        faces = place.draw.uniform(-1, 1, (batch, pixels)).astype(np.float32)
        left = int(place.draw.integers(0, side))
        crop = left, int(place.draw.integers(1, side + 1)), int(place.draw.integers(1, side - left + 1))
        views = np.array([[0, 0, 0], [1, 2, -1]], np.int32)
        held_c, held_faces, held_views = place.put(c), place.put(faces), place.put(views)
        for gated, form in ((False, "listed"), (True, "listed"), (False, "dense"), (True, "soft")):
            weights = place.draw.random((batch, keep, rows + gated)).astype(np.float32)
            if form != "soft":
                weights = (weights < place.draw.random()).astype(np.float32)
            purified = place.rubbish((batch * keep, pixels), np.float32)
            planes = place.rubbish((batch * keep * 2, 3, *crop[1:]), np.float32)
            out = Pictures(purified, planes, held_views, side, *crop, 0.75, -0.25)
            given = held_faces if gated else None
            lists = chosen_rows(weights, rows)
            if form == "listed" and lists is not None:
                gates = place.put(np.ascontiguousarray(weights[..., -1])) if gated else None
                parts = place.put(lists[0]), place.put(lists[1])
                place.queued.act_chosen(place.stream, basis, held_c, *parts, gates, given, out)
            else:
                place.queued.act_dense(place.stream, basis, held_c, place.put(weights), given, out)
            found = place.get(purified)
            want = reference.act(c, weights, mean, exact, faces).reshape(found.shape)
            near(f"act {precision} {form}", found, want, TOLERANCE / GREY * 4)
            same("planes", place.get(planes), _planes(found, side, views, crop, 0.75, -0.25))
        planes = place.rubbish((batch * 2, 3, *crop[1:]), np.float32)
        out = Pictures(None, planes, held_views, side, *crop, 0.5, 0.125)
        place.queued.recogniser_planes(place.stream, held_faces, out)
        same("recogniser_planes", place.get(planes), _planes(faces, side, views, crop, 0.5, 0.125))


# ---- clones


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
    """mutate of drawn numbers, and take_likely with what is no probability."""
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


# ---- embeddings


def check_match(place: Place) -> None:
    """mean_embedding and match: also with a NaN, which finds nobody, and one template for several of a person."""
    draw, limits = place.draw, place.limits
    batch, length, count = place.size(limits.batch), place.size(512), place.size(limits.templates)
    rows = draw.normal(size=(batch, place.size(16), length)).astype(np.float32)
    rows[0, 0, -1] = np.nan
    embeddings, status = place.rubbish((batch, length), np.float32), place.memory.zeros((batch,), np.uint32)
    place.queued.mean_embedding(place.stream, place.put(rows), embeddings, status)
    unit = rows.astype(np.float64) / np.maximum(np.linalg.norm(rows.astype(np.float64), axis=2, keepdims=True), 1e-12)
    mean = unit.mean(axis=1)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    near("mean_embedding", place.get(embeddings)[1:], mean[1:], 2e-5)
    same("status", place.get(status), np.where(np.arange(batch) == 0, 4, 0))
    whole = draw.integers(-1, 2, (count, length)).astype(np.float32)  # sums are exact, and many are equal
    asked = draw.integers(-1, 2, (batch, length)).astype(np.float32)
    asked[0, 0] = np.nan
    persons = draw.integers(0, max(1, count // 2), count).astype(np.int32)
    groups = place.queued.match_groups(count)
    scratch, arrived = place.rubbish((batch, groups, 6), np.uint32), place.memory.zeros((batch,), np.uint32)
    best, found = place.rubbish((batch,), np.int32), [place.rubbish((batch,), np.float32) for _ in range(2)]
    held = place.put(whole), place.put(persons), place.put(asked)
    for _ in range(2):
        place.queued.match(place.stream, *held, scratch, arrived, best, *found)
    exact = asked.astype(np.float64) @ whole.T.astype(np.float64)
    firsts, similarity, margin = place.get(best), *(place.get(values) for values in found)
    assert (firsts[0], similarity[0], margin[0]) == (-1, -1, np.inf), "match: NaN finds somebody"
    for face in range(1, batch):
        first = int(np.argmax(exact[face]))
        others = exact[face][persons != persons[first]]
        want = exact[face, first] - others.max() if len(others) else np.inf
        assert (firsts[face], similarity[face], margin[face]) == (first, exact[face, first], want), "match"
    assert not place.get(arrived).any(), "the counters are not back at zero"


# ---- pictures


def _frame(place: Place, even: bool) -> Array:
    height, width = (40 + int(place.draw.integers(0, 200)) for _ in range(2))
    if even:
        height, width = height // 2 * 2, width // 2 * 2
    noise = place.draw.integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0)


def _nv12(pixels: Array) -> Array:
    height, width = pixels.shape[:2]
    planar = cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420)
    chroma = planar[height:].reshape(2, height // 2, width // 2)
    return np.concatenate([planar[:height], chroma.transpose(1, 2, 0).reshape(height // 2, width)])


def check_pictures(place: Place) -> None:
    """letterbox and warp from BGR and NV12, and crop_faces."""
    for kind in ("bgr", "nv12"):
        pixels = _frame(place, even=kind == "nv12")
        given = pixels
        if kind == "nv12":
            given = _nv12(pixels)
            pixels = cv2.cvtColor(given, cv2.COLOR_YUV2BGR_NV12)
        height, width = pixels.shape[:2]
        scale = float(place.draw.uniform(0.2, 1.0))
        want = letterbox(pixels, scale)
        planes = place.rubbish((2, *want.shape[1:]), np.float32)
        small = max(1, round(height * scale)), max(1, round(width * scale))
        boxing = getattr(place.queued, f"letterbox_{kind}")
        boxing(place.stream, place.put(np.stack([given, given])), planes, small)
        for found in place.get(planes):
            picture_near(f"letterbox_{kind}", found, want[0])
        batch = place.size(min(place.limits.batch, 9))
        matrices = np.empty((batch, 6), np.float32)
        faces = []
        for face in range(batch):
            scale, angle = place.draw.uniform(0.6, 0.95), place.draw.uniform(-0.6, 0.6)
            faces.append(_landmarks(scale, angle, *place.draw.uniform(0, [width, height])))
            matrices[face] = _to_frame(faces[-1])
        crops = place.rubbish((batch, CROP_SIZE, CROP_SIZE), np.uint8)
        normalised = place.rubbish((batch, CROP_SIZE * CROP_SIZE), np.float32)
        held = place.put(given), place.put(matrices), place.put(np.ones(batch, np.int32)), crops, normalised
        getattr(place.queued, f"warp_{kind}")(place.stream, *held)
        levels = place.get(crops)
        for found, face in zip(levels, faces, strict=True):
            picture_near(f"warp_{kind}", found, align(pixels, face))
        same("faces", place.get(normalised), faces_from_pixels(levels))
        again = place.rubbish((batch, CROP_SIZE * CROP_SIZE), np.float32)
        place.queued.crop_faces(place.stream, crops, again)
        same("crop_faces", place.get(again), faces_from_pixels(levels))


def _landmarks(scale: float, angle: float, x: float, y: float) -> Array:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found: Array = ((TEMPLATE - 56) @ (scale * turn).T + [x, y]).astype(np.float32)
    return found


def _to_frame(face: Array) -> Array:
    matrix = np.vstack([similarity_to_template(face), [0, 0, 1]])
    return np.linalg.inv(matrix)[:2].astype(np.float32).ravel()


_KINDS = tuple(ELEMENTS.values())
CHECKS: dict[Check, frozenset[str]] = {
    check_project: frozenset({"spectrum", *(f"project_{kind}_{shared}" for kind in _KINDS for shared in (1, 4, 8))}),
    check_act: frozenset(
        {"recogniser_planes", *(f"act_{form}_{kind}" for form in ("chosen", "dense") for kind in _KINDS)}
    ),
    check_select: frozenset({"select_clones"}),
    check_mutate: frozenset({"mutate", "take_likely"}),
    check_gene_weights: frozenset({"gene_weights"}),
    check_match: frozenset({"mean_embedding", "match"}),
    check_pictures: frozenset({"letterbox_bgr", "letterbox_nv12", "warp_bgr", "warp_nv12", "crop_faces"}),
}
"""Every check with the kernels that it launches."""


def run(check: Check, device: Device, seed: int, limits: Limits) -> None:
    """One check with its own memory, given back whatever happens."""
    place = Place(device, seed, limits)
    try:
        check(place)
    finally:
        place.close()
