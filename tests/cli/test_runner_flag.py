"""The flag --runner: the CPU unless asked, auto with its reasons, a clear refusal of what is not here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.cli.common import grouped
from immunogate.kernels.device import DeviceError
from immunogate.runtime.runners import providers, rtx, tensorrt

Command = Callable[..., Any]
HAS_FLAG = (("run",), ("enroll",), ("verify",), ("calibrate", "threshold"))


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int = 0) -> None:
        raise DeviceError("no NVIDIA driver is installed", "Install the driver of your GPU")

    for needs_one in (providers, rtx, tensorrt):
        monkeypatch.setattr(needs_one, "require_device", refuse)


def test_auto_says_what_it_took_and_why(gate: Command, tmp_path: Path) -> None:
    done = gate("synthetic://?frames=3", "--json", "--runner", "auto", "--summary", tmp_path / "s.json")
    assert done.status == 0
    assert "runner: cpu\n  not tensorrt, rtx, cuda: no NVIDIA driver is installed. Install" in done.err
    runners = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["runners"]
    assert runners == {"detector.onnx": "cpu", "recogniser.onnx": "cpu"}
    assert "networks ran on: cpu" in done.err


def test_without_the_flag_nothing_is_said_of_runners_before_the_summary(gate: Command) -> None:
    done = gate("synthetic://?frames=3")
    assert done.status == 0
    assert "runner:" not in done.err
    assert "networks ran on: cpu" in done.out


@pytest.mark.parametrize("name", ["cuda", "ort-tensorrt", "rtx", "tensorrt"])
def test_a_runner_that_is_not_here_is_refused_with_its_remedy(gate: Command, name: str) -> None:
    gate("synthetic://?frames=3", "--runner", name).refused(1, "no NVIDIA driver is installed", "Install the driver")


def test_an_unknown_runner_is_wrong_use(gate: Command) -> None:
    done = gate("synthetic://?frames=3", "--runner", "tpu")
    assert done.status == 2
    assert "choose from" in done.err


@pytest.mark.parametrize("words", HAS_FLAG)
def test_who_opens_a_chain_for_a_user_has_the_flag(immunogate: Command, words: tuple[str, ...]) -> None:
    assert "--runner {cpu,cuda,ort-tensorrt,rtx,tensorrt,auto}" in " ".join(immunogate(*words, "--help").out.split())


def test_enroll_and_calibrate_hand_it_on(immunogate: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "people" / "a").mkdir(parents=True)
    (tmp_path / "people" / "a" / "a.png").touch()
    words = ("--bundle", tiny_bundle.folder, "--gallery", tmp_path / "g.db", "--runner", "cuda", tmp_path / "people")
    immunogate("enroll", *words).refused(1, "no NVIDIA driver is installed")
    images = np.random.default_rng(0).integers(0, 256, (40, 112, 112), dtype=np.uint8)
    np.savez(tmp_path / "faces.npz", images=images, identities=np.repeat(list("abcdefghij"), 4))
    words = (tiny_bundle.folder, tmp_path / "faces.npz", "--out", tmp_path / "copy", "--runner", "cuda")
    immunogate("calibrate", "threshold", *words).refused(1, "no NVIDIA driver is installed")


def test_reasons_that_are_alike_are_said_once() -> None:
    assert grouped({"a": "x", "b": "y", "c": "x"}) == {"x": ["a", "c"], "y": ["b"]}
