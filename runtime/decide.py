"""Turns similarities into allow, deny or alarm. Every doubt is a deny.

Purification is not liveness: a photo held before the camera purifies into a fine face. See README, "What it is not".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from immunogate.errors import UsageError
from immunogate.runtime.align import Quality
from immunogate.runtime.track import Track
from immunogate.structs import Floats, Match, Outcome


class Reason(str, Enum):
    """Why a decision is what it is."""

    MATCH = "match"
    """Allowed: enough agreeing frames match one person."""
    CONFIRMING = "confirming"
    """Matches, but not yet in enough frames."""
    NO_MATCH = "no_match"
    """Nobody in the gallery is similar enough."""
    AMBIGUOUS = "ambiguous"
    """Two people of the gallery are almost equally similar."""
    DISAGREEMENT = "disagreement"
    """Alarm: raw and purified face are not the same person to the recogniser."""
    POOR_FACE = "poor_face"
    """Too small or too far turned away to recognise."""
    EMPTY_GALLERY = "empty_gallery"
    """Nobody is enrolled."""
    STALE = "stale"
    """The frame was too old when it was decided."""
    ERROR = "error"
    """Something failed on the way; the decision's detail says what."""


@dataclass(frozen=True)
class Policy:
    """What the gate asks for before it allows.

    Attributes:
        threshold: least cosine of the purified face with a person's template.
        margin: least distance to the runner-up.
        confirm_frames: frames in a row that must agree.
        alarm: attack score (1 - cosine of raw and purified embedding) above which a face is an alarm.
        max_decision_age_ms: older decisions are a deny.
        least_eye_distance: pixels between the eyes below which a face is too small.
        most_yaw: see `Quality.yaw`; above it a face is turned too far away.

    Raises:
        UsageError: a value is out of its range.
    """

    threshold: float
    alarm: float
    margin: float = 0.05
    confirm_frames: int = 3
    max_decision_age_ms: float = 500.0
    least_eye_distance: float = 16.0
    most_yaw: float = 0.45

    def __post_init__(self) -> None:
        ranges = {
            "threshold": (-1.0, 1.0),
            "alarm": (0.0, 2.0),
            "margin": (0.0, 2.0),
            "confirm_frames": (1, 1000),
            "max_decision_age_ms": (1.0, 60_000.0),
            "least_eye_distance": (0.0, 10_000.0),
            "most_yaw": (0.0, 10.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses NaN
                raise UsageError(f"{name.replace('_', '-')} must be in {low:g} .. {high:g}, got {value}")


@dataclass(frozen=True)
class Verdict:
    """Outcome, reason and the agreeing frames so far."""

    outcome: Outcome
    reason: Reason
    confirmations: int = 0


def attack_score(raw: Floats, purified: Floats) -> float:
    """1 - cosine of two unit embeddings, in [0, 2]."""
    return float(np.clip(1.0 - float(raw @ purified), 0.0, 2.0))


def is_poor(face: Quality, policy: Policy) -> bool:
    """Whether the face is too small or too far turned away."""
    return not (face.eye_distance >= policy.least_eye_distance and face.yaw <= policy.most_yaw)  # NaN is poor


def judge(found: Match, score: float, policy: Policy, track: Track) -> Verdict:
    """Decide about one look at a face and keep its track's count of agreeing frames.

    Args:
        found: best match of the purified face.
        score: attack score.
        policy: what is asked for.
        track: updated: ``person`` and ``agreeing``.
    """
    reason = _doubt(found, score, policy)
    if reason is not None:
        track.person, track.agreeing = None, 0
        return Verdict("alarm" if reason is Reason.DISAGREEMENT else "deny", reason)
    track.agreeing = track.agreeing + 1 if track.person == found.person else 1
    track.person = found.person
    if track.agreeing < policy.confirm_frames:
        return Verdict("deny", Reason.CONFIRMING, track.agreeing)
    return Verdict("allow", Reason.MATCH, track.agreeing)


def _doubt(found: Match, score: float, policy: Policy) -> Reason | None:
    # Comparisons are written so that a NaN fails them.
    if not score <= policy.alarm:
        return Reason.DISAGREEMENT
    if found.person is None:
        return Reason.EMPTY_GALLERY
    if not found.similarity >= policy.threshold:
        return Reason.NO_MATCH
    if not found.margin >= policy.margin:
        return Reason.AMBIGUOUS
    return None
