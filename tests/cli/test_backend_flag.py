"""The flag --backend: auto is the CPU where there is no GPU, cuda is then a clear refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import Bundle
from immunogate.kernels import backend
from immunogate.kernels.device import DeviceError
from immunogate.runtime.gallery import Gallery

Command = Callable[..., Any]


@pytest.fixture
def gate(tiny_bundle: Bundle, tmp_path: Path) -> tuple[object, ...]:
    """The words of a short run."""
    manifest = tiny_bundle.manifest
    gallery = tmp_path / "g.db"
    Gallery(gallery, manifest.embedding_hash(), manifest.recogniser.embedding_dimension, create=True).close()
    return ("run", "--bundle", tiny_bundle.folder, "--gallery", gallery, "--source", "synthetic://?frames=3", "--json")


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int = 0) -> None:
        raise DeviceError("no NVIDIA driver is installed", "Install the driver of your GPU, or use --backend cpu")

    monkeypatch.setattr(backend, "require_device", refuse)


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_gate_runs_on_the_cpu_where_there_is_no_gpu(immunogate: Command, gate: tuple[object, ...], name: str) -> None:
    assert immunogate(*gate, "--backend", name).status == 0


def test_cuda_without_a_device_is_refused_with_its_remedy(immunogate: Command, gate: tuple[object, ...]) -> None:
    immunogate(*gate, "--backend", "cuda").refused(1, "no NVIDIA driver is installed", "--backend cpu")


def test_an_unknown_backend_is_wrong_use(immunogate: Command, gate: tuple[object, ...]) -> None:
    done = immunogate(*gate, "--backend", "opencl")
    assert done.status == 2
    assert "choose from" in done.err


def test_enroll_and_calibrate_have_the_flag_too(immunogate: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "people" / "a").mkdir(parents=True)
    (tmp_path / "people" / "a" / "a.png").touch()
    words = ("--bundle", tiny_bundle.folder, "--gallery", tmp_path / "g.db", "--backend", "cuda", tmp_path / "people")
    immunogate("enroll", *words).refused(1, "no NVIDIA driver is installed")
    assert "--backend" in immunogate("calibrate", "threshold", "--help").out


def test_doctor_says_what_a_gpu_lacks_and_what_that_costs(immunogate: Command, monkeypatch: Any) -> None:
    from immunogate.cli import doctor_gpu
    from immunogate.kernels import compilers, device

    monkeypatch.setattr(device, "probe", lambda: device.DriverState(None, problem="no driver", remedy="Install one"))
    monkeypatch.setattr(device, "binding_versions", lambda: {"pycuda": None, "cuda-core": None})
    monkeypatch.setattr(compilers, "find_compilers", lambda: ())
    monkeypatch.setattr(doctor_gpu, "_host_compiler", lambda: None)
    report = json.loads(immunogate("doctor", "--json").out)["gpu"]
    assert (report["driver"], report["devices"], report["host_compiler"]) == (None, [], None)
    assert report["compilers"] == {"nvcc": None, "nvrtc": None}
    said = immunogate("doctor").out
    for words in ("faces are purified on the CPU", "none: no driver. Install one", "make pycuda",
                  "pip install 'immunogate[gpu]'", "clones are drawn by NumPy", "pip install nvidia-cuda-nvrtc",
                  "--backend cuda can not be used here", "ready to run a gate on the CPU"):  # fmt: skip
        assert words in said


def test_doctor_knows_when_a_gpu_can_be_used() -> None:
    from immunogate.cli.doctor_gpu import gpu_is_usable, gpu_to_lines

    full: dict[str, Any] = {
        "driver": "13.0",
        "devices": [{"name": "A device", "architecture": "sm_90"}],
        "problem": None,
        "remedy": None,
        "bindings": {"pycuda": None, "cuda-core": "1.2.2"},
        "compilers": {"nvcc": None, "nvrtc": None},
        "prebuilt": ["sm_90"],
        "host_compiler": "/usr/bin/g++",
    }
    assert gpu_is_usable(full)
    assert "A device (sm_90)" in "\n".join(gpu_to_lines(full))
    for name, value in (("devices", []), ("bindings", {"pycuda": None}), ("prebuilt", [])):
        assert not gpu_is_usable(full | {name: value})
    assert gpu_is_usable(full | {"prebuilt": [], "compilers": {"nvcc": None, "nvrtc": "nvrtc 13.0"}})
