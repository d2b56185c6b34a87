from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.errors import InputError, UsageError
from immunogate.faces_file import AlignedFaces, faces_from_pixels, identity_split, load_aligned_faces
from immunogate.files import find_data
from immunogate.npz import read_npz

PEOPLE = np.array([f"Person_{i % 60}" for i in range(200)])


def images(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 112, 112), np.uint8)


def test_faces_with_and_without_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "faces.npz"
    np.savez(path, images=images(3))
    assert load_aligned_faces(path).names is None
    np.savez_compressed(path, images=images(3), names=np.array(list("abc")), identities=np.array(list("xxy")))
    faces = load_aligned_faces(path)
    assert len(faces) == 3
    np.testing.assert_array_equal(faces.images, images(3))
    assert faces.identities is not None
    assert faces.identities.tolist() == ["x", "x", "y"]
    taken = faces.take(np.array([False, True, True]))
    assert taken.names is not None
    assert taken.names.tolist() == ["b", "c"]
    np.testing.assert_array_equal(taken.images, images(3)[1:])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"faces": images(1), "labels": np.zeros(1)},
            r"expected the keys \['images'\], got \['faces', 'label",
        ),
        ({"images": images(2).astype(np.float32)}, "images: expected dtype uint8, got float32"),
        ({"images": images(2)[:, :96]}, r"images: expected shape \(None, 112, 112\), got \(2, 96, 112\)"),
        ({"images": images(0)}, "at least one face"),
        ({"images": images(2), "names": np.array(["a"])}, r"names: expected shape \(2,\), got \(1,\)"),
        ({"images": images(2), "identities": np.arange(2)}, "identities: expected text, got dtype int64"),
        ({"images": images(2), "names": np.array([{}, {}])}, "damaged or other file"),
    ],
)
def test_what_does_not_fit_is_said_with_the_path(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "faces.npz", **fields)
    with pytest.raises(InputError, match=words) as caught:
        load_aligned_faces(tmp_path / "faces.npz")
    assert "faces.npz" in caught.value.what


def test_absent_folder_and_other_files(tmp_path: Path) -> None:
    for wrong in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(UsageError, match="can not be read"):
            load_aligned_faces(wrong)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.npz"):
        load_aligned_faces(tmp_path / "text.npz")


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros((500, 112, 112), np.uint8), other=np.zeros(10**7, np.uint8))
    assert path.stat().st_size < 200_000
    with path.open("rb") as stream, pytest.raises(InputError, match="at most 1,000,000 bytes, got 6,272,128"):
        read_npz(stream, "bomb", ("images",), (), 1_000_000)
    with path.open("rb") as stream:
        assert list(read_npz(stream, "bomb", ("images",), (), 7_000_000)) == ["images"]


def test_pixels_span_minus_one_to_one() -> None:
    faces = faces_from_pixels(np.array([[[0, 255]], [[51, 204]]], np.uint8))
    assert faces.dtype == np.float32
    assert np.abs(faces - np.array([[-1, 1], [-0.6, 0.6]])).max() < 1e-6
    with pytest.raises(ValueError, match="expected dtype uint8"):
        faces_from_pixels(np.zeros((1, 2, 2)))  # type: ignore[arg-type]


@given(seed=st.integers(0, 10**6), order=st.integers(0, 10**6), fraction=st.floats(0.2, 0.8))
@settings(max_examples=60, deadline=None)
def test_split_is_disjoint_complete_and_blind_to_order(seed: int, order: int, fraction: float) -> None:
    development, test = identity_split(PEOPLE, seed, fraction)
    assert np.array_equal(development, ~test)
    assert not set(PEOPLE[development]) & set(PEOPLE[test])
    permuted = np.random.default_rng(order).permutation(len(PEOPLE))
    assert np.array_equal(identity_split(PEOPLE[permuted], seed, fraction)[1], test[permuted])


def test_nobody_changes_sides_when_people_are_added_or_left_out() -> None:
    _, test = identity_split(PEOPLE, 7, 0.3)
    _, more = identity_split([*PEOPLE.tolist(), "Zoe", "Adam"], 7, 0.3)
    assert np.array_equal(more[: len(PEOPLE)], test)


def test_split_follows_seed_and_fraction() -> None:
    crowd = np.array([f"Person_{i}" for i in range(2000)])
    first, second = identity_split(crowd, 1, 0.25)[1], identity_split(crowd, 2, 0.25)[1]
    assert first.mean() == pytest.approx(0.25, abs=0.04)
    assert 0.2 < second[first].mean() < 0.3  # the seeds' splits are independent
    assert np.all(identity_split(crowd, 1, 0.5)[1] >= first)  # a larger test holds the smaller one


def test_split_is_the_same_on_every_machine() -> None:
    # the first byte of sha256("0\n" + name), by sha256sum: c8 16 51 b2 49 dc; below 80 is kept back
    expected = [False, True, True, False, True, False]
    assert identity_split(["Ann", "Bob", "Cem", "Dana", "Eve", "Fay"], 0, 0.5)[1].tolist() == expected


def test_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(InputError, match="all 1 on one"):
        identity_split(["Ann", "Ann"], 0, 0.5)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            identity_split(PEOPLE, 0, fraction)


@pytest.mark.data
def test_development_faces_split_by_person() -> None:
    folder = find_data()
    if folder is None:
        pytest.skip("no development data: set IMMUNOGATE_DATA")
    faces = load_aligned_faces(folder / "faces" / "lfw_dev_aligned_112.npz")
    assert isinstance(faces, AlignedFaces)
    assert faces.images.shape == (3889, 112, 112)
    assert faces.identities is not None
    development, test = identity_split(faces.identities, 0, 0.25)
    assert len(set(faces.identities[development])) + len(set(faces.identities[test])) == 1489
    assert len(set(faces.identities[test])) == pytest.approx(372, abs=60)
