"""Follows faces from frame to frame, so that each is purified and recognised when it matters and not blindly.

Boxes are joined greedily by their overlap, best first: at a gate faces are few and move little between frames. A box
in the same place whose face looks different at a glance is another face: whoever steps into the place of somebody
who was allowed starts from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from immunogate.structs import Faces, Floats


@dataclass(frozen=True)
class TrackLimits:
    """When tracks begin, end and are looked at again; times in seconds of the source's own clock.

    Attributes:
        least_overlap: intersection over union below which a box is another face.
        least_likeness: cosine of two thumbnails, of this frame and the last, below which it is another face. Chosen
            on development people: two different ones seldom reach it, and a head that turns as fast as it can seldom
            falls below it from one frame to the next.
        lost_after: a track not seen for so long ends.
        eager_looks: looks at a face that is not allowed yet, one in every frame, before the pauses begin.
        pause: between two looks after that.
        recheck: between two looks at a face that is allowed.
        growth: a face whose eyes are this many times further apart than at the last look is looked at again at once.
    """

    least_overlap: float = 0.3
    least_likeness: float = 0.7
    lost_after: float = 0.8
    eager_looks: int = 8
    pause: float = 0.5
    recheck: float = 1.0
    growth: float = 1.25


@dataclass
class Track:
    """One face over time.

    Attributes:
        number: from 1, never used twice in a run.
        box: (4,) last box.
        thumbnail: (T,) of the last frame.
        seen_at: media time of the last frame that showed it.
        looks: times it was recognised.
        looked_at: media time of the last look.
        looked_size: eye distance in pixels at the last look.
        outcome: of the last look.
        person: who the last looks agreed on, None where they did not match.
        agreeing: frames in a row that agreed on ``person``.
        embedding: (E,) of the purified face at the last look that gave one.
    """

    number: int
    box: Floats
    thumbnail: Floats
    seen_at: float
    looks: int = 0
    looked_at: float = 0.0
    looked_size: float = 0.0
    outcome: str = ""
    person: str | None = None
    agreeing: int = 0
    embedding: Floats | None = None

    def is_due(self, now: float, eye_distance: float, limits: TrackLimits) -> bool:
        """Whether the face should be recognised in this frame."""
        since = now - self.looked_at
        if self.looks == 0 or eye_distance >= limits.growth * self.looked_size:
            return True
        if self.outcome == "allow":
            return since >= limits.recheck
        return self.agreeing > 0 or self.looks < limits.eager_looks or since >= limits.pause


@dataclass
class Tracker:
    """Gives every face of a frame its track.

    Attributes:
        limits: when tracks begin and end.
        tracks: those alive.
        started: tracks begun so far.
    """

    limits: TrackLimits = field(default_factory=TrackLimits)
    tracks: list[Track] = field(default_factory=list)
    started: int = 0

    def update(self, faces: Faces, thumbnails: Floats, now: float) -> list[Track]:
        """The track of each face, in the order of the faces.

        Args:
            faces: of this frame.
            thumbnails: (N, T) float32 of unit length, of the same faces.
            now: the frame's media time.
        """
        self.tracks = [track for track in self.tracks if now - track.seen_at <= self.limits.lost_after]
        joined = self._join(faces.boxes, thumbnails)
        result = []
        for face, box in enumerate(faces.boxes):
            track = joined.get(face)
            if track is None:
                self.started += 1
                track = Track(self.started, box, thumbnails[face], now)
                self.tracks.append(track)
            track.box, track.thumbnail, track.seen_at = box, thumbnails[face], now
            result.append(track)
        seen = {track.number for track in result}
        for track in self.tracks:
            if track.number not in seen:  # frames agree in a row, or start anew
                track.person, track.agreeing = None, 0
        return result

    def _join(self, boxes: Floats, thumbnails: Floats) -> dict[int, Track]:
        if not len(boxes) or not self.tracks:
            return {}
        overlaps = overlap_of_boxes(np.stack([track.box for track in self.tracks]), boxes)
        alike = np.stack([track.thumbnail for track in self.tracks]) @ thumbnails.T
        overlaps = np.where(alike >= self.limits.least_likeness, overlaps, -1)
        joined: dict[int, Track] = {}
        while overlaps.max() >= self.limits.least_overlap:
            row, face = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            joined[int(face)] = self.tracks[int(row)]
            overlaps[row, :] = overlaps[:, face] = -1
        return joined


def overlap_of_boxes(first: Floats, second: Floats) -> npt.NDArray[np.float64]:
    """Intersection over union of (M, 4) and (N, 4) boxes (left, top, right, bottom): (M, N) in [0, 1]."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(0).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2]).clip(0).prod(axis=-1) for box in (a, b)]
    union = areas[0] + areas[1] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))
