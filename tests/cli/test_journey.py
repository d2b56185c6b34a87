"""The commands that other people's scripts are written against, from faces to decisions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immunogate.basis import load_basis
from immunogate.bundle import open_bundle
from immunogate.runtime.gallery import Gallery

Command = Callable[..., Any]

pytestmark = [pytest.mark.data, pytest.mark.torch]

FRAMES_OF_THE_CLIP = 56


def test_train_writes_the_basis_asked_for(journey: Any) -> None:
    assert journey.train.status == 0
    assert "Traceback" not in journey.train.err
    basis = load_basis(journey.folder / "basis.npz")
    assert (basis.components, basis.samples) == (500, 900)
    assert (journey.folder / "basis.png").stat().st_size > 10_000
    assert "500 eigenfaces of 900 faces" in journey.train.out


def test_export_writes_a_bundle_whose_hashes_hold(journey: Any) -> None:
    assert journey.export.status == 0, journey.export.err
    bundle = open_bundle(journey.folder / "bundle")
    bundle.check()
    assert bundle.manifest.purifier.mode == "fixed"
    assert set(bundle.manifest.files) == {"MODEL_CARD.md", "basis.npz", "detector.onnx", "recogniser.onnx"}
    assert "next: immunogate verify bundle" in journey.export.err


def test_a_bundle_of_the_known_recogniser_has_a_provisional_threshold_and_says_so(journey: Any) -> None:
    assert open_bundle(journey.folder / "bundle").calibration().status == "provisional"
    for done in (journey.export, journey.run):
        assert "provisional" in done.err


def test_enroll_takes_every_frame(journey: Any) -> None:
    assert journey.enroll.status == 0, journey.enroll.err
    assert journey.enroll.out.strip() == "g.db: 6 pictures of 1 people added, 0 were there already, 0 refused"


def test_the_gallery_holds_no_photo(journey: Any) -> None:
    with Gallery(journey.folder / "g.db") as gallery:
        (person,) = gallery.people()
    assert (person.name, person.embeddings) == ("man", 6)
    assert (journey.folder / "g.db").stat().st_size < 64_000


def test_run_prints_json_lines_and_nothing_else(journey: Any) -> None:
    assert journey.run.status == 0, journey.run.err
    decisions = journey.run.lines()  # fails where any line is not JSON
    assert decisions
    for decision in decisions:
        assert decision["schema"] == 1
        assert decision["outcome"] in {"allow", "deny", "alarm"}
        assert decision["person"] in {"man", None}
        assert decision["similarity"] is None or -1 <= decision["similarity"] <= 1
        assert decision["camera"] == "clip.gif"
        assert {"detect", "align"} <= set(decision["latency_ms"])


def test_run_reads_a_file_to_its_end_every_frame_once(journey: Any) -> None:
    assert f"{FRAMES_OF_THE_CLIP} frames in" in journey.run.err
    assert "0 skipped" in journey.run.err
    order = [(decision["frame"], decision["track"]) for decision in journey.run.lines()]
    assert order == sorted(set(order))
    assert order[0][0] == 0
    assert order[-1][0] > FRAMES_OF_THE_CLIP // 2


def test_the_enrolled_man_is_likest_and_the_woman_beside_him_never_allowed(journey: Any) -> None:
    likest: dict[int, float] = {}
    for decision in journey.run.lines():
        if decision["similarity"] is not None:
            likest[decision["track"]] = max(decision["similarity"], likest.get(decision["track"], -1))
    assert len(likest) == 2
    (woman, hers), (_man, his) = sorted(likest.items(), key=lambda item: item[1])
    assert his > hers + 0.2
    assert woman not in {decision["track"] for decision in journey.run.lines() if decision["outcome"] == "allow"}


def test_the_man_is_allowed_in_his_own_clip_once_three_looks_agree(
    journey: Any, data_dir: Path, immunogate: Command
) -> None:
    gate = ("run", "--bundle", journey.folder / "bundle", "--gallery", journey.folder / "g.db")
    decisions = immunogate(*gate, "--source", data_dir / "video/head-pose-face-detection-male.gif", "--json").lines()
    outcomes = [decision["outcome"] for decision in decisions]
    assert outcomes[:2] == ["deny", "deny"]  # two looks never suffice
    first = decisions[outcomes.index("allow")]
    assert (first["person"], first["reason"], first["confirmations"]) == ("man", "match", 3)
    strict = immunogate(*gate, "--source", journey.folder / "faces" / "man", "--json", "--threshold", "1").lines()
    assert {decision["outcome"] for decision in strict} == {"deny"}


def test_diagnostics_show_no_traceback(journey: Any) -> None:
    for done in (journey.train, journey.export, journey.enroll, journey.run):
        assert "Traceback" not in done.err


def test_two_runs_decide_the_same(journey: Any, subprocess_of_immunogate: Command) -> None:
    again = subprocess_of_immunogate(
        *("run", "--bundle", "bundle", "--gallery", "g.db", "--source", "clip.gif", "--json"), cwd=journey.folder
    )
    shown = ("frame", "track", "outcome", "reason", "person", "similarity", "margin", "box")
    first, second = ([[line[key] for key in shown] for line in done.lines()] for done in (journey.run, again))
    assert first == second


def test_a_file_url_and_an_absolute_path_mean_the_same_clip(journey: Any, immunogate: Command) -> None:
    gate = ("run", "--bundle", journey.folder / "bundle", "--gallery", journey.folder / "g.db", "--json")
    clip = journey.folder / "clip.gif"
    counts = [len(immunogate(*gate, "--source", source).lines()) for source in (clip, f"file://{clip}")]
    assert counts == [len(journey.run.lines())] * 2


def test_calibrate_replaces_the_provisional_threshold_and_keeps_the_gallery(
    journey: Any, immunogate: Command, tmp_path: Path
) -> None:
    bundle = _copied(journey.folder / "bundle", tmp_path)
    done = immunogate("calibrate", "threshold", bundle, journey.folder / "calibrate.npz", "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["status"] == "measured"
    assert "faces of" in report["source"]
    assert "calibrate.npz" in report["source"]
    by_rate = {row["fmr"]: row for row in report["thresholds"]}
    assert by_rate[1e-3]["threshold"] > by_rate[1e-2]["threshold"]
    assert by_rate[1e-2]["tar"] > by_rate[1e-3]["tar"] > 0.2
    assert all(row["fmr_upper"] < 1.5 * rate for rate, row in by_rate.items())
    gate = ("run", "--bundle", bundle, "--gallery", journey.folder / "g.db", "--source", journey.folder / "clip.gif")
    run = immunogate(*gate, "--json")
    assert run.status == 0
    assert "provisional" not in run.err
    assert run.lines()[0]["bundle"] == open_bundle(bundle).sha256 != journey.run.lines()[0]["bundle"]


def test_calibrate_prints_a_table(journey: Any, immunogate: Command, tmp_path: Path) -> None:
    done = immunogate("calibrate", "threshold", _copied(journey.folder / "bundle", tmp_path), _few_faces(journey, 60))
    assert done.status == 0, done.err
    assert "threshold" in done.out
    assert "alarm above an attack score of" in done.out


def test_a_clip_in_realtime_takes_as_long_as_it_took_to_film(journey: Any, immunogate: Command) -> None:
    gate = ("run", "--bundle", journey.folder / "bundle", "--gallery", journey.folder / "g.db")
    done = immunogate(*gate, "--source", journey.folder / "clip.gif", "--json", "--realtime", "--max-frames", "12")
    assert done.status == 0, done.err
    summary = done.err.splitlines()
    counted = next(line for line in summary if "frames in" in line)
    assert counted.startswith("12 frames in")
    seconds = float(counted.split("in ")[1].split(" s")[0])
    assert seconds > 11 / 12.5 - 0.1  # twelve frames of a camera that takes 12.5 a second
    assert max(decision["age_ms"] for decision in done.lines()) < 500


def _copied(bundle: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(bundle, to / "bundle"))


def _few_faces(journey: Any, count: int) -> Any:
    import numpy as np

    with np.load(journey.folder / "calibrate.npz") as arrays:
        path = journey.folder / f"calibrate{count}.npz"
        np.savez(path, images=arrays["images"][:count], identities=arrays["identities"][:count])
    return path
