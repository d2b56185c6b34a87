from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from immunogate.basis import Eigenbasis, truncate
from immunogate.errors import MissingExtraError, UsageError
from immunogate.training.eigenbasis import fit_eigenbasis
from immunogate.training.plots import picture_of_basis


def fitted(components: int = 40) -> Eigenbasis:
    pictures = np.random.default_rng(0).integers(0, 256, (60, 10, 10), np.uint8)
    return fit_eigenbasis(pictures, components)


@pytest.mark.parametrize("components", [1, 5, 40])
def test_the_picture_is_a_wide_colour_png(tmp_path: Path, components: int) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "basis.png"
    picture_of_basis(truncate(fitted(), components), path)
    picture = cv2.imread(str(path))
    assert picture is not None
    height, width = picture.shape[:2]
    assert (width, height) == (2100, 840)
    faces, curve = picture[:, : width * 6 // 10], picture[:, width * 65 // 100 :]
    assert np.ptp(faces) > 200
    assert np.ptp(curve.astype(int).max(axis=2) - curve.min(axis=2)) > 50  # the curve has a colour


def test_two_pictures_of_one_basis_are_equal(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one.png", "two.png"):
        picture_of_basis(fitted(), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib.*immunogate\[train\]"):
        picture_of_basis(fitted(), tmp_path / "basis.png")
    assert not list(tmp_path.iterdir())


def test_faces_that_are_not_square_are_refused(tmp_path: Path) -> None:
    flat = fit_eigenbasis(np.random.default_rng(0).uniform(-1, 1, (9, 12)), 3)
    with pytest.raises(UsageError, match="square faces to draw, got 12 pixels"):
        picture_of_basis(flat, tmp_path / "basis.png")
