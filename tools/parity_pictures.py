"""The kernels letterbox, warp and crop_faces against OpenCV and the runtime; mean_embedding and match by their sums."""

from __future__ import annotations

import cv2
import numpy as np
from parity_place import Array, Place, near, same

from immunogate.faces_file import faces_from_pixels
from immunogate.runtime.align import TEMPLATE, align, similarity_to_template
from immunogate.runtime.detect import letterbox
from immunogate.structs import CROP_SIZE

MOST_UNEQUAL = 0.01
"""Share of pixels of a picture that may be one level beside OpenCV's."""


def picture_near(name: str, found: Array, want: Array) -> None:
    """Levels equal OpenCV's, or their neighbours in less than one pixel of a hundred."""
    apart = np.abs(found.astype(np.float64) - want)
    assert apart.max() <= 1 and (apart > 0).mean() <= MOST_UNEQUAL, f"{name}: differs from OpenCV's"  # noqa: PT018


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
    """Letterbox and warp from BGR and NV12, and crop_faces."""
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
