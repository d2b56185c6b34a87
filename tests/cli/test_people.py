"""``immunogate enroll`` and ``immunogate gallery``: who is let in, who is refused and why, and what is kept."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.bundle import Bundle

Command = Callable[..., Any]

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def frame(data_dir: Path) -> Any:
    """A real frame with one face, (270, 480, 3)."""
    found, pixels = cv2.VideoCapture(str(data_dir / "video/head-pose-face-detection-male.gif")).read()
    assert found
    return pixels


@pytest.fixture
def people(frame: Any, tmp_path: Path) -> Any:
    """Two people of one good picture each (the same face; the tiny bundle cares not)."""
    folder = tmp_path / "faces"
    for person, pixels in (("Ann Ørsted", frame), ("bob", frame[:, ::-1])):
        (folder / person).mkdir(parents=True)
        assert cv2.imwrite(str(folder / person / "1.png"), pixels)
    return folder


@pytest.fixture
def enroll(immunogate: Command, tiny_bundle: Bundle, tmp_path: Path) -> Any:
    def run(*words: Any, gallery: Path = tmp_path / "g.db") -> Any:
        return immunogate("enroll", "--bundle", tiny_bundle.folder, "--gallery", gallery, *words)

    return run


def test_folders_name_the_people(enroll: Command, immunogate: Command, people: Path, tmp_path: Path) -> None:
    report = json.loads(enroll(people, "--json").out)
    assert report["added"] == report["pictures"] == 2
    assert report["people"] == ["Ann Ørsted", "bob"]
    assert report["refused"] == []
    listed = json.loads(immunogate("gallery", "list", "--gallery", tmp_path / "g.db", "--json").out)
    assert [(person["person"], person["embeddings"]) for person in listed] == [("Ann Ørsted", 1), ("bob", 1)]
    assert all(person["enrolled_at"].endswith("Z") for person in listed)


def test_the_same_picture_counts_once(enroll: Command, people: Path) -> None:
    enroll(people)
    report = json.loads(enroll(people, "--json").out)
    assert (report["added"], report["already_there"]) == (0, 2)


def test_a_person_can_be_named(enroll: Command, people: Path) -> None:
    report = json.loads(enroll(people / "bob" / "1.png", "--person", "robert", "--json").out)
    assert report["people"] == ["robert"]


def test_a_picture_without_a_person_is_wrong_use(enroll: Command, people: Path, tmp_path: Path) -> None:
    enroll(people / "bob" / "1.png").refused(2, "whose picture", "--person")
    enroll(people / "bob").refused(2, "whose picture", "--person")
    assert not (tmp_path / "g.db").exists()


@pytest.mark.parametrize("given", ["nowhere", "empty", "notes.txt"])
def test_what_is_no_picture_is_wrong_use(enroll: Command, tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    enroll(tmp_path / given).refused(2, given)
    assert not (tmp_path / "g.db").exists()


def test_each_refused_picture_is_named_with_its_reason(
    enroll: Command, people: Path, frame: Any, tmp_path: Path
) -> None:
    good = (people / "bob" / "1.png").read_bytes()
    (people / "bob" / "cut.png").write_bytes(good[: len(good) // 2])
    bad = {
        "nobody.png": np.full((200, 200, 3), 90, np.uint8),
        "far.png": cv2.resize(frame, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA),
        "blurred.png": cv2.GaussianBlur(frame, (0, 0), 6),
        "two.png": np.hstack([frame, frame]),
        "pixel.png": frame[:1, :1],
    }
    for name, pixels in bad.items():
        cv2.imwrite(str(people / "bob" / name), pixels)
    done = enroll(people, "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert report["added"] == 2
    reasons = {Path(entry["picture"]).name: entry["reason"] for entry in report["refused"]}
    assert set(reasons) == {*bad, "cut.png"}
    for name, word in (("nobody.png", "no face"), ("far.png", "too small"), ("two.png", "2 faces"),
                       ("pixel.png", "no face"), ("cut.png", "damaged or cut off")):  # fmt: skip
        assert word in reasons[name]
    assert "blurred" in reasons["blurred.png"] or "no face" in reasons["blurred.png"]
    for name in reasons:
        assert name in done.err


def test_when_every_picture_is_refused_nothing_is_made(enroll: Command, tmp_path: Path) -> None:
    (tmp_path / "faces" / "ann").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "faces" / "ann" / "1.png"), np.zeros((99, 99, 3), np.uint8))
    done = enroll(tmp_path / "faces")
    assert done.status == 1
    assert "1 refused" in done.out
    assert not (tmp_path / "g.db").exists()


def test_a_gallery_of_another_bundle_is_refused_before_the_work(
    enroll: Command, immunogate: Command, people: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.folder, other)
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    manifest["purifier"]["seed"] += 1
    (other / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    enroll(people)
    before = (tmp_path / "g.db").read_bytes()
    again = immunogate("enroll", "--bundle", other, "--gallery", tmp_path / "g.db", people)
    again.refused(1, "another bundle")
    assert (tmp_path / "g.db").read_bytes() == before


def test_a_gallery_of_a_later_schema_is_left_alone(enroll: Command, people: Path, tmp_path: Path) -> None:
    enroll(people)
    with sqlite3.connect(tmp_path / "g.db") as database:
        database.execute("PRAGMA user_version = 99")
    enroll(people).refused(1, "schema version")


@pytest.mark.parametrize(("path", "named"), [("/proc/g.db", "/proc/g.db"), ("nowhere/g.db", "nowhere"), (".", ".")])
def test_a_gallery_that_can_not_be_written(enroll: Command, people: Path, path: Any, named: Any) -> None:
    done = enroll(people, gallery=path)
    assert done.status in (1, 2)
    done.refused(done.status, named)


def test_a_full_disk_while_enrolling_adds_nobody(
    enroll: Command, immunogate: Command, people: Path, frame: Any, tmpfs: Command
) -> None:
    disk = tmpfs("64k")
    gallery = disk / "g.db"
    assert enroll(people, gallery=gallery).status == 0
    _fill(disk / "ballast")
    for index in range(40):
        cv2.imwrite(str(people / "bob" / f"more{index}.png"), np.roll(frame, index, axis=1))
    enroll(people, gallery=gallery).refused(1, str(gallery), "full", "Nothing was changed")
    (disk / "ballast").unlink()
    listed = json.loads(immunogate("gallery", "list", "--gallery", gallery, "--json").out)
    assert [(person["person"], person["embeddings"]) for person in listed] == [("Ann Ørsted", 1), ("bob", 1)]
    assert enroll(people / "bob" / "more1.png", "--person", "bob", gallery=gallery).status == 0


def test_a_full_disk_before_the_first_person_leaves_no_gallery_that_blocks_the_next_try(
    enroll: Command, people: Path, tmpfs: Command
) -> None:
    disk = tmpfs("64k")
    _fill(disk / "ballast")
    gallery = disk / "g.db"
    enroll(people, gallery=gallery).refused(1, str(gallery), "full")
    (disk / "ballast").unlink()
    assert enroll(people, gallery=gallery).status == 0


def test_remove_forgets_and_export_shows_the_rest(
    enroll: Command, immunogate: Command, people: Path, tmp_path: Path
) -> None:
    enroll(people)
    gallery = ("--gallery", tmp_path / "g.db")
    assert immunogate("gallery", "remove", *gallery, "bob").out == "bob removed (1 pictures)\n"
    (sample,) = json.loads(immunogate("gallery", "export", *gallery).out)
    assert sample["person"] == "Ann Ørsted"
    assert np.linalg.norm(sample["embedding"]) == pytest.approx(1, abs=1e-4)
    immunogate("gallery", "remove", *gallery, "bob").refused(2, "'bob'", "gallery list")
    immunogate("gallery", "remove", *gallery, "Ann Ørsted")
    assert immunogate("gallery", "list", *gallery).out == "nobody is enrolled\n"


def test_a_list_for_people_names_them(enroll: Command, immunogate: Command, people: Path, tmp_path: Path) -> None:
    enroll(people)
    lines = immunogate("gallery", "list", "--gallery", tmp_path / "g.db").out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["Ann Ørsted", "bob"]
    assert all("1 pictures" in line for line in lines)


@pytest.mark.parametrize("part", [("list",), ("export",), ("remove", "bob")])
@pytest.mark.parametrize("given", ["nowhere.db", "notes.txt", "folder", "empty.db"])
def test_every_part_refuses_what_is_no_gallery(immunogate: Command, tmp_path: Path, part: Any, given: str) -> None:
    (tmp_path / "notes.txt").write_text("no gallery")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.db").touch()
    done = immunogate("gallery", part[0], "--gallery", tmp_path / given, *part[1:])
    assert done.status in (1, 2)
    done.refused(done.status, given)
    assert not (tmp_path / "nowhere.db").exists()
    assert (tmp_path / "empty.db").stat().st_size == 0


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 1024):
                pass
        except OSError:
            return
