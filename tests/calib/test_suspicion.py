from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.calib.suspicion import attacked, doubled_people, doubled_pictures


def unit(array: Any) -> Any:
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def people(count: int, photos: int, spread: float = 0.6, seed: int = 0) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.normal(size=(count, 48)), photos, axis=0)
    names = np.repeat([f"person {i}" for i in range(count)], photos)
    return unit(centres + spread * draw.normal(size=centres.shape)), names


@pytest.mark.parametrize(("beyond", "refused"), [(0, False), (5, False), (6, True), (100, True)])
def test_more_than_a_twentieth_beyond_the_earlier_limit_is_refused(beyond: int, refused: bool) -> None:
    scores = np.where(np.arange(100) < beyond, 0.5, 0.2).astype(np.float32)
    found = attacked(scores, 0.3)
    assert (found is not None) == refused
    if found:
        assert found.kind == "attacked"
        assert f"{beyond} of 100 faces" in found.words
        assert "0.300" in found.words


def test_one_picture_under_two_names_is_named() -> None:
    faces, names = people(20, 3)
    assert doubled_pictures(faces, names) is None
    copied = faces.copy()
    copied[45] = copied[7]  # person 15 and person 2
    found = doubled_pictures(copied, names)
    assert found is not None
    assert "person 2 and person 15" in found.words
    called = doubled_pictures(copied, names, np.array([f"{i}.png" for i in range(60)]))
    assert called is not None
    assert "person 2 (7.png) and person 15 (45.png)" in called.words


def test_one_picture_twice_under_one_name_is_no_mislabel() -> None:
    faces, names = people(20, 3)
    faces[1] = faces[0]
    assert doubled_pictures(faces, names) is None


def test_one_person_under_two_names_is_named() -> None:
    faces, names = people(60, 8, spread=0.4)
    faces[32:40] = unit(faces[32:40] + faces[32:40].mean(axis=0))  # person 4 looks much the same on all of his
    assert doubled_people(faces, names) is None
    renamed = names.copy()
    renamed[36:40] = "another"
    found = doubled_people(faces, renamed)
    assert found is not None
    assert found.words.endswith("another and person 4")


def test_names_with_one_picture_are_not_judged() -> None:
    faces, names = people(60, 4, spread=0.4)
    renamed = names.copy()
    renamed[19] = "another"
    assert doubled_people(faces, renamed) is None
    assert doubled_people(faces[::4], names[::4]) is None


def test_people_who_merely_look_alike_are_left_alone() -> None:
    """Pairs of people whose directions are close, yet farther apart than each person's own faces mostly are."""
    draw = np.random.default_rng(1)
    pairs = np.repeat(draw.normal(size=(30, 48)), 2, axis=0) + 0.5 * draw.normal(size=(60, 48))
    faces = unit(np.repeat(pairs, 4, axis=0) + 0.4 * draw.normal(size=(240, 48)))
    assert doubled_people(faces, np.repeat([f"p{i}" for i in range(60)], 4)) is None


def test_many_findings_are_counted() -> None:
    faces, names = people(40, 2)
    faces[1::2] = faces[0]
    found = doubled_pictures(faces, names)
    assert found is not None
    assert found.words.count(";") == 4
    assert "more" in found.words
