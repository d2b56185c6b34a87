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
from immunogate.structs import CLONE_DISAGREEMENT, CONSECUTIVE_FRAMES, RAW_AGAINST_PURIFIED, Floats, Match, Outcome


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
    """Alarm: two looks at one face that should be alike are not, see `immunogate.structs.SIGNALS`."""
    POOR_FACE = "poor_face"
    """Too small or too far turned away to recognise."""
    EMPTY_GALLERY = "empty_gallery"
    """Nobody is enrolled."""
    STALE = "stale"
    """The frame was too old when it was decided."""
    ERROR = "error"
    """Something failed on the way; the decision's detail says what."""
    NOT_RECORDED = "not_recorded"
    """It would have been an allow, and its record could not be made durable."""


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
        clone_alarm: disagreement of clones and views above which a face is an alarm; None does not look at it.
        frame_alarm: disagreement of two looks at a track, one after the other, above which it is an alarm; likewise.

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
    clone_alarm: float | None = None
    frame_alarm: float | None = None

    def __post_init__(self) -> None:
        ranges = {
            "threshold": (-1.0, 1.0),
            "alarm": (0.0, 2.0),
            "margin": (0.0, 2.0),
            "confirm_frames": (1, 1000),
            "max_decision_age_ms": (1.0, 60_000.0),
            "least_eye_distance": (0.0, 10_000.0),
            "most_yaw": (0.0, 10.0),
            "clone_alarm": (0.0, 2.0),
            "frame_alarm": (0.0, 2.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is None and name in ("clone_alarm", "frame_alarm"):
                continue
            if not low <= value <= high:  # also refuses NaN
                raise UsageError(f"{name.replace('_', '-')} must be in {low:g} .. {high:g}, got {value}")


@dataclass(frozen=True)
class Verdict:
    """Outcome, reason, the agreeing frames so far, and for an alarm which of `SIGNALS` raised it."""

    outcome: Outcome
    reason: Reason
    confirmations: int = 0
    signal: str | None = None


@dataclass(frozen=True)
class Disagreement:
    """How far looks at one face disagree, each 1 - cosine in [0, 2].

    Attributes:
        raw: the face as it came and purified: the attack score.
        clones: among kept clones and views, see `immunogate.runtime.recognise.spread`; None where there is one look.
        frames: this look and the track's last one; None at its first.
    """

    raw: float
    clones: float | None = None
    frames: float | None = None


def attack_score(raw: Floats, purified: Floats) -> float:
    """1 - cosine of two unit embeddings, in [0, 2]."""
    return float(np.clip(1.0 - float(raw @ purified), 0.0, 2.0))


def is_poor(face: Quality, policy: Policy) -> bool:
    """Whether the face is too small or too far turned away."""
    return not (face.eye_distance >= policy.least_eye_distance and face.yaw <= policy.most_yaw)  # NaN is poor


def disagreement(raw: Floats, purified: Floats, spread: float | None, track: Track) -> Disagreement:
    """What may raise an alarm about one look at a face; the track keeps the look for the next one.

    Args:
        raw: (E,) embedding of the face as it came, of unit length.
        purified: (E,) of the purified one.
        spread: among clones and views; None where there is one look only.
        track: updated: ``embedding``.
    """
    frames = None if track.embedding is None else attack_score(track.embedding, purified)
    track.embedding = purified
    return Disagreement(attack_score(raw, purified), spread, frames)


def judge(found: Match, apart: Disagreement, policy: Policy, track: Track) -> Verdict:
    """Decide about one look at a face and keep its track's count of agreeing frames.

    Args:
        found: best match of the purified face.
        apart: how far looks at the face disagree.
        policy: what is asked for.
        track: updated: ``person`` and ``agreeing``.
    """
    signal = _alarm(apart, policy)
    reason = Reason.DISAGREEMENT if signal else _doubt(found, policy)
    if reason is not None:
        track.person, track.agreeing = None, 0
        return Verdict("alarm" if signal else "deny", reason, signal=signal)
    track.agreeing = track.agreeing + 1 if track.person == found.person else 1
    track.person = found.person
    if track.agreeing < policy.confirm_frames:
        return Verdict("deny", Reason.CONFIRMING, track.agreeing)
    return Verdict("allow", Reason.MATCH, track.agreeing)


def _alarm(apart: Disagreement, policy: Policy) -> str | None:
    """The first signal beyond its limit; a NaN is beyond all, and so is one that has a limit and was not to be had."""
    if not apart.raw <= policy.alarm:
        return RAW_AGAINST_PURIFIED
    if policy.clone_alarm is not None and not (apart.clones is not None and apart.clones <= policy.clone_alarm):
        return CLONE_DISAGREEMENT
    if policy.frame_alarm is not None and apart.frames is not None and not apart.frames <= policy.frame_alarm:
        return CONSECUTIVE_FRAMES
    return None


def _doubt(found: Match, policy: Policy) -> Reason | None:
    # Comparisons are written so that a NaN fails them.
    if found.person is None:
        return Reason.EMPTY_GALLERY
    if not found.similarity >= policy.threshold:
        return Reason.NO_MATCH
    if not found.margin >= policy.margin:
        return Reason.AMBIGUOUS
    return None
