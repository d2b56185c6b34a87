"""``immunogate calibrate precision`` from a bundle to a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")

from immunogate.bundle import Bundle, open_bundle
from immunogate.cli import main
from immunogate.errors import BundleError, GalleryError
from immunogate.runtime.chain import open_chain
from immunogate.runtime.gallery import Gallery


@pytest.fixture(scope="module")
def source(make_tiny_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny bundle with an analyzer in mode expected."""
    made: Bundle = make_tiny_bundle(tmp_path_factory.mktemp("source") / "bundle", mode="expected")
    return made


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 made-up pictures of 200 people, two much alike of each."""
    draw = np.random.default_rng(6)
    coarse = draw.integers(0, 256, (200, 14, 14)).repeat(2, axis=0)
    images = np.kron(coarse, np.ones((1, 8, 8))) + draw.normal(0, 12, (400, 112, 112))
    path = tmp_path_factory.mktemp("faces") / "faces.npz"
    names = np.repeat([f"p{i}" for i in range(200)], 2)
    np.savez(path, images=images.clip(0, 255).astype(np.uint8), identities=names)
    return path


def _convert(source: Bundle, faces: Path, out: Path, *flags: object) -> int:
    words = ("calibrate", "precision", source.folder, faces, "--out", out, "--calibration-faces", 24)
    return main([str(word) for word in (*words, "--judged-faces", 150, *flags)])


@pytest.mark.parametrize(
    ("flags", "precision"),
    [(("--to", "fp16"), "fp16"), (("--to", "int8"), "int8"), (("--to", "int8", "--for", "cpu"), "int8-cpu")],
)
def test_a_new_bundle_that_runs_and_is_another(
    source: Bundle, faces: Path, tmp_path: Path, flags: Any, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    assert _convert(source, faces, out, *flags, "--limit", "0.9", "--tar-limit", "20", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    made = open_bundle(out)
    made.check()
    manifest = made.manifest
    assert manifest.recogniser.precision == precision
    assert manifest.analyzer is not None
    assert manifest.analyzer.precision == precision
    assert manifest.embedding_hash() != source.manifest.embedding_hash()
    stated = manifest.provenance["precision"]
    assert stated["source"]["sha256"] == source.sha256
    assert set(stated["networks"]) == set(report["networks"]) == {"analyzer", "recogniser"}
    assert stated["faces"]["sha256"]
    assert stated["tools"]["onnxruntime"]
    assert ("method" in stated) == (precision != "fp16")
    with pytest.raises(BundleError, match="no threshold"):
        made.calibration()
    crops = np.load(faces, allow_pickle=False)["images"][:2]
    with open_chain(made, threads=1) as new, open_chain(source, threads=1) as old:
        one, other = (chain.recognise(crops, [0, 1], [0, 1]).purified for chain in (new, old))
    assert np.einsum("ij,ij->i", one, other).min() > 0.9
    assert not np.array_equal(one, other)


def test_galleries_of_the_source_are_refused(source: Bundle, faces: Path, tmp_path: Path) -> None:
    assert _convert(source, faces, tmp_path / "new", "--to", "fp16", "--network", "recogniser") == 0
    manifest = open_bundle(tmp_path / "new").manifest
    assert manifest.analyzer is not None
    assert manifest.analyzer.precision == "fp32"
    Gallery(tmp_path / "g.db", source.manifest.embedding_hash(), 16, create=True).close()
    with pytest.raises(GalleryError):
        Gallery(tmp_path / "g.db", manifest.embedding_hash()).close()


def test_a_bundle_below_the_limit_is_refused_and_nothing_is_left(
    source: Bundle, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from immunogate.calib.precision import half

    monkeypatch.setattr(half, "rounded", _spoilt)
    assert _convert(source, faces, tmp_path / "new", "--to", "fp16") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    for words in ("refused", "the limit is 0.9999", "--limit"):
        assert words in said
    assert list(tmp_path.iterdir()) == []


def _spoilt(model: Any, chosen: set[str]) -> bytes:
    """The network with a good deal of noise on its weights."""
    from onnx import ModelProto, numpy_helper

    from immunogate.calib.precision.networks import finished

    noisy, draw = ModelProto.FromString(model.SerializeToString()), np.random.default_rng(8)
    for weight in noisy.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.size > 1 and values.dtype == np.float32:
            values = values + 0.3 * values.std() * draw.standard_normal(values.shape)
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weight.name))
    return finished(noisy)


def test_an_interrupt_leaves_nothing_half_written(
    source: Bundle, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from immunogate.cli import precision_bundle

    def interrupted(folder: Path, manifest: object) -> None:
        assert (folder / "recogniser.onnx").is_file(), "too early to show anything"
        raise KeyboardInterrupt

    monkeypatch.setattr(precision_bundle, "write_manifest", interrupted)
    assert _convert(source, faces, tmp_path / "new", "--to", "fp16", "--network", "recogniser") == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (("--to", "fp16", "--for", "cpu"), 2, "--for cpu is for int8"),
        (("--to", "int8", "--limit", "2"), 2, "--limit"),
        (("--to", "int8", "--percentile", "3"), 2, "percentile"),
        (("--to", "int8", "--calibration-faces", "1"), 2, "--calibration-faces"),
    ],
)
def test_wrong_use(
    source: Bundle, faces: Path, tmp_path: Path, flags: Any, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _convert(source, faces, tmp_path / "new", *flags) == status
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_the_mode_does_not_use(
    make_tiny_bundle: Any, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = make_tiny_bundle(tmp_path / "fixed", mode="fixed")
    assert _convert(fixed, faces, tmp_path / "new", "--to", "fp16", "--network", "analyzer") == 2
    assert "uses no analyzer" in capsys.readouterr().err


def test_something_in_the_way_is_refused_before_any_work(source: Bundle, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine.txt").write_text("mine")
    assert _convert(source, faces, tmp_path / "new", "--to", "fp16") == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.txt"]


@pytest.mark.data
@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(("to", "limit"), [("fp16", 0.9999), ("int8", 0.995)])
def test_the_real_recogniser(
    real_bundle: Bundle, fit_and_kept_back: Any, tmp_path: Path, to: str, limit: float
) -> None:
    fit = fit_and_kept_back[0].take(np.arange(400))
    np.savez(tmp_path / "fit.npz", images=fit.images, identities=fit.identities)
    words = ("--to", to, "--limit", limit, "--tar-limit", 5, "--calibration-faces", 32, "--judged-faces", 120)
    assert _convert(real_bundle, tmp_path / "fit.npz", tmp_path / "new", *words) == 0
    found = open_bundle(tmp_path / "new").manifest.provenance["precision"]
    assert found["accuracy"]["purified"]["mean"] >= limit
    network = found["networks"]["recogniser"]
    assert len(network["kept_in_float"]) < 0.5 * network["layers"]
