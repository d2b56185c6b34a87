"""The data that flows from room to room: frozen structures of arrays, validated where they are made.

Shapes are written (N, 4) with N the number of faces of a frame. Coordinates are pixels of the frame, x to the
right, y down, origin at the centre of the top left pixel.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.uint32]

CROP_SIZE = 112
"""Height and width of an aligned face in pixels."""

PIXELS = CROP_SIZE * CROP_SIZE
"""D: pixels of an aligned grey face."""

Outcome = Literal["allow", "deny", "alarm"]
DECISION_SCHEMA = 1

RAW_AGAINST_PURIFIED, CLONE_DISAGREEMENT, CONSECUTIVE_FRAMES = SIGNALS = (
    "raw against purified",
    "clone disagreement",
    "consecutive frames",
)
"""What may raise an alarm, each a distance of embeddings, 1 - cosine, in [0, 2]: the face as it came and purified; the
mean over all pairs of kept clones and views of one purified face; two looks at one track, one after the other."""


def expect_shape(name: str, array: npt.NDArray[Any], shape: tuple[int | None, ...]) -> None:
    """Raise ValueError, saying expected and actual, unless ``array`` has ``shape`` (None matches any length)."""
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def expect_dtype(name: str, array: npt.NDArray[Any], dtype: type[np.generic]) -> None:
    """Raise ValueError, saying expected and actual, unless ``array`` has ``dtype``."""
    if array.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: expected dtype {np.dtype(dtype)}, got {array.dtype}")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture from a camera.

    Attributes:
        pixels: (H, W, 3) uint8, BGR as OpenCV gives it.
        index: number of the frame in its source, from 0; skipped frames count.
        captured_ns: `time.monotonic_ns` when the frame was taken from the camera.
        captured_wall: seconds since the Unix epoch at the same moment.
        media_time: seconds since the first frame in the source's own time (a file's time stamps, a camera's clock).
        camera: name of the source, without credentials.
        skipped: frames of the source dropped since the previous frame handed out, because a newer one was there.
    """

    pixels: Pixels
    index: int
    captured_ns: int
    captured_wall: float
    media_time: float
    camera: str
    skipped: int = 0

    def __post_init__(self) -> None:
        expect_shape("Frame.pixels", self.pixels, (None, None, 3))
        expect_dtype("Frame.pixels", self.pixels, np.uint8)


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces found in one frame.

    Attributes:
        boxes: (N, 4) float32, left, top, right, bottom in pixels of the frame.
        landmarks: (N, 5, 2) float32, x and y of the eye on the left of the picture, the other eye, the nose tip,
            and the mouth corners on the left and right of the picture.
        scores: (N,) float32, the detector's confidence in [0, 1].
    """

    boxes: Floats
    landmarks: Floats
    scores: Floats

    def __post_init__(self) -> None:
        count = len(self.scores)
        expect_shape("Faces.scores", self.scores, (None,))
        expect_shape("Faces.boxes", self.boxes, (count, 4))
        expect_shape("Faces.landmarks", self.landmarks, (count, 5, 2))

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, indices: npt.ArrayLike) -> Faces:
        """The faces with these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.intp)
        return Faces(self.boxes[chosen], self.landmarks[chosen], self.scores[chosen])

    def largest(self) -> int:
        """Index of the face with the largest box; there must be one."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return int(np.argmax(sides.prod(axis=1)))

    @staticmethod
    def none() -> Faces:
        """No face at all."""
        return Faces(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Antibodies:
    """What was taken away from, or kept of, each of B faces.

    Attributes:
        mode: the inference mode that made them: fixed, expected, threshold, sample or select.
        seed: key of the counter-based generator; meaningful for sample and select only.
        clones: clones drawn per face (K); 0 for the deterministic modes.
        weights: (B, m, n) float32 in [0, 1]: the m antibodies kept per face over the n eigenfaces;
            0 and 1 for drawn clones, anything between in mode expected.
        winners: (B, m) int64 indices of the kept clones, or None where none were drawn.
    """

    mode: str
    seed: int
    clones: int
    weights: Floats
    winners: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        expect_shape("Antibodies.weights", self.weights, (None, None, None))
        expect_dtype("Antibodies.weights", self.weights, np.float32)

    def __len__(self) -> int:
        return len(self.weights)

    def sizes(self) -> npt.NDArray[np.int64]:
        """(B,) eigenfaces with a weight above one half in each face's first antibody: the paper's sparsity."""
        sizes: npt.NDArray[np.int64] = (self.weights[:, 0] > 0.5).sum(axis=1, dtype=np.int64)
        return sizes

    def digest(self, row: int) -> str:
        """SHA-256 of one face's antibodies: shape and weights, little endian. The same hash is the same bits."""
        weights = np.ascontiguousarray(self.weights[row], "<f4")
        return hashlib.sha256(np.array(weights.shape, "<i8").tobytes() + weights.tobytes()).hexdigest()


