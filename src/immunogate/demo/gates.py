"""Two gates that watch the same frames, one with purification and one without, and whom both know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from immunogate.bundle import Bundle
from immunogate.demo.portraits import Portrait
from immunogate.demo.undefended import UndefendedChain
from immunogate.errors import BundleError, InputError
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Templates
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.track import TrackLimits
from immunogate.structs import Floats

FMR = 1e-3
EVERY_FRAME = TrackLimits(pause=0.0, recheck=0.0)
"""A gate rests between looks at the same face; the demo's look at every frame, so that every frame is counted."""

PATIENCE_MS = 60_000.0
"""No door waits for the demo: on a slow machine a late decision is still shown."""


@dataclass(frozen=True)
class Limits:
    """What both gates ask for.

    Attributes:
        threshold: of the defended gate.
        alarm: its largest attack score.
        undefended: threshold of the other gate.
        own: whether the bundle states a threshold for the recogniser without purification; where it does not, both
            gates have the same.
    """

    threshold: float
    alarm: float
    undefended: float
    own: bool


@dataclass(frozen=True, eq=False)
class Known:
    """The enrolled person to each gate.

    Attributes:
        name: the person.
        purified: (E,) embedding of the purified portrait.
        raw: (E,) embedding of the portrait as it is.
    """

    name: str
    purified: Floats
    raw: Floats


def limits_of(bundle: Bundle) -> Limits:
    """The thresholds at a false match rate of 1e-3.

    Raises:
        BundleError: the bundle is not calibrated, or states something that is no threshold.
    """
    calibration = bundle.calibration()
    threshold = calibration.at(FMR).threshold
    manifest = bundle.manifest
    stated = manifest.provenance.get("undefended")
    recogniser = manifest.files[manifest.recogniser.file].sha256
    if not isinstance(stated, dict) or stated.get("recogniser_sha256") != recogniser:
        return Limits(threshold, calibration.alarm, threshold, own=False)
    value = stated.get("threshold")
    if not isinstance(value, int | float) or not -1 <= value <= 1:
        raise BundleError(f"{bundle.folder}: provenance.undefended.threshold is no cosine: {value!r}")
    return Limits(threshold, calibration.alarm, float(value), own=True)


def enroll(chain: FaceChain, portrait: Portrait) -> Known:
    """What each gate keeps of a portrait.

    Raises:
        InputError: the bundle's detector finds no face in it.
    """
    faces = chain.detector.detect(portrait.pixels)
    if len(faces) == 0:
        raise InputError(f"the bundle's detector finds no face in the portrait of {portrait.name}")
    crop, _ = chain.crop(portrait.pixels, faces.landmarks[faces.largest()])
    found = chain.recognise(crop[None], [0], [0])
    return Known(portrait.name, found.purified[0], found.raw[0])


def open_gates(chain: FaceChain, known: Known, limits: Limits, bundle: Bundle) -> tuple[Gate, Gate]:
    """The defended and the undefended gate, both new: nothing is remembered from another act."""
    defended = Policy(limits.threshold, limits.alarm, max_decision_age_ms=PATIENCE_MS)
    bare = Policy(limits.undefended, 2.0, max_decision_age_ms=PATIENCE_MS)
    return (
        Gate(chain, _one(known.name, known.purified), defended, bundle.sha256, EVERY_FRAME),
        Gate(UndefendedChain(chain), _one(known.name, known.raw), bare, bundle.sha256, EVERY_FRAME),
    )


def _one(name: str, embedding: Floats) -> Templates:
    return Templates([name], np.asarray(embedding, np.float32)[None])
