"""The kernels letterbox and warp, run on a host, against what the runtime does with OpenCV."""

from __future__ import annotations

import ctypes
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.faces_file import faces_from_pixels
from immunogate.runtime.align import MOST_SHRINK, TEMPLATE, align, similarity_to_template
from immunogate.runtime.detect import letterbox
from immunogate.structs import CROP_SIZE

MOST_UNEQUAL = 0.01
"""Share of pixels that may be one level beside OpenCV's, whose own sums are rounded on the way; the most seen was
0.0011, in pure noise."""


def picture(height: int, width: int, *, smooth: bool = True) -> Any:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0) if smooth else noise


def as_nv12(pixels: Any) -> Any:
    """(3 H / 2, W) with both planes in one array, from OpenCV's planar form."""
    height, width = pixels.shape[:2]
    planar = cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420)
    chroma = planar[height:].reshape(2, height // 2, width // 2)
    return np.concatenate([planar[:height], chroma.transpose(1, 2, 0).reshape(height // 2, width)])


def close(found: Any, want: Any) -> bool:
    difference = np.abs(found.astype(np.float64) - want)
    return bool(difference.max() <= 1 and (difference > 0).mean() <= MOST_UNEQUAL)


def letterboxed(emulator: Any, name: str, frames: list[Any], size: tuple[int, int], pitch: int, want: Any) -> Any:
    """Run letterbox on (n, rows, pitch) bytes; ``size`` is what the picture is shrunk to."""
    height, width = (frames[0].shape[1], want["width"])
    planes = np.full((len(frames[0]), 3, *want["padded"]), np.nan, np.float32)
    grid = (-(-planes.shape[3] // 32), -(-planes.shape[2] // 8), len(planes))
    bytes_a_frame = ctypes.c_longlong(want["frame_bytes"])
    sizes = height, width, pitch, bytes_a_frame, *size, *planes.shape[2:]
    emulator.launch(name, grid, (32, 8), *frames, planes, *sizes)
    return planes


@pytest.mark.parametrize("scale", [1.0, 0.9, 0.77, 0.5, 0.4, 1 / 3, 0.25, 0.1])
@pytest.mark.parametrize("smooth", [True, False])
def test_letterbox(emulator: Any, scale: float, smooth: bool) -> None:
    """Two frames in one launch, whose rows are longer than their pixels."""
    height, width = 244, 322
    frames = [picture(height + 2 * i, width, smooth=smooth)[:height] for i in range(2)]
    pitch = width * 3 + 10
    rows = np.zeros((2, height, pitch), np.uint8)
    for row, frame in zip(rows, frames, strict=True):
        row[:, : width * 3] = frame.reshape(height, -1)
    want = np.concatenate([letterbox(frame, scale) for frame in frames])
    size = max(1, round(height * scale)), max(1, round(width * scale))
    shape = {"padded": want.shape[2:], "frame_bytes": height * pitch, "width": width}
    assert close(letterboxed(emulator, "letterbox_bgr", [rows], size, pitch, shape), want)


def test_letterbox_of_nv12(emulator: Any) -> None:
    """Colours are OpenCV's to the bit: every luma with random chroma, and shrunk."""
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (96, 256), dtype=np.uint8)
    frame[:64] = np.arange(256)
    colours = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12)
    for scale in (1.0, 0.5, 0.4):
        want = letterbox(colours, scale)
        size = max(1, round(64 * scale)), max(1, round(256 * scale))
        shape = {"padded": want.shape[2:], "frame_bytes": 0, "width": 256}
        planes = [np.ascontiguousarray(part)[None] for part in (frame[:64], frame[64:])]
        found = letterboxed(emulator, "letterbox_nv12", planes, size, 256, shape)
        assert np.array_equal(found, want) if scale == 1 else close(found, want)


def crop_to_frame(landmarks: Any) -> tuple[Any, int]:
    """As a launcher makes it: the inverse of the matrix by which `align` warps, and the enlargement."""
    matrix = similarity_to_template(landmarks)
    shrink = int(np.clip(1 / float(np.hypot(matrix[0, 0], matrix[1, 0])), 1, MOST_SHRINK))
    matrix = matrix * shrink
    matrix[:, 2] += (shrink - 1) / 2
    return np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2].astype(np.float32).ravel(), shrink


def landmarks_of(scale: float, angle: float, x: float, y: float) -> Any:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((TEMPLATE - 56) @ (scale * turn).T + [x, y]).astype(np.float32)


@pytest.mark.parametrize("source", ["bgr", "nv12"])
def test_warp(emulator: Any, source: str) -> None:
    """Eight faces in one launch: small, large, turned, over the rim, and beyond the picture."""
    pixels = picture(500, 700)
    planes = [pixels]
    if source == "nv12":
        nv12 = as_nv12(pixels)
        pixels = cv2.cvtColor(nv12, cv2.COLOR_YUV2BGR_NV12)
        planes = [np.ascontiguousarray(nv12[:500]), np.ascontiguousarray(nv12[500:])]
    places = [(0.4, 0, 350, 250), (1, 0.2, 300, 260), (1.9, -0.3, 350, 240), (2.3, 0.1, 300, 250), (3.4, 0.5, 350, 250)]
    places += [(9.5, 0, 350, 250), (1.5, 0.4, 5, 490), (1, 0, 2000, 3000)]
    faces = [landmarks_of(*place) for place in places]
    matrices, shrinks = zip(*(crop_to_frame(face) for face in faces), strict=True)
    assert set(shrinks) == {1, 2, 3, 8}
    crops = np.empty((len(faces), CROP_SIZE, CROP_SIZE), np.uint8)
    normalised = np.empty((len(faces), CROP_SIZE * CROP_SIZE), np.float32)
    given = np.stack(matrices), np.array(shrinks, np.int32), crops, normalised
    pitch = 700 * (3 if source == "bgr" else 1)
    emulator.launch(f"warp_{source}", (4, 14, len(faces)), (32, 8), *planes, *given, 500, 700, pitch, CROP_SIZE)
    for found, face in zip(crops, faces, strict=True):
        assert close(found, align(pixels, face))
    assert crops[:7].std(axis=(1, 2)).min() > 1
    assert not crops[7].any()
    assert np.array_equal(normalised, faces_from_pixels(crops))


def test_a_matrix_that_is_not_finite_gives_black(emulator: Any) -> None:
    crops, faces = np.ones((2, 8, 8), np.uint8), np.empty((2, 64), np.float32)
    matrices = np.array([[np.nan] * 6, [np.inf, 0, 0, 0, 1e30, 0]], np.float32)
    given = picture(20, 30), matrices, np.array([1, 2], np.int32), crops, faces, 20, 30, 90, 8
    emulator.launch("warp_bgr", (1, 1, 2), (32, 8), *given)
    assert not crops[0].any()
    assert not crops[1, :, 1:].any()


def test_crops_become_faces(emulator: Any) -> None:
    """Every level, in a number of pixels that ends inside a block."""
    crops = np.resize(np.arange(256, dtype=np.uint8), (3, 9, 11))
    faces = np.full(crops.size + 1, np.nan, np.float32)
    emulator.launch("crop_faces", (-(-crops.size // 256),), (256,), crops, faces, crops.size)
    assert np.array_equal(faces[:-1].reshape(3, -1), faces_from_pixels(crops))
    assert np.isnan(faces[-1])