@dataclass(frozen=True)
class Match:
    """The best answer of the gallery to one embedding.

    Attributes:
        person: the best matching person, or None where the gallery is empty.
        similarity: cosine with that person's template, in [-1, 1]; -1 where the gallery is empty.
        margin: similarity minus that of the runner-up (another person); infinite where there is no other.
    """

    person: str | None
    similarity: float
    margin: float = math.inf


@dataclass(frozen=True)
class Decision:
    """What the gate decided about one face in one frame, and everything needed to ask why.

    Attributes:
        decision_id: unique text, sorts by time.
        camera: the source's name.
        frame: index of the frame in its source.
        track: number of the face's track, from 1.
        captured_at: ISO 8601 UTC time of capture.
        decided_at: ISO 8601 UTC time of the decision.
        age_ms: milliseconds from capture to decision on the monotonic clock.
        outcome: allow, deny or alarm.
        reason: one word that says why (see `immunogate.runtime.decide.Reason`).
        person: the person allowed or, where denied, the best match (None where there is none).
        similarity: cosine of the purified face with the person's template; this one decides.
        similarity_raw: the same for the face as it came; for comparison only.
        margin: distance of the similarity to the runner-up's, None where there is no other person.
        attack_score: 1 - cosine of raw and purified embedding, in [0, 2]; large where purifying changed the identity.
        confirmations: agreeing frames so far, this one included.
        box: left, top, right, bottom of the face in pixels.
        antibody: mode, seed, clones, size and SHA-256 (`Antibodies.digest`) of the antibody.
        bundle: hash of the bundle's manifest.
        latency_ms: milliseconds spent in each stage for this frame.
        detail: for a deny that came from an error, the error's words.
        clone_disagreement: mean 1 - cosine over the pairs of kept clones and views, in [0, 2]; None where there is
            one look only.
        frame_disagreement: 1 - cosine of this look's purified embedding and the track's last one, in [0, 2]; None at
            the first look.
        alarm_signal: which of `SIGNALS` raised the alarm, the first in their order; None where there is none.
    """

    decision_id: str
    camera: str
    frame: int
    track: int
    captured_at: str
    decided_at: str
    age_ms: float
    outcome: Outcome
    reason: str
    person: str | None
    similarity: float | None
    similarity_raw: float | None
    margin: float | None
    attack_score: float | None
    confirmations: int
    box: tuple[int, int, int, int]
    antibody: dict[str, Any]
    bundle: str
    latency_ms: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    clone_disagreement: float | None = None
    frame_disagreement: float | None = None
    alarm_signal: str | None = None

    def to_json(self) -> str:
        """One line of JSON with sorted-by-importance keys and a schema version; never NaN or infinity."""
        record = {"schema": DECISION_SCHEMA, **self.__dict__}
        return json.dumps(record, allow_nan=False, default=str)
