"""The demo's noise: laid over the face within its bound, and bound to one recogniser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from immunogate.demo.noise import (
    SHIPPED,
    Perturbations,
    load_perturbations,
    noise_file,
    paste,
    piece_of,
    save_perturbations,
)
from immunogate.demo.scene import EDITION
from immunogate.errors import BundleError, InputError, UsageError

HASH = "ab" * 32


@pytest.fixture
def found() -> Perturbations:
    draw = np.random.default_rng(0)
    pieces = draw.integers(-8, 9, (2, 3, 112, 112)).astype(np.int8)
    return Perturbations(HASH, EDITION, pieces[0], pieces[1])


def _to_crop(scale: float, degrees: float, x: float, y: float) -> np.ndarray:
    """From the frame to the crop: the crop's middle lies at (x, y) of the frame."""
    turn = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, np.array([55.5, 55.5]) - linear @ np.array([x, y])])


def test_what_is_laid_over_the_face_comes_back_through_its_alignment(found: Perturbations) -> None:
    frame = np.full((480, 640, 3), 128, np.uint8)
    smooth = cv2.GaussianBlur(found.dodge[0].astype(np.float32), (0, 0), 3)
    noise = np.rint(8 * smooth / np.abs(smooth).max()).astype(np.int8)
    matrix = _to_crop(0.6, 12, 300, 200)
    changed = paste(frame, noise, matrix)
    back = cv2.warpAffine(changed.astype(np.float32)[:, :, 0] - 128, matrix, (112, 112))
    inner = slice(4, -4)
    assert np.abs(back - noise)[inner, inner].max() < 1.5
    assert np.corrcoef(back[inner, inner].ravel(), noise[inner, inner].ravel())[0, 1] > 0.97


def test_no_pixel_changes_by_more_than_the_levels_and_none_outside_of_the_face(found: Perturbations) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    changed = paste(frame, found.dodge[1], _to_crop(0.7, -20, 320, 180))
    difference = np.abs(changed.astype(int) - frame)
    assert 0 < difference.max() <= found.levels() == 8
    assert difference[:60].max() == difference[320:].max() == difference[:, :180].max() == 0
    np.testing.assert_array_equal(frame, np.random.default_rng(1).integers(0, 256, (480, 640, 3)))


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_do_not_wrap_around(found: Perturbations, level: int) -> None:
    frame = np.full((480, 640, 3), level, np.uint8)
    changed = paste(frame, found.dodge[0], _to_crop(0.7, 0, 320, 180))
    assert np.abs(changed.astype(int) - level).max() <= 8


def test_every_piece_serves_its_share_of_the_frames() -> None:
    owners = [piece_of(frame, 72, 9) for frame in range(72)]
    assert owners == sorted(owners)
    assert {owners.count(piece) for piece in range(9)} == {8}
    assert [piece_of(frame, 4, 9) for frame in range(4)] == [0, 2, 4, 6]


def test_saved_and_read_it_is_the_same(found: Perturbations, tmp_path: Path) -> None:
    path = tmp_path / "noise.npz"
    save_perturbations(path, found)
    read = load_perturbations(path, HASH)
    np.testing.assert_array_equal(read.dodge, found.dodge)
    np.testing.assert_array_equal(read.impersonate, found.impersonate)


def test_another_recogniser_or_scene_is_refused_with_the_remedy(found: Perturbations, tmp_path: Path) -> None:
    path = tmp_path / "noise.npz"
    save_perturbations(path, found)
    with pytest.raises(BundleError, match=r"another recogniser.*immunogate train demo-attacks"):
        load_perturbations(path, "cd" * 32)
    save_perturbations(path, replace(found, edition=EDITION + 1))
    with pytest.raises(BundleError, match=r"scene.*immunogate train demo-attacks"):
        load_perturbations(path, HASH)


def test_what_is_no_noise_is_refused(found: Perturbations, tmp_path: Path) -> None:
    path = tmp_path / "noise.npz"
    with pytest.raises(UsageError, match=r"not there.*immunogate train demo-attacks"):
        load_perturbations(path, HASH)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError):
        load_perturbations(path, HASH)
    arrays = {"recogniser_sha256": HASH, "edition": EDITION, "impersonate": found.impersonate}
    for wrong in (found.dodge.astype(np.float32), found.dodge[:, :100], found.dodge[:0], found.dodge * 0 + 17):
        np.savez(path, dodge=wrong, **arrays)
        with pytest.raises(InputError, match="dodge"):
            load_perturbations(path, HASH)


def test_the_environment_names_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMMUNOGATE_DEMO_NOISE", raising=False)
    assert noise_file() == SHIPPED
    monkeypatch.setenv("IMMUNOGATE_DEMO_NOISE", "mine.npz")
    assert noise_file() == Path("mine.npz")
