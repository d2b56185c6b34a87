from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.basis import (
    ORTHONORMAL_LIMIT,
    STORAGES,
    Eigenbasis,
    Storage,
    basis_from_bytes,
    load_basis,
    orthonormality_error,
    re_orthonormalise,
    save_basis,
    storage_error,
    truncate,
)
from immunogate.errors import InputError, UsageError


def made(components: int = 6, pixels: int = 64, seed: int = 0) -> Eigenbasis:
    draw = np.random.default_rng(seed)
    rows = np.linalg.qr(draw.normal(size=(pixels, components)))[0].T
    values = np.sort(draw.uniform(0.1, 5, components))[::-1].astype(np.float32)
    return Eigenbasis(
        mean=draw.uniform(-1, 1, pixels).astype(np.float32),
        basis=np.ascontiguousarray(rows, dtype=np.float32),
        eigenvalues=values,
        total_variance=float(values.sum()) + 1.0,
        samples=100,
    )


def fields_of(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def tampered(path: Path, **changes: Any) -> bytes:
    """The file's fields with some replaced, or left out where None is given."""
    fields = {key: value for key, value in (fields_of(path) | changes).items() if value is not None}
    stream = io.BytesIO()
    np.savez(stream, **fields)
    return stream.getvalue()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "basis.npz"
    save_basis(path, made())
    return path


def test_float32_round_trip_is_exact(saved: Path) -> None:
    basis, loaded = made(), load_basis(saved, pixels=64)
    for name in ("mean", "basis", "eigenvalues"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(basis, name))
    assert (loaded.total_variance, loaded.samples, loaded.storage) == (basis.total_variance, 100, "float32")


@given(seed=st.integers(0, 1000), components=st.integers(1, 12), storage=st.sampled_from(STORAGES))
@settings(max_examples=60, deadline=None)
def test_each_storage_stays_within_its_step(
    tmp_path_factory: Any, seed: int, components: int, storage: Storage
) -> None:
    basis = made(components, 256, seed)
    path = tmp_path_factory.getbasetemp() / "stored.npz"
    save_basis(path, basis, storage)
    stored = fields_of(path)["basis"].astype(np.float32)
    stored = stored * fields_of(path).get("scale", np.ones(components, np.float32))[:, None]
    peak = np.abs(basis.basis).max(axis=1, keepdims=True)
    half_step = {"float32": 0.0, "float16": peak * 2.0**-11, "int8": peak / 254}[storage]
    assert np.all(np.abs(stored - basis.basis) <= half_step * 1.001)
    loaded = load_basis(path, pixels=256)
    assert loaded.storage == storage
    assert orthonormality_error(loaded) < ORTHONORMAL_LIMIT
    np.testing.assert_array_equal(loaded.eigenvalues, basis.eigenvalues)


def test_smaller_storages_make_smaller_files(tmp_path: Path) -> None:
    sizes = []
    for storage in STORAGES:
        save_basis(tmp_path / f"{storage}.npz", made(40, 400), storage)
        sizes.append((tmp_path / f"{storage}.npz").stat().st_size)
    assert sizes[0] > 1.8 * sizes[1] > 3 * sizes[2]


def test_equal_content_gives_equal_bytes_whatever_the_name(tmp_path: Path) -> None:
    save_basis(tmp_path / "one.npz", made(), "int8")
    save_basis(tmp_path / "without_suffix", made(), "int8")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "without_suffix").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.npz", "without_suffix"]


