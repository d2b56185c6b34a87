"""What a bundle says about itself: ``manifest.json`` as frozen, validated structures."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from immunogate.decoding import decode
from immunogate.errors import BundleError
from immunogate.files import sha256_of_bytes
from immunogate.limits import parse_json
from immunogate.structs import CROP_SIZE, SIGNALS
from immunogate.views import VIEWS

MANIFEST_VERSION = 1
MANIFEST_NAME = "manifest.json"

STATUSES = ("measured", "provisional")
EXPORT_PRECISIONS = ("fp32", "fp16", "fp16-weights")
"""Of networks: weights and arithmetic in float32 or float16, or float16 weights for arithmetic in float32."""

PRECISIONS = (*EXPORT_PRECISIONS, "int8", "int8-cpu")
"""Those that export makes, and those that take faces to make, see `immunogate.calib.precision.integers`."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its SHA-256 and its length in bytes."""

    sha256: str
    bytes: int


DETECTOR_STRIDES = (8, 16, 32)
DETECTOR_OUTPUTS = tuple(f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in DETECTOR_STRIDES)
"""Names of a YuNet's outputs: class and object scores, boxes, points, of each grid."""


@dataclass(frozen=True)
class DetectorEntry:
    """The face detector.

    Attributes:
        file: name of the ONNX file; input (1, 3, H, W) float32, BGR 0..255, H and W multiples of ``stride``.
        architecture: yunet, or scrfd, whose outputs export brings to those of a YuNet.
        stride: the coarsest of its grids in pixels.
    """

    file: str
    architecture: str
    stride: int = 32


ANALYZER_INPUTS = ("face", "spectrum")
"""What an analyzer may read, which is also its input's name."""


@dataclass(frozen=True)
class AnalyzerEntry:
    """The network that states the probabilities of the eigenfaces.

    Attributes:
        file: name of the ONNX file; input ``face`` (B, 1, 112, 112) float32 in [-1, 1], or ``spectrum`` (B, n + 2)
            float32, coefficients, length of the remainder, grain; output ``probabilities`` (B, n), gated (B, n + 1).
        architecture: of the purifier's networks.
        opset: ONNX operator set.
        precision: one of `PRECISIONS`; inputs and outputs stay float32.
        reads: face or spectrum.
        gated: whether a last probability says how much of the remainder is let through.

    Raises:
        BundleError: it reads something else.
    """

    file: str
    architecture: str
    opset: int
    precision: str
    reads: str
    gated: bool

    def __post_init__(self) -> None:
        if self.reads not in ANALYZER_INPUTS:
            raise BundleError(f"analyzer.reads: expected {' or '.join(ANALYZER_INPUTS)}, got {self.reads!r}")


@dataclass(frozen=True)
class RecogniserEntry:
    """The recogniser.

    Attributes:
        file: name of the ONNX file; input ``face`` (B, 3, height, width) float32, output ``embedding``
            (B, E), unit length.
        architecture: name of the architecture.
        height: input rows in pixels.
        width: input columns in pixels.
        crop_left: first column of the 112x112 crop that the network sees.
        mean: taken off each pixel of 0..255.
        std: divides after that.
        colour: order of the channels; a purified face is grey and fills all three.
        embedding_dimension: E.
        opset: ONNX operator set.
        precision: one of `PRECISIONS`.
        views: of a purified face whose embeddings are averaged, see `immunogate.views`.

    Raises:
        BundleError: a number is out of its range.
    """

    file: str
    architecture: str
    height: int
    width: int
    crop_left: int
    mean: float
    std: float
    colour: str
    embedding_dimension: int
    opset: int
    precision: str
    views: int = 1

    def __post_init__(self) -> None:
        fits = 1 <= self.height <= CROP_SIZE and 0 <= self.crop_left < self.crop_left + self.width <= CROP_SIZE
        if not fits:
            raise BundleError(
                f"recogniser: {self.width} x {self.height} pixels from column {self.crop_left} do not lie within the "
                f"{CROP_SIZE} x {CROP_SIZE} face"
            )
        if not self.std > 0 or self.embedding_dimension < 1:
            raise BundleError(
                f"recogniser: expected std above 0 and embedding_dimension above 0, got {self.std:g} and "
                f"{self.embedding_dimension}"
            )
        if self.views not in VIEWS:
            raise BundleError(f"recogniser.views: expected one of {', '.join(map(str, VIEWS))}, got {self.views}")


