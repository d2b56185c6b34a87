"""tools/jetson_setup.sh over folders that mimic boards that are not here: what it would do, and what it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "jetson_setup.sh"
PINS = ROOT / "tools" / "jetson_pins.txt"
RELEASE = (
    "# R{0} (release), REVISION: {1}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
)
PIP = "+ V/bin/python -m pip --disable-pip-version-check"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def _board(folder: Path, release: str, revision: str, packages: tuple[str, ...] = ()) -> Path:
    """The root folder of a FAKE Jetson."""
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/nv_tegra_release").write_text(RELEASE.format(release, revision), encoding="utf-8")
    (folder / "var/lib/dpkg").mkdir(parents=True)
    status = "".join(f"Package: {name}\nStatus: install ok installed\nVersion: 1\n\n" for name in packages)
    removed = "Package: python3-libnvinfer\nStatus: deinstall ok config-files\n\n"
    (folder / "var/lib/dpkg/status").write_text(status + removed, encoding="utf-8")
    return folder


def _run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), *words]
    environment = {"PATH": "/usr/bin:/bin", "IMMUNOGATE_JETSON_ROOT": str(root)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _plan(root: Path, *words: str) -> list[str]:
    """The commands that a dry run shows."""
    done = _run(root, "--dry-run", "--venv", "V", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "nothing was done"
    return [line.replace("+ sudo ", "+ ") for line in done.stdout.splitlines() if line.startswith("+ ")]


@pytest.mark.parametrize(
    ("release", "revision", "special", "needed"),
    [("36", "4.3", "libopencv-python cuda-toolkit-12-6", "numpy threadpoolctl tqdm tomli"),
     ("36", "4.7", "libopencv-python cuda-toolkit-12-6", "numpy threadpoolctl tqdm tomli"),
     ("36", "5.0", "libopencv-python cuda-toolkit-12-6", "numpy threadpoolctl tqdm tomli"),
     ("39", "2.0", "python3-opencv cuda-toolkit-13-2", "numpy threadpoolctl tqdm")],
)  # fmt: skip
def test_the_plan_of_both_jetpacks(tmp_path: Path, release: str, revision: str, special: str, needed: str) -> None:
    assert _plan(_board(tmp_path, release, revision)) == [
        "+ apt-get update",
        "+ apt-get install -y --no-install-recommends python3-venv python3-dev build-essential python3-libnvinfer "
        f"{special} gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-plugins-bad",
        "+ /usr/bin/python3 -m venv --system-site-packages V",
        f"{PIP} install -c tools/jetson_pins.txt {needed} cuda-core cuda-bindings",
        f"{PIP} install -c tools/jetson_pins.txt onnxruntime",
        f"{PIP} install --no-deps .",
        "+ env CUDA_HOME=/usr/local/cuda V/bin/python tools/make_pycuda.py --pins tools/jetson_pins.txt",
    ]


def test_only_what_is_missing_is_installed(tmp_path: Path) -> None:
    there = ("python3-venv", "python3-dev", "build-essential", "libopencv-python", "cuda-toolkit-12-6",
             "gstreamer1.0-tools", "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-bad")  # fmt: skip
    plan = _plan(_board(tmp_path / "a", "36", "4.3", there))
    assert "+ apt-get install -y --no-install-recommends python3-libnvinfer" in plan, "one that was removed is missing"
    assert not [line for line in _plan(_board(tmp_path / "b", "36", "4.3", (*there, "python3-libnvinfer")))
                if "apt-get" in line]  # fmt: skip


def test_an_onnx_runtime_with_cuda_takes_the_place_of_the_other(tmp_path: Path) -> None:
    plan = _plan(_board(tmp_path, "36", "4.3"), "--onnxruntime", "ort.whl", "--no-pycuda")
    assert f"{PIP} uninstall -y onnxruntime onnxruntime-gpu" in plan
    assert f"{PIP} install ort.whl numpy\\<2" in plan
    assert not [line for line in plan if line.endswith(" onnxruntime") or "make_pycuda" in line]


def test_a_container_names_its_jetpack(tmp_path: Path) -> None:
    assert any("cuda-toolkit-13-2" in line for line in _plan(tmp_path, "--jetpack", "7.2"))


@pytest.mark.parametrize(
    ("release", "revision", "said"),
    [("36", "4.0", "L4T 36.4.0 is neither JetPack 6.2"), ("36", "3.0", "neither"), ("35", "4.1", "neither"),
     ("38", "2.0", "neither"), ("what", "is this", "does not tell its release")],
)  # fmt: skip
def test_another_release_is_refused_by_name(tmp_path: Path, release: str, revision: str, said: str) -> None:
    done = _run(_board(tmp_path, release, revision), "--dry-run")
    assert done.returncode == 1
    assert said in done.stderr
    assert "+" not in done.stdout


def test_a_machine_that_is_no_jetson_is_left_alone(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"this is no Jetson: there is no {tmp_path}/etc/nv_tegra_release" in done.stderr


@pytest.mark.parametrize("words", [("--bogus",), ("--venv",), ("--jetpack", "5.1")])
def test_wrong_use(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = _run(_board(tmp_path, "36", "4.3"), "--dry-run", *words)
    assert done.returncode == 2
    assert "jetson_setup: " in done.stderr


def test_help() -> None:
    done = _run(Path("/nowhere"), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("--dry-run", "--venv", "--jetpack", "--onnxruntime", "--no-pycuda"):
        assert f"  {flag}" in done.stdout


def test_all_that_the_package_needs_but_opencv_is_named() -> None:
    if sys.version_info < (3, 11):
        import tomli as tomllib
    else:
        import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = {re.split(r"[><=; ]", line)[0] for line in settings["project"]["dependencies"]}
    script = SCRIPT.read_text(encoding="utf-8")
    named = set(" ".join(re.findall(r"needed\+?=\(([^)]*)\)", script)).split()) | {"onnxruntime"}
    assert named == wanted - {"opencv-python-headless"}
    pinned = {re.split("==", line)[0] for line in PINS.read_text(encoding="utf-8").splitlines() if line[:1] != "#"}
    assert named | {"cuda-core", "cuda-bindings", "pycuda"} <= pinned


def test_the_script_is_clean() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
