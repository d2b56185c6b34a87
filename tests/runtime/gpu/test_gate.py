"""A gate whose faces stay on the (fake) device decides as the one on the CPU does, on real frames and the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_device import FakeEngine

from immunogate.bundle import Bundle, open_bundle
from immunogate.default_models import shipped_bundle
from immunogate.kernels.device import Device
from immunogate.kernels.launch import CudaKernels
from immunogate.runtime import chain as chains
from immunogate.runtime import purify
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu import face_path
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.runners.onnx import OnnxRunner

VARYING = ("decision_id", "captured_at", "decided_at", "age_ms", "latency_ms")


@pytest.fixture
def wired(request: pytest.FixtureRequest, device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """``open_chain(..., backend="cuda")`` opens the fake device, and every network is a fake engine on it.

    The detector's is for frames of 480 x 270 alone, so that turned views of a face are searched on the host.
    """
    real, engines = purify.open_kernels, []

    def open_kernels(backend: str, mean: Any, rows: Any, threads: int | None = None) -> Any:
        return CudaKernels(mean, rows, device) if backend == "cuda" else real(backend, mean, rows, threads)

    def open_engine(model: bytes, name: str, threads: int | None = None) -> FakeEngine:
        shape, buckets = ((3, 288, 480), (1,)) if name == "detector.onnx" else ((), (1, 4, 6))
        engines.append(FakeEngine(OnnxRunner(model, name, threads), device, buckets, shape))
        return engines[-1]

    monkeypatch.setattr(purify, "open_kernels", open_kernels)
    monkeypatch.setattr(chains, "OnnxRunner", open_engine)
    options = {"buckets": getattr(request, "param", (1, 2)), "details": False, "stream": None}
    monkeypatch.setattr(face_path.FacePath.__init__, "__kwdefaults__", options)
    yield device
    for engine in engines:
        engine.close()


def decisions(chain: FaceChain, frames: list[Any], templates: Templates) -> list[dict[str, Any]]:
    """Of fresh frames of the same pixels, without what differs from run to run."""
    gate = Gate(chain, templates, Policy(0.4, 0.6, confirm_frames=2, max_decision_age_ms=60_000), "0" * 64)
    found = []
    for frame in frames:
        records = [decision.__dict__ for decision in gate.process(frame).decisions]
        found += [{name: value for name, value in record.items() if name not in VARYING} for record in records]
    return found


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other) > 1
    for a, b in zip(one, other, strict=True):
        numbers = [name for name, value in a.items() if isinstance(value, float)]
        for name in numbers:
            assert abs(a[name] - b[name]) < 2e-3, name
        assert {k: v for k, v in a.items() if k not in numbers} == {k: v for k, v in b.items() if k not in numbers}


def enrolled(bundle: Bundle, frames: list[Any], mode: str) -> Templates:
    """The man of the first frame, and two who do not come."""
    with open_chain(bundle, mode=mode) as chain:
        landmarks = chain.detector.detect(frames[0].pixels).landmarks[0]
        crop, _ = chain.crop(frames[0].pixels, landmarks)
        man = chain.recognise(crop[None], [0], [0]).purified[0]
    others = np.random.default_rng(1).normal(size=(2, len(man)))
    vectors = np.stack([others[0], man, others[1]]).astype(np.float32)
    return Templates(["nobody", "man", "else"], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.data
@pytest.mark.parametrize("mode", ["select", "threshold"])
def test_decisions_on_a_clip(wired: Device, tiny_bundle: Bundle, clip: Any, frame_of: Any, mode: str) -> None:
    """Two people, several looks; the tiny bundle's networks are random, and so is who is recognised."""
    frames = [frame_of(frame.pixels, frame.index) for frame in clip("both")[:6]]
    templates = enrolled(tiny_bundle, frames, mode)
    with open_chain(tiny_bundle, mode=mode) as cpu, open_chain(tiny_bundle, mode=mode, backend="cuda") as chain:
        assert wired.made["graph"] == 2
        want = decisions(cpu, frames, templates)
        same(decisions(chain, frames, templates), want)
        before = dict(wired.made)
        assert before["graph"] == 3  # the detector's, for frames of this size
        same(decisions(chain, frames, templates), want)
        assert wired.made == before


@pytest.mark.data
@pytest.mark.parametrize("wired", [(1,)], indirect=True, ids=["one face"])
def test_decisions_of_the_bundle_that_ships(wired: Device, clip: Any, frame_of: Any) -> None:
    if not (shipped_bundle() / "manifest.json").is_file():
        pytest.skip("no bundle ships with this checkout")
    bundle = open_bundle(shipped_bundle())
    frames = [frame_of(frame.pixels, frame.index) for frame in clip("man")[:4]]
    templates = enrolled(bundle, frames, "expected")
    with open_chain(bundle) as cpu, open_chain(bundle, backend="cuda") as chain:
        want = decisions(cpu, frames, templates)
        same(decisions(chain, frames, templates), want)
    assert "allow" in {decision["outcome"] for decision in want}


@pytest.mark.data
def test_a_face_with_a_fault_is_denied_and_the_other_is_not(
    wired: Device, tiny_bundle: Bundle, clip: Any, frame_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [frame_of(frame.pixels, frame.index) for frame in clip("both")[:3]]
    templates = enrolled(tiny_bundle, frames, "expected")
    with open_chain(tiny_bundle, mode="expected", backend="cuda") as chain:
        recognise = chain._path.recognise  # type: ignore[union-attr]

        def broken(*given: Any) -> Any:
            found = recognise(*given)
            return replace(found, faults=["the analyzer broke", *found.faults[1:]])

        monkeypatch.setattr(chain._path, "recognise", broken)
        first, second = decisions(chain, frames[:1], templates)
        with pytest.raises(ValueError, match="the analyzer broke"):  # to whom does not ask for each, it is the CPU's
            chain.recognise(np.zeros((2, 112, 112), np.uint8), [0, 0], [1, 2])
    assert (first["outcome"], first["reason"], first["detail"]) == ("deny", "error", "the analyzer broke")
    assert second["reason"] != "error"
    assert second["similarity"] is not None


def test_where_a_network_can_not_run_there_the_chain_is_as_before(
    wired: Device, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "OnnxRunner", OnnxRunner)
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
