"""Measures a bundle's limits on the faces of a file: the chain as it is deployed, and what is to be said about it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import identified_faces, recognise_all, say_runners
from immunogate.errors import ImmunogateError, UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.calib.curves import Slice
    from immunogate.calib.suspicion import Finding
    from immunogate.faces_file import AlignedFaces
    from immunogate.manifest import Alarms, Calibration, Manifest
    from immunogate.structs import Floats, Pixels

UNDEFENDED_RATE = 1e-3
FALSE_ALARMS = 1e-3
"""Share of clean faces that may raise an alarm, unless another is asked for."""

MOST_JITTERED = 2000
"""Faces of which a copy goes through the chain once more, for the disagreement of consecutive frames."""

JITTER_NOTE = (
    "consecutive frames were measured on jittered copies of photos (seeded: turned, moved, scaled, lit, noisy), not on "
    "video: a head that turns fast may pass the limit more often"
)

NOT_COMPARED = "whether the faces were attacked was not checked: this chain has no earlier alarm limit to compare with"


@dataclass(frozen=True)
class Asked:
    """What to measure, and how.

    Attributes:
        backend, runner: as the gate will run, see `immunogate.runtime.chain.open_chain`.
        rates: false match rates beside the usual ones; these must be supported.
        false_alarms: share of clean faces that may raise an alarm.
        force: measure on faces that would be refused; the manifest says so.

    Raises:
        UsageError: a rate is out of its range.
    """

    backend: str = "cpu"
    runner: str = "cpu"
    rates: tuple[float, ...] = ()
    false_alarms: float = FALSE_ALARMS
    force: bool = False

    def __post_init__(self) -> None:
        for rate in self.rates:
            if not 0 < rate <= 0.1:
                raise UsageError(f"--fmr must be above 0 and at most 0.1, got {rate:g}")
        if not 0 < self.false_alarms < 0.5:
            raise UsageError(f"--false-alarms must be above 0 and below 0.5, got {self.false_alarms:g}")


@dataclass(frozen=True, eq=False)
class Report:
    """What is said beside the limits themselves.

    Attributes:
        det: the curve, see `immunogate.calib.curves.det_curve`.
        slices: rates by quality at ``sliced_at``.
        sliced_at: the threshold of the slices.
        unsupported: the usual rates that the pairs do not support, in words.
        unchecked: what could not be checked of the faces, in words.
    """

    det: dict[str, list[float]]
    slices: list[Slice]
    sliced_at: float
    unsupported: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Seen:
    """(N, E) embeddings of clean faces, raw and purified, (N,) spreads or None, and what ran the networks."""

    raw: Floats
    purified: Floats
    spreads: Floats | None
    again: Floats
    runners: dict[str, str]


def measured(bundle: Bundle, faces_file: Path, asked: Asked) -> tuple[Manifest, Report]:
    """The bundle's manifest with limits of its own, and the report; nothing is written.

    The threshold that the recogniser would need without purification goes into the provenance: nothing decides by
    it, but a comparison with an undefended gate needs it.

    Raises:
        ImmunogateError: the faces look attacked or are under wrong names, and it was not forced.
        InputError: they do not support the rates.
    """
    from immunogate.calib.threshold import RATES, calibrate, pair_scores, support_in_words, threshold_at
    from immunogate.files import sha256_of_file

    faces = _chosen(identified_faces(faces_file))
    names = faces.identities
    assert names is not None  # identified_faces has seen to it
    seen = _seen(bundle, faces, asked)
    findings = _refused(bundle, faces_file, faces, seen, asked.force)
    bare = threshold_at(pair_scores(seen.raw, names), UNDEFENDED_RATE)
    manifest = _with_undefended(bundle.manifest, dataclasses.asdict(bare) if bare else None)
    sha256, people = sha256_of_file(faces_file), len(set(names.tolist()))
    source = f"{len(faces)} faces of {people} people in {faces_file.name} (sha256 {sha256[:16]})"
    embedding_hash = manifest.embedding_hash()
    alarms = _alarms(seen, faces, asked.false_alarms)
    calibration = calibrate(seen.raw, seen.purified, names, embedding_hash, source, needed=asked.rates, alarms=alarms)
    scores = pair_scores(seen.purified, names)
    there = {row.fmr for row in calibration.thresholds}
    missing = [support_in_words(scores, rate) for rate in RATES if rate not in there]
    said = _measured_with(manifest, faces, asked, seen, sha256, [finding.words for finding in findings])
    calibration = dataclasses.replace(calibration, measured_with=said)
    report = _report(seen, faces, calibration, missing, [] if _earlier_limit(bundle) is not None else [NOT_COMPARED])
    return dataclasses.replace(manifest, calibration=calibration), report


def refuse_unfit(bundle: Bundle, faces_file: Path, asked: Asked) -> None:
    """Refuse faces that look attacked or are under wrong names before longer work begins; as `measured` does."""
    faces = _chosen(identified_faces(faces_file))
    _refused(bundle, faces_file, faces, _seen(bundle, faces, asked), asked.force)


def _refused(bundle: Bundle, faces_file: Path, faces: AlignedFaces, seen: Seen, force: bool) -> list[Finding]:
    findings = _findings(bundle, faces, seen)
    if findings and not force:
        raise ImmunogateError(
            f"{faces_file} is refused: {'; '.join(finding.words for finding in findings)}",
            "Mend the file, or add --force, which the manifest will say",
        )
    return findings


def _chosen(faces: AlignedFaces) -> AlignedFaces:
    """Nobody more often than others, and not more faces than comparisons can be held."""
    from immunogate.calib.threshold import even_out, thin

    assert faces.identities is not None
    even = faces.take(even_out(faces.identities))
    assert even.identities is not None
    return even.take(thin(even.identities))


def _seen(bundle: Bundle, faces: AlignedFaces, asked: Asked) -> Seen:
    import numpy as np

    from immunogate.calib.jitter import jittered
    from immunogate.runtime.chain import open_chain

    with open_chain(bundle, backend=asked.backend, runner=asked.runner) as chain:
        runners = say_runners(chain, asked.runner)
        found = recognise_all(chain, faces.images, "calibrating")
        copies: Pixels = jittered(faces.images[_copied(len(faces))])
        later = recognise_all(chain, copies, "jittered copies", first=len(faces))
    spreads = [part.spreads for part in found if part.spreads is not None]
    return Seen(
        np.concatenate([part.raw for part in found]),
        np.concatenate([part.purified for part in found]),
        np.concatenate(spreads) if spreads else None,
        np.concatenate([part.purified for part in later]),
        runners,
    )


def _copied(count: int) -> slice:
    """Of how many faces there is a jittered copy: every one, or every second, third, ..."""
    return slice(None, None, -(-count // MOST_JITTERED))


def _findings(bundle: Bundle, faces: AlignedFaces, seen: Seen) -> list[Finding]:
    """What speaks against the faces; the earlier limit counts only where it was measured on a chain like this one."""
    from immunogate.calib.suspicion import attacked, doubled_people, doubled_pictures
    from immunogate.calib.threshold import distances

    earlier = _earlier_limit(bundle)
    names = faces.identities
    assert names is not None
    found = [
        None if earlier is None else attacked(distances(seen.raw, seen.purified), earlier),
        doubled_pictures(seen.raw, names, faces.names),
        doubled_people(seen.purified, names),
    ]
    return [finding for finding in found if finding is not None]


def _earlier_limit(bundle: Bundle) -> float | None:
    """The alarm limit of an earlier calibration of the same chain, None where there was none."""
    earlier = bundle.manifest.calibration
    if earlier is None or (earlier.status == "measured" and earlier.measured_on != bundle.manifest.embedding_hash()):
        return None
    return earlier.alarm


def _with_undefended(manifest: Manifest, bare: dict[str, Any] | None) -> Manifest:
    stated = {name: value for name, value in manifest.provenance.items() if name != "undefended"}
    if bare is not None:
        stated["undefended"] = {**bare, "recogniser_sha256": manifest.files[manifest.recogniser.file].sha256}
    return dataclasses.replace(manifest, provenance=stated)


def _alarms(seen: Seen, faces: AlignedFaces, rate: float) -> Alarms:
    """Limits on faces of which there is a jittered copy, so that all signals are known of each."""
    from immunogate.calib.alarms import measure_alarms
    from immunogate.calib.threshold import distances
    from immunogate.structs import CLONE_DISAGREEMENT, CONSECUTIVE_FRAMES, RAW_AGAINST_PURIFIED

    every = _copied(len(faces))
    raw, purified = seen.raw[every], seen.purified[every]
    signals = {
        RAW_AGAINST_PURIFIED: distances(raw, purified),
        CLONE_DISAGREEMENT: None if seen.spreads is None else seen.spreads[every],
        CONSECUTIVE_FRAMES: distances(purified, seen.again),
    }
    assert faces.identities is not None
    return measure_alarms(signals, faces.identities[every], rate, JITTER_NOTE)


def _measured_with(
    manifest: Manifest, faces: AlignedFaces, asked: Asked, seen: Seen, sha256: str, forced: list[str]
) -> Any:
    from immunogate.calib.known_people import hashed_images, hashed_people
    from immunogate.manifest import MeasuredWith

    salt, purifier = manifest.embedding_hash(), manifest.purifier
    return MeasuredWith(
        purifier.mode, manifest.recogniser.views, purifier.clones, purifier.keep, manifest.recogniser.precision,
        seen.runners, asked.backend, sha256, salt, hashed_people(faces, salt), hashed_images(faces, salt), forced,
    )  # fmt: skip


def _report(
    seen: Seen, faces: AlignedFaces, calibration: Calibration, missing: list[str], unchecked: list[str]
) -> Report:
    from immunogate.calib.curves import det_curve, slices
    from immunogate.calib.threshold import pair_scores

    assert faces.identities is not None
    # At the gate's usual rate where it is supported, else at the strictest there is.
    rows = sorted(calibration.thresholds, key=lambda row: row.fmr)
    at = next((row for row in rows if row.fmr >= UNDEFENDED_RATE), rows[-1]).threshold
    parts = slices(seen.purified, faces.identities, faces.images, at)
    return Report(det_curve(pair_scores(seen.purified, faces.identities)), parts, at, missing, unchecked)
