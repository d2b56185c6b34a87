"""Whose faces do what in a conversion, and the bundle that it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from immunogate import __version__
from immunogate.bundle import Bundle, open_bundle, write_manifest
from immunogate.calib.precision.accuracy import Accuracy
from immunogate.calib.precision.conversion import ConversionSettings, Converted
from immunogate.calib.threshold import even_out, thin
from immunogate.errors import InputError, UsageError
from immunogate.faces_file import AlignedFaces, identity_split
from immunogate.files import sha256_of_bytes, sha256_of_file
from immunogate.folders import folder_written_whole
from immunogate.manifest import FileEntry, Manifest

SPLIT_SEED, JUDGING_SHARE = 5, 0.5
OF_ONE = 4
"""Calibration faces of one person at the most."""

FEW = 12
"""Faces on which every layer is tried alone."""

CARD = "MODEL_CARD.md"


@dataclass(frozen=True, eq=False)
class Parts:
    """Faces by what they are for; nobody is in both.

    Attributes:
        calibrating: scales and kept layers come from these.
        judging: the converted bundle is judged on these.
    """

    calibrating: AlignedFaces
    judging: AlignedFaces

    @property
    def few(self) -> AlignedFaces:
        """Some of the calibrating ones, evenly taken."""
        count = min(FEW, len(self.calibrating))
        return self.calibrating.take(np.linspace(0, len(self.calibrating) - 1, count).astype(np.intp))


def divided(faces: AlignedFaces, calibrating: int, judging: int) -> Parts:
    """Split people, not faces.

    Args:
        faces: with identities.
        calibrating: most faces of the one half of the people.
        judging: most faces of the other half, whole people.

    Raises:
        UsageError: a number is out of range.
        InputError: the people are too few for two halves.
    """
    for name, count in (("--calibration-faces", calibrating), ("--judged-faces", judging)):
        if not 8 <= count <= 4096:
            raise UsageError(f"{name} must be in 8 .. 4096, got {count}")
    assert faces.identities is not None  # the caller has seen to it
    one, other = (faces.take(mask) for mask in identity_split(faces.identities, SPLIT_SEED, JUDGING_SHARE))
    assert one.identities is not None
    even = even_out(one.identities, OF_ONE)
    drawn = np.sort(np.random.default_rng(SPLIT_SEED).permutation(even)[:calibrating])
    assert other.identities is not None
    other = other.take(even_out(other.identities))
    assert other.identities is not None
    rows = thin(other.identities, judging)
    if len(drawn) < 8 or len(rows) < 8:
        raise InputError(
            f"{len(faces)} faces are too few: half of the people calibrate and half judge", "Give more people"
        )
    return Parts(one.take(drawn), other.take(rows))


def write_bundle(
    source: Bundle,
    out: Path,
    converted: dict[str, Converted],
    settings: ConversionSettings,
    accuracy: Accuracy,
    parts: Parts,
    faces_file: Path,
) -> Bundle:
    """The source bundle with other networks, without its thresholds; whole or not at all.

    Raises:
        UsageError: ``out`` can not be written.
        BundleError: a file of the source is missing or damaged.
    """
    manifest = source.manifest
    entries = {"recogniser": manifest.recogniser, "analyzer": manifest.analyzer}
    networks = {entries[role].file: part.data for role, part in converted.items()}  # type: ignore[union-attr]
    provenance = {
        **{name: value for name, value in manifest.provenance.items() if name != "undefended"},
        "precision": _provenance(source, converted, settings, accuracy, parts, faces_file),
    }
    with folder_written_whole(out) as folder:
        files = {}
        for name in manifest.files:
            data = networks.get(name) or source.read(name)
            if name == CARD:
                data += _card(provenance["precision"]).encode()
            (folder / name).write_bytes(data)
            files[name] = FileEntry(sha256_of_bytes(data), len(data))
        write_manifest(folder, _manifest(manifest, files, converted, settings.precision, provenance))
    return open_bundle(out)


def _manifest(
    manifest: Manifest, files: dict[str, FileEntry], converted: dict[str, Converted], precision: str, provenance: Any
) -> Manifest:
    recogniser, analyzer = manifest.recogniser, manifest.analyzer
    if "recogniser" in converted:
        recogniser = replace(recogniser, precision=precision)
    if "analyzer" in converted and analyzer is not None:
        analyzer = replace(analyzer, precision=precision)
    return replace(
        manifest,
        model_id=f"{recogniser.architecture}-{manifest.purifier.mode}-{precision}-{files[recogniser.file].sha256[:8]}",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files=files,
        recogniser=recogniser,
        analyzer=analyzer,
        calibration=None,
        provenance=provenance,
    )


def _provenance(
    source: Bundle,
    converted: dict[str, Converted],
    settings: ConversionSettings,
    accuracy: Accuracy,
    parts: Parts,
    faces_file: Path,
) -> dict[str, Any]:
    calibrating = parts.calibrating.identities
    found: dict[str, Any] = {
        "to": settings.precision,
        "source": {"model_id": source.manifest.model_id, "sha256": source.sha256},
        "faces": {
            "file": faces_file.name,
            "sha256": sha256_of_file(faces_file),
            "calibrating": len(parts.calibrating),
            "calibrating_people": len(np.unique(calibrating)) if calibrating is not None else 0,
        },
        "limit_cosine": settings.limit,
        "networks": {role: {**part.report(), "bytes": len(part.data)} for role, part in converted.items()},
        "accuracy": accuracy.as_data(),
        "tools": {"immunogate": __version__, **{name: version(name) for name in ("onnx", "onnxruntime", "numpy")}},
    }
    if settings.to == "int8":
        integers = settings.integers
        found["method"] = {
            "name": integers.method,
            "percentile": integers.percentile if integers.method == "percentile" else None,
            "device": integers.device,
        }
    return found


def _card(report: dict[str, Any]) -> str:
    accuracy = report["accuracy"]
    purified = accuracy["purified"]
    return (
        f"\n## Precision\n\nThe networks {', '.join(sorted(report['networks']))} were converted to {report['to']} from "
        f"{report['source']['model_id']}; figures of quality above are of that bundle. On {accuracy['faces']} faces of "
        f"{accuracy['people']} people who had no part in it, embeddings of purified faces have a cosine of "
        f"{purified['mean']:.5f} with those of the float bundle in the mean and of {purified['worst_percent']:.5f} at "
        f"the 1st percentile; TAR at FMR {accuracy['fmr']:g} went from {accuracy['tar_float']:.4f} to "
        f"{accuracy['tar_converted']:.4f}. Measured on a CPU.\n"
    )
