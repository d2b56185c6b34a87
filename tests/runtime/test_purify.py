from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from immunogate.basis import Eigenbasis, basis_from_bytes
from immunogate.bundle import Bundle
from immunogate.faces_file import AlignedFaces, faces_from_pixels
from immunogate.kernels.antibody import MODES, AntibodySettings
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.runtime.purify import Purified, Purifier, kernels_for
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import Floats

FACES = 7
RANDOM = ("sample", "select")


def purifier_of(basis: Eigenbasis, settings: AntibodySettings, analyzer: Any = None) -> Purifier:
    return Purifier(settings, kernels_for(basis, settings, threads=1), analyzer)


@pytest.fixture(scope="module")
def chains(tiny_bundle: Bundle) -> Iterator[dict[str, FaceChain]]:
    opened = {mode: open_chain(tiny_bundle, mode=mode) for mode in MODES}
    yield opened
    for chain in opened.values():
        chain.close()


@pytest.fixture(scope="module")
def faces() -> Floats:
    draw = np.random.default_rng(3)
    return draw.uniform(-1, 1, (FACES, 12544)).astype(np.float32)


def purified(chain: FaceChain, faces: Floats, frames: list[int], numbers: list[int]) -> Purified:
    return chain.purifier.purify(faces, chain.purifier.key(frames, numbers))


def expect_equal(first: Purified, second: Purified) -> None:
    np.testing.assert_array_equal(first.faces, second.faces)
    np.testing.assert_array_equal(first.antibodies.weights, second.antibodies.weights)


@pytest.mark.data
def test_fixed_mode_is_the_projection_in_double_precision(real_bundle: Bundle, aligned_faces: AlignedFaces) -> None:
    basis = basis_from_bytes(real_bundle.read("basis.npz"), "basis.npz")
    faces = faces_from_pixels(aligned_faces.images[-40:])
    with open_chain(real_bundle) as chain:
        found = purified(chain, faces, [0] * 40, list(range(40)))
    rows, centred = basis.basis.astype(np.float64), faces.astype(np.float64) - basis.mean
    wanted = basis.mean + centred @ rows.T @ rows
    assert found.faces.shape == (40, 1, 12544)
    np.testing.assert_allclose(found.faces[:, 0], wanted, rtol=0, atol=2e-5)  # 0.003 grey levels
    assert found.antibodies.sizes().tolist() == [real_bundle.manifest.purifier.components] * 40
    assert np.abs(found.faces[:, 0] - faces).mean() > 0.005  # something was taken away


