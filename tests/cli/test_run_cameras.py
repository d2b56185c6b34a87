"""``immunogate run`` with several cameras and files of settings, and ``immunogate config check``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outages import is_alive

from immunogate.bundle import Bundle

Command = Callable[..., Any]
GIF = "video/head-pose-face-detection-male.gif"
DRAWN = "synthetic://?frames=6&width=320&height=240"
EXAMPLE = Path(__file__).parents[2] / "docs" / "gate.toml"
PATIENCE_S = 60.0


@pytest.fixture
def several(immunogate: Command, tiny_bundle: Bundle, empty_gallery: Path) -> Command:
    def run(*flags: object) -> Any:
        return immunogate("run", "--bundle", tiny_bundle.folder, "--gallery", empty_gallery, *flags)

    return run


def test_a_gate_without_a_camera_says_how_to_name_one(several: Command) -> None:
    several().refused(2, "no camera is named", "--source", "--camera", "--config")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--source", DRAWN, "--source", DRAWN), ("two cameras are called", "--camera NAME=URI")),
        (("--camera", "rtsp://joe:hunter2@door/"), ("--camera takes NAME=URI",)),
        (("--camera", "front="), ("--camera takes NAME=URI",)),
        (("--camera", "a=0", "--camera", "b=ftp://x"), ("ftp://", "Known are")),
        (("--camera", f"a={DRAWN}", "--annotate", "x.mp4"), ("--annotate", "one --source")),
        (("--camera", f"a={DRAWN}", "--detector-size", "0"), ("--detector-size", "32")),
        (("--config", "nowhere.toml"), ("nowhere.toml", "No such file")),
    ],
)
def test_wrong_cameras_are_wrong_use(several: Command, flags: Any, words: Any) -> None:
    done = several(*flags)
    done.refused(2, *words)
    assert "hunter2" not in done.err


def test_cameras_none_of_which_opens_are_an_error(several: Command, tmp_path: Path) -> None:
    done = several("--camera", f"a={tmp_path}/no.mp4", "--camera", f"b={tmp_path}/no.gif")
    done.refused(2, "no.mp4", "No such file")


@pytest.mark.data
def test_decisions_name_their_camera_are_recorded_and_each_has_its_limits(
    several: Command, immunogate: Command, data_dir: Path, tmp_path: Path
) -> None:
    file, summary = tmp_path / "gate.toml", tmp_path / "summary.json"
    file.write_text(
        f"""
        [gate]
        max_decision_age_ms = 60000
        [cameras.front]
        uri = "{data_dir / GIF}"
        [cameras.far]
        uri = "{data_dir / GIF}"
        min_eye_distance = 5000
        detector_size = 320
        [cameras.dead]
        uri = "{tmp_path}/absent.mp4"
        """
    )
    record = tmp_path / "gate.db"
    done = several("--config", file, "--json", "--summary", summary, "--max-frames", "8", "--audit", record)
    assert done.status == 0, done.err
    recorded = immunogate("audit", "export", record, "--kind", "decision").lines()
    assert [one["decision"] for one in recorded] == done.lines()
    assert immunogate("audit", "verify", record).status == 0
    reasons = {(line["camera"], line["reason"]) for line in done.lines()}
    assert {camera for camera, _ in reasons} == {"front", "far"}
    assert {reason for camera, reason in reasons if camera == "far"} == {"poor_face"}
    assert "poor_face" not in {reason for camera, reason in reasons if camera == "front"}
    counted = json.loads(summary.read_text(encoding="utf-8"))
    assert counted["cameras"]["dead"]["outages"]["failed"] >= 1
    assert counted["cameras"]["front"]["frames"] + counted["cameras"]["far"]["frames"] == counted["frames"]
    assert "dead: " in done.err
    assert "opening it again" in done.err


@pytest.mark.data
def test_a_line_for_people_begins_with_the_camera(several: Command, data_dir: Path) -> None:
    done = several("--camera", f"front={data_dir / GIF}", "--max-frames", "2")
    assert done.out.splitlines()[0].split()[:2] == ["front", "frame"]


def test_a_flag_comes_before_the_file(several: Command, tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(f'[gate]\nmargin = 0.2\n[cameras.a]\nuri = "{DRAWN}"\nthreshold = 0.4\n')
    several("--config", file, "--margin", "9").refused(2, "margin must be in 0 .. 2, got 9")
    several("--config", file, "--threshold", "7").refused(2, "threshold must be in -1 .. 1, got 7")
    assert several("--config", file, "--max-frames", "1").status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_gate_and_workers(
    tiny_bundle: Bundle, empty_gallery: Path, number: signal.Signals, tmp_path: Path
) -> None:
    source = "synthetic://?frames=0&width=320&height=240"
    words = ("run", "--bundle", tiny_bundle.folder, "--gallery", empty_gallery, "--json",
             "--camera", f"a={source}", "--camera", f"b={source}", "--summary", tmp_path / "s.json")  # fmt: skip
    command = [sys.executable, "-m", "immunogate", *map(str, words)]
    gate = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while len(workers := _children(gate.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        while not all(_is_deep_in(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        os.killpg(gate.pid, number)  # as a terminal's Ctrl-C goes to the whole group
        _, err = gate.communicate(timeout=PATIENCE_S)
    finally:
        gate.kill()
    assert gate.returncode == 0, err
    assert "stopped" in err
    assert "Traceback" not in err
    assert set(json.loads((tmp_path / "s.json").read_text())["cameras"]) == {"a", "b"}
    assert not any(map(is_alive, workers))


def _children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def _is_deep_in(pid: int) -> bool:
    """Whether a worker has mapped its frames and something was written to them."""
    lines = Path(f"/proc/{pid}/smaps").read_text().partition("immunogate-frames")[2].splitlines()
    return any(line.startswith("Rss:") and int(line.split()[1]) > 0 for line in lines[:6])


def test_the_example_passes_the_check(immunogate: Command) -> None:
    done = immunogate("config", "check", EXAMPLE)
    assert done.status == 0, done.err
    assert "front: uri rtsp://10.0.0.7/main" in done.out
    checked = json.loads(immunogate("config", "check", EXAMPLE, "--json").out)
    assert checked["cameras"]["yard"]["detector_size"] == 960
    assert checked["warnings"] == []


def test_the_check_shows_no_password_and_warns_of_it(immunogate: Command, tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text('[cameras.front]\nuri = "rtsp://joe:hunter2@door/main"\n')
    file.chmod(0o644)
    done = immunogate("config", "check", file)
    assert done.status == 0
    assert "rtsp://***@door/main" in done.out
    assert "chmod 600" in done.err
    assert "hunter2" not in done.out + done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[cameras.a]\nuri = "ftp://x"', ("ftp://x", "Known are")),
        ('[cameras.a]\nuri = "0"\nthreshold = 3', ("line 3", "cameras.a.threshold", "-1 .. 1")),
        ('[cameras.a]\nuri = "rtsp://"', ("no host",)),
    ],
)
def test_a_wrong_file_is_refused(immunogate: Command, tmp_path: Path, text: str, words: Any) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(text)
    immunogate("config", "check", file).refused(2, *words)
