"""Launches on arrays of the device, with the real kernels: on the host, and on a GPU where there is one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.faces_file import faces_from_pixels
from immunogate.kernels import reference
from immunogate.kernels.device import Device, View
from immunogate.kernels.queued import BAD_EMBEDDING, BAD_PROBABILITY, Pictures, Queued
from immunogate.kernels.reference import ScoreTerms
from immunogate.kernels.workspace import Workspace
from immunogate.runtime.align import MOST_SHRINK, TEMPLATE, align, similarity_to_template
from immunogate.runtime.detect import letterbox
from immunogate.runtime.gallery import Templates
from immunogate.runtime.match import match
from immunogate.runtime.recognise import mean_embedding


class Bench:
    """Queued launches, a stream, and arrays by name."""

    def __init__(self, device: Device) -> None:
        self.queued, self.stream = Queued(device), device.stream()
        self.work = Workspace(device, self.stream)

    def put(self, values: Any, dtype: Any = None) -> View:
        values = np.ascontiguousarray(values, dtype)
        return self.work.put(f"array {len(self.work._buffers)}", values)

    def empty(self, shape: Any, dtype: Any) -> View:
        return self.work.empty(f"array {len(self.work._buffers)}", shape, dtype)

    def close(self) -> None:
        for part in (self.work, self.queued, self.stream):
            part.close()  # type: ignore[attr-defined]


@pytest.fixture
def bench(kernels_run: Device) -> Any:
    made = Bench(kernels_run)
    yield made
    made.close()


def close_to(found: Any, want: Any) -> bool:
    """Within one level, and where sums are enlarged to just between two levels, not everywhere the same one."""
    difference = np.abs(found.astype(np.float64) - want)
    return bool(difference.max() <= 1 and (difference > 0).mean() <= 0.05)


def frames(kind: str, count: int) -> tuple[Any, list[Any]]:
    """Arrays as a camera gives them, and the same as OpenCV's BGR."""
    noise = np.random.default_rng(3).integers(0, 256, (count, 186, 130, 3), np.uint8)
    smooth = [cv2.GaussianBlur(picture, (0, 0), 2.0) for picture in noise]
    if kind == "bgr":
        return np.stack([picture[:124] for picture in smooth]), [picture[:124] for picture in smooth]
    nv12 = [np.ascontiguousarray(picture[..., 0]) for picture in smooth]
    return np.stack(nv12), [cv2.cvtColor(picture, cv2.COLOR_YUV2BGR_NV12) for picture in nv12]


@pytest.mark.parametrize("kind", ["bgr", "nv12"])
def test_letterbox(bench: Bench, kind: str) -> None:
    given, pictures = frames(kind, 2)
    want = np.concatenate([letterbox(picture, 0.5) for picture in pictures])
    planes = bench.empty(want.shape, np.float32)
    getattr(bench.queued, f"letterbox_{kind}")(bench.stream, bench.put(given), planes, (62, 65))
    assert close_to(planes.get(bench.stream), want)


@pytest.mark.parametrize("kind", ["bgr", "nv12"])
def test_warp(bench: Bench, kind: str) -> None:
    given, (picture,) = frames(kind, 1)
    landmarks = [(TEMPLATE - 56) * scale + [65, 60] for scale in (0.5, 1, 2.2)]
    matrices, shrinks = [], []
    for points in landmarks:
        matrix = similarity_to_template(points.astype(np.float32))
        shrink = int(np.clip(1 / float(np.hypot(matrix[0, 0], matrix[1, 0])), 1, MOST_SHRINK))
        matrix = matrix * shrink
        matrix[:, 2] += (shrink - 1) / 2
        matrices.append(np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2].ravel())
        shrinks.append(shrink)
    crops, faces = bench.empty((3, 112, 112), np.uint8), bench.empty((3, 112 * 112), np.float32)
    where = bench.put(matrices, np.float32), bench.put(shrinks, np.int32)
    getattr(bench.queued, f"warp_{kind}")(bench.stream, bench.put(given[0]), *where, crops, faces)
    found = crops.get(bench.stream)
    for crop, points in zip(found, landmarks, strict=True):
        assert close_to(crop, align(picture, points.astype(np.float32)))
    assert np.array_equal(faces.get(bench.stream), faces_from_pixels(found))


def test_crop_faces(bench: Bench) -> None:
    crops = np.random.default_rng(4).integers(0, 256, (2, 14, 14), np.uint8)
    faces = bench.empty((2, 196), np.float32)
    bench.queued.crop_faces(bench.stream, bench.put(crops), faces)
    assert np.array_equal(faces.get(bench.stream), faces_from_pixels(crops))


