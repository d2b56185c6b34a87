"""Options of the providers, their caches, and what they need."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.kernels.device.driver import DeviceError
from immunogate.runtime.runners import providers, rtx
from immunogate.runtime.runners.base import Network
from immunogate.runtime.runners.check import (
    LARGEST_ERROR,
    LARGEST_INT8_ERROR,
    largest_error,
    made_up_batch,
    tolerance_for,
)
from immunogate.runtime.runners.choose import open_runner
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.runtime.runners.providers import CUDA, TENSORRT, private_cache, ranges, require_provider


def _options(fake: Any, provider: str) -> dict[str, str]:
    return next(settings for name, settings, _ in fake.opened if name == provider)


def test_cuda_keeps_the_precision_of_the_onnx(fake_onnxruntime: Any, network: Network) -> None:
    fake_onnxruntime.behaviours[CUDA] = "right"
    open_runner(replace(network, device=1), "cuda")
    options = _options(fake_onnxruntime, CUDA)
    assert options["use_tf32"] == "0"
    assert options["device_id"] == "1"
    assert not [name for name in options if "fp16" in name]


def test_tensorrt_keeps_what_it_compiled_and_compiles_for_all_sizes_at_once(
    fake_onnxruntime: Any, network: Network, tmp_path: Path
) -> None:
    fake_onnxruntime.behaviours[TENSORRT] = "right"
    open_runner(network, "ort-tensorrt")
    options = _options(fake_onnxruntime, TENSORRT)
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_relative_to(tmp_path / "cache" / "immunogate" / "ort-tensorrt")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert options["trt_profile_min_shapes"] == "face:1x3x112x96"
    assert options["trt_profile_max_shapes"] == "face:16x3x112x96"
    assert not [name for name in options if "fp16" in name or "int8" in name]


def test_rtx_is_asked_for_by_device_and_registered_once(fake_onnxruntime: Any, network: Network) -> None:
    fake_onnxruntime.behaviours[rtx.NAME] = "right"
    open_runner(network, "rtx")
    options = _options(fake_onnxruntime, rtx.NAME)
    assert options["nv_profile_max_shapes"] == "face:16x3x112x96"
    assert Path(options["nv_runtime_cache_path"]).is_dir()
    assert fake_onnxruntime.registered == [rtx.NAME]


def test_a_plugin_that_finds_no_card_says_which_it_supports(fake_onnxruntime: Any, network: Network) -> None:
    fake_onnxruntime.behaviours[rtx.NAME] = "no device"
    with pytest.raises(DeviceError, match=r"finds 0 devices .* RTX cards from Ampere on"):
        open_runner(network, "rtx")


def test_an_old_onnx_runtime_has_no_plugins(fake_onnxruntime: Any, network: Network) -> None:
    fake_onnxruntime.behaviours[rtx.NAME] = "right"
    fake_onnxruntime.__version__ = "1.23.2"
    with pytest.raises(DeviceError, match=r"ONNX Runtime 1\.23\.2 is too old"):
        open_runner(network, "rtx")


def test_a_plugin_that_can_not_be_loaded_is_told_in_its_words(
    fake_onnxruntime: Any, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, path: str) -> None:
        raise RuntimeError("libnvidia-ml.so.1:\n cannot open shared object file")

    fake_onnxruntime.behaviours[rtx.NAME] = "right"
    monkeypatch.setattr(fake_onnxruntime, "register_execution_provider_library", refuse)
    with pytest.raises(DeviceError, match=r"libnvidia-ml\.so\.1: cannot open .* pip install"):
        open_runner(network, "rtx")


def test_nothing_is_said_on_stdout(fake_onnxruntime: Any, network: Network, capfd: pytest.CaptureFixture[str]) -> None:
    fake_onnxruntime.behaviours |= {CUDA: "silent", TENSORRT: "refuses"}
    for name in ("cuda", "ort-tensorrt"):
        with pytest.raises(DeviceError):
            open_runner(network, name)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("machine", "said"), [("x86_64", "pip install onnxruntime-gpu"), ("aarch64", "docs/jetson.md")]
)
def test_a_provider_that_was_not_built_in_says_what_brings_it(
    fake_onnxruntime: Any, monkeypatch: pytest.MonkeyPatch, machine: str, said: str
) -> None:
    monkeypatch.setattr(providers.platform, "machine", lambda: machine)
    with pytest.raises(DeviceError, match=f"built without {CUDA}.*{said}"):
        require_provider(CUDA)


def test_a_cache_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    folder = private_cache("rtx", b"model")
    assert private_cache("rtx", b"model") == folder
    assert private_cache("rtx", b"another") != folder
    folder.chmod(0o770)
    with pytest.raises(DeviceError, match="others can write to it"):
        private_cache("rtx", b"model")


def test_a_cache_that_can_not_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match=r"no folder for its cache.*XDG_CACHE_HOME"):
        private_cache("rtx", b"model")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_another_user_is_not_used(tmp_path: Path) -> None:
    os.chown(private_cache("rtx", b"model"), 12345, -1)
    with pytest.raises(DeviceError, match="another user's"):
        private_cache("rtx", b"model")


def test_ranges_of_shapes() -> None:
    assert ranges("x", [2, 1002], (2, 1002)) == ("", "")
    assert ranges("x", ["batch", 1002], (64, 1002)) == ("x:1x1002", "x:64x1002")
    assert ranges("input", [1, 3, "h", "w"], (1, 3, 640, 640)) == ("input:1x3x32x32", "input:1x3x640x640")


def test_the_made_up_batch_fits_every_network_of_a_bundle(tiny_bundle: Bundle) -> None:
    largest = {
        "detector.onnx": (1, 3, 8192, 96),
        "analyzer.onnx": (64, 1, 112, 112),
        "recogniser.onnx": (1, 3, 112, 96),
    }
    tried = {"detector.onnx": (1, 3, 640, 96), "analyzer.onnx": (2, 1, 112, 112), "recogniser.onnx": (1, 3, 112, 96)}
    for name, most in largest.items():
        runner = OnnxRunner(tiny_bundle.read(name), name, 1)
        batch = made_up_batch(runner.input_shape, most)
        assert batch.shape == tried[name]
        outputs = runner.run(batch)
        assert all(np.isfinite(values).all() and np.abs(values).max() > 0 for values in outputs.values()), name
        np.testing.assert_array_equal(batch, made_up_batch(runner.input_shape, most))


def test_the_error_is_that_of_the_worst_row() -> None:
    wanted = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    found = wanted + np.array([[0.0, 0.0], [0.0, 0.03]], np.float32)
    assert largest_error(found, wanted) == pytest.approx(0.03, rel=1e-5)
    assert largest_error(wanted, wanted) == 0 < LARGEST_ERROR
    assert np.isnan(largest_error(found * np.float32("nan"), wanted))


def test_a_network_of_8_bits_may_differ_by_more(fake_onnxruntime: Any, network: Network) -> None:
    assert tolerance_for(network.model) == tolerance_for(b"..DequantizeLinear..") == LARGEST_ERROR, "weights alone"
    assert tolerance_for(b"..QuantizeLinear..DequantizeLinear..") == LARGEST_INT8_ERROR
    fake_onnxruntime.behaviours[CUDA] = "scaled"  # by 2 %
    unknown = b"\xfa\x07\x0eQuantizeLinear"  # field 127, which a ModelProto does not have: it is passed over
    with pytest.raises(DeviceError, match=r"at most 0\.01 is accepted"):
        open_runner(network, "cuda")
    assert open_runner(replace(network, model=network.model + unknown), "cuda").kind == "cuda"
