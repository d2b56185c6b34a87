"""Writes a bundle, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from immunogate import __version__
from immunogate.basis import STORAGES, Eigenbasis, Storage, save_basis, storage_error
from immunogate.bundle import Bundle, open_bundle, write_manifest
from immunogate.errors import UsageError
from immunogate.export.card import model_card
from immunogate.export.detectors import portable_detector
from immunogate.export.onnx_graph import OPSET, graph_of, in_precision
from immunogate.export.sources import Sources, check_top_k
from immunogate.files import sha256_of_file
from immunogate.folders import check_free, folder_written_whole
from immunogate.kernels.antibody import MODES, AntibodySettings
from immunogate.manifest import (
    EXPORT_PRECISIONS,
    MANIFEST_NAME,
    AnalyzerEntry,
    DetectorEntry,
    FileEntry,
    Manifest,
    PurifierEntry,
    RecogniserEntry,
)
from immunogate.networks.purifier import AntibodyNetwork, Purifier
from immunogate.networks.twin import UnitEmbedding
from immunogate.structs import CROP_SIZE, Floats
from immunogate.views import VIEWS

DETECTOR, ANALYZER, RECOGNISER, BASIS, CARD = (
    "detector.onnx",
    "analyzer.onnx",
    "recogniser.onnx",
    "basis.npz",
    "MODEL_CARD.md",
)
DRAWN_FACES = 64


@dataclass(frozen=True)
class ExportOptions:
    """What to make.

    Attributes:
        precision: of analyzer and recogniser, see `immunogate.manifest.EXPORT_PRECISIONS`; the small detector stays
            fp32.
        storage: of the eigenbasis: float32, float16 or int8.
        mode: inference mode; by default fixed without a purifier and expected with one.
        top_k: eigenfaces kept in mode fixed.
        clones: drawn in mode select.
        keep: kept in mode select.
        seed: of the generator.
        license: what the model card and manifest say of the weights.
        overwrite: whether a bundle that stands at the destination is replaced.
        views: of each purified face whose embeddings are averaged: 1, 2 or 4.
        notes: Markdown for the end of the model card: measured quality, limits.
    """

    precision: str = "fp32"
    storage: Storage = "float16"
    mode: str | None = None
    top_k: int | None = None
    clones: int = 64
    keep: int = 4
    seed: int = 0
    license: str = "as the checkpoints; not stated to the exporter"
    overwrite: bool = False
    notes: str = ""
    views: int = 1

    def __post_init__(self) -> None:
        if self.precision not in EXPORT_PRECISIONS:
            raise UsageError(f"unknown precision {self.precision!r}", f"Use one of: {', '.join(EXPORT_PRECISIONS)}")
        if self.views not in VIEWS:
            raise UsageError(f"views: expected one of {', '.join(map(str, VIEWS))}, got {self.views}")
        if self.storage not in STORAGES:
            raise UsageError(f"unknown storage {self.storage!r}", f"Use one of: {', '.join(STORAGES)}")


def export_bundle(
    sources: Sources,
    detector: Path,
    out: Path,
    options: ExportOptions,
    step: Callable[[str], None] = lambda name: None,
) -> Bundle:
    """Make a bundle of ``sources`` and a ``detector`` in the folder ``out``.

    Args:
        sources: loaded checkpoints.
        detector: ONNX file, see `immunogate.export.detectors`.
        out: folder to make.
        options: precision, storage, mode.
        step: told the name of each step when it begins.

    Raises:
        UsageError: ``out`` is taken, or an option is out of range.
        InputError: the detector is none that is known.
    """
    check_free(out, MANIFEST_NAME, "bundle", overwrite=options.overwrite)
    purifier = _purifier_entry(sources, options)
    with folder_written_whole(out) as folder:
        step("detector")
        finder, kind = portable_detector(detector)
        onnx.save(finder, folder / DETECTOR)
        step("recogniser")
        recogniser = _write_recogniser(folder, sources, options)
        analyzer = None
        if sources.purifier is not None:
            step("analyzer")
            analyzer = _write_analyzer(folder, sources, options)
        step("eigenbasis")
        save_basis(folder / BASIS, sources.basis, options.storage)
        provenance = _provenance(sources, detector, options)
        card = model_card(sources, purifier, options.views, options.license, provenance) + (
            f"\n{options.notes}" if options.notes else ""
        )
        (folder / CARD).write_text(card, encoding="utf-8")
        step("manifest")
        files = {path.name: FileEntry(sha256_of_file(path), path.stat().st_size) for path in sorted(folder.iterdir())}
        manifest = Manifest(
            model_id=f"{sources.spec.name}-{purifier.mode}-{files[RECOGNISER].sha256[:8]}",
            license=options.license,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            files=files,
            detector=DetectorEntry(DETECTOR, kind),
            recogniser=recogniser,
            purifier=purifier,
            analyzer=analyzer,
            provenance=provenance,
        )
        write_manifest(folder, manifest)
    return open_bundle(out)


def _write_recogniser(folder: Path, sources: Sources, options: ExportOptions) -> RecogniserEntry:
    spec = sources.spec
    if sources.graph is None:
        graph = graph_of(UnitEmbedding(sources.recogniser), (3, spec.height, spec.width), "face", "embedding")
    else:
        graph = onnx.ModelProto()
        graph.CopyFrom(sources.graph)  # rounding changes it
    onnx.save(in_precision(graph, options.precision), folder / RECOGNISER)
    return RecogniserEntry(
        file=RECOGNISER,
        architecture=spec.name,
        height=spec.height,
        width=spec.width,
        crop_left=spec.crop_left,
        mean=spec.mean,
        std=spec.std,
        colour=spec.colour,
        embedding_dimension=spec.embedding_dimension,
        opset=OPSET,
        precision=options.precision,
        views=options.views,
    )


def _write_analyzer(folder: Path, sources: Sources, options: ExportOptions) -> AnalyzerEntry:
    assert sources.purifier is not None  # the caller has asked
    network = sources.purifier
    shape = (1, CROP_SIZE, CROP_SIZE) if network.reads == "face" else (network.components + 2,)
    graph = graph_of(network, shape, network.reads, "probabilities")
    onnx.save(in_precision(graph, options.precision), folder / ANALYZER)
    return AnalyzerEntry(
        ANALYZER, network.architecture, OPSET, options.precision, reads=network.reads, gated=network.gated
    )


def _purifier_entry(sources: Sources, options: ExportOptions) -> PurifierEntry:
    mode = options.mode or ("fixed" if sources.purifier is None else "expected")
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}", f"Use one of: {', '.join(MODES)}")
    if mode != "fixed" and sources.purifier is None:
        raise UsageError(f"mode {mode} needs a purifier", "Give --purifier, or use mode fixed")
    top_k = check_top_k(options.top_k, sources.basis)
    AntibodySettings(mode, top_k, options.clones, options.keep, options.seed)  # checks the ranges
    return PurifierEntry(
        basis=BASIS,
        components=sources.basis.components,
        storage=options.storage,
        mode=mode,
        top_k=top_k,
        clones=options.clones,
        keep=options.keep,
        seed=options.seed,
    )


def _provenance(sources: Sources, detector: Path, options: ExportOptions) -> dict[str, Any]:
    error = storage_error(sources.basis, options.storage, drawn_faces(sources.basis, DRAWN_FACES))
    tools = {name: version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")}
    return {
        "checkpoints": {
            **sources.hashes,
            "detector": {"file": detector.name, "sha256": sha256_of_file(detector)},
        },
        "tools": {"immunogate": __version__, **tools},
        "basis": {
            "samples": sources.basis.samples,
            "explained": round(float(sources.basis.explained()[-1]), 4),
            "storage_max_grey_levels": round(error.max_grey_levels, 4),
            "storage_rms_grey_levels": round(error.rms_grey_levels, 4),
            "storage_measured_on": f"{DRAWN_FACES} faces drawn from the eigenbasis",
        },
        **_memory_temperature(sources.purifier),
        **({"recogniser_description": sources.description.to_dict()} if sources.description else {}),
    }


def _memory_temperature(purifier: AntibodyNetwork | None) -> dict[str, float]:
    """What a public checkpoint does not say and verification has to know."""
    return {"memory_temperature": purifier.pca_layer.memory.temperature} if isinstance(purifier, Purifier) else {}


def drawn_faces(basis: Eigenbasis, count: int, seed: int = 0) -> Floats:
    """(count, D) faces drawn from the Gaussian that the eigenbasis describes, for measures that need no photos."""
    rng = np.random.default_rng(seed)
    coefficients = rng.standard_normal((count, basis.components), np.float32) * np.sqrt(basis.eigenvalues)
    return np.asarray(basis.mean + coefficients @ basis.basis, np.float32)
