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
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from immunogate.runtime.align import GLANCE
from immunogate.runtime.chain import MOST_FACES, FaceChain, Recognised
from immunogate.runtime.clock import StageClock
from immunogate.runtime.decide import Disagreement, Policy, Reason, Verdict, disagreement, is_poor, judge
from immunogate.runtime.detect import Detector
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


@dataclass(frozen=True, eq=False)
class Begun:
    """A frame whose faces were found and cropped, on the way to `Gate.finish`."""

    gate: Gate
    frame: Frame
    faces: Faces
    tracks: list[Track]
    looks: list[Look]
    clock: StageClock

    @property
    def fit(self) -> list[Look]:
        """The looks that have a crop to recognise."""
        return [look for look in self.looks if look.crop is not None]

    def deny_all(self, error: Exception) -> None:
        """Deny every face that was to be recognised."""
        log.error("frame %d of %s: recognition failed", self.frame.index, self.frame.camera, exc_info=error)
        for look in self.fit:
            _deny(look, Reason.ERROR, f"{type(error).__name__}: {error}")


class Gate:
    """Decides about the faces of one camera's frames, one frame at a time, on one thread.

    Args:
        chain: detector, purifier, recogniser; gates of several cameras share one.
        templates: whom to recognise.
        policy: what to ask for.
        bundle_sha256: goes into every decision.
        limits: of the tracker.
        detector: finds faces in place of the chain's.
    """

    def __init__(
        self,
        chain: FaceChain,
        templates: Templates,
        policy: Policy,
        bundle_sha256: str,
        limits: TrackLimits | None = None,
        detector: Detector | None = None,
    ) -> None:
        self._chain = chain
        self._detector = detector
        chain.know(templates)
        self._templates = templates
        self._policy = policy
        self._bundle = bundle_sha256
        self._limits = limits or TrackLimits()
        self._tracker = Tracker(self._limits)

    def process(self, frame: Frame) -> FrameResult:
        """Everything the gate has to say about a frame."""
        begun = self.begin(frame)
        recognise_together(self._chain, [begun])
        return self.finish(begun)

    def begin(self, frame: Frame) -> Begun:
        """Find the faces of a frame, follow them, and cut out those that are due."""
        clock = StageClock()
        mark_frame(frame.index)
        detector = self._detector or self._chain.detector
        try:
            with clock.stage("detect"):
                faces = detector.detect(frame.pixels)
        except Exception:  # a gate goes on with the next frame; without faces nobody is let in
            log.exception("frame %d of %s: the detector failed", frame.index, frame.camera)
            faces = Faces.none()
        with clock.stage("track"):
            thumbnails = np.array([self._glance(frame, landmarks) for landmarks in faces.landmarks], np.float32)
            tracks = self._tracker.update(faces, thumbnails, frame.media_time)
        with clock.stage("align"):
            looks = self._choose(frame, faces, tracks)
        return Begun(self, frame, faces, tracks, looks, clock)

    def finish(self, begun: Begun) -> FrameResult:
        """Decide about the faces of a frame, once `recognise_together` has had them."""
        mark_frame(begun.frame.index)
        with span("decide"):
            decisions = [self._decide(begun.frame, look, begun.clock) for look in begun.looks]
        return FrameResult(begun.frame, begun.faces, begun.tracks, begun.looks, decisions, begun.clock.spent_ms)

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

    def settle(self, begun: Begun, found: Recognised, first: int) -> None:
        """Match the faces of a frame, whose rows in ``found`` begin at ``first``; where that fails all are denied."""
        try:
            with begun.clock.stage("match"):
                for row, look in enumerate(begun.fit, first):
                    fault = found.faults[row] if found.faults else None
                    if fault is None:
                        self._match(look, found, row)
                    else:
                        _deny(look, Reason.ERROR, fault)
        except Exception as error:  # every doubt is a deny
            begun.deny_all(error)

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


def recognise_together(chain: FaceChain, batch: Sequence[Begun]) -> None:
    """Purify, recognise and match the faces of frames of several gates that share a chain, as one batch.

    Where that fails, each frame is tried by itself: one camera's faces do not deny those of the others.
    """
    rows = [(begun.frame.index, look) for begun in batch for look in begun.fit]
    if not rows:
        return
    if len(batch) > 1 and len(rows) > MOST_FACES:
        recognise_together(chain, batch[:-1])
        recognise_together(chain, batch[-1:])
        return
    clock = StageClock()
    crops = np.stack([look.crop for _, look in rows if look.crop is not None])
    indices, numbers = [index for index, _ in rows], [look.track.number for _, look in rows]
    try:
        found = chain.recognise(crops, indices, numbers, clock, each=True)
    except Exception as error:  # nothing was judged yet, so that no face can be counted twice
        for begun in batch:
            if len(batch) > 1:
                recognise_together(chain, [begun])
            else:
                begun.deny_all(error)
        return
    finally:
        for begun in batch:
            begun.clock.add(clock)
    first = 0
    for begun in batch:
        begun.gate.settle(begun, found, first)
        first += len(begun.fit)


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