@dataclass(frozen=True)
class PurifierEntry:
    """How faces are purified: see `immunogate.kernels.antibody.AntibodySettings`.

    Attributes:
        basis: name of the eigenbasis file.
        components: n, eigenfaces in it.
        storage: float32, float16 or int8.
        mode: default inference mode.
        top_k: eigenfaces kept in mode fixed.
        clones: clones drawn in mode select.
        keep: clones kept in mode select.
        seed: key of the generator.
    """

    basis: str
    components: int
    storage: str
    mode: str
    top_k: int
    clones: int
    keep: int
    seed: int


@dataclass(frozen=True)
class Threshold:
    """A decision threshold on the cosine of purified embeddings, and what it rests on.

    Attributes:
        fmr: target false match rate of one comparison (ISO/IEC 19795-1).
        threshold: similarities at or above it match.
        fmr_upper: upper end of the 95 % interval of the false match rate at the threshold: the wider of the two below.
        impostor_pairs: comparisons of different people behind it.
        tar: true accept rate of the genuine pairs at the threshold.
        genuine_pairs: comparisons of one person with himself.
        upper_of_pairs: upper end of Wilson's interval, which takes pairs for independent; None in older manifests.
        upper_of_people: upper end of the bootstrap by person; None where it was not drawn.
    """

    fmr: float
    threshold: float
    fmr_upper: float
    impostor_pairs: int
    tar: float
    genuine_pairs: int
    upper_of_pairs: float | None = None
    upper_of_people: float | None = None


@dataclass(frozen=True)
class AlarmSignal:
    """One signal's limit, and how often clean faces of other people passed it.

    Attributes:
        name: one of `immunogate.structs.SIGNALS`.
        limit: 1 - cosine in [0, 2] above which a face is an alarm.
        asked: share of clean faces that may pass it.
        flagged: of the clean faces of people who did not set the limit, those that pass it.
        of: such faces.
        low, high: 95 % Wilson interval of that share.

    Raises:
        BundleError: an unknown name, or a limit out of range.
    """

    name: str
    limit: float
    asked: float
    flagged: int
    of: int
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.name not in SIGNALS:
            raise BundleError(f"calibration.alarms: unknown signal {self.name!r}, expected one of {', '.join(SIGNALS)}")
        if not 0 <= self.limit <= 2:
            raise BundleError(f"calibration.alarms: the limit of {self.name} must be in 0 .. 2, got {self.limit:g}")


@dataclass(frozen=True)
class Alarms:
    """The limits of all signals together.

    Attributes:
        signals: those that were measured; a signal that is not here raises no alarm.
        asked: share of clean faces that may raise any alarm.
        flagged: of clean faces of people who set no limit, those that raise any.
        of: such faces.
        people: such people.
        low, high: 95 % Wilson interval of that share.
        note: how it was measured, in words.
    """

    signals: list[AlarmSignal]
    asked: float
    flagged: int
    of: int
    people: int
    low: float
    high: float
    note: str

    def limit(self, name: str) -> float | None:
        """The limit of a signal by its name; None where it was not measured."""
        return next((signal.limit for signal in self.signals if signal.name == name), None)


