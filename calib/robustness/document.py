"""What `immunogate evaluate` writes: ``robustness.json`` as frozen dataclasses, and back.

``docs/schemas/robustness.schema.json`` is made from these classes (`schema_text`). ACCEPTED always means that the gate
accepts the pair: of dodging rows that is the true accept rate under attack (higher is better for the gate), of
impersonation rows the attack acceptance rate (lower is better).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from immunogate.calib.intervals import wilson
from immunogate.calib.robustness.records import from_plain, schema_of, to_plain
from immunogate.errors import InputError
from immunogate.files import read_bytes, write_whole

SCHEMA_VERSION = 1
FILE_NAME = "robustness.json"
LARGEST = 1 << 28

Key = Literal["none", "jpeg", "blur", "bits", "fixed", "bundle", "expected", "threshold", "sample", "select"]
Tier = Literal["controls", "oblivious", "adaptive", "black box", "patch", "retries"]
Aim = Literal["none", "dodging", "impersonation"]
Attacker = Literal["aligned crop", "camera frame"]
Status = Literal["FAULTY", "BROKEN", "WEAK", "HOLDS"]


@dataclass(frozen=True)
class Rate:
    """How many of how many were accepted, with the Wilson score interval of 95 %.

    Raises:
        ValueError: the numbers contradict each other.
    """

    accepted: int
    of: int
    rate: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (self.of >= 1 and 0 <= self.accepted <= self.of and 0 <= self.low <= self.high <= 1):
            raise ValueError(f"expected 0 <= accepted <= of and 0 <= low <= high <= 1, got {self}")


def rate_of(accepted: int, of: int) -> Rate:
    """The rate of counts.

    Raises:
        ValueError: the counts are impossible.
    """
    low, high = wilson(accepted, of)
    return Rate(int(accepted), int(of), accepted / of, low, high)


@dataclass(frozen=True)
class Tool:
    """What wrote the document."""

    name: str
    version: str


@dataclass(frozen=True)
class CalibrationFacts:
    """The bundle's own calibration; the threshold is the one at ``fmr``, the alarm limit may be missing."""

    status: str
    source: str
    fmr: float
    threshold: float
    alarm: float | None
    alarm_rate: float | None


@dataclass(frozen=True)
class BundleFacts:
    """What was evaluated; ``clones`` and ``kept`` are 0 in modes that draw none."""

    model_id: str
    embedding_hash: str
    manifest_sha256: str
    mode: str
    views: int
    clones: int
    kept: int
    components: int
    precision: str
    runner: str
    backend: str
    calibration: CalibrationFacts


@dataclass(frozen=True)
class SettingFacts:
    """How it was evaluated; ``steps``, ``restarts`` and ``eot`` are those of the adaptive tier."""

    protocol: Literal["quick", "standard", "full"]
    seed: int
    photos: str
    photos_sha256: str
    people: int
    genuine_pairs: int
    impostor_pairs: int
    fmr: float
    steps: int
    restarts: int
    eot: int
    lockout: int


@dataclass(frozen=True)
class Verdict:
    """What it comes to in plain words, the headline first; ``flags`` are faults of the bundle's making."""

    status: Status
    words: tuple[str, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Milliseconds:
    """Time of one face through the configuration, one at a time, over n faces."""

    p50: float
    p99: float
    n: int


@dataclass(frozen=True)
class Configuration:
    """A defence, or none, with the threshold that its rates are at; ``fmr_measured`` is of the reported people."""

    key: Key
    name: str
    threshold: float
    threshold_from: str
    fmr_measured: Rate
    ms_per_face: Milliseconds | None


@dataclass(frozen=True)
class Queries:
    """Questions that the attacker asked about a pair."""

    median: float
    most: int


@dataclass(frozen=True)
class Row:
    """One attack on one configuration.

    ``eps`` is in grey levels of 255; null where there is no such bound. ``twin`` is by the torch twin that gradients
    were taken of; ``deployed`` of the very pictures found, rounded to whole grey levels within the bound, through the
    exported networks. ``undecided`` counts pairs that the gate could not judge. A row without either rate was not run,
    and its note says why.
    """

    tier: Tier
    attack: str
    goal: Aim
    attacker: Attacker
    eps: float | None
    configuration: Key
    twin: Rate | None
    deployed: Rate | None
    undecided: int
    variants: dict[str, Rate] | None
    tries: int | None
    queries: Queries | None
    note: str | None


@dataclass(frozen=True)
class Det:
    """Points of a detection error trade-off curve on clean pairs (ISO/IEC 19795-1)."""

    configuration: Key
    fmr: tuple[float, ...]
    fnmr: tuple[float, ...]


@dataclass(frozen=True)
class SignalRow:
    """Attacked faces that a signal flags, and those that are flagged or that the gate is right about.

    ``of_those_that_fool_the_bare`` is the latter of the faces that get their way with the recogniser alone; None where
    it was not shown them, or none does.
    """

    attack: str
    eps: float | None
    flagged: Rate
    flagged_or_neutralised: Rate
    of_those_that_fool_the_bare: Rate | None


@dataclass(frozen=True)
class Signal:
    """A sign of attack with its limit, None for several; ``false_alarms`` are of clean faces of the reported people."""

    name: Literal["raw against purified", "clone disagreement", "consecutive frames", "any of them"]
    limit: float | None
    false_alarms: Rate
    rows: tuple[SignalRow, ...]


@dataclass(frozen=True)
class Alarm:
    """All signals that were measured."""

    signals: tuple[Signal, ...]


@dataclass(frozen=True)
class Check:
    """One check of whether the attacks worked."""

    name: str
    passed: bool
    found: float | None
    limit: float | None
    words: str


@dataclass(frozen=True)
class Sanity:
    """Whether the figures can be believed."""

    faulty: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Panel:
    """One face: as attacked, the noise ten times as strong, and purified; PNG in base64."""

    title: str
    words: str
    input_png: str
    noise_png: str
    purified_png: str
    similarity_clean: float
    similarity_attacked: float


@dataclass(frozen=True)
class Document:
    """The whole evaluation.

    Raises:
        ValueError: it is of another version.
    """

    schema_version: int
    tool: Tool
    created: str
    seconds: float
    command: str
    environment: dict[str, str]
    bundle: BundleFacts
    setting: SettingFacts
    verdict: Verdict
    configurations: tuple[Configuration, ...]
    rows: tuple[Row, ...]
    det: tuple[Det, ...]
    alarm: Alarm
    sanity: Sanity
    panels: tuple[Panel, ...]
    not_tested: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def document_from(data: Any, where: str = "document") -> Document:
    """A document from plain values.

    Raises:
        InputError: a field is missing, unknown, or of another type; says which.
    """
    return from_plain(Document, data, where)


def write_document(document: Document, path: Path) -> None:
    """Write it whole or not at all.

    Raises:
        UsageError: the file can not be written.
    """
    text = json.dumps(document.to_dict(), indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_document(path: Path) -> Document:
    """Read what `write_document` wrote.

    Raises:
        UsageError: the file can not be read.
        InputError: it is no such document.
    """
    try:
        data = json.loads(read_bytes(path, LARGEST))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON document: {error}") from error
    return document_from(data, str(path))


def schema_text() -> str:
    """The JSON Schema of the document, as it stands in ``docs/schemas/robustness.schema.json``."""
    return json.dumps(schema_of(Document, "immunogate evaluate"), indent=2) + "\n"
