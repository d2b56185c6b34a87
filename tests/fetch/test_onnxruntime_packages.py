"""The runners against the real packages that bring a GPU to ONNX Runtime, downloaded for this, where no GPU is.

The driver that the runners look for first is made up, so that the packages themselves have to say what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import Bundle
from immunogate.kernels.device import probe

ROOT = Path(__file__).parents[2]
GPU_BUILD = "onnxruntime-gpu==1.31.1" if sys.version_info >= (3, 11) else "onnxruntime-gpu==1.23.2"
PLUGIN = "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0"
PROGRAM = """
import json, sys
from pathlib import Path
from immunogate.kernels.device.driver import DriverState
from immunogate.runtime.runners import providers, rtx
from immunogate.runtime.runners.base import Network
from immunogate.runtime.runners.choose import open_runner
state = DriverState(13000, ("A made-up card",), ((8, 9),))
providers.require_device = rtx.require_device = lambda index=0: state
said = {}
for name in sys.argv[2:]:
    network = Network(Path(sys.argv[1]).read_bytes(), "recogniser.onnx", (16, 3, 112, 96), 1)
    try:
        runner = open_runner(network, name)
        said[name] = [runner.kind, dict(runner.passed_over)]
    except Exception as error:
        said[name] = [type(error).__name__, str(error)]
print(json.dumps({"providers": providers.providers(), "said": said}))
"""
pytestmark = [
    pytest.mark.fetch,
    pytest.mark.skipif(probe().usable, reason="this is about machines without a GPU"),
    pytest.mark.skipif(sys.platform != "linux", reason="wheels for Linux"),
]


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Install one package, and nothing that it needs, into a folder of its own."""

    def install(package: str) -> Path:
        folder = tmp_path_factory.mktemp("package")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--target", str(folder), package], check=True)
        return folder

    return install


@pytest.fixture
def told(tiny_bundle: Bundle, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Open runners in a process that finds a package before all others."""

    def run(package: Path, *runners: str, libraries: Path | None = None) -> dict[str, Any]:
        places = {"PYTHONPATH": f"{package}:{ROOT / 'src'}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        if libraries:
            places["LD_LIBRARY_PATH"] = str(libraries)
        command = [sys.executable, "-c", PROGRAM, str(tiny_bundle.folder / "recogniser.onnx"), *runners]
        done = subprocess.run(
            command, env=os.environ | places, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()  # whatever ONNX Runtime says, results alone go to stdout
        return dict(json.loads(line))

    return run


def test_the_gpu_build_never_falls_back_by_itself(
    fetched: Callable[[str], Path], told: Callable[..., dict[str, Any]]
) -> None:
    found = told(fetched(GPU_BUILD), "cuda", "ort-tensorrt", "auto", "cpu")
    assert {"CUDAExecutionProvider", "TensorrtExecutionProvider"} <= set(found["providers"])
    kind, words = found["said"]["cuda"]
    assert kind == "DeviceError"
    assert "would run it on the CPU instead" in words
    assert "cuDNN 9" in words
    kind, words = found["said"]["ort-tensorrt"]
    assert kind == "DeviceError"
    assert "TensorrtExecutionProvider does not start for recogniser.onnx" in words
    kind, passed_over = found["said"]["auto"]
    assert kind == "cpu"
    assert set(passed_over) == {"rtx", "cuda", "tensorrt"}
    assert found["said"]["cpu"] == ["cpu", {}]


def test_the_plugin_of_tensorrt_rtx_without_a_driver_and_over_a_stub(
    fetched: Callable[[str], Path], told: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        pytest.skip("gcc or nm is not installed")
    package = fetched(PLUGIN)
    kind, words = told(package, "rtx")["said"]["rtx"]
    assert kind == "DeviceError"
    assert "can not load the plug-in of TensorRT-RTX" in words
    assert "libcuda.so.1" in words
    _stub_driver(package / "onnxruntime_ep_nv_tensorrt_rtx", tmp_path / "stub")
    found = told(package, "rtx", "auto", libraries=tmp_path / "stub")["said"]
    assert found["rtx"][0] == "DeviceError"
    assert "TensorRT-RTX finds 0 devices that it can use here" in found["rtx"][1]
    assert found["auto"][0] == "cpu"


def _stub_driver(libraries: Path, folder: Path) -> None:
    """Compile FAKE libcuda.so.1 and libnvidia-ml.so.1 with the names that the plug-in looks for."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from cuda_stub import driver_names, make_stub\n"
        "files = [path for path in Path(sys.argv[2]).glob('lib*.so*') if not path.is_symlink()]\n"
        "make_stub(sorted({name for path in files for name in driver_names(path)}), Path(sys.argv[3]))"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT / "tools"), str(libraries), str(folder)], check=True)
    names = ("nvmlInit_v2", "nvmlShutdown", "nvmlSystemGetDriverVersion")
    source = "".join(f"int {name}() {{ return 9; }}\n" for name in names)
    source += 'const char *nvmlErrorString(int error) { return "stub driver"; }\n'
    made = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{made.name}"]
    subprocess.run(["gcc", *flags, "-x", "c", "-", "-o", str(made)], input=source, text=True, check=True)
