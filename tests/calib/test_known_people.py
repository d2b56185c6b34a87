from __future__ import annotations

import numpy as np

from immunogate.calib.known_people import hashed_images, hashed_people, used_in
from immunogate.faces_file import AlignedFaces
from immunogate.manifest import Calibration, MeasuredWith


def faces(names: list[str], seed: int = 0) -> AlignedFaces:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (len(names), 112, 112), dtype=np.uint8)
    return AlignedFaces(images, None, np.array(names))


def calibrated(on: AlignedFaces, salt: str = "s") -> Calibration:
    said = MeasuredWith("fixed", 1, 0, 1, "fp32", {}, "cpu", "", salt, hashed_people(on, salt), hashed_images(on, salt))
    return Calibration("measured", [], 0.1, 0.0, "", "", measured_with=said)


def test_people_and_pictures_are_found_again_and_nobody_else() -> None:
    used = faces(["Ann", "Ann", "Bob"])
    new = faces(["Bob", "Cid", "Ann", "Dora"], seed=1)
    taken = AlignedFaces(np.concatenate([new.images, used.images[:1]]), None, np.array([*new.identities, "Eve"]))  # type: ignore[misc]
    found, why = used_in(calibrated(used), taken)
    assert why == ""
    assert found.tolist() == [True, False, True, False, True]  # the last by her picture, under another name


def test_names_are_not_written_and_salts_tell_bundles_apart() -> None:
    used = faces(["Ann", "Bob"])
    one, other = hashed_people(used, "one"), hashed_people(used, "other")
    assert "Ann" not in one
    assert len(one.split()) == 2
    assert {len(word) for word in one.split()} == {16}
    assert not set(one.split()) & set(other.split())
    assert one.split() == sorted(one.split())


def test_pictures_are_found_where_nobody_is_named() -> None:
    used = faces(["Ann", "Bob"])
    nameless = AlignedFaces(used.images[1:])
    assert hashed_people(nameless, "s") == ""
    assert used_in(calibrated(used), nameless)[0].tolist() == [True]


def test_an_older_calibration_does_not_say() -> None:
    found, why = used_in(Calibration("measured", [], 0.1, 0.0, "", ""), faces(["Ann"]))
    assert found.tolist() == [False]
    assert "calibrate the bundle again" in why
