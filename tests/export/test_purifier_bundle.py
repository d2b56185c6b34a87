"""A bundle with a purifier, from checkpoint to verification, in every mode and storage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch

from immunogate.basis import STORAGES
from immunogate.bundle import open_bundle, write_manifest
from immunogate.errors import BundleError, UsageError
from immunogate.export import assemble
from immunogate.export.assemble import ExportOptions, drawn_faces, export_bundle
from immunogate.export.checks import table
from immunogate.export.sources import load_sources
from immunogate.export.verify import LIMITS, STORAGE_LIMITS, verify
from immunogate.networks.twin import TorchTwin
from immunogate.runtime.chain import open_chain
from immunogate.structs import Floats

Command = Callable[..., Any]

pytestmark = [pytest.mark.data, pytest.mark.torch]

MODES = ("fixed", "expected", "threshold", "sample", "select")
GENES = 120


@pytest.fixture(scope="module")
def sources(made: Path, recogniser: Path) -> Any:
    return load_sources(made / "basis.npz", recogniser, "mobilefacenet", made / "purifier.pt", 0.5)


@pytest.fixture(scope="module")
def export(sources: Any, yunet: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Export with options; each graph is made only once, which takes seconds and gives the same every time."""
    graphs = {}
    real = vars(assemble)["graph_of"]

    def graph_of(*arguments: Any) -> Any:
        if arguments[1:] not in graphs:
            graphs[arguments[1:]] = real(*arguments)
        copy = type(graphs[arguments[1:]])()
        copy.CopyFrom(graphs[arguments[1:]])
        return copy

    def run(**options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(assemble, "graph_of", graph_of)
            out = tmp_path_factory.mktemp("export") / "bundle"
            return export_bundle(sources, yunet, out, ExportOptions(**options))

    return run


@pytest.fixture(scope="module")
def bundle(export: Command) -> Any:
    return export(clones=16, keep=3, seed=5, license="for tests")


def _checks(bundle: Any, sources: Any, crops: Any, mode: str | None = None) -> Any:
    manifest = bundle.manifest
    mode = mode or manifest.purifier.mode
    twin = TorchTwin(sources.recogniser, sources.spec, sources.basis, mode, manifest.purifier.top_k, sources.purifier)
    from immunogate.basis import basis_from_bytes

    stored = basis_from_bytes(bundle.read("basis.npz"), "basis.npz")
    with open_chain(bundle, mode=mode) as chain:
        return verify(twin, chain, stored, crops, manifest.recogniser.precision, batch=4)


def test_the_manifest_says_what_was_made(bundle: Any) -> None:
    manifest = bundle.manifest
    assert manifest.analyzer is not None
    assert (manifest.purifier.mode, manifest.purifier.components) == ("expected", GENES)
    assert (manifest.purifier.clones, manifest.purifier.keep, manifest.purifier.seed) == (16, 3, 5)
    assert manifest.provenance["memory_temperature"] == 0.5
    assert set(manifest.provenance["checkpoints"]) == {"basis", "recogniser", "purifier", "detector"}
    assert manifest.provenance["tools"]["torch"] == torch.__version__
    assert "analyzer.onnx" in manifest.files
    bundle.check()


def test_nothing_in_the_bundle_names_a_folder_of_this_machine(bundle: Any, made: Path, recogniser: Path) -> None:
    for name in ("manifest.json", "MODEL_CARD.md"):
        text = (bundle.folder / name).read_text(encoding="utf-8")
        for folder in (str(made), str(recogniser.parent), str(bundle.folder), "/tmp"):
            assert folder not in text


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_verified(bundle: Any, sources: Any, faces: Any, mode: str) -> None:
    checks = _checks(bundle, sources, faces.images, mode)
    assert all(check.passed for check in checks), table(checks)
    outputs = {check.output for check in checks}
    assert ("probabilities" in outputs) == (mode != "fixed")
    assert all(np.isfinite(check.value) for check in checks)


@pytest.mark.parametrize(
    ("storage", "precision"),
    [*((storage, "fp32") for storage in STORAGES), ("float16", "fp16"), ("float32", "fp16-weights")],
)
def test_every_storage_and_precision_keeps_its_own_limits(
    export: Command, sources: Any, faces: Any, storage: Any, precision: str
) -> None:
    made = export(storage=storage, precision=precision)
    assert made.manifest.purifier.storage == storage
    checks = _checks(made, sources, faces.images[:4])
    assert all(check.passed for check in checks), table(checks)
    by_name = {(check.output, check.measure): check for check in checks}
    purified = by_name["embedding of purified faces", "min cosine"]
    assert purified.limit == min(LIMITS[precision]["cosine"], STORAGE_LIMITS[storage]["cosine"])
    if storage != "float32" or precision != "fp32":
        assert purified.value < 1 - 1e-8, "a smaller form can not be exact: nothing was compared"


def test_another_purifier_fails_the_probabilities(bundle: Any, sources: Any, faces: Any) -> None:
    other = replace(sources, purifier=_shaken(sources.purifier, 0.03))
    failed = {check.output for check in _checks(bundle, other, faces.images[:3]) if not check.passed}
    assert "probabilities" in failed


def test_another_recogniser_fails_the_raw_embedding(bundle: Any, sources: Any, faces: Any) -> None:
    other = replace(sources, recogniser=_shaken(sources.recogniser, 0.01))
    failed = {check.output for check in _checks(bundle, other, faces.images[:3]) if not check.passed}
    assert "embedding of raw faces" in failed


def test_another_basis_fails_the_purified_embedding(bundle: Any, sources: Any, faces: Any) -> None:
    rows = sources.basis.basis.copy()
    rows[[3, 90]] = rows[[90, 3]]  # two eigenfaces changed places: their probabilities speak of the wrong one
    other = replace(sources, basis=replace(sources.basis, basis=rows))
    failed = {check.output for check in _checks(bundle, other, faces.images[:3]) if not check.passed}
    assert "embedding of purified faces" in failed


def test_kernels_that_are_wrong_fail_the_pixels(
    bundle: Any, sources: Any, faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from immunogate.kernels.cpu import CpuKernels

    real = CpuKernels.act
    monkeypatch.setattr(CpuKernels, "act", lambda self, *rest, **more: real(self, *rest, **more) + np.float32(2e-4))
    failed = {check.output for check in _checks(bundle, sources, faces.images[:3]) if not check.passed}
    assert "purified pixels" in failed


def _shaken(network: Any, noise: float) -> Any:
    import copy

    shaken = copy.deepcopy(network)
    torch.manual_seed(4)
    with torch.no_grad():
        for values in shaken.parameters():
            values.mul_(1 + noise * torch.randn_like(values))
    return shaken


def test_gradients_flow_through_the_twin_in_every_deterministic_mode(sources: Any, rows_of_faces: Floats) -> None:
    for mode in ("fixed", "expected", "threshold"):
        twin = TorchTwin(sources.recogniser, sources.spec, sources.basis, mode, 60, sources.purifier)
        faces = torch.from_numpy(rows_of_faces[:2]).requires_grad_()
        twin(faces)[:, 0].sum().backward()
        assert faces.grad is not None
        assert torch.isfinite(faces.grad).all()
        assert faces.grad.abs().amax(dim=1).min() > 0, mode
    with torch.no_grad():
        assert (twin(faces).norm(dim=1) - 1).abs().max() < 1e-5


def test_the_analyzer_has_a_gradient_of_its_own_in_mode_expected(sources: Any, rows_of_faces: Floats) -> None:
    """With the antibody held constant the gradient differs: an attacker goes through the analyzer too."""
    twin = TorchTwin(sources.recogniser, sources.spec, sources.basis, "expected", purifier=sources.purifier)

    def gradient(weights: Any) -> Any:
        faces = torch.from_numpy(rows_of_faces[:1]).requires_grad_()
        return torch.autograd.grad(twin.embed(twin.purify(faces, weights(faces)))[0, 0], faces)[0]

    through, held = gradient(twin.probabilities), gradient(lambda faces: twin.probabilities(faces).detach())
    assert (through - held).abs().max() > 1e-3 * held.abs().max()


def test_the_twin_needs_a_purifier_or_weights(sources: Any, rows_of_faces: Floats) -> None:
    faces = torch.from_numpy(rows_of_faces[:1])
    with pytest.raises(ValueError, match="needs a purifier"):
        TorchTwin(sources.recogniser, sources.spec, sources.basis, "expected")
    bare = TorchTwin(sources.recogniser, sources.spec, sources.basis, "fixed", 3)
    with pytest.raises(ValueError, match="no purifier"):
        bare.probabilities(faces)
    drawing = TorchTwin(sources.recogniser, sources.spec, sources.basis, "sample", purifier=sources.purifier)
    with pytest.raises(ValueError, match="give their weights"):
        drawing(faces)


def test_mode_fixed_keeps_the_leading_eigenfaces(sources: Any, rows_of_faces: Floats) -> None:
    twin = TorchTwin(sources.recogniser, sources.spec, sources.basis, "fixed", 7)
    basis = sources.basis
    by_hand = basis.mean + (rows_of_faces - basis.mean) @ basis.basis[:7].T @ basis.basis[:7]
    with torch.no_grad():
        found = twin.purify(torch.from_numpy(rows_of_faces)).numpy()
    assert np.abs(found - by_hand).max() < 1e-4


def test_the_model_card_says_what_is_inside_and_what_it_is_not(bundle: Any, sources: Any) -> None:
    card = (bundle.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in (
        "mode expected", "analyzer: architecture paper, reads the face",
        "120 eigenfaces, fitted on 400 faces, stored as float16",
        "mobilefacenet, embeddings of 128 values", "Xiaoccer/MobileFaceNet_Pytorch",
        "Licence of the weights: for tests", "no liveness detection", "knows the whole defence",
    ):  # fmt: skip
        assert words in " ".join(card.split()), words
    for role, entry in sources.hashes.items():
        assert f"| {role} | {entry['file']} | `{entry['sha256']}` |" in card


def test_the_storage_cost_in_the_card_is_the_one_measured(bundle: Any) -> None:
    basis = bundle.manifest.provenance["basis"]
    assert basis["samples"] == 400
    assert 0.5 < basis["explained"] < 1
    assert 0 < basis["storage_rms_grey_levels"] < basis["storage_max_grey_levels"] < 1


def test_drawn_faces_have_the_spread_of_the_basis(sources: Any) -> None:
    drawn = drawn_faces(sources.basis, 400)
    assert drawn.dtype == np.float32
    coefficients = (drawn - sources.basis.mean) @ sources.basis.basis.T
    assert np.allclose(coefficients.var(axis=0), sources.basis.eigenvalues, rtol=0.35)
    assert np.array_equal(drawn[:5], drawn_faces(sources.basis, 400)[:5])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "bf16"}, "precision 'bf16'.*fp32, fp16"),
        ({"storage": "int4"}, "storage 'int4'.*float16"),
        ({"mode": "bogus"}, "unknown mode 'bogus'"),
        ({"top_k": GENES + 1}, "top-k"),
        ({"keep": 9, "clones": 8}, "keep"),
    ],
)
def test_an_option_out_of_range(export: Command, options: Any, words: Any) -> None:
    with pytest.raises(UsageError, match=words):
        export(**options)


