"""Ctrl-C, SIGTERM, a reader that goes away, a disk that is full: a command ends cleanly and says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import Bundle

Command = Callable[..., Any]

ENDLESS = "synthetic://?frames=0&width=320&height=240"
PATIENCE_S = 20.0


@pytest.fixture
def endless(tiny_bundle: Bundle, empty_gallery: Path, tmp_path: Path) -> Any:
    """A gate that runs without end in a process of its own, and its folder; it is up once it writes its video."""
    running: list[subprocess.Popen[str]] = []

    def start(*flags: str) -> subprocess.Popen[str]:
        video = tmp_path / "seen.mp4"
        words = ("run", "--bundle", tiny_bundle.folder, "--gallery", empty_gallery, "--source", ENDLESS)
        command = [sys.executable, "-m", "immunogate", *map(str, words), "--annotate", str(video), *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        deadline = time.monotonic() + PATIENCE_S
        while not (video.exists() and video.stat().st_size) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_gate_with_its_summary(endless: Command, number: signal.Signals, tmp_path: Path) -> None:
    process = endless("--json", "--summary", str(tmp_path / "summary.json"))
    process.send_signal(number)
    start = time.monotonic()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - start < 5
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "stopped" in err
    assert "frames/s" in err
    assert (tmp_path / "summary.json").stat().st_size > 0


def test_the_video_of_a_stopped_gate_can_be_played(endless: Command, tmp_path: Path) -> None:
    import cv2

    process = endless("--json")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    found, pixels = cv2.VideoCapture(str(tmp_path / "seen.mp4")).read()
    assert found
    assert pixels.shape == (240, 320 + 224, 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_files_are_made_is_status_130(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from immunogate.cli import main\n"
        "import immunogate.cli.doctor as doctor\n"
        f"doctor.examine = lambda: os.kill(os.getpid(), {int(number)})\n"
        "sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "immunogate: interrupted; nothing was left half written\n"


def test_handlers_are_given_back(immunogate: Command) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    immunogate("doctor")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def _run_sh(line: str, **paths: Path) -> subprocess.CompletedProcess[str]:
    words = {name: str(path) for name, path in paths.items()}
    command = line.format(immunogate=f"{sys.executable} -m immunogate", **words)
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)


def test_a_reader_that_goes_away_is_no_reason_to_complain(tiny_bundle: Bundle) -> None:
    done = _run_sh("{immunogate} inspect {bundle} --json | head -c 1", bundle=tiny_bundle.folder)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.data
def test_a_reader_of_decisions_that_goes_away_ends_the_gate(
    tiny_bundle: Bundle, empty_gallery: Path, data_dir: Path
) -> None:
    done = _run_sh(
        "{immunogate} run --bundle {bundle} --gallery {gallery} --source {clip} --json | head -1; "
        "echo status ${{PIPESTATUS[0]}} >&2",
        bundle=tiny_bundle.folder,
        gallery=empty_gallery,
        clip=data_dir / "video/head-pose-face-detection-male.gif",
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == "status 1\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["doctor", "doctor --json", "inspect {bundle}"])
def test_a_full_disk_behind_stdout_is_said_in_one_line(tiny_bundle: Bundle, command: str) -> None:
    done = _run_sh(f"{{immunogate}} {command} > /dev/full", bundle=tiny_bundle.folder)
    assert done.returncode == 1
    assert done.stderr == "immunogate: the output can not be written: No space left on device\n"


def test_a_closed_stdout_is_no_reason_to_fall(tiny_bundle: Bundle, empty_gallery: Path) -> None:
    line = "{immunogate} run --bundle {bundle} --gallery {gallery} --source 'synthetic://?frames=2' --json >&-"
    done = _run_sh(line, bundle=tiny_bundle.folder, gallery=empty_gallery)
    assert done.returncode == 0, done.stderr
    assert "2 frames in" in done.stderr


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxscript"])
def test_an_export_without_its_extra_names_the_extra(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['{package}'] = None\nfrom immunogate.cli import main\nsys.exit(main(sys.argv[1:]))"
    flags = "export --basis b.npz --recogniser r.pt --recogniser-arch mobilefacenet --detector d.onnx --out out"
    done = subprocess.run(
        [sys.executable, "-c", code, *flags.split()], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    if package != "onnxscript":  # needed only once a graph is written
        assert f"needs {package}" in done.stderr
        assert "immunogate[export]" in done.stderr


def test_a_missing_module_of_our_own_is_not_passed_off_as_an_extra(
    monkeypatch: pytest.MonkeyPatch, immunogate: Command
) -> None:
    import immunogate.cli.doctor as doctor

    def broken() -> dict[str, object]:
        raise ModuleNotFoundError("No module named 'immunogate.nothing'", name="immunogate.nothing")

    monkeypatch.setattr(doctor, "examine", broken)
    with pytest.raises(ModuleNotFoundError):
        immunogate("doctor")
