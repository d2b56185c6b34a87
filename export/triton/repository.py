"""Writes a bundle as a model repository of NVIDIA Triton.

One ensemble, ``immunogate``, takes aligned faces and gives embeddings; behind it stand the bundle's own analyzer and
recogniser, byte for byte, and small graphs for what lies between (`immunogate.export.triton.graphs`). Every model has
its own queue, so that the server batches the faces of many cameras, and the views of one face, by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from immunogate.basis import basis_from_bytes
from immunogate.bundle import Bundle
from immunogate.errors import UsageError
from immunogate.export.triton.config import (
    BACKENDS,
    MOST_IN_A_BATCH,
    Deployment,
    Step,
    Tensor,
    ensemble_config,
    model_config,
)
from immunogate.export.triton.graphs import FACE, mean_graph, purifier_graph, spectrum_graph
from immunogate.folders import check_free, folder_written_whole
from immunogate.kernels.antibody import AntibodySettings
from immunogate.manifest import Manifest

ENSEMBLE = "immunogate"
CONFIG = "config.pbtxt"
VERSION = "1"
_EMPTY = "An ensemble has no model of its own; the server asks for this folder.\n"


@dataclass(frozen=True)
class _Model:
    """One model of the repository: its content and its place in the ensemble."""

    name: str
    content: bytes
    inputs: list[Tensor]
    outputs: list[Tensor]


def write_repository(
    bundle: Bundle, out: Path, *, max_batch: int = 8, overwrite: bool = False, backend: str = "onnxruntime"
) -> list[Path]:
    """Make a model repository of ``bundle`` in the folder ``out``, whole or not at all.

    The ensemble ``immunogate`` takes ``face`` (B, 1, 112, 112) float32, the aligned grey crop v as v / 127.5 - 1, and
    gives ``embedding_purified`` and ``embedding_raw`` (B, E) of unit length, and, where the bundle has an analyzer and
    uses it, ``probabilities`` (B, n), gated (B, n + 1).

    Args:
        bundle: of mode fixed, expected or threshold; every file used is verified.
        out: folder to make.
        max_batch: most faces in one run of a model, 1 to 64.
        overwrite: replace a repository of this kind that stands at ``out``.
        backend: onnxruntime (CPU or GPU, as the server has it), or tensorrt: ONNX Runtime's TensorRT accelerator, for
            which the server builds engines when it loads the models, on its own GPU.

    Returns:
        The files written, sorted.

    Raises:
        UsageError: the mode draws clones, ``out`` is taken, or an argument is out of its range.
        BundleError: a file is missing or tampered with.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}", f"Use one of: {', '.join(BACKENDS)}")
    if not 1 <= max_batch <= MOST_IN_A_BATCH:
        raise UsageError(f"max_batch must be in 1 .. {MOST_IN_A_BATCH}, got {max_batch}")
    check_free(out, f"{ENSEMBLE}/{CONFIG}", "model repository", overwrite=overwrite)
    settings = _settings(bundle.manifest)
    models, steps = _models(bundle, settings), _steps(bundle.manifest, settings)
    deployment = Deployment(max_batch, backend, _about(bundle))
    with folder_written_whole(out) as folder:
        for model in models:
            place = folder / model.name / VERSION
            place.mkdir(parents=True)
            (place / "model.onnx").write_bytes(model.content)
            config = model_config(model.name, model.inputs, model.outputs, deployment)
            (folder / model.name / CONFIG).write_text(config, encoding="ascii")
        (folder / ENSEMBLE / VERSION).mkdir(parents=True)
        (folder / ENSEMBLE / VERSION / "README.txt").write_text(_EMPTY, encoding="ascii")
        config = ensemble_config(ENSEMBLE, *_ends(bundle.manifest, settings), steps, deployment)
        (folder / ENSEMBLE / CONFIG).write_text(config, encoding="ascii")
    return sorted(path for path in out.rglob("*") if path.is_file())


def _settings(manifest: Manifest) -> AntibodySettings:
    entry = manifest.purifier
    settings = AntibodySettings(entry.mode, entry.top_k, entry.clones, entry.keep, entry.seed)
    if settings.is_random:
        raise UsageError(
            f"mode {settings.mode} draws clones, which a model server can not repeat bit for bit",
            "Export the bundle with --mode expected, threshold or fixed",
        )
    return settings


