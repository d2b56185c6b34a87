from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.basis import load_basis, orthonormality_error, save_basis, storage_error
from immunogate.errors import InputError, UsageError
from immunogate.faces_file import faces_from_pixels, load_aligned_faces
from immunogate.files import find_data
from immunogate.training.eigenbasis import fit_eigenbasis


@pytest.fixture(scope="module")
def images() -> Any:
    folder = find_data()
    if folder is None:
        pytest.skip("no development data: set IMMUNOGATE_DATA")
    return load_aligned_faces(folder / "faces" / "lfw_dev_aligned_112.npz").images


def drawn(seed: int, count: int, pixels: int) -> Any:
    """Faces whose variance falls from direction to direction, so that the eigenfaces are well defined."""
    draw = np.random.default_rng(seed)
    spread = np.geomspace(1, 0.05, pixels) * draw.normal(size=(count, pixels))
    mixed = spread @ np.linalg.qr(draw.normal(size=(pixels, pixels)))[0]
    return (mixed / np.abs(mixed).max()).astype(np.float32)


@given(seed=st.integers(0, 10**6), count=st.integers(2, 40), pixels=st.integers(2, 40), data=st.data())
@settings(max_examples=80, deadline=None)
def test_fit_agrees_with_the_singular_value_decomposition(seed: int, count: int, pixels: int, data: Any) -> None:
    faces = drawn(seed, count, pixels)
    components = data.draw(st.integers(1, min(count - 1, pixels)))
    basis = fit_eigenbasis(faces, components)
    centred = faces.astype(np.float64) - faces.mean(axis=0, dtype=np.float64)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / (count - 1)
    np.testing.assert_allclose(basis.eigenvalues, variances[:components], rtol=1e-4, atol=1e-6 * variances[0])
    assert basis.total_variance == pytest.approx(variances.sum(), rel=1e-9)
    assert orthonormality_error(basis) < 1e-5
    assert np.all(np.diff(basis.eigenvalues) <= 0)
    peaks = basis.basis[np.arange(components), np.abs(basis.basis).argmax(axis=1)]
    assert np.all(peaks > 0)
    gaps = np.append(-np.diff(variances), variances[-1])[:components]
    gaps = np.minimum(gaps, np.append(np.inf, gaps[:-1])) / variances[0]
    agreement = np.abs(np.sum(basis.basis * right[:components], axis=1))
    assert np.all(agreement[gaps > 1e-3] > 1 - 1e-6)


@given(seed=st.integers(0, 10**6), components=st.integers(1, 15))
@settings(max_examples=20, deadline=None)
def test_both_roads_lead_to_the_same_basis(seed: int, components: int) -> None:
    """Copies of faces change no direction but turn few faces (Gram) into many (covariance)."""
    faces = drawn(seed, 16, 20)
    few, many = fit_eigenbasis(faces, components), fit_eigenbasis(np.concatenate([faces, faces]), components)
    np.testing.assert_allclose(few.eigenvalues / 16 * 15, many.eigenvalues / 32 * 31, rtol=1e-4)
    faces = faces - few.mean
    np.testing.assert_allclose(faces @ few.basis.T @ few.basis, faces @ many.basis.T @ many.basis, atol=1e-3)


@pytest.mark.parametrize("count", [9, 40])
def test_pictures_and_their_floats_give_the_same_basis(count: int) -> None:
    pictures = np.random.default_rng(3).integers(0, 256, (count, 5, 5), np.uint8)
    whole, floats = fit_eigenbasis(pictures, 4), fit_eigenbasis(faces_from_pixels(pictures), 4)
    np.testing.assert_allclose(whole.basis, floats.basis, atol=1e-5)
    exact = pictures.reshape(count, -1).astype(object).sum(axis=0) / count
    np.testing.assert_allclose(whole.mean, exact.astype(np.float64) / 127.5 - 1, rtol=0, atol=6e-8)
    assert whole.samples == count


def test_a_memory_map_longer_than_a_block_is_read_in_blocks(tmp_path: Path) -> None:
    pictures = np.random.default_rng(4).integers(0, 256, (2500, 6, 6), np.uint8)
    np.save(tmp_path / "faces.npy", pictures)
    mapped = np.load(tmp_path / "faces.npy", mmap_mode="r")
    seen: list[tuple[str, float]] = []
    basis = fit_eigenbasis(mapped, 10, lambda step, done: seen.append((step, done)))
    np.testing.assert_array_equal(basis.basis, fit_eigenbasis(pictures, 10).basis)
    assert [done for step, done in seen if step == "products"] == [1024 / 2500, 2048 / 2500, 1.0]
    assert {step for step, _ in seen} == {"mean", "products", "decomposition"}
    centred = pictures.reshape(2500, -1) / 127.5 - 1 - basis.mean
    assert np.var(centred @ basis.basis[0], ddof=1) == pytest.approx(basis.eigenvalues[0], rel=1e-4)


