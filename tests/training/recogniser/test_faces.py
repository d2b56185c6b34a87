"""The faces that a student sees: drawn from numbers alone, in range, new people, and calm where strength is small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.basis import Eigenbasis
from immunogate.faces_file import AlignedFaces
from immunogate.training.recogniser import variations
from immunogate.training.recogniser.crowd import Crowd
from immunogate.training.recogniser.draws import draws, turns
from immunogate.training.recogniser.mixing import MIXES, Genes, alike, bands, seam
from immunogate.training.recogniser.settings import DistilSettings

Few = Callable[..., DistilSettings]


def floats(faces: AlignedFaces, *rows: int) -> Any:
    return faces.images[list(rows)].astype(np.float32)


@given(st.integers(0, 500), st.integers(1, 60), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_every_epoch_has_every_face_once(start: int, count: int, faces: int) -> None:
    begin = start - start % faces
    row = turns(7, begin, 2 * faces + count, faces)
    for epoch in (0, 1):
        assert sorted(row[epoch * faces : (epoch + 1) * faces]) == list(range(faces))
    np.testing.assert_array_equal(row[start - begin :][:count], turns(7, start, count, faces))


def test_draws_differ_by_seed_number_and_purpose() -> None:
    keys = [(1, 2, "a"), (2, 2, "a"), (1, 3, "a"), (1, 2, "b")]
    assert len({draws(*key).random() for key in keys}) == 4
    assert draws(1, 2, "a").random() == draws(1, 2, "a").random()


@pytest.mark.parametrize("mix", MIXES)
def test_a_mixed_face_is_of_both(mix: Any, made_up: AlignedFaces) -> None:
    first, second = floats(made_up, 0, 30)
    near = []
    for number in range(12):
        child = mix(first, second, draws(0, number, "test"))
        assert child.shape == (112, 112)
        assert child.dtype == np.float32
        near.append([np.abs(child - parent).mean() for parent in (first, second)])
    apart = np.abs(first - second).mean()
    assert 0.1 * apart < np.mean(near, axis=0).min()
    assert np.mean(near, axis=0).max() < apart


def test_a_seam_leaves_both_sides_as_they_were() -> None:
    first, second = np.full((112, 112), 10, np.float32), np.full((112, 112), 200, np.float32)
    for number in range(20):
        child = seam(first, second, draws(1, number, "seam"))
        assert child.min() < 60
        assert child.max() > 150


def test_bands_of_one_face_give_it_back(made_up: AlignedFaces) -> None:
    face = floats(made_up, 3)[0]
    np.testing.assert_allclose(bands(face, face, draws(0, 0, "x")), face, atol=1e-3)


def test_alike_takes_over_mean_and_contrast(made_up: AlignedFaces) -> None:
    first, second = floats(made_up, 0, 9)
    second = 0.7 * second + 40
    changed = alike(second, first)
    assert changed.mean() == pytest.approx(first.mean(), abs=0.01)
    assert changed.std() == pytest.approx(first.std(), rel=0.01)


def test_children_of_one_face_are_that_face_bolder_or_paler(made_up: AlignedFaces, basis: Eigenbasis) -> None:
    genes, faces = Genes(basis), floats(made_up, 0, 4, 8)
    children = genes.cross(faces, faces, draws(0, 1, "x"))
    mean = (basis.mean.reshape(112, 112) + 1) * 127.5
    own, child = (((each - mean).reshape(3, -1)) @ basis.basis.T for each in (faces, children))
    ratio = child / own
    assert (ratio.max(axis=1) - ratio.min(axis=1)).max() < 0.02
    assert 0.79 < ratio.min() <= ratio.max() < 1.26


def test_children_have_each_gene_from_a_parent(made_up: AlignedFaces, basis: Eigenbasis) -> None:
    genes = Genes(basis)
    first, second = floats(made_up, *range(0, 18)), floats(made_up, *range(18, 36))
    children = genes.cross(first, second, draws(0, 2, "x"))
    own, other, child = ((each.reshape(18, -1) / 127.5 - 1 - basis.mean) @ basis.basis.T
                         for each in (first, second, children))  # fmt: skip
    bold = child / np.where(np.abs(child - own) < np.abs(child - other), own, other)
    assert np.mean((bold > 0.78) & (bold < 1.27)) > 0.95
    assert 0.1 < np.mean(np.abs(child - own) < np.abs(child - other)) < 0.9


def test_thinned_faces_keep_what_is_coarse(made_up: AlignedFaces, basis: Eigenbasis) -> None:
    faces = floats(made_up, *range(36))
    noisy = faces + np.random.default_rng(0).normal(0, 20, faces.shape).astype(np.float32)
    thin = Genes(basis).thin(noisy, draws(0, 3, "x"))
    assert np.abs(thin - faces).mean() < 0.75 * np.abs(noisy - faces).mean()


@pytest.mark.parametrize("name", ["moved", "lit", "softened", "grained", "covered", "compressed"])
def test_variations_change_a_face_without_breaking_it(name: str, made_up: AlignedFaces) -> None:
    change, face = getattr(variations, name), floats(made_up, 6)[0]
    more = (3.0,) if name == "moved" else ()
    before = face.copy()
    made = [change(face, draws(0, number, name), 1.0, *more) for number in range(30)]
    assert all(each.shape == (112, 112) and np.isfinite(each).all() for each in made)
    assert sum(np.abs(each - face).mean() > 0.02 for each in made) >= 25
    np.testing.assert_array_equal(face, before)


def test_calm_variations_are_nearly_none(made_up: AlignedFaces) -> None:
    face = floats(made_up, 6)[0]
    made = [variations.varied(face, draws(0, number, "v"), 0.0, 5.0) for number in range(10)]
    away = [min(np.abs(each - face).max(), np.abs(each - face[:, ::-1]).max()) for each in made]
    assert max(away) < 0.1
    mirrored = Counter(bool(np.abs(each - face).max() > 1) for each in made)
    assert len(mirrored) == 2


def test_a_block_depends_on_its_number_alone(made_up: AlignedFaces, basis: Eigenbasis, few: Few) -> None:
    crowd = Crowd(made_up.images, basis, few(mixed=0.9, projected=0.5))
    third = crowd.block(3, 1.0)
    assert third.shape == (8, 112, 112)
    assert third.dtype == np.uint8
    crowd.block(9, 0.3)
    np.testing.assert_array_equal(crowd.block(3, 1.0), third)
    assert np.abs(crowd.block(4, 1.0).astype(int) - third).mean() > 5


def test_faces_at_rest_are_the_photos_in_turn(made_up: AlignedFaces, basis: Eigenbasis, few: Few) -> None:
    made = Crowd(made_up.images, basis, few(projected=0.0)).block(0, 0.0).astype(int)
    chosen = made_up.images[turns(0, 0, 8, 36)].astype(int)
    away = [min(np.abs(a - b).max(), np.abs(a - b[:, ::-1]).max()) for a, b in zip(made, chosen, strict=True)]
    assert max(away) <= 1