def test_two_exports_of_the_same_sources_hold_the_same_bytes(bundle: Any, export: Command) -> None:
    again = export(clones=16, keep=3, seed=5, license="for tests")
    assert again.manifest.files == bundle.manifest.files
    assert again.manifest.embedding_hash() == bundle.manifest.embedding_hash()


def test_the_manifest_can_be_read_by_anyone(bundle: Any) -> None:
    manifest = json.loads((bundle.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["manifest_version"] == 1
    write_manifest(bundle.folder, bundle.manifest)
    assert open_bundle(bundle.folder).sha256 == bundle.sha256


@pytest.fixture(scope="module", params=[True, False], ids=["gated", "ungated"])
def spectral(request: Any, made: Path, recogniser: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Sources with a spectral purifier whose probabilities are well spread."""
    from immunogate.basis import load_basis
    from immunogate.networks.purifier import checkpoint_of
    from immunogate.networks.spectral import SpectralPurifier

    path = tmp_path_factory.mktemp("spectral") / "spectral.pt"
    basis = load_basis(made / "basis.npz")
    values = torch.from_numpy(basis.eigenvalues)
    rest = torch.tensor([basis.total_variance - float(values.sum()), 1e-4])
    torch.manual_seed(8)
    network = SpectralPurifier(torch.cat([values, rest]).sqrt(), 32, gated=request.param)
    with torch.no_grad():
        network.generator.weight.mul_(100)
        network.generator.bias.normal_(std=1.5)
        network.own.normal_()
    torch.save(checkpoint_of(network), path)
    return load_sources(made / "basis.npz", recogniser, "mobilefacenet", path)


@pytest.fixture(scope="module")
def spectral_bundle(spectral: Any, bundle: Any, yunet: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its bundle; the recogniser's graph is that of the other bundle, which saves seconds."""
    import onnx

    real = vars(assemble)["graph_of"]
    recogniser_graph = onnx.load(bundle.folder / "recogniser.onnx")

    def graph_of(network: Any, shape: Any, *names: Any) -> Any:
        return real(network, shape, *names) if names[0] == "spectrum" else recogniser_graph

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "graph_of", graph_of)
        out = tmp_path_factory.mktemp("export") / "bundle"
        return export_bundle(spectral, yunet, out, ExportOptions(clones=16, keep=3, seed=5))


def test_a_bundle_says_what_its_analyzer_reads(spectral_bundle: Any, spectral: Any) -> None:
    manifest = spectral_bundle.manifest
    entry, gated = manifest.analyzer, spectral.purifier.gated
    assert (entry.architecture, entry.reads, entry.gated) == ("spectral", "spectrum", gated)
    assert "memory_temperature" not in manifest.provenance
    assert open_bundle(spectral_bundle.folder).manifest.analyzer == entry
    card = " ".join((spectral_bundle.folder / "MODEL_CARD.md").read_text(encoding="utf-8").split())
    assert "architecture spectral, reads the spectrum" in card
    assert ("gate for the remainder" in card) == gated


def test_a_manifest_that_misstates_the_gate_is_refused(spectral_bundle: Any, tmp_path: Path) -> None:
    manifest = spectral_bundle.manifest
    shutil.copytree(spectral_bundle.folder, tmp_path / "bundle")
    other = replace(manifest, analyzer=replace(manifest.analyzer, gated=not manifest.analyzer.gated))
    write_manifest(tmp_path / "bundle", other)
    with pytest.raises(BundleError, match=r"its probabilities are \['?batch'?, \d+\], expected \[None, \d+"):
        open_chain(open_bundle(tmp_path / "bundle"))


def test_the_spectral_graph_is_its_network_at_any_batch(
    spectral_bundle: Any, spectral: Any, rows_of_faces: Floats
) -> None:
    from immunogate.networks.spectral import analyzer_input
    from immunogate.runtime.runners.onnx import OnnxRunner

    runner = OnnxRunner(spectral_bundle.read("analyzer.onnx"), "analyzer.onnx", 1)
    basis = spectral.basis
    faces = torch.from_numpy(rows_of_faces)
    centred = faces - torch.from_numpy(basis.mean)
    spectra = analyzer_input(faces, centred, centred @ torch.from_numpy(basis.basis).T)
    for batch in (1, 2, 6):
        with torch.no_grad():
            wanted = spectral.purifier(spectra[:batch]).numpy()
        found = runner.run(spectra[:batch].numpy())["probabilities"]
        assert found.shape == (batch, GENES + spectral.purifier.gated)
        assert np.abs(found - wanted).max() < 1e-4
    assert np.ptp(wanted) > 0.5  # the test would say little of a network that says nothing


@pytest.mark.parametrize("mode", MODES)
def test_a_spectral_bundle_is_verified_in_every_mode(
    spectral_bundle: Any, spectral: Any, faces: Any, mode: str
) -> None:
    checks = _checks(spectral_bundle, spectral, faces.images, mode)
    assert all(check.passed for check in checks), table(checks)
    assert ("probabilities" in {check.output for check in checks}) == (mode != "fixed")


@pytest.mark.parametrize("mode", ["expected", "threshold"])
def test_the_deployed_purifier_is_the_twin(
    spectral_bundle: Any, spectral: Any, rows_of_faces: Floats, mode: str
) -> None:
    twin = TorchTwin(spectral.recogniser, spectral.spec, spectral.basis, mode, purifier=spectral.purifier)
    with open_chain(spectral_bundle, mode=mode, threads=1) as chain:
        found = chain.purifier.purify(rows_of_faces, chain.purifier.key([0] * 6, list(range(6))))
    with torch.no_grad():
        wanted = twin.purify(torch.from_numpy(rows_of_faces)).numpy()
        p = twin.probabilities(torch.from_numpy(rows_of_faces)).numpy()
    undecided = (np.abs(p - 0.5) < 2e-3).any(axis=1) & (mode == "threshold")  # float16 storage may tip these over
    assert undecided.sum() <= 4
    difference = np.abs(found.faces[:, 0] - wanted)[~undecided]
    assert difference.max() * 127.5 < 2  # grey levels, with an eigenbasis in float16
    assert np.abs(wanted - rows_of_faces).max() * 127.5 > 20


def test_another_spectral_purifier_fails_the_probabilities(spectral_bundle: Any, spectral: Any, faces: Any) -> None:
    other = replace(spectral, purifier=_shaken(spectral.purifier, 0.05))
    failed = {check.output for check in _checks(spectral_bundle, other, faces.images[:3]) if not check.passed}
    assert "probabilities" in failed


def test_an_analyzer_that_reads_something_else_than_stated_is_refused(spectral_bundle: Any, tmp_path: Path) -> None:
    import shutil

    from immunogate.errors import BundleError

    folder = Path(shutil.copytree(spectral_bundle.folder, tmp_path / "copy"))
    manifest = spectral_bundle.manifest
    write_manifest(folder, replace(manifest, analyzer=replace(manifest.analyzer, reads="face")))
    with pytest.raises(BundleError, match=r"analyzer\.onnx is not the network"):
        open_chain(open_bundle(folder))
    with pytest.raises(BundleError, match="reads: expected face or spectrum, got 'pixels'"):
        replace(manifest.analyzer, reads="pixels")