def test_fixed_mode_keeps_the_leading_eigenfaces_only(chains: dict[str, FaceChain], tiny_bundle: Bundle) -> None:
    basis = basis_from_bytes(tiny_bundle.read("basis.npz"), "basis.npz")
    top_k = tiny_bundle.manifest.purifier.top_k
    assert 0 < top_k < basis.components
    kept, left_out = basis.mean + 0.2 * basis.basis[top_k - 1], basis.mean + 0.2 * basis.basis[top_k]
    found = purified(chains["fixed"], np.stack([kept, left_out]), [0, 0], [1, 2]).faces[:, 0]
    np.testing.assert_allclose(found[0], kept, atol=1e-5)
    np.testing.assert_allclose(found[1], basis.mean, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_purified_faces_are_the_stated_antibodies_at_work(
    chains: dict[str, FaceChain], tiny_bundle: Bundle, faces: Floats, mode: str
) -> None:
    basis = basis_from_bytes(tiny_bundle.read("basis.npz"), "basis.npz")
    found = purified(chains[mode], faces, [5] * FACES, list(range(FACES)))
    weights = found.antibodies.weights.astype(np.float64)
    rows = basis.basis.astype(np.float64)[: weights.shape[2]]
    coefficients = (faces.astype(np.float64) - basis.mean) @ rows.T
    wanted = basis.mean + (weights * coefficients[:, None]) @ rows
    np.testing.assert_allclose(found.faces, wanted, rtol=0, atol=5e-5)
    assert found.antibodies.mode == mode


@pytest.mark.parametrize("mode", ["expected", "threshold"])
def test_weights_come_from_the_analyzer(chains: dict[str, FaceChain], faces: Floats, mode: str) -> None:
    probabilities = chains[mode].purifier.probabilities(faces)
    assert np.ptp(probabilities) > 0.3  # the test would say little of an analyzer that says nothing
    weights = purified(chains[mode], faces, [0] * FACES, [0] * FACES).antibodies.weights[:, 0]
    np.testing.assert_array_equal(weights, probabilities if mode == "expected" else probabilities > 0.5)


@pytest.mark.parametrize("mode", RANDOM)
def test_the_same_key_replays_bit_for_bit(
    chains: dict[str, FaceChain], tiny_bundle: Bundle, faces: Floats, mode: str
) -> None:
    keys = [9] * FACES, list(range(FACES))
    first = purified(chains[mode], faces, *keys)
    expect_equal(first, purified(chains[mode], faces, *keys))
    with open_chain(tiny_bundle, mode=mode, threads=1) as again:
        expect_equal(first, purified(again, faces, *keys))


@pytest.mark.parametrize("mode", RANDOM)
@pytest.mark.parametrize("change", ["frame", "face", "seed"])
def test_another_key_draws_another_antibody(
    chains: dict[str, FaceChain], tiny_bundle: Bundle, faces: Floats, mode: str, change: str
) -> None:
    first = purified(chains[mode], faces, [9] * FACES, list(range(FACES))).antibodies.weights
    frames = [10 if change == "frame" else 9] * FACES
    numbers = [n + 100 * (change == "face") for n in range(FACES)]
    seed = tiny_bundle.manifest.purifier.seed + (change == "seed")
    with open_chain(tiny_bundle, mode=mode, seed=seed) as chain:
        second = purified(chain, faces, frames, numbers).antibodies.weights
    assert (first != second).any(axis=(1, 2)).all()


@pytest.mark.parametrize("mode", RANDOM)
def test_equal_faces_of_one_frame_are_drawn_apart(chains: dict[str, FaceChain], faces: Floats, mode: str) -> None:
    twice = np.stack([faces[0], faces[0]])
    first, second = purified(chains[mode], twice, [1, 1], [1, 2]).antibodies.weights
    assert (first != second).any()


@pytest.mark.parametrize("mode", MODES)
def test_a_face_does_not_depend_on_its_company(chains: dict[str, FaceChain], faces: Floats, mode: str) -> None:
    frames, numbers = list(range(FACES)), [3 * n for n in range(FACES)]
    together = purified(chains[mode], faces, frames, numbers)
    order = np.random.default_rng(1).permutation(FACES)
    shuffled = purified(chains[mode], faces[order], [frames[i] for i in order], [numbers[i] for i in order])
    for place, face in enumerate(order):
        alone = purified(chains[mode], faces[face : face + 1], [frames[face]], [numbers[face]])
        for other, row in ((shuffled, place), (together, int(face))):
            # The analyzer's batches may round differently; everything after it is exact.
            np.testing.assert_allclose(other.antibodies.weights[row], alone.antibodies.weights[0], rtol=0, atol=1e-6)
            np.testing.assert_allclose(other.faces[row], alone.faces[0], rtol=0, atol=1e-5)
    if mode == "fixed":
        np.testing.assert_array_equal(shuffled.faces, together.faces[order])


def test_select_keeps_the_stated_number_of_different_clones(chains: dict[str, FaceChain], faces: Floats) -> None:
    found = purified(chains["select"], faces, [0] * FACES, list(range(FACES))).antibodies
    assert found.weights.shape[:2] == (FACES, 3)
    assert found.winners is not None
    assert all(len(set(row)) == 3 and max(row) < 32 for row in found.winners.tolist())


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "fixed"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -0.1])
def test_an_analyzer_that_gives_no_probabilities_is_an_error(
    tiny_bundle: Bundle, faces: Floats, mode: str, value: float
) -> None:
    class Damaged(OnnxRunner):
        def run(self, batch: Any) -> dict[str, Any]:
            outputs = super().run(batch)
            outputs["probabilities"][-1, 7] = value
            return outputs

    basis = basis_from_bytes(tiny_bundle.read("basis.npz"), "basis.npz")
    analyzer = Damaged(tiny_bundle.read("analyzer.onnx"), "analyzer.onnx")
    purifier = purifier_of(basis, AntibodySettings(mode), analyzer)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        purifier.purify(faces[:2], purifier.key([0, 0], [1, 2]))


