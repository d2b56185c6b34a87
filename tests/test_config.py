"""Files of settings: what is read, and that whatever is wrong is named with its line and field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.config import RANGES, CameraSettings, GateSettings, load_config
from immunogate.errors import ImmunogateError, InputError, UsageError

FRONT = '[cameras.front]\nuri = "rtsp://10.0.0.7/main"\n'
EXAMPLE = Path(__file__).parents[1] / "docs" / "gate.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gate.toml"
    path.touch(mode=0o600)
    return path


def test_the_example_is_in_order() -> None:
    config = load_config(EXAMPLE)
    assert list(config.cameras) == ["front", "yard"]
    assert config.gate.max_decision_age_ms == 500
    assert [camera.read_timeout_s for camera in config.cameras.values()] == [5, 5]
    assert config.cameras["yard"].threshold == 0.5
    assert config.warnings == ()


def test_little_has_to_be_said(file: Path) -> None:
    file.write_text(FRONT)
    config = load_config(file)
    assert config.gate == GateSettings()
    assert config.cameras == {"front": CameraSettings("rtsp://10.0.0.7/main")}


def test_a_camera_comes_before_what_is_said_of_all(file: Path) -> None:
    file.write_text(f"[every_camera]\nfps_cap = 10\nthreshold = 0.4\n{FRONT}fps_cap = 5\n[cameras.back]\nuri = '0'")
    cameras = load_config(file).cameras
    assert (cameras["front"].fps_cap, cameras["back"].fps_cap) == (5, 10)
    assert (cameras["front"].threshold, cameras["back"].threshold) == (0.4, 0.4)


def test_paths_are_relative_to_the_file(file: Path) -> None:
    file.write_text(f'[gate]\nbundle = "door.bundle"\ngallery = "/var/g.db"\n{FRONT}')
    gate = load_config(file).gate
    assert (gate.bundle, gate.gallery) == (file.parent / "door.bundle", Path("/var/g.db"))


def test_an_address_may_come_from_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[cameras.front]\nuri_env = "FRONT_DOOR"\n')
    monkeypatch.setenv("FRONT_DOOR", "rtsp://joe:hunter2@door/")
    assert load_config(file).cameras["front"].uri == "rtsp://joe:hunter2@door/"
    monkeypatch.delenv("FRONT_DOOR")
    with pytest.raises(InputError, match=r"line 2: cameras\.front\.uri_env: the environment has no 'FRONT_DOOR'"):
        load_config(file)


def test_a_password_that_others_may_read_is_warned_of_and_never_shown(file: Path) -> None:
    file.write_text('[cameras.front]\nuri = "rtsp://joe:hunter2@door/"\nthreshold = 0.4')
    assert load_config(file).warnings == ()
    file.chmod(0o644)
    config = load_config(file)
    assert "chmod 600" in config.warnings[0]
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{FRONT}treshold = 0.4", r"line 3: cameras\.front\.treshold: there is no such field; known are uri, thresh"),
        (f"{FRONT}threshold = 1.5", r"line 3: cameras\.front\.threshold: must be in -1 \.\. 1, got 1\.5"),
        (f"{FRONT}threshold = nan", r"line 3: .*must be in -1 \.\. 1, got nan"),
        (f'{FRONT}threshold = "0.4"', "line 3: .*expected a number, got text"),
        (f"{FRONT}fps_cap = true", "line 3: .*expected a number, got true or false"),
        (f"{FRONT}detector_size = 640.5", "line 3: .*expected a whole number, got a number"),
        (f'{FRONT}rtsp_transport = "http"', "line 3: .*expected one of tcp, udp, got 'http'"),
        ("[cameras.front]\nuri = 0", r"line 2: cameras\.front\.uri: expected text, got a number"),
        ("[cameras.front]\nfps_cap = 3", r"line 1: cameras\.front: expected uri, or uri_env"),
        (f'{FRONT}uri_env = "A"', r"line 1: cameras\.front: expected uri, or uri_env"),
        (f'[every_camera]\nuri = "0"\n{FRONT}', r"line 2: every_camera\.uri: there is no such field"),
        (f"[gate]\nconfirm_frames = 0\n{FRONT}", r"line 2: gate\.confirm_frames: must be in 1 \.\. 1000, got 0"),
        (f"[gate]\nthreshold = 0.4\n{FRONT}", r"line 2: gate\.threshold: there is no such field"),
        (f"[doors]\na = 1\n{FRONT}", r"line 1: doors: there is no such field; known are gate, every_camera, cameras"),
        ('["cameras" . "front"]\nuri = "0"\nfps_cap = 0', r"line 3: cameras\.front\.fps_cap: must be in 0\.01"),
        ('cameras = { front = { uri = "0", fps_cap = 0 } }', r"toml: cameras\.front\.fps_cap: must be"),
        ('[cameras."a/b"]\nuri = "0"', r"line 1: cameras\.a/b: the name is not"),
        ("[gate]\n", "names no camera"),
        ("cameras = 3", "cameras: expected a table, got a number"),
        ("[gate\n", r"not valid TOML: .*line 1"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_field(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        load_config(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_config(tmp_path / "bytes.toml")


def test_ranges_are_those_of_the_gate() -> None:
    from immunogate.runtime.decide import Policy

    for name in ("threshold", "alarm", "margin", "confirm_frames", "max_decision_age_ms", "least_eye_distance"):
        low, high = RANGES[name.replace("least_eye", "min_eye")]
        usual = {"threshold": 0.4, "alarm": 1.0}
        for value in (low, high):
            Policy(**(usual | {name: value}))  # type: ignore[arg-type]
        for value in (low - 1e-6, high + 1e-6):
            with pytest.raises(UsageError):
                Policy(**(usual | {name: value}))  # type: ignore[arg-type]


@given(st.text(max_size=200))
def test_no_text_brings_down_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ImmunogateError):  # none of them names a camera
        load_config(path)
