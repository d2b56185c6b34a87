"""``immunogate run``: its outputs, its flags, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from immunogate.bundle import Bundle

Command = Callable[..., Any]

DRAWN = "synthetic://?frames=4&width=320&height=240"


def test_people_read_sentences_and_scripts_read_json(gate: Command) -> None:
    for_people, for_scripts = gate(DRAWN), gate(DRAWN, "--json")
    assert for_people.status == for_scripts.status == 0
    assert "4 frames in" in for_people.out
    assert "p50 ms" in for_people.out
    assert "4 frames in" in for_scripts.err
    assert all(line["schema"] == 1 for line in for_scripts.lines())


@pytest.mark.data
def test_a_line_for_people_names_frame_outcome_and_reason(gate: Command, data_dir: Path) -> None:
    line = gate(data_dir / "video/head-pose-face-detection-male.gif", "--max-frames", "1").out.splitlines()[0]
    assert line.split()[:6] == ["frame", "0", "face", "1", "DENY", "no_match"]
    assert "similarity" in line


def test_max_frames_stops_an_endless_source(gate: Command) -> None:
    done = gate("synthetic://?frames=0&width=64&height=64", "--max-frames", "5", "--json")
    assert done.status == 0
    assert "5 frames in" in done.err


def test_summary_is_json_with_the_same_numbers(gate: Command, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "summary.json"
    done = gate(DRAWN, "--json", "--summary", path)
    summary = json.loads(path.read_text(encoding="utf-8"))
    assert (summary["frames"], summary["skipped"]) == (4, 0)
    assert summary["decisions"] == len(done.lines())
    assert summary["latency_ms"]["detect"]["n"] == 4
    assert summary["latency_ms"]["detect"]["p50"] <= summary["latency_ms"]["detect"]["max"]


@pytest.mark.data
def test_annotate_writes_every_frame_with_a_strip_beside_it(gate: Command, data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "seen.mp4"
    clip = data_dir / "video/head-pose-face-detection-male.gif"
    done = gate(clip, "--json", "--annotate", path, "--max-frames", "6")
    assert f"annotated video: {path}" in done.err
    video, source = cv2.VideoCapture(str(path)), cv2.VideoCapture(str(clip))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert len(frames) == 6
    (height, width), plain = frames[0].shape[:2], source.read()[1]
    assert (height, width) == (plain.shape[0], plain.shape[1] + 224)
    strip = frames[0][:100, -224:-112]
    assert strip.std() > 20, "the strip shows the face as it came"
    untouched = frames[0][-60:, :100].astype(int) - plain[-60:, :100]
    assert abs(untouched).mean() < 8, "where no face is, the frame is as it was"


def test_every_mode_of_the_bundle_can_be_asked_for(gate: Command) -> None:
    for mode in ("fixed", "expected", "threshold", "sample", "select"):
        done = gate(DRAWN, "--json", "--mode", mode, "--threshold", "0.5")
        assert done.status == 0, done.err


@pytest.mark.data
def test_the_seed_of_drawn_clones_is_what_decides(gate: Command, data_dir: Path) -> None:
    clip = data_dir / "video/head-pose-face-detection-male.gif"

    def similarities(seed: int) -> list[float]:
        flags = ("--json", "--mode", "sample", "--threshold", "0.5", "--seed", seed, "--max-frames", "3")
        return [line["similarity"] for line in gate(clip, *flags).lines()]

    assert similarities(5) == similarities(5) != similarities(6)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--threshold", "2"), ("threshold", "-1 .. 1")),
        (("--threshold", "nan"), ("threshold", "nan")),
        (("--alarm", "-0.1"), ("alarm", "0 .. 2")),
        (("--margin", "nan"), ("margin",)),
        (("--confirm-frames", "0"), ("confirm-frames", "1 .. 1000")),
        (("--max-decision-age-ms", "0"), ("max-decision-age-ms",)),
        (("--max-frames", "0"), ("--max-frames",)),
        (("--max-frames", "-1"), ("--max-frames",)),
        (("--threads", "0"), ("--threads",)),
        (("--threads", "100000"), ("--threads", "1 ..")),
        (("--detector-size", "0"), ("--detector-size", "32")),
        (("--detector-size", "1000000"), ("--detector-size",)),
        (("--seed", "-1"), ("seed",)),
        (("--mode", "bogus"), ("unknown mode 'bogus'", "expected")),
        (("--mode", "expected"), ("another mode", "--threshold")),
        (("--annotate", "clip.avi"), (".mp4", "clip.avi")),
        (("--annotate", "nowhere/at/all.mp4"), ("nowhere/at", "Make it first")),
    ],
)
def test_a_flag_out_of_range_is_wrong_use(gate: Command, flags: Any, words: Any) -> None:
    done = gate(DRAWN, *flags)
    done.refused(2, *words)
    assert done.out == ""


def test_a_rate_that_was_not_calibrated_lists_those_that_were(gate: Command) -> None:
    gate(DRAWN, "--fmr", "1e-9").refused(1, "1e-09", "0.001", "Choose one of these")


def test_a_mode_that_needs_an_analyzer(
    immunogate: Command, make_tiny_bundle: Command, empty_gallery: Path, tmp_path: Path
) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle", analyzer=False)
    gallery = _gallery_of(bundle, tmp_path)
    run = ("run", "--bundle", bundle.folder, "--gallery", gallery, "--source", DRAWN, "--threshold", "0.5")
    immunogate(*run, "--mode", "expected").refused(2, "expected needs an analyzer", "--purifier")


def test_a_bundle_without_threshold(
    immunogate: Command, tiny_bundle: Bundle, empty_gallery: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (folder / "manifest.json").write_text(json.dumps(manifest | {"calibration": None}), encoding="utf-8")
    run = ("run", "--bundle", folder, "--gallery", empty_gallery, "--source", DRAWN)
    immunogate(*run).refused(1, "no threshold", "immunogate calibrate threshold")
    assert immunogate(*run, "--threshold", "0.5", "--alarm", "1").status == 0


def test_a_calibration_of_other_files_does_not_count(
    immunogate: Command, tiny_bundle: Bundle, empty_gallery: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["purifier"]["top_k"] -= 1
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    run = ("run", "--bundle", folder, "--gallery", empty_gallery, "--source", DRAWN)
    immunogate(*run).refused(1, "measured on other files or settings", "calibrate")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ftp://host/a.mp4", ("ftp://", "Known are", "rtsp://")),
        ("", ("not the address of a camera",)),
        ("rtsp://", ("no host",)),
        ("rtsp://:secret@", ("no host",)),
        ("nowhere.mp4", ("nowhere.mp4", "No such file")),
        ("/dev/video99", ("/dev/video99",)),
        ("file://host/clip.gif", ("three slashes",)),
        ("synthetic://?width=1", ("width=1",)),
        ("synthetic://?frame=1", ("frame", "frames")),
    ],
)
def test_a_source_that_is_none_is_named_with_the_remedy(gate: Command, source: Any, words: Any) -> None:
    done = gate(source)
    done.refused(2, *words)
    assert "secret" not in done.err


def test_what_is_not_there_is_named(
    immunogate: Command, tiny_bundle: Bundle, empty_gallery: Path, tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    run = ("run", "--source", DRAWN)
    immunogate(*run, "--bundle", absent, "--gallery", empty_gallery).refused(2, str(absent), "immunogate export")
    immunogate(*run, "--bundle", tiny_bundle.folder, "--gallery", absent).refused(2, str(absent), "immunogate enroll")
    assert not absent.exists()


def test_an_empty_gallery_is_warned_of_and_denies(immunogate: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
    gallery = _gallery_of(tiny_bundle, tmp_path)
    done = immunogate("run", "--bundle", tiny_bundle.folder, "--gallery", gallery, "--source", DRAWN, "--json")
    assert done.status == 0
    assert "nobody is enrolled" in done.err
    assert all(line["outcome"] == "deny" for line in done.lines())


@pytest.mark.parametrize("content", [b"", b"no gallery at all, just some text\n" * 9, b"SQLite format 3\0" + bytes(84)])
def test_a_file_that_is_no_gallery(immunogate: Command, tiny_bundle: Bundle, tmp_path: Path, content: Any) -> None:
    path = tmp_path / "g.db"
    path.write_bytes(content)
    done = immunogate("run", "--bundle", tiny_bundle.folder, "--gallery", path, "--source", DRAWN)
    done.refused(1, str(path))
    assert path.read_bytes() == content


def test_the_gallery_of_another_bundle(gate: Command, immunogate: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.folder, other)
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    manifest["purifier"]["seed"] += 1
    (other / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    gallery = _gallery_of(tiny_bundle, tmp_path)
    run = ("run", "--bundle", other, "--gallery", gallery, "--source", DRAWN, "--threshold", "0.5", "--alarm", "1")
    immunogate(*run).refused(1, str(gallery), "another bundle", "enroll the people again")


def test_a_summary_that_can_not_be_written_is_told_after_the_run(gate: Command) -> None:
    done = gate(DRAWN, "--summary", "/proc/summary.json")
    done.refused(2, "/proc/summary.json")
    assert "4 frames in" in done.out


def _gallery_of(bundle: Bundle, folder: Path) -> Path:
    from immunogate.runtime.gallery import Gallery

    manifest = bundle.manifest
    path = folder / "empty.db"
    Gallery(path, manifest.embedding_hash(), manifest.recogniser.embedding_dimension, create=True).close()
    return path
