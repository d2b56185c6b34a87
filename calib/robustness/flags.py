"""Signs that a bundle was made so as to look better than it is, or that it is judged by what it was fitted on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from immunogate.calib.robustness.document import Rate
from immunogate.manifest import Manifest


@dataclass(frozen=True)
class Measured:
    """What the flags are raised by.

    Attributes:
        photos_sha256: of the photos evaluated on.
        fmr: the calibrated false match rate.
        false_matches: of clean impostor pairs here, at the calibrated threshold.
        lowest: lower end of that rate when people are drawn anew, see `clean.lowest_rate`.
        known: of the photos, those whose person or picture the calibration has seen; None where it does not say.
    """

    photos_sha256: str
    fmr: float
    false_matches: Rate
    lowest: float
    known: tuple[int, int] | None = None


def flags_of(manifest: Manifest, measured: Measured) -> tuple[str, ...]:
    """Sentences, none where nothing is suspicious."""
    return tuple(_flags(manifest, measured))


def _flags(manifest: Manifest, measured: Measured) -> Iterator[str]:
    calibration = manifest.calibration
    # Sources are named by the first digits of their hash in words, by all of them in the provenance.
    short = measured.photos_sha256[:16]
    if calibration is not None and short in calibration.source:
        yield "the photos evaluated on are those that the threshold was calibrated on; nothing here counts."
    if measured.known is not None and measured.known[0]:
        used, of = measured.known
        yield f"the bundle was calibrated on people or pictures of {used} of the {of} photos; nothing here counts."
    if short in json.dumps(manifest.provenance):
        yield "the bundle's provenance names these photos; something was fitted on them, so nothing here counts."
    if measured.lowest > measured.fmr:
        found = measured.false_matches
        yield (
            f"the calibrated threshold lets clean impostors in too often: {found.rate:.2g} of {found.of:,} pairs, at "
            f"least {measured.lowest:.2g} when other people are drawn, where {measured.fmr:g} was promised. It was "
            "fitted on attacked or other data; calibrate the bundle on clean faces."
        )
