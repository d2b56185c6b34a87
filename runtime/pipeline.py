"""The gate: what happens to a frame, stage by stage.

    Frame -> detect -> track -> align -> purify -> recognise -> match -> decide

`Gate.process` is the whole of it. A stage that fails makes a deny of that face (or, before faces are known, no
decision at all: nobody is let in by an empty list).
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from immunogate.runtime.align import GLANCE
from immunogate.runtime.chain import FaceChain, Recognised
from immunogate.runtime.clock import StageClock
from immunogate.runtime.decide import Disagreement, Policy, Reason, Verdict, disagreement, is_poor, judge
from immunogate.runtime.gallery import Templates
from immunogate.runtime.match import match, similarity_to
from immunogate.runtime.profile.spans import mark_frame, span
from immunogate.runtime.track import Track, Tracker, TrackLimits
from immunogate.structs import Decision, Faces, Floats, Frame, Match, Pixels

log = logging.getLogger(__name__)


NO_THUMBNAIL = np.zeros(GLANCE**2, np.float32)
"""Like nothing that was ever seen."""

NOTHING_SEEN = Disagreement(math.nan)
"""Of a face that was not recognised."""


@dataclass(eq=False)
class Look:
    """One face that is to be decided in this frame, filled stage by stage."""

    track: Track
    box: Floats
    crop: Pixels | None = None
    purified: Floats | None = None
    found: Match = field(default_factory=lambda: Match(None, -1.0))
    raw_similarity: float | None = None
    apart: Disagreement = NOTHING_SEEN
    antibody: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=lambda: Verdict("deny", Reason.ERROR))
    detail: str = ""


@dataclass(frozen=True, eq=False)
class FrameResult:
    """All that one frame gave.

    Attributes:
        frame: the frame.
        faces: found in it.
        tracks: of each face.
        looks: the faces that were recognised in this frame.
        decisions: one for each look.
        latency_ms: milliseconds spent in each stage.
    """

    frame: Frame
    faces: Faces
    tracks: list[Track]
    looks: list[Look]
    decisions: list[Decision]
    latency_ms: dict[str, float]


class Gate:
    """Decides about the faces of one camera's frames, one frame at a time, on one thread.

    Args:
        chain: detector, purifier, recogniser.
        templates: whom to recognise.
        policy: what to ask for.
        bundle_sha256: goes into every decision.
        limits: of the tracker.
    """

    def __init__(
        self,
        chain: FaceChain,
        templates: Templates,
        policy: Policy,
        bundle_sha256: str,
        limits: TrackLimits | None = None,
    ) -> None:
        self._chain = chain
        chain.know(templates)
        self._templates = templates
        self._policy = policy
        self._bundle = bundle_sha256
        self._limits = limits or TrackLimits()
        self._tracker = Tracker(self._limits)

    def process(self, frame: Frame) -> FrameResult:
        """Everything the gate has to say about a frame."""
        clock = StageClock()
        mark_frame(frame.index)
        try:
            with clock.stage("detect"):
                faces = self._chain.detector.detect(frame.pixels)
        except Exception:  # a gate goes on with the next frame; without faces nobody is let in
            log.exception("frame %d of %s: the detector failed", frame.index, frame.camera)
            faces = Faces.none()
        with clock.stage("track"):
            thumbnails = np.array([self._glance(frame, landmarks) for landmarks in faces.landmarks], np.float32)
            tracks = self._tracker.update(faces, thumbnails, frame.media_time)
        with clock.stage("align"):
            looks = self._choose(frame, faces, tracks)
        fit = [look for look in looks if look.crop is not None]
        try:
            self._recognise(frame, fit, clock)
        except Exception as error:  # every doubt is a deny
            log.exception("frame %d of %s: recognition failed", frame.index, frame.camera)
            for look in fit:
                _deny(look, Reason.ERROR, f"{type(error).__name__}: {error}")
        with span("decide"):
            decisions = [self._decide(frame, look, clock) for look in looks]
        return FrameResult(frame, faces, tracks, looks, decisions, clock.spent_ms)

    def _glance(self, frame: Frame, landmarks: Floats) -> Floats:
        try:
            return self._chain.glance(frame.pixels, landmarks)
        except Exception:  # impossible landmarks are like nothing seen before, and denied when looked at
            return NO_THUMBNAIL

    def _choose(self, frame: Frame, faces: Faces, tracks: list[Track]) -> list[Look]:
        """The faces that are due, each with its crop; those that can not be recognised are denied here."""
        looks = []
        for landmarks, track, box in zip(faces.landmarks, tracks, faces.boxes, strict=True):
            eyes = float(np.hypot(*(landmarks[1] - landmarks[0])))
            if not track.is_due(frame.media_time, eyes, self._limits):
                continue
            track.looks, track.looked_at, track.looked_size = track.looks + 1, frame.media_time, eyes
            look = Look(track, box)
            self._crop(frame, landmarks, look)
            looks.append(look)
        return looks

    def _crop(self, frame: Frame, landmarks: Floats, look: Look) -> None:
        try:
            crop, quality = self._chain.crop(frame.pixels, landmarks)
        except Exception as error:  # every doubt is a deny
            _deny(look, Reason.ERROR, f"{type(error).__name__}: {error}")
            return
        if is_poor(quality, self._policy):
            _deny(look, Reason.POOR_FACE, f"eyes {quality.eye_distance:.0f} pixels apart, yaw {quality.yaw:.2f}")
        else:
            look.crop = crop

    def _recognise(self, frame: Frame, looks: list[Look], clock: StageClock) -> None:
        if not looks:
            return
        crops = np.stack([look.crop for look in looks if look.crop is not None])
        numbers = [look.track.number for look in looks]
        found = self._chain.recognise(crops, [frame.index] * len(looks), numbers, clock, each=True)
        with clock.stage("match"):
            for row, look in enumerate(looks):
                fault = found.faults[row] if found.faults else None
                if fault is None:
                    self._match(look, found, row)
                else:
                    _deny(look, Reason.ERROR, fault)

    def _match(self, look: Look, found: Recognised, row: int) -> None:
        is_matched = found.known is self._templates
        look.found = found.matches[row] if is_matched else match(self._templates, found.purified[row])
        look.raw_similarity = similarity_to(self._templates, look.found.person, found.raw[row])
        spread = None if found.spreads is None else float(found.spreads[row])
        look.apart = disagreement(found.raw[row], found.purified[row], spread, look.track)
        look.purified = found.faces[row, 0]
        antibodies = found.antibodies
        look.antibody = {
            "mode": antibodies.mode,
            "seed": antibodies.seed,
            "clones": antibodies.clones,
            "size": int(antibodies.sizes()[row]),
            "sha256": antibodies.digest(row),
        }
        look.verdict = judge(look.found, look.apart, self._policy, look.track)

    def _decide(self, frame: Frame, look: Look, clock: StageClock) -> Decision:
        now = time.monotonic_ns()
        age_ms = (now - frame.captured_ns) / 1e6
        if not 0 <= age_ms <= self._policy.max_decision_age_ms:  # a capture in the future is a broken clock
            _deny(look, Reason.STALE, f"{age_ms:.0f} ms old, allowed are 0 to {self._policy.max_decision_age_ms:g} ms")
        look.track.outcome = look.verdict.outcome
        matched = look.found.person is not None
        left, top, right, bottom = (round(float(side)) for side in np.nan_to_num(look.box))
        return Decision(
            decision_id=_new_id(frame.captured_wall),
            camera=frame.camera,
            frame=frame.index,
            track=look.track.number,
            captured_at=_iso(frame.captured_wall),
            decided_at=_iso(frame.captured_wall + age_ms / 1e3),
            age_ms=round(age_ms, 3),
            outcome=look.verdict.outcome,
            reason=look.verdict.reason.value,
            person=look.found.person,
            similarity=_rounded(look.found.similarity) if matched else None,
            similarity_raw=_rounded(look.raw_similarity),
            margin=_rounded(look.found.margin),
            attack_score=_rounded(look.apart.raw),
            confirmations=look.verdict.confirmations,
            box=(left, top, right, bottom),
            antibody=look.antibody,
            bundle=self._bundle,
            latency_ms={name: round(spent, 3) for name, spent in clock.spent_ms.items()},
            detail=look.detail,
            clone_disagreement=_rounded(look.apart.clones),
            frame_disagreement=_rounded(look.apart.frames),
            alarm_signal=look.verdict.signal,
        )


def _deny(look: Look, reason: Reason, detail: str) -> None:
    """Deny, and start the count of agreeing frames anew."""
    look.verdict, look.detail = Verdict("deny", reason), detail
    look.track.person, look.track.agreeing = None, 0


def _rounded(value: float | None) -> float | None:
    return round(value, 6) if value is not None and math.isfinite(value) else None


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _new_id(wall: float) -> str:
    """Milliseconds since the epoch in hexadecimal, so that names sort by time, and random digits."""
    return f"{int(wall * 1e3):012x}-{uuid.uuid4().hex[:12]}"