def test_a_mode_that_needs_an_analyzer_does_not_start_without(tiny_bundle: Bundle, faces: Floats) -> None:
    basis: Eigenbasis = basis_from_bytes(tiny_bundle.read("basis.npz"), "basis.npz")
    with pytest.raises(ValueError, match="needs an analyzer"):
        purifier_of(basis, AntibodySettings("expected"))
    with pytest.raises(ValueError, match="no analyzer"):
        purifier_of(basis, AntibodySettings("fixed", top_k=3)).probabilities(faces)


def test_frame_numbers_wrap_instead_of_failing(chains: dict[str, FaceChain], faces: Floats) -> None:
    """A camera of 25 frames/s needs five years for 2**32 frames; a gate may run longer."""
    wrapped = purified(chains["sample"], faces[:1], [2**32 + 3], [1])
    expect_equal(wrapped, purified(chains["sample"], faces[:1], [3], [1]))


def _spectral_analyzer(genes: int, outputs: int) -> bytes:
    """One dense layer over a spectrum, and a sigmoid."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(12)
    weights = {"dense": draw.standard_normal((genes + 2, outputs)) / 10, "offset": draw.standard_normal(outputs)}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["spectrum", "dense", "offset"], ["mixed"]),
            helper.make_node("Sigmoid", ["mixed"], ["probabilities"]),
        ],
        "spectral",
        [helper.make_tensor_value_info("spectrum", TensorProto.FLOAT, ["batch", genes + 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(array.astype(np.float32), key) for key, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("mode", ["expected", "threshold", "sample", "select"])
def test_an_analyzer_of_spectra_purifies_as_defined(tiny_bundle: Bundle, faces: Floats, mode: str, gated: bool) -> None:
    from immunogate.kernels import reference

    basis = basis_from_bytes(tiny_bundle.read("basis.npz"), "basis.npz")
    genes = basis.components
    analyzer = OnnxRunner(_spectral_analyzer(genes, genes + gated), "analyzer.onnx", 1)
    purifier = purifier_of(basis, AntibodySettings(mode, clones=8, keep=3, seed=4), analyzer)
    found = purifier.purify(faces, purifier.key([2] * FACES, list(range(FACES))))
    c = reference.project(faces, basis.mean, basis.basis)
    read = reference.analyzer_input(faces, reference.spectrum(faces, basis.mean, c))
    wanted = analyzer.run(read)["probabilities"]
    np.testing.assert_allclose(purifier.probabilities(faces), wanted, atol=1e-4)
    weights = found.antibodies.weights
    assert weights.shape == (FACES, 3 if mode == "select" else 1, genes + gated)
    if mode == "expected":
        np.testing.assert_allclose(weights[:, 0], wanted, atol=1e-4)
    exact = reference.act(c, weights, basis.mean, basis.basis, faces)
    np.testing.assert_allclose(found.faces, exact, rtol=0, atol=5e-5)
    alone = purifier.purify(faces[2:3], purifier.key([2], [2]))
    np.testing.assert_allclose(found.faces[2:3], alone.faces, rtol=0, atol=1e-5)
    purifier.close()


def test_an_analyzer_of_spectra_is_not_asked_in_mode_fixed(tiny_bundle: Bundle, faces: Floats) -> None:
    basis = basis_from_bytes(tiny_bundle.read("basis.npz"), "basis.npz")
    analyzer = OnnxRunner(_spectral_analyzer(basis.components, basis.components + 1), "analyzer.onnx", 1)
    fixed = purifier_of(basis, AntibodySettings("fixed", top_k=9), analyzer)
    found = fixed.purify(faces, fixed.key([0] * FACES, list(range(FACES))))
    assert found.antibodies.weights.shape == (FACES, 1, 9)
    with pytest.raises(ValueError, match="no analyzer"):
        fixed.probabilities(faces)
    fixed.close()


def test_probabilities_of_another_number_are_refused(tiny_bundle: Bundle, faces: Floats) -> None:
    basis = basis_from_bytes(tiny_bundle.read("basis.npz"), "basis.npz")
    for outputs in (basis.components - 1, basis.components + 2):
        analyzer = OnnxRunner(_spectral_analyzer(basis.components, outputs), "analyzer.onnx", 1)
        purifier = purifier_of(basis, AntibodySettings("expected"), analyzer)
        with pytest.raises(ValueError, match=rf"probabilities: expected shape .*, got \(7, {outputs}\)"):
            purifier.purify(faces, purifier.key([0] * FACES, list(range(FACES))))
        purifier.close()