def test_gene_weights(bench: Bench) -> None:
    draw = np.random.default_rng(5)
    p, c = draw.random((3, 131)).astype(np.float32), draw.normal(0, 9, (3, 133)).astype(np.float32)
    terms = ScoreTerms()
    limits, weights = bench.empty((3, 132), np.uint32), bench.empty((3, 132), np.int32)
    status = bench.put(np.zeros(3, np.uint32))
    numbers = terms.residual, terms.size, terms.likelihood
    bench.queued.gene_weights(bench.stream, bench.put(p), bench.put(c), limits, weights, status, 12544, numbers)
    assert np.array_equal(limits.get(bench.stream), np.pad(reference.thresholds(p), ((0, 0), (0, 1))))
    want = reference.gene_weights(p, c[:, :131], terms, 12544)
    assert np.array_equal(weights.get(bench.stream), np.pad(want, ((0, 0), (0, 1))))
    assert not status.get(bench.stream).any()
    p[1, 7] = np.nan
    bench.queued.gene_weights(bench.stream, bench.put(p), bench.put(c), limits, weights, status, 12544, numbers)
    assert status.get(bench.stream).tolist() == [0, BAD_PROBABILITY, 0]


def test_take_likely(bench: Bench) -> None:
    p = np.random.default_rng(6).random((4, 71)).astype(np.float32)
    p[0, 3] = 0.5
    masks, lists = bench.empty((4, 3), np.uint32), bench.empty((4, 70), np.uint16)
    counts, gates = bench.empty((4,), np.int32), bench.empty((4,), np.float32)
    status = bench.put(np.zeros(4, np.uint32))
    bench.queued.take_likely(bench.stream, bench.put(p), masks, lists, counts, gates, status, 70)
    assert not status.get(bench.stream).any()
    chosen = p > 0.5
    assert np.array_equal(masks.get(bench.stream), reference.pack(chosen))
    assert np.array_equal(gates.get(bench.stream), chosen[:, 70])
    for row, count, mask in zip(lists.get(bench.stream), counts.get(bench.stream), chosen, strict=True):
        assert np.array_equal(row[:count], np.flatnonzero(mask[:70] != mask[70]))
    p[2, 70] = 1.5
    bench.queued.take_likely(bench.stream, bench.put(p), masks, lists, counts, gates, status, 70)
    assert status.get(bench.stream).tolist() == [0, 0, BAD_PROBABILITY, 0]


def test_recogniser_planes(bench: Bench) -> None:
    faces = np.random.default_rng(7).uniform(-1, 1, (2, 400)).astype(np.float32)
    planes = bench.empty((4, 3, 19, 16), np.float32)
    views = bench.put([[0, 0, 0], [1, 0, 0]], np.int32)
    out = Pictures(None, planes, views, 20, 2, 19, 16, 0.99609375, 0.00390625)
    bench.queued.recogniser_planes(bench.stream, bench.put(faces), out)
    square = faces.reshape(2, 20, 20)
    both = np.stack([square, square[..., ::-1]], axis=1).reshape(4, 20, 20)[:, :19, 2:18]
    want = both * np.float32(0.99609375) + np.float32(0.00390625)
    np.testing.assert_allclose(planes.get(bench.stream), np.repeat(want[:, None], 3, axis=1), rtol=0, atol=1e-6)


def test_mean_embedding_and_match(bench: Bench) -> None:
    draw = np.random.default_rng(8)
    rows = draw.normal(size=(3, 4, 96)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    embeddings, status = bench.empty((3, 96), np.float32), bench.put(np.zeros(3, np.uint32))
    bench.queued.mean_embedding(bench.stream, bench.put(rows), embeddings, status)
    want = mean_embedding(rows)
    np.testing.assert_allclose(embeddings.get(bench.stream), want, atol=1e-6)

    templates = draw.normal(size=(21, 96)).astype(np.float32)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    groups = bench.queued.match_groups(len(templates))
    scratch, arrived = bench.empty((3, groups, 6), np.uint32), bench.put(np.zeros(3, np.uint32))
    best, similarity, margin = (bench.empty((3,), kind) for kind in (np.int32, np.float32, np.float32))
    persons = bench.put(np.arange(21), np.int32)
    bench.queued.match(
        bench.stream, bench.put(templates), persons, embeddings, scratch, arrived, best, similarity, margin
    )
    known = Templates([str(number) for number in range(21)], templates)
    for row, found in enumerate(best.get(bench.stream)):
        expected = match(known, want[row])
        assert str(found) == expected.person
        np.testing.assert_allclose(similarity.get(bench.stream)[row], expected.similarity, atol=1e-6)
        np.testing.assert_allclose(margin.get(bench.stream)[row], expected.margin, atol=1e-6)
    assert not arrived.get(bench.stream).any()

    rows[1, 2, 5] = np.inf
    bench.queued.mean_embedding(bench.stream, bench.put(rows), embeddings, status)
    assert status.get(bench.stream).tolist() == [0, BAD_EMBEDDING, 0]