def test_input_is_left_as_it_was() -> None:
    faces = drawn(0, 10, 12)
    before = faces.copy()
    fit_eigenbasis(faces, 3)
    np.testing.assert_array_equal(faces, before)


@pytest.mark.parametrize(
    ("faces", "components", "words"),
    [
        (drawn(0, 10, 30), 10, "10 faces of 30 pixels have 1 to 9 components, got 10"),
        (drawn(0, 30, 10), 11, "30 faces of 10 pixels have 1 to 10 components, got 11"),
        (drawn(0, 30, 10), 0, "got 0"),
    ],
)
def test_too_many_components_are_wrong_use(faces: Any, components: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fit_eigenbasis(faces, components)


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        (np.zeros((1, 5, 5), np.uint8), "two faces or more"),
        (np.zeros((3, 0), np.float32), "two faces or more"),
        (np.zeros(9, np.float32), r"got shape \(9,\) of float32"),
        (np.zeros((4, 9), np.int64), r"got shape \(4, 9\) of int64"),
        (np.array([[0.1, 0.2], [0.3, np.nan], [0, 0]], np.float32), "NaN or infinity in face 1"),
        (np.array([[0, 255], [3, 4]], np.float32), r"expected values in \[-1, 1\], got 0 to 255"),
    ],
)
def test_faces_that_are_none_are_refused(faces: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_eigenbasis(faces, 1)


def test_copies_leave_fewer_components_and_the_error_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    faces = np.repeat(drawn(1, 5, 30), 3, axis=0)
    with pytest.raises(InputError, match="only 4 components can be had, not 5") as caught:
        fit_eigenbasis(faces, 5)
    assert "Ask for 4" in caught.value.mend
    with caplog.at_level(logging.WARNING, "immunogate.training.eigenbasis"):
        basis = fit_eigenbasis(faces, 4)
    assert "span 4 directions instead of 14" in caplog.text
    assert orthonormality_error(basis) < 1e-5


@pytest.mark.parametrize("value", [0, 7, 255])
def test_equal_faces_have_no_component(value: int) -> None:
    with pytest.raises(InputError, match="only 0 components"):
        fit_eigenbasis(np.full((20, 6, 6), value, np.uint8), 1)


@pytest.mark.data
def test_two_hundred_eigenfaces_of_real_faces(images: Any, tmp_path: Path) -> None:
    faces = images[:800]
    basis = fit_eigenbasis(faces, 200)
    assert orthonormality_error(basis) < 1e-5
    assert basis.explained()[-1] > 0.9
    flat = faces_from_pixels(faces) - basis.mean
    held = np.var(flat @ basis.basis.T, axis=0, ddof=1)
    np.testing.assert_allclose(held, basis.eigenvalues, rtol=2e-3)
    save_basis(tmp_path / "basis.npz", basis, "float16")
    assert orthonormality_error(load_basis(tmp_path / "basis.npz")) < 1e-4
    unseen = faces_from_pixels(images[1000:1064])
    assert storage_error(basis, "float16", unseen).max_grey_levels < 0.2
    assert storage_error(basis, "int8", unseen).rms_grey_levels < 0.5


_MEASURED_FIT = """
import json, resource, sys, time
from pathlib import Path
from immunogate.basis import save_basis
from immunogate.faces_file import load_aligned_faces
from immunogate.training.eigenbasis import fit_eigenbasis
images = load_aligned_faces(Path(sys.argv[1])).images
started = time.perf_counter()
basis = fit_eigenbasis(images, 1500)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
save_basis(Path(sys.argv[2]), basis)
print(json.dumps({"seconds": seconds, "peak": peak}))
"""


@pytest.mark.data
@pytest.mark.slow
def test_all_development_faces_within_three_minutes_and_six_gigabytes(images: Any, tmp_path: Path) -> None:
    folder = find_data()
    assert folder is not None
    path = tmp_path / "basis.npz"
    source = folder / "faces" / "lfw_dev_aligned_112.npz"
    command = [sys.executable, "-c", _MEASURED_FIT, str(source), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout)
    assert measured["seconds"] < 180
    assert measured["peak"] < 6e9
    started = time.perf_counter()
    basis = load_basis(path)
    assert time.perf_counter() - started < 3
    assert orthonormality_error(basis) < 1e-5
    assert basis.components == 1500
    assert storage_error(basis, "float16", faces_from_pixels(images[:64])).max_grey_levels < 0.15
    assert storage_error(basis, "int8", faces_from_pixels(images[:64])).rms_grey_levels < 0.5