@dataclass(frozen=True)
class MeasuredWith:
    """The chain as it was measured, and on whom.

    Attributes:
        mode, views, clones, keep, precision: of the bundle, see the entries above.
        runners: what ran each network, by its file.
        backend: where faces were purified.
        faces_sha256: of the file of faces.
        salt: the bundle's embedding hash at that time.
        people: hashes of the people's names, sorted, with blanks between them, see `immunogate.calib.known_people`.
        images: hashes of their pictures, likewise.
        forced: why the faces would have been refused, had it not been forced; empty where there was nothing.
    """

    mode: str
    views: int
    clones: int
    keep: int
    precision: str
    runners: dict[str, str]
    backend: str
    faces_sha256: str
    salt: str
    people: str
    images: str
    forced: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Calibration:
    """Limits measured on development people.

    Attributes:
        status: measured (this very bundle) or provisional (the same recogniser with another basis: calibrate it).
        thresholds: one for each false match rate.
        alarm: attack score above which a face is an alarm.
        alarm_rate: share of clean development faces above it.
        measured_on: embedding hash of the bundle it was measured on, see `Manifest.embedding_hash`.
        source: what was measured, in words.
        alarms: limits of all signals; None in older manifests, which know ``alarm`` alone.
        measured_with: the chain as it was measured, and on whom; None in older manifests.
    """

    status: str
    thresholds: list[Threshold]
    alarm: float
    alarm_rate: float
    measured_on: str
    source: str
    alarms: Alarms | None = None
    measured_with: MeasuredWith | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise BundleError(f"calibration.status: expected {' or '.join(STATUSES)}, got {self.status!r}")

    def at(self, fmr: float) -> Threshold:
        """The threshold for a false match rate.

        Raises:
            BundleError: this rate was not calibrated.
        """
        for entry in self.thresholds:
            if math.isclose(entry.fmr, fmr):
                return entry
        known = ", ".join(f"{entry.fmr:g}" for entry in self.thresholds)
        raise BundleError(f"no threshold for a false match rate of {fmr:g} (there are: {known})", "Choose one of these")


@dataclass(frozen=True)
class Manifest:
    """All of ``manifest.json``."""

    model_id: str
    license: str
    created: str
    files: dict[str, FileEntry]
    detector: DetectorEntry
    recogniser: RecogniserEntry
    purifier: PurifierEntry
    analyzer: AnalyzerEntry | None = None
    calibration: Calibration | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    manifest_version: int = MANIFEST_VERSION

    def __post_init__(self) -> None:
        _expect_version(self.manifest_version)
        for name in self.files:
            if not _FILE_NAME.fullmatch(name):
                raise BundleError(f"the manifest lists a file by a name that is no plain file name: {name!r}")
        used = [self.detector.file, self.recogniser.file, self.purifier.basis]
        for name in used + ([self.analyzer.file] if self.analyzer else []):
            if name not in self.files:
                raise BundleError(f"the manifest uses {name} but lists no hash for it")

    def embedding_hash(self) -> str:
        """A hash of everything that an embedding depends on: recogniser, basis, analyzer, how antibodies are made.

        Galleries and calibrations are bound to it. The detector is left out: exchanging it keeps a gallery valid.
        """
        used = [self.recogniser.file, self.purifier.basis] + ([self.analyzer.file] if self.analyzer else [])
        parts = {
            "files": [self.files[name].sha256 for name in used],
            "recogniser": dataclasses.asdict(self.recogniser),
            "purifier": dataclasses.asdict(self.purifier),
        }
        return sha256_of_bytes(json.dumps(parts, sort_keys=True).encode())

    def to_json(self) -> str:
        """Indented JSON text with sorted keys and a final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Parse and validate.

        Raises:
            BundleError: not JSON, or a field is missing, unknown or of the wrong type; it is named.
        """
        try:
            data = parse_json(text)
        except ValueError as error:
            raise BundleError(f"{MANIFEST_NAME} is not JSON: {error}") from error
        if isinstance(data, dict):  # before all else: another version may have other fields
            _expect_version(data.get("manifest_version", MANIFEST_VERSION))
        manifest: Manifest = decode(Manifest, data, MANIFEST_NAME)
        return manifest


def _expect_version(version: Any) -> None:
    if version != MANIFEST_VERSION:
        raise BundleError(
            f"the manifest has version {version!r}, this release reads version {MANIFEST_VERSION}",
            "Export the bundle again, or install the release that made it",
        )
