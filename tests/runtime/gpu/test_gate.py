"""A gate whose faces stay on the (fake) device decides as the one on the CPU does, on real frames and the same seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_networks import FakeEngine

from immunogate.bundle import Bundle
from immunogate.kernels.device import Device
from immunogate.kernels.launch import CudaKernels
from immunogate.runtime import chain as chains
from immunogate.runtime import purify
from immunogate.runtime.chain import open_chain
from immunogate.runtime.gpu import face_path
from immunogate.runtime.runners.base import Network, Runner
from immunogate.runtime.runners.choose import open_runner
from immunogate.runtime.runners.onnx import OnnxRunner


@pytest.fixture
def wired(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """``open_chain(..., backend="cuda")`` opens the fake device, and every network is a fake engine on it.

    The detector's is for frames of 480 x 270 alone, so that turned views of a face are searched on the host.
    """
    real = purify.open_kernels

    def open_kernels(backend: str, mean: Any, rows: Any, threads: int | None = None) -> Any:
        return CudaKernels(mean, rows, device) if backend == "cuda" else real(backend, mean, rows, threads)

    def open_engine(network: Network, runner: str) -> Runner:
        onnx = OnnxRunner(network.model, network.name, network.threads)
        if network.shared is None:
            return onnx
        shape, buckets = ((3, 288, 480), (1,)) if network.role == "detector" else ((), (1, 4, 6))
        return FakeEngine(onnx, device, buckets, shape)

    monkeypatch.setattr(purify, "open_kernels", open_kernels)
    monkeypatch.setattr(chains, "open_runner", open_engine)
    options = {"buckets": (1, 2), "details": False, "stream": None}
    monkeypatch.setattr(face_path.FacePath.__init__, "__kwdefaults__", options)
    return device


@pytest.mark.data
def test_decisions_on_a_clip(wired: Device, tiny_bundle: Bundle, clip: Any, frame_of: Any, deciding: Any) -> None:
    """Two people, several looks; the tiny bundle's networks are random, and so is who is recognised."""
    frames = [frame_of(frame.pixels, frame.index) for frame in clip("both")[:4]]
    with open_chain(tiny_bundle, mode="select") as cpu, open_chain(tiny_bundle, mode="select", backend="cuda") as chain:
        templates = deciding.enrolled(cpu, frames)
        assert wired.made["graph"] == 3  # two buckets' and the one of a frame that was tried
        want = deciding.decisions(cpu, frames, templates)
        deciding.same(deciding.decisions(chain, frames, templates), want)
        before = dict(wired.made)
        assert before["graph"] == 4  # the detector's, for frames of this size
        deciding.same(deciding.decisions(chain, frames, templates), want)
        assert wired.made == before


@pytest.mark.data
def test_a_face_with_a_fault_is_denied_and_the_other_is_not(
    wired: Device, tiny_bundle: Bundle, clip: Any, frame_of: Any, deciding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [frame_of(frame.pixels, frame.index) for frame in clip("both")[:3]]
    with open_chain(tiny_bundle, mode="expected", backend="cuda") as chain:
        templates = deciding.enrolled(chain, frames)
        recognise = chain._path.recognise  # type: ignore[union-attr]

        def broken(*given: Any) -> Any:
            found = recognise(*given)
            return replace(found, faults=["the analyzer broke", *found.faults[1:]])

        monkeypatch.setattr(chain._path, "recognise", broken)
        first, second = deciding.decisions(chain, frames[:1], templates)
        with pytest.raises(ValueError, match="the analyzer broke"):  # to whom does not ask for each, it is the CPU's
            chain.recognise(np.zeros((2, 112, 112), np.uint8), [0, 0], [1, 2])
    assert (first["outcome"], first["reason"], first["detail"]) == ("deny", "error", "the analyzer broke")
    assert second["reason"] != "error"
    assert second["similarity"] is not None


def test_where_a_network_can_not_run_there_the_chain_is_as_before(
    wired: Device, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "open_runner", open_runner)
    crops = np.random.default_rng(4).integers(0, 256, (2, 112, 112), dtype=np.uint8)
    with open_chain(tiny_bundle, mode="select", backend="cuda") as chain:
        found = chain.recognise(crops, [1, 1], [1, 2])
        assert "graph" not in wired.made
        assert (found.faults, found.matches, found.known) == ((), (), None)


@pytest.mark.parametrize("fault", ["antibodies", "pixels", "embeddings", "fault"])
def test_a_path_that_gives_other_numbers_is_not_taken(
    wired: Device, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """One bit of one mask, one pixel, one embedding turned; the chain goes by way of the host, and says so."""
    recognise = face_path.FacePath.recognise

    def broken(path: Any, crops: Any, *given: Any) -> Any:
        found = recognise(path, crops, *given)
        if len(found) < 2:
            return found
        if fault == "antibodies":
            found.masks[1, 0, 1] ^= 1 << 7
        elif fault == "pixels":
            found.pictures[1, 0, 77] += 0.01
        elif fault == "embeddings":
            found.purified[1] = found.purified[1][::-1]
        return replace(found, faults=[None, "broke"]) if fault == "fault" else found

    monkeypatch.setattr(face_path.FacePath, "recognise", broken)
    crops = np.random.default_rng(4).integers(0, 256, (2, 112, 112), dtype=np.uint8)
    with open_chain(tiny_bundle, mode="threshold", backend="cuda") as chain:
        assert fault in caplog.text
        assert chain.recognise(crops, [1, 1], [1, 2]).known is None
        assert "graph" not in wired.live
