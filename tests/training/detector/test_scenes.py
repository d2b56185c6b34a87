from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.training.detector import backgrounds, layers, scenes
from immunogate.training.detector.draws import draw
from immunogate.training.detector.geometry import sizes
from immunogate.training.detector.labels import LabelledPhotos
from immunogate.training.detector.layers import Place, lay
from immunogate.training.detector.photometry import seen_by_a_camera
from immunogate.training.detector.settings import DetectorSettings

SETTINGS = DetectorSettings()


@pytest.fixture
def plain_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tones, noise and bars, so that pixels say where faces lie."""
    monkeypatch.setattr(scenes, "seen_by_a_camera", lambda picture, generator, strength: picture)
    monkeypatch.setattr(scenes, "_hide_a_part", lambda canvas, material, generator: None)


@pytest.mark.parametrize("size", [64, 192])
def test_a_scene_depends_on_seed_step_and_purpose_alone(material: LabelledPhotos, size: int) -> None:
    first, again, other = (
        scenes.scene(material, size, SETTINGS, draw(*where)) for where in ((3, 5, "a"), (3, 5, "a"), (3, 6, "a"))
    )
    np.testing.assert_array_equal(first.picture, again.picture)
    np.testing.assert_array_equal(first.points, again.points)
    assert not np.array_equal(first.picture, other.picture)


def test_scenes_are_what_they_say(material: LabelledPhotos) -> None:
    made = [scenes.scene(material, 128, SETTINGS, draw(1, step, "scene")) for step in range(120)]
    for one in made:
        assert one.picture.shape == (128, 128)
        assert one.picture.dtype == np.uint8
        assert len(one.boxes) == len(one.points)
        assert (sizes(one.boxes) >= SETTINGS.least_face).all()
    counts = [len(one.boxes) for one in made]
    assert 5 < counts.count(0) < 40
    assert max(counts) >= 3
    sides = np.concatenate([sizes(one.boxes) for one in made])
    assert sides.min() < 20
    assert sides.max() > 80


@pytest.mark.usefixtures("plain_camera")
def test_labels_lie_on_the_faces(material: LabelledPhotos) -> None:
    """The eyes of the synthetic face are black, its cheeks white, whatever was turned, mirrored and scaled."""
    differences = []
    for step in range(150):
        one = scenes.scene(material, 192, SETTINGS, draw(2, step, "scene"))
        for box, points in zip(one.boxes, one.points, strict=True):
            if sizes(box[None])[0] < 40 or box.min() < 0 or box.max() > 190:
                continue
            left, right, *_ = points
            between = (left + right) / 2
            at = [one.picture[round(float(y)), round(float(x))] for x, y in (left, right, between)]
            differences.append(int(at[2]) - max(int(at[0]), int(at[1])))
            assert points[0, 0] < points[1, 0]
    assert len(differences) > 40
    assert np.mean(np.array(differences) > 100) > 0.95  # a later layer may hide the eyes of a few


def test_the_chosen_face_lies_where_it_was_put(material: LabelledPhotos) -> None:
    for step in range(30):
        layer = lay(material, 160, Place(70, 90, 50), 0.5, draw(4, step, "layer"))
        assert sizes(layer.boxes)[0] == pytest.approx(50, rel=0.25)  # a turned or sheared oval has another box
        middle = (layer.boxes[0, :2] + layer.boxes[0, 2:]) / 2
        np.testing.assert_allclose(middle, [70, 90], atol=2)
        assert layer.mask[90, 70] > 0.9
        assert layer.mask.min() == 0


def test_a_turned_head_takes_its_points_along(material: LabelledPhotos) -> None:
    moved = []
    for step in range(20):
        generator = draw(5, step, "turn")
        sheet = layers._chosen(material, generator)
        before = sheet.points.copy()
        layers._turn_head(sheet, generator)
        moved.append(np.abs(sheet.points - before).max())
        eyes = sheet.points[sheet.main][:2]
        assert all(sheet.photo[round(float(y)), round(float(x))] < 60 for x, y in eyes)
        assert (sheet.boxes[:, 2:] > sheet.boxes[:, :2]).all()
    assert max(moved) > 5


def test_backgrounds_have_no_face(material: LabelledPhotos, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces keep away from the bright ovals, which alone are brighter than 100 in the photos."""
    monkeypatch.setattr(backgrounds, "texture", lambda size, generator: np.zeros((size, size), np.uint8))
    found = [backgrounds.piece(material, 64, draw(6, step, "piece")) for step in range(60)]
    assert all(one.shape == (64, 64) and one.max() < 100 for one in found)
    assert sum(bool(one.any()) for one in found) > 10
    headless = [backgrounds._headless(material, 64, draw(6, step, "headless")) for step in range(40)]
    assert all(one.shape == (64, 64) and (one > 100).mean() < 0.03 for one in headless)  # the oval's last column
    assert sum(bool(one.any()) for one in headless) > 20
    monkeypatch.undo()
    assert backgrounds.background(material, 96, draw(7, 0, "background")).shape == (96, 96)


