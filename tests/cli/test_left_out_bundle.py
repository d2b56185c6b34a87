"""Commands without --bundle and --gallery: the shipped bundle, the user's own gallery, and one line that says so."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle, open_bundle
from immunogate.default_models import VARIABLE
from immunogate.files import sha256_of_file
from immunogate.runtime.gallery import Gallery, Sample

Command = Callable[..., Any]
DRAWN = "synthetic://?frames=4&width=320&height=240"


@pytest.fixture(autouse=True)
def shipped(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The tiny bundle in the shipped one's place, and a user with nothing."""
    monkeypatch.setenv(VARIABLE, str(tiny_bundle.folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tiny_bundle.folder


@pytest.fixture
def own_gallery(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    path = tmp_path / "data" / "immunogate" / "gallery.db"
    path.parent.mkdir(parents=True)
    manifest = tiny_bundle.manifest
    size = manifest.recogniser.embedding_dimension
    with Gallery(path, manifest.embedding_hash(), size, create=True) as gallery:
        gallery.enroll([Sample("Ann", np.eye(1, size, dtype=np.float32)[0], "ann.png", "0" * 64)])
    return path


def test_run_needs_a_source_and_nothing_else(immunogate: Command, own_gallery: Path, shipped: Path) -> None:
    done = immunogate("run", "--source", DRAWN, "--json")
    assert done.status == 0, done.err
    assert [line for line in done.err.splitlines() if line.startswith(("bundle:", "gallery:"))] == [
        f"bundle: tiny ({shipped})",
        f"gallery: {own_gallery}",
    ]
    assert all(line["bundle"] == open_bundle(shipped).sha256 for line in done.lines())


def test_what_is_named_is_taken_and_nothing_is_said(immunogate: Command, own_gallery: Path, shipped: Path) -> None:
    done = immunogate("run", "--bundle", shipped, "--gallery", own_gallery, "--source", DRAWN, "--json")
    assert done.status == 0
    assert "bundle:" not in done.err
    assert "gallery:" not in done.err


def test_run_before_anybody_was_enrolled_says_how(immunogate: Command) -> None:
    immunogate("run", "--source", DRAWN).refused(2, "there is no gallery of your own yet", "immunogate enroll FOLDER")


def test_the_gallery_of_another_bundle_is_refused_as_ever(immunogate: Command, tmp_path: Path) -> None:
    path = tmp_path / "data" / "immunogate" / "gallery.db"
    path.parent.mkdir(parents=True)
    Gallery(path, "0" * 64, 16, create=True).close()
    immunogate("run", "--source", DRAWN).refused(1, str(path), "another")


@pytest.mark.data
def test_enroll_list_and_remove_in_the_users_own_gallery(immunogate: Command, photos: Path, tmp_path: Path) -> None:
    done = immunogate("enroll", photos)
    assert done.status == 0, done.err
    path = tmp_path / "data" / "immunogate" / "gallery.db"
    assert path.is_file()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, "biometric data is nobody else's"
    people = json.loads(immunogate("gallery", "list", "--json").out)
    assert people
    assert immunogate("gallery", "remove", people[0]["person"]).status == 0
    assert len(json.loads(immunogate("gallery", "list", "--json").out)) == len(people) - 1
    assert str(path) in immunogate("doctor").out


def test_inspect_shows_the_shipped_bundle(immunogate: Command, shipped: Path) -> None:
    done = immunogate("inspect")
    assert done.status == 0
    assert str(shipped) in done.out
    assert done.err == f"bundle: tiny ({shipped})\n"
    assert json.loads(immunogate("inspect", "--json").out)["model_id"] == "tiny"


def test_verify_of_the_shipped_bundle_asks_for_its_checkpoints(immunogate: Command) -> None:
    immunogate("verify").refused(2, "basis checkpoint", "--basis PATH")


@pytest.mark.parametrize("words", [("run", "--source", DRAWN), ("inspect",), ("verify",), ("enroll", "."), ("demo",)])
def test_without_any_bundle_the_remedy_is_named(
    immunogate: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr("immunogate.default_models.shipped_bundle", lambda: tmp_path)
    monkeypatch.delenv(VARIABLE)
    immunogate(*words).refused(2, "no bundle was named", "--bundle")


def _faces(path: Path) -> Path:
    draw = np.random.default_rng(3)
    people = np.repeat(draw.integers(0, 255, (60, 112, 112)), 2, axis=0)
    images = (people + draw.integers(-9, 9, people.shape)).clip(0, 255).astype(np.uint8)
    np.savez(path, images=images, identities=np.repeat([f"p{i}" for i in range(60)], 2))
    return path


def test_calibrate_never_changes_the_shipped_bundle(immunogate: Command, shipped: Path, tmp_path: Path) -> None:
    faces, before = _faces(tmp_path / "faces.npz"), sha256_of_file(shipped / "manifest.json")
    immunogate("calibrate", "threshold", faces).refused(2, "not changed in place", "--out FOLDER")
    done = immunogate("calibrate", "threshold", faces, "--out", tmp_path / "mine")
    assert done.status == 0, done.err
    assert sha256_of_file(shipped / "manifest.json") == before
    mine = open_bundle(tmp_path / "mine")
    mine.check()
    assert mine.calibration().source.startswith("120 faces of 60 people")
    immunogate("calibrate", "threshold", faces, "--out", tmp_path / "mine").refused(2, "is there already")


def test_calibrate_also_notes_what_the_recogniser_would_need_without_purification(
    immunogate: Command, shipped: Path, tmp_path: Path
) -> None:
    from immunogate.demo.gates import limits_of

    assert not limits_of(open_bundle(shipped)).own
    faces = _faces(tmp_path / "faces.npz")
    assert immunogate("calibrate", "threshold", faces, "--out", tmp_path / "mine").status == 0
    mine = open_bundle(tmp_path / "mine")
    stated = mine.manifest.provenance["undefended"]
    assert stated["fmr"] == 1e-3
    limits = limits_of(mine)
    assert limits.own
    assert limits.undefended == pytest.approx(stated["threshold"])
    assert limits.undefended != limits.threshold
