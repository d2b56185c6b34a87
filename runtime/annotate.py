"""Draws what the gate saw into the frame: boxes, names, outcome, and the purified face beside the one that came."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from immunogate.errors import UsageError
from immunogate.runtime.align import as_picture
from immunogate.runtime.pipeline import FrameResult, Look
from immunogate.structs import CROP_SIZE, Decision, Pixels

COLOURS = {"allow": (80, 175, 76), "deny": (60, 60, 220), "alarm": (0, 165, 255)}
"""BGR: green, red, orange."""

REMEMBERED = 64
"""Tracks whose last look is kept for drawing."""

UNDECIDED = (170, 170, 170)
PANEL = CROP_SIZE
"""Width in pixels of the strip on the right that shows crops."""


def annotate(result: FrameResult, shown: dict[int, tuple[Look, Decision]]) -> Pixels:
    """The frame with its faces drawn and a strip on the right with raw and purified crops.

    Args:
        result: of this frame.
        shown: the last look and decision of each track number, kept up to date here.
    """
    for look, decision in zip(result.looks, result.decisions, strict=True):
        shown[look.track.number] = (look, decision)
    while len(shown) > REMEMBERED:
        del shown[min(shown)]  # the oldest track
    picture = result.frame.pixels.copy()
    strip = np.full((picture.shape[0], 2 * PANEL, 3), 24, np.uint8)
    top = 0
    for face, track in enumerate(result.tracks):
        last = shown.get(track.number)
        _draw_face(picture, result.faces.boxes[face], result.faces.landmarks[face], last[1] if last else None)
        if last and top + PANEL <= strip.shape[0]:
            _draw_crops(strip, top, *last)
            top += PANEL + 18
    return np.ascontiguousarray(np.hstack([picture, strip]))


def _draw_face(picture: Pixels, box: np.ndarray, landmarks: np.ndarray, decision: Decision | None) -> None:
    colour = COLOURS[decision.outcome] if decision else UNDECIDED
    left, top, right, bottom = (round(float(side)) for side in box)
    cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
    for x, y in landmarks:
        cv2.circle(picture, (round(float(x)), round(float(y))), 2, colour, -1)
    if decision:
        name = decision.person if decision.outcome == "allow" else decision.reason
        _label(picture, f"{decision.outcome} {name}", left, max(12, top - 6), colour)


def _draw_crops(strip: Pixels, top: int, look: Look, decision: Decision) -> None:
    for column, crop in enumerate((look.crop, as_picture(look.purified) if look.purified is not None else None)):
        if crop is not None:
            cell = strip[top : top + PANEL, column * PANEL : (column + 1) * PANEL]
            cell[:] = crop[: cell.shape[0], : cell.shape[1], None]
    words = "raw / purified" if decision.similarity is None else f"similarity {decision.similarity:.2f}"
    _label(strip, words, 4, min(top + PANEL + 12, strip.shape[0] - 4), COLOURS[decision.outcome])


def _label(picture: Pixels, words: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    ascii_words = words.encode("ascii", "replace").decode()  # OpenCV's fonts know no other letters
    cv2.putText(picture, ascii_words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, ascii_words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


class VideoSink:
    """Writes annotated frames into an MP4 file; a context manager.

    Args:
        path: where to; must end in .mp4.
        frames_per_second: of the file.

    Raises:
        UsageError: the file can not be written.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        if path.suffix.lower() != ".mp4":
            raise UsageError(f"--annotate writes .mp4 files, not {path.name!r}")
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} for the annotated video", "Make it first")
        self._path = path
        self._rate = frames_per_second
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._shown: dict[int, tuple[Look, Decision]] = {}

    def write(self, result: FrameResult) -> Pixels:
        """Draw and write one frame; frames of another size than the first are scaled to it. Gives the drawing back."""
        picture = annotate(result, self._shown)
        if self._writer is None:
            self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, self._size)
            if not self._writer.isOpened():
                raise UsageError(
                    f"the annotated video {self._path} can not be written", "Check the folder and the disk"
                )
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = np.asarray(cv2.resize(picture, self._size), np.uint8)
        self._writer.write(picture)
        return picture

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