def test_cut_and_covered_faces_are_ignored(material: LabelledPhotos, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_the_rim(*_: Any) -> Place:
        return Place(64.0, 2.0, 60.0)  # nearly half of it is outside

    monkeypatch.setattr(scenes, "_free_place", at_the_rim)
    made = [scenes.scene(material, 128, SETTINGS, draw(8, step, "scene")) for step in range(40)]
    assert sum(len(one.boxes) for one in made) == 0
    assert sum(len(one.ignored) > 0 for one in made) > 25


def test_milder_scenes_are_less_tilted(material: LabelledPhotos) -> None:
    def tilts(strength: float) -> float:
        places = [lay(material, 96, Place(48, 48, 40), 0.5, draw(11, i, "tilt"), strength) for i in range(80)]
        eyes = [layer.points[0, 1] - layer.points[0, 0] for layer in places]
        return float(np.mean([abs(np.degrees(np.arctan2(*eye[::-1]))) > 15 for eye in eyes]))

    assert tilts(0) < 0.1 < 0.15 < tilts(1)
    assert all(
        (seen_by_a_camera(np.full((8, 8), 99, np.uint8), draw(12, i, "camera"), 0) == 99).all() for i in range(9)
    )


def test_padding_hides_no_face() -> None:
    faces = np.array([[10, 10, 100, 120]], np.float32)
    for step in range(50):
        picture = np.full((128, 128), 99, np.uint8)
        scenes._pad(picture, faces, draw(9, step, "pad"))
        assert (picture[:120, :100] == 99).all()
    scenes._pad(np.zeros((64, 64), np.uint8), np.array([[0, 0, 90, 90]], np.float32), draw(9, 0, "pad"))


def test_a_camera_keeps_the_shape_and_makes_a_new_picture() -> None:
    picture = np.full((40, 56), 128, np.uint8)
    seen = [seen_by_a_camera(picture, draw(10, step, "camera")) for step in range(40)]
    assert all(one.shape == picture.shape and one.dtype == np.uint8 for one in seen)
    assert (picture == 128).all()
    assert len({one.tobytes() for one in seen}) > 25


def test_a_photo_that_shrinks_much_keeps_its_place() -> None:
    """Halving moves pixel centres by a quarter of a pixel each time; the centre of mass tells."""
    photo = np.zeros((200, 200), np.uint8)
    photo[80:121, 60:101] = 200  # its middle is (80, 100)
    for scale in (0.9, 0.5, 0.25, 0.12):
        matrix = np.array([[scale, 0, 10.0], [0, scale, 7.0]])
        warped = layers._warped(photo, matrix, 128).astype(float)
        x, y = ((warped.sum(axis=axis) * np.arange(128)).sum() / warped.sum() for axis in (0, 1))
        np.testing.assert_allclose([x, y], [scale * 80 + 10, scale * 100 + 7], atol=0.06)