def test_unknown_storage_leaves_the_file_alone(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(UsageError, match=r"'int4'.*float32, float16, int8"):
        save_basis(saved, made(), "int4")  # type: ignore[arg-type]
    assert saved.read_bytes() == before


def test_another_size_of_face_is_refused_by_default(saved: Path) -> None:
    with pytest.raises(InputError, match=r"expected shape \(12544,\), got \(64,\)"):
        load_basis(saved)
    assert load_basis(saved, pixels=None).pixels == 64


def test_missing_file_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.npz can not be read"):
        load_basis(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eigenvalues": None}, "expected the keys .*eigenvalues.*, got .*mean"),
        ({"format_version": np.array(2)}, "format_version: expected 1, got 2"),
        ({"format_version": np.array([1, 1])}, r"format_version: expected a single value.*shape \(2,\)"),
        ({"storage": np.array("int4")}, "storage: expected one of .*'int4'"),
        ({"storage": np.array("float16")}, "basis: expected dtype float16, got float32"),
        ({"basis": np.zeros((6, 63), np.float32)}, r"expected shape \(None, 64\), got \(6, 63\)"),
        ({"basis": np.zeros((6, 64), np.float64)}, "basis: expected dtype float32, got float64"),
        ({"basis": np.full((6, 64), np.nan, np.float32)}, "basis: expected finite values only, got 384"),
        ({"mean": np.full(64, np.inf, np.float32)}, "mean: expected finite"),
        ({"mean": np.full(64, 130, np.float32)}, r"mean: expected values in \[-1, 1\], got .*130"),
        ({"eigenvalues": np.arange(6, dtype=np.float32)}, "eigenvalues: expected descending"),
        ({"eigenvalues": -np.arange(6, dtype=np.float32)}, "eigenvalues: expected descending"),
        ({"eigenvalues": np.ones(5, np.float32)}, r"expected shape \(6,\), got \(5,\)"),
        ({"total_variance": np.array(0.01)}, "total_variance: expected .* at least .*, got 0.01"),
        ({"total_variance": np.array(np.nan)}, "total_variance: expected .*, got nan"),
        ({"total_variance": np.array("much")}, "total_variance: expected a single value"),
        ({"samples": np.array(-1)}, "samples: expected 0 or more, got -1"),
        ({"basis": np.zeros((6, 64), np.float32)}, "orthonormal"),
        ({"basis": np.ones((6, 64), np.float32) / 8}, "orthonormal up to rounding, got max"),
        ({"mean": np.array([None] * 64, dtype=object)}, "damaged or other file"),
        ({"basis": np.zeros((6, 64), np.int8), "storage": np.array("int8")}, "scale: expected .* got none"),
    ],
)
def test_a_field_that_does_not_fit_is_named(saved: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        basis_from_bytes(tampered(saved, **changes), "the/basis.npz", pixels=64)
    assert "the/basis.npz" in caught.value.what
    assert caught.value.mend


def test_scale_of_another_length_is_refused(tmp_path: Path) -> None:
    save_basis(tmp_path / "basis.npz", made(), "int8")
    data = tampered(tmp_path / "basis.npz", scale=np.ones(5, np.float32))
    with pytest.raises(InputError, match=r"scale: expected shape \(6,\), got \(5,\)"):
        basis_from_bytes(data, "here", pixels=64)


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x80\x04N.", b"PK\x03\x04" + bytes(40)])
def test_other_bytes_are_no_basis(data: bytes) -> None:
    with pytest.raises(InputError, match="here"):
        basis_from_bytes(data, "here")


def test_a_single_array_is_no_basis() -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    with pytest.raises(InputError, match="single array"):
        basis_from_bytes(stream.getvalue(), "here")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_cut_or_flipped_bytes_never_pass_as_another_basis(tmp_path_factory: Any, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "whole.npz"
    if not path.exists():
        save_basis(path, made())
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    try:
        loaded = basis_from_bytes(bytes(content), "here", pixels=64)
    except InputError:
        return
    np.testing.assert_array_equal(loaded.basis, made().basis)
    np.testing.assert_array_equal(loaded.mean, made().mean)
    np.testing.assert_array_equal(loaded.eigenvalues, made().eigenvalues)


def test_rows_off_by_more_than_the_limit_are_mended_and_logged(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    bent = made().basis + np.random.default_rng(1).normal(0, 0.01, (6, 64)).astype(np.float32)
    data = tampered(saved, basis=bent)
    with caplog.at_level(logging.WARNING, "immunogate.basis"):
        loaded = basis_from_bytes(data, "bent.npz", pixels=64)
    assert "bent.npz" in caplog.text
    assert "re-orthonormalised" in caplog.text
    assert orthonormality_error(loaded) <= ORTHONORMAL_LIMIT / 5
    left, _, right = np.linalg.svd(bent, full_matrices=False)  # the polar factor, by another road
    np.testing.assert_allclose(loaded.basis, left @ right, atol=2e-4)


def test_rows_below_the_limit_are_left_as_they_are(saved: Path) -> None:
    bent = made().basis.copy()
    bent[0] *= np.float32(1 + 2e-4)
    np.testing.assert_array_equal(basis_from_bytes(tampered(saved, basis=bent), "b", 64).basis, bent)


@given(seed=st.integers(0, 1000), size=st.floats(0, 0.02))
@settings(max_examples=50, deadline=None)
def test_re_orthonormalised_rows_are_orthonormal_and_no_other_such_rows_are_closer(seed: int, size: float) -> None:
    straight = made(8, 64, seed)
    bent = straight.basis + np.random.default_rng(seed).normal(0, size, (8, 64)).astype(np.float32)
    mended = re_orthonormalise(replace(straight, basis=bent))
    assert orthonormality_error(mended) <= 1e-5
    by_qr = np.linalg.qr(bent.T)[0].T
    by_qr *= np.sign(np.sum(by_qr * bent, axis=1, keepdims=True))
    for other in (straight.basis, by_qr):
        assert np.linalg.norm(mended.basis - bent) <= np.linalg.norm(other - bent) + 1e-5


def test_orthonormality_error_sees_a_length_and_an_angle() -> None:
    basis = made()
    longer = basis.basis.copy()
    longer[2] *= np.float32(1.1)
    assert orthonormality_error(basis) < 1e-6
    assert orthonormality_error(replace(basis, basis=longer)) == pytest.approx(0.21, abs=1e-4)
    twice = basis.basis.copy()
    twice[1] = twice[0]
    assert orthonormality_error(replace(basis, basis=twice)) == pytest.approx(1, abs=1e-4)


def test_truncate_keeps_the_leading_eigenfaces() -> None:
    basis = made()
    short = truncate(basis, 2)
    np.testing.assert_array_equal(short.basis, basis.basis[:2])
    assert (short.components, short.total_variance) == (2, basis.total_variance)
    assert truncate(basis, 6).components == 6
    for wrong in (0, 7):
        with pytest.raises(UsageError, match=f"expected 1 to 6 .* got {wrong}"):
            truncate(basis, wrong)


def test_explained_rises_to_the_share_kept() -> None:
    basis = made()
    explained = basis.explained()
    assert np.all(np.diff(explained) > 0)
    assert explained[-1] == pytest.approx(basis.eigenvalues.sum() / basis.total_variance)


def test_more_eigenfaces_than_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 2 eigenfaces, got 3"):
        Eigenbasis(np.zeros(2, np.float32), np.eye(3, 2, dtype=np.float32), np.zeros(3, np.float32), 0.0, 9)


def test_storage_error_is_the_change_of_the_rebuilt_face_in_grey_levels(tmp_path: Path) -> None:
    basis = made(20, 400)
    faces = np.random.default_rng(5).uniform(-1, 1, (7, 400)).astype(np.float32)
    save_basis(tmp_path / "b.npz", basis, "int8")
    loaded = load_basis(tmp_path / "b.npz", pixels=400)

    def rebuilt(used: Eigenbasis) -> Any:
        return used.mean + (faces - used.mean).astype(np.float64) @ used.basis.T @ used.basis

    change = 127.5 * (rebuilt(loaded) - rebuilt(basis))
    error = storage_error(basis, "int8", faces)
    assert error.max_grey_levels == pytest.approx(np.abs(change).max(), rel=1e-3)
    assert error.rms_grey_levels == pytest.approx(np.sqrt(np.mean(change**2)), rel=1e-3)
    assert storage_error(basis, "float32", faces).max_grey_levels == 0
    assert 0 < storage_error(basis, "float16", faces).max_grey_levels < error.max_grey_levels / 5
    with pytest.raises(ValueError, match=r"expected shape \(None, 400\), got \(7, 399\)"):
        storage_error(basis, "int8", faces[:, :399])