def _models(bundle: Bundle, settings: AntibodySettings) -> list[_Model]:
    manifest = bundle.manifest
    entry, analyzer = manifest.recogniser, manifest.analyzer if settings.needs_probabilities else None
    basis = basis_from_bytes(bundle.read(manifest.purifier.basis), manifest.purifier.basis)
    reads, gated = (analyzer.reads, analyzer.gated) if analyzer else ("face", False)
    models = []
    if analyzer is not None:
        spectrum = Tensor("spectrum", (basis.components + 2,))
        if reads == "spectrum":
            models.append(_of("spectrum", spectrum_graph(basis)))
        source = spectrum if reads == "spectrum" else Tensor("face", FACE)
        probabilities = Tensor("probabilities", (basis.components + gated,))
        models.append(_Model(f"{ENSEMBLE}_analyzer", bundle.read(analyzer.file), [source], [probabilities]))
    models.append(_of("purifier", purifier_graph(basis, settings, entry, reads=reads, gated=gated)))
    planes = Tensor("face", (3, entry.height, entry.width))
    embedding = Tensor("embedding", (entry.embedding_dimension,))
    models.append(_Model(f"{ENSEMBLE}_recogniser", bundle.read(entry.file), [planes], [embedding]))
    if entry.views > 1:
        models.append(_of("mean", mean_graph(entry.views, entry.embedding_dimension)))
    return models


def _of(part: str, graph: ModelProto) -> _Model:
    inputs, outputs = (
        [Tensor(v.name, tuple(d.dim_value for d in v.type.tensor_type.shape.dim[1:])) for v in values]
        for values in (graph.graph.input, graph.graph.output)
    )
    return _Model(f"{ENSEMBLE}_{part}", graph.SerializeToString(), inputs, outputs)


def _steps(manifest: Manifest, settings: AntibodySettings) -> list[Step]:
    views = manifest.recogniser.views
    steps, given = [], {"face": "face"}
    if settings.needs_probabilities and manifest.analyzer is not None:
        reads = manifest.analyzer.reads
        if reads == "spectrum":
            steps.append(Step(f"{ENSEMBLE}_spectrum", {"face": "face"}, {"spectrum": "spectrum"}))
            given["spectrum"] = "spectrum"
        steps.append(Step(f"{ENSEMBLE}_analyzer", {reads: reads}, {"probabilities": "probabilities"}))
        given["probabilities"] = "probabilities"
    looks = ["raw_planes", *(f"planes_{number}" for number in range(views))]
    steps.append(Step(f"{ENSEMBLE}_purifier", given, {look: look for look in looks}))
    parts = [f"embedding_{number}" for number in range(views)] if views > 1 else ["embedding_purified"]
    for look, embedding in zip(looks, ["embedding_raw", *parts], strict=True):
        steps.append(Step(f"{ENSEMBLE}_recogniser", {"face": look}, {"embedding": embedding}))
    if views > 1:
        steps.append(Step(f"{ENSEMBLE}_mean", {part: part for part in parts}, {"embedding": "embedding_purified"}))
    return steps


def _ends(manifest: Manifest, settings: AntibodySettings) -> tuple[list[Tensor], list[Tensor]]:
    """What the ensemble takes and gives."""
    length = (manifest.recogniser.embedding_dimension,)
    outputs = [Tensor("embedding_purified", length), Tensor("embedding_raw", length)]
    if settings.needs_probabilities and manifest.analyzer is not None:
        outputs.append(Tensor("probabilities", (manifest.purifier.components + manifest.analyzer.gated,)))
    return [Tensor("face", FACE)], outputs


def _about(bundle: Bundle) -> dict[str, str]:
    """What galleries and audits ask: which bundle this is."""
    manifest = bundle.manifest
    return {
        "bundle": manifest.model_id,
        "bundle_sha256": bundle.sha256,
        "embedding_hash": manifest.embedding_hash(),
        "mode": manifest.purifier.mode,
    }
