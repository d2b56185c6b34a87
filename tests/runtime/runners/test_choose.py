"""Which runner is taken, and why not another: over a fake ONNX Runtime, and as it is on this machine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.errors import BundleError, UsageError
from immunogate.kernels.device.driver import DeviceError
from immunogate.runtime.chain import open_chain
from immunogate.runtime.runners import choose, rtx
from immunogate.runtime.runners.base import Network
from immunogate.runtime.runners.choose import KINDS, RUNNERS, obstacles, open_runner
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.runtime.runners.providers import CUDA, TENSORRT

NAMES = {"cuda": CUDA, "ort-tensorrt": TENSORRT, "rtx": rtx.NAME}


@pytest.mark.parametrize("name", NAMES)
def test_a_runner_that_gives_the_same_numbers_is_taken(fake_onnxruntime: Any, network: Network, name: str) -> None:
    fake_onnxruntime.behaviours[NAMES[name]] = "right"
    runner = open_runner(network, name)
    assert (runner.kind, runner.name, runner.passed_over) == (name, "recogniser.onnx", ())
    batch = np.random.default_rng(0).normal(size=(3, 3, 112, 96)).astype(np.float32)
    on_cpu = OnnxRunner(network.model, network.name, 1).run(batch)
    np.testing.assert_array_equal(runner.run(batch)["embedding"], on_cpu["embedding"])
    assert NAMES[name] in [opened[0] for opened in fake_onnxruntime.opened]
    assert not any(fallback for _, _, fallback in fake_onnxruntime.opened), "ONNX Runtime may fall back by itself"


@pytest.mark.parametrize(
    ("behaves", "said"),
    [
        ("silent", "does not start for recogniser.onnx; ONNX Runtime would run it on the CPU instead"),
        ("refuses", "does not start for recogniser.onnx: libcublas.so.13: cannot open shared object file"),
        ("takes nothing", "takes no part of recogniser.onnx"),
        ("scaled", "other numbers than the CPU from recogniser.onnx: embedding differ by 0.02"),
        ("nan", "other numbers than the CPU"),
        ("fails", "fails on recogniser.onnx: the device was lost"),
        ("other shape", r"gives no embedding of shape \(2, "),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_one_that_was_named_and_is_not_right_is_an_error(
    fake_onnxruntime: Any, network: Network, name: str, behaves: str, said: str
) -> None:
    fake_onnxruntime.behaviours[NAMES[name]] = behaves
    with pytest.raises(DeviceError, match=said) as caught:
        open_runner(network, name)
    assert caught.value.mend


def test_auto_prefers_engines_then_rtx_then_cuda_then_the_cpu(fake_onnxruntime: Any, network: Network) -> None:
    fake_onnxruntime.behaviours |= {rtx.NAME: "right", CUDA: "right"}
    assert open_runner(network, "auto").kind == "rtx"
    fake_onnxruntime.behaviours[rtx.NAME] = "scaled"
    runner = open_runner(network, "auto")
    assert runner.kind == "cuda"
    (engines, _), (passed, why) = runner.passed_over
    assert (engines, passed) == ("tensorrt", "rtx")
    assert "other numbers than the CPU" in why
    fake_onnxruntime.behaviours[CUDA] = "silent"
    runner = open_runner(network, "auto")
    assert runner.kind == "cpu"
    assert [name for name, _ in runner.passed_over] == ["tensorrt", "rtx", "cuda"]


def test_auto_never_takes_what_compiles_for_minutes(fake_onnxruntime: Any, network: Network) -> None:
    fake_onnxruntime.behaviours[TENSORRT] = "right"
    assert open_runner(network, "auto").kind == "cpu"
    assert TENSORRT not in [opened[0] for opened in fake_onnxruntime.opened]


def test_the_reasons_are_logged(fake_onnxruntime: Any, network: Network, caplog: pytest.LogCaptureFixture) -> None:
    fake_onnxruntime.behaviours[CUDA] = "scaled"
    with caplog.at_level("INFO"):
        open_runner(network, "auto")
    assert "cuda does not run recogniser.onnx: cuda computes other numbers" in caplog.text
    assert "recogniser.onnx runs on cpu" in caplog.text


def test_what_was_refused_is_closed(fake_onnxruntime: Any, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(OnnxRunner, "close", lambda runner: closed.append(runner.kind))
    fake_onnxruntime.behaviours[CUDA] = "nan"
    with pytest.raises(DeviceError):
        open_runner(network, "cuda")
    assert "cuda" in closed


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", NAMES)
def test_without_a_gpu_a_named_runner_is_refused_and_says_what_is_missing(network: Network, name: str) -> None:
    with pytest.raises(DeviceError, match=r"no NVIDIA driver is installed\. Install the driver"):
        open_runner(network, name)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_bit_for_bit(tiny_bundle: Bundle) -> None:
    crops = np.random.default_rng(4).integers(0, 256, (2, 112, 112), dtype=np.uint8)
    with (
        open_chain(tiny_bundle, mode="expected", runner="auto") as auto,
        open_chain(tiny_bundle, mode="expected") as cpu,
    ):
        assert {runner.name: runner.kind for runner in auto.runners} == {
            "detector.onnx": "cpu", "analyzer.onnx": "cpu", "recogniser.onnx": "cpu"}  # fmt: skip
        found, plain = (chain.recognise(crops, [1, 1], [1, 2]) for chain in (auto, cpu))
        np.testing.assert_array_equal(found.purified, plain.purified)
        assert [name for name, _ in auto.runners[0].passed_over] == ["tensorrt", "rtx", "cuda"]
        assert cpu.runners[0].passed_over == ()


def test_a_chain_that_can_not_be_opened_gives_back_what_was(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(OnnxRunner, "close", lambda runner: closed.append(runner.name))

    def refuse(*_: Any) -> None:
        raise DeviceError("the backend can not be used")

    monkeypatch.setattr("immunogate.runtime.chain.Purifier", refuse)
    with pytest.raises(DeviceError):
        open_chain(tiny_bundle, mode="expected")
    assert sorted(closed) == ["analyzer.onnx", "detector.onnx", "recogniser.onnx"]


def test_a_closed_chain_closes_its_networks(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(OnnxRunner, "close", lambda runner: closed.append(runner.name))
    open_chain(tiny_bundle, mode="fixed").close()
    assert sorted(closed) == ["detector.onnx", "recogniser.onnx"]


def test_a_runner_is_told_the_role_the_bundle_and_the_largest_input(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[Any, Network] = {}

    def note(network: Network, runner: str) -> Any:
        asked[network.role] = network
        return open_runner(network, runner)

    monkeypatch.setattr("immunogate.runtime.chain.open_runner", note)
    open_chain(tiny_bundle, mode="expected", threads=1, longest_side=500).close()
    assert {role: network.largest for role, network in asked.items()} == {
        "detector": (1, 3, 512, 512), "analyzer": (64, 1, 112, 112), "recogniser": (16, 3, 112, 96)}  # fmt: skip
    assert all(network.bundle is tiny_bundle for network in asked.values())


def test_a_closed_runner_runs_no_more(network: Network) -> None:
    runner = open_runner(network)
    runner.close()
    runner.close()
    with pytest.raises(AttributeError):
        runner.run(np.zeros((1, 3, 112, 96), np.float32))


def test_an_unknown_runner_is_wrong_use(network: Network) -> None:
    with pytest.raises(UsageError, match=r"unknown runner 'tpu'\. Use one of: .*auto"):
        open_runner(network, "tpu")


@pytest.mark.parametrize("name", ["cpu", "rtx", "ort-tensorrt", "auto"])
def test_what_is_no_network_is_named_whoever_runs_it(fake_onnxruntime: Any, network: Network, name: str) -> None:
    fake_onnxruntime.behaviours |= {rtx.NAME: "right", TENSORRT: "right"}
    with pytest.raises(BundleError, match=r"does not accept recogniser\.onnx"):
        open_runner(replace(network, model=b"no network"), name)


def test_obstacles_are_told_without_opening_anything(fake_onnxruntime: Any) -> None:
    fake_onnxruntime.behaviours[CUDA] = "right"
    found = obstacles()
    assert set(found) == set(KINDS) == set(RUNNERS) - {"auto"}
    assert found["cpu"] is None
    assert found["cuda"] is None
    assert "onnxruntime-ep-nv-tensorrt-rtx-cu13" in str(found["rtx"])
    assert "built without TensorrtExecutionProvider" in str(found["ort-tensorrt"])
    assert fake_onnxruntime.opened == []


def test_the_cpu_is_tried_last() -> None:
    assert list(KINDS)[-1] == "cpu"
    assert choose.KINDS["cpu"].by_itself


def test_choosing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from immunogate.runtime.runners import choose; print(*sorted("
        "{'onnxruntime', 'tensorrt', 'torch', 'onnx', 'cv2', 'pycuda'} & set(sys.modules)), len(choose.RUNNERS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(len(RUNNERS))
