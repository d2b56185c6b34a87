"""A model repository computes what the gate computes: its ensemble is run here, step by step, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnxruntime

from immunogate.bundle import Bundle, open_bundle, write_manifest
from immunogate.errors import BundleError, UsageError
from immunogate.export.triton.repository import ENSEMBLE, write_repository
from immunogate.faces_file import faces_from_pixels
from immunogate.files import sha256_of_file
from immunogate.manifest import AnalyzerEntry, FileEntry
from immunogate.runtime.chain import open_chain

pytestmark = pytest.mark.torch

LEAST_COSINE = 1 - 1e-4
DEFAULT = Path(__file__).parents[3] / "src" / "immunogate" / "models" / "default"
Read = Callable[[str], dict[str, Any]]


class Server:
    """A stand-in for Triton, for what this machine can not have: follows configurations, checks shapes, runs models."""

    def __init__(self, repository: Path, read: Read) -> None:
        self.configs = {path.parent.name: read(path.read_text("ascii")) for path in repository.glob("*/config.pbtxt")}
        self._sessions = {
            name: onnxruntime.InferenceSession(
                repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
            )
            for name in self.configs
            if name != ENSEMBLE
        }
        assert all((repository / name / "1").is_dir() for name in self.configs)

    def infer(self, face: Any) -> dict[str, Any]:
        config = self.configs[ENSEMBLE]
        pool = {"face": face}
        self._expect(config["input"], pool, len(face))
        for step in config["ensemble_scheduling"]["step"]:
            model = self.configs[step["model_name"]]
            given = {name: pool[tensor] for name, tensor in step["input_map"].items()}
            assert set(given) == {entry["name"] for entry in model["input"]}
            self._expect(model["input"], given, len(face))
            names = [entry["name"] for entry in model["output"]]
            got = dict(zip(names, self._sessions[step["model_name"]].run(names, given), strict=True))
            self._expect(model["output"], got, len(face))
            made = {tensor: got[name] for name, tensor in step["output_map"].items()}
            assert not set(made) & set(pool), "an ensemble tensor is made once"
            pool |= made
        outputs = {entry["name"]: pool[entry["name"]] for entry in config["output"]}
        self._expect(config["output"], outputs, len(face))
        return outputs

    @staticmethod
    def _expect(entries: Any, tensors: dict[str, Any], batch: int) -> None:
        for entry in entries:
            tensor = tensors[entry["name"]]
            assert entry["data_type"] == "TYPE_FP32"
            assert tensor.dtype == np.float32
            assert list(tensor.shape) == [batch, *entry["dims"]], entry["name"]


def crops(count: int) -> Any:
    """Smooth random pictures with some grain, no two alike."""
    draw = np.random.default_rng(17)
    coarse = np.kron(draw.uniform(30, 220, (count, 14, 14)), np.ones((8, 8)))
    return (coarse + draw.normal(0, 3, coarse.shape)).clip(0, 255).astype(np.uint8)


def compare(bundle: Bundle, folder: Path, read: Read, images: Any) -> None:
    write_repository(bundle, folder)
    outputs = Server(folder, read).infer(faces_from_pixels(images).reshape(-1, 1, 112, 112))
    numbers = list(range(len(images)))
    with open_chain(bundle) as chain:
        own = chain.recognise(images, numbers, numbers)
        needed = chain.purifier.settings.needs_probabilities
        if needed:
            expected = chain.purifier.probabilities(faces_from_pixels(images))
            np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-4)
        assert ("probabilities" in outputs) == needed
    for name, theirs in (("embedding_purified", own.purified), ("embedding_raw", own.raw)):
        assert np.einsum("ij,ij->i", outputs[name], theirs).min() > LEAST_COSINE, name
        np.testing.assert_allclose(np.linalg.norm(outputs[name], axis=1), 1, atol=1e-5)
    assert np.einsum("ij,ij->i", own.purified, own.raw).min() < 1 - 1e-3, "purification must have changed the faces"


@pytest.mark.parametrize("mode", ["fixed", "expected", "threshold"])
def test_an_analyzer_of_pixels(mode: str, make_tiny_bundle: Any, read_config: Read, tmp_path: Path) -> None:
    compare(make_tiny_bundle(tmp_path / "bundle", mode=mode), tmp_path / "repository", read_config, crops(5))


@pytest.mark.parametrize(
    ("gated", "mode", "views"), [(True, "expected", 4), (True, "threshold", 1), (False, "expected", 2)]
)
def test_an_analyzer_of_the_spectrum(
    gated: bool, mode: str, views: int, make_tiny_bundle: Any, read_config: Read, tmp_path: Path
) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle", mode=mode)
    path = bundle.folder / "analyzer.onnx"
    path.write_bytes(spectral_analyzer(bundle.manifest.purifier.components, gated))
    manifest = replace(
        bundle.manifest,
        files={**bundle.manifest.files, path.name: FileEntry(sha256_of_file(path), path.stat().st_size)},
        analyzer=AnalyzerEntry(path.name, "spectral", 18, "fp32", "spectrum", gated),
        recogniser=replace(bundle.manifest.recogniser, views=views),
    )
    write_manifest(bundle.folder, manifest)
    compare(open_bundle(bundle.folder), tmp_path / "repository", read_config, crops(4))


def spectral_analyzer(genes: int, gated: bool) -> bytes:
    """One dense layer on all of the spectrum, whose probabilities are well spread; the grain has a say in each."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(9)
    weights = draw.standard_normal((genes + 2, genes + gated)) * 0.02
    weights[-1] *= 2000
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["spectrum", "weights"], ["mixed"]),
            helper.make_node("Sigmoid", ["mixed"], ["probabilities"]),
        ],
        "spectral",
        [helper.make_tensor_value_info("spectrum", TensorProto.FLOAT, ["batch", genes + 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", genes + gated])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.data
def test_the_bundle_that_ships_on_real_faces(aligned_faces: Any, read_config: Read, tmp_path: Path) -> None:
    if not (DEFAULT / "manifest.json").is_file():
        pytest.skip("this checkout has no default bundle")
    compare(open_bundle(DEFAULT), tmp_path / "repository", read_config, aligned_faces.images[::500])


def test_the_networks_are_the_bundles_own_bytes(tiny_bundle: Bundle, make_tiny_bundle: Any, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle", mode="expected")
    files = write_repository(bundle, tmp_path / "repository", max_batch=4)
    assert files == sorted(path for path in (tmp_path / "repository").rglob("*") if path.is_file())
    for part in ("analyzer", "recogniser"):
        written = tmp_path / "repository" / f"immunogate_{part}" / "1" / "model.onnx"
        assert written in files
        assert written.read_bytes() == (bundle.folder / f"{part}.onnx").read_bytes()


def test_every_model_says_which_bundle_it_is(make_tiny_bundle: Any, read_config: Read, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle", mode="expected")
    write_repository(bundle, tmp_path / "repository", backend="tensorrt", max_batch=16)
    configs = Server(tmp_path / "repository", read_config).configs
    assert set(configs) == {"immunogate", *(f"immunogate_{part}" for part in ("analyzer", "purifier", "recogniser"))}
    for name, config in configs.items():
        assert config["name"] == name
        assert config["max_batch_size"] == 16
        assert config["parameters"]["embedding_hash"]["string_value"] == bundle.manifest.embedding_hash()
        assert config["parameters"]["bundle_sha256"]["string_value"] == bundle.sha256


@pytest.mark.parametrize("mode", ["sample", "select"])
def test_modes_that_draw_are_refused(mode: str, make_tiny_bundle: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"mode {mode} draws clones.*--mode expected, threshold or fixed"):
        write_repository(make_tiny_bundle(tmp_path / "bundle", mode=mode), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"backend": "openvino"}, "unknown backend 'openvino'.*onnxruntime, tensorrt"), ({"max_batch": 0}, "1 .. 64"),
     ({"max_batch": 65}, "1 .. 64, got 65")],
)  # fmt: skip
def test_arguments_out_of_range(options: Any, words: str, tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        write_repository(tiny_bundle, tmp_path / "repository", **options)


def test_only_a_repository_is_replaced_and_only_when_asked(tiny_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    first = write_repository(tiny_bundle, out)
    (out / "old.txt").write_text("of the old one")
    with pytest.raises(UsageError, match=r"already exists and is a model repository.*--overwrite"):
        write_repository(tiny_bundle, out)
    assert write_repository(tiny_bundle, out, overwrite=True) == first
    assert not (out / "old.txt").exists()
    other = tmp_path / "photos"
    other.mkdir()
    (other / "only copy.jpg").write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is no model repository"):
            write_repository(tiny_bundle, other, overwrite=overwrite)
    assert (other / "only copy.jpg").read_bytes() == b"precious"


def test_a_tampered_bundle_gives_no_repository(make_tiny_bundle: Any, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle", mode="expected")
    path = bundle.folder / "recogniser.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"recogniser\.onnx does not have the hash"):
        write_repository(bundle, tmp_path / "repository")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]
