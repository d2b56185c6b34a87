"""The demo's video: the acts one after the other, each frame with what both gates made of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from immunogate.demo.acts import ACTS, Played, Seen
from immunogate.demo.gates import Limits
from immunogate.demo.picture import BARE, DEFENDED, INK, OUTCOMES, PAPER, boxed, enlarged_noise
from immunogate.demo.scene import HEIGHT, RATE, WIDTH
from immunogate.errors import UsageError
from immunogate.files import written_whole
from immunogate.runtime.align import as_picture
from immunogate.structs import Decision, Pixels

BAR, PANEL = 48, 320
"""Height of the title and width of the panel on the right, in pixels."""

CELL = 132
Colour = tuple[int, int, int]


def write_video(acts: list[Played], limits: Limits, path: Path) -> None:
    """Write all acts into an MP4 file, whole or not at all.

    Raises:
        UsageError: OpenCV can not write such a file here.
    """
    size = (WIDTH + PANEL, HEIGHT + BAR)
    with written_whole(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), RATE, size)
        if not writer.isOpened():
            raise UsageError(f"the video {path} can not be written", "Check the folder and the disk")
        try:
            for played in acts:
                for seen in played.frames:
                    writer.write(draw_frame(played, seen, limits))
        finally:
            writer.release()


def draw_frame(played: Played, seen: Seen, limits: Limits) -> Pixels:
    """(528, 960, 3) uint8 BGR: title, frame and panel."""
    picture = np.full((HEIGHT + BAR, WIDTH + PANEL, 3), _bgr(PAPER), np.uint8)
    picture[:BAR] = _bgr(INK)
    picture[BAR:, :WIDTH] = boxed(seen)[:, :, ::-1]
    title = f"act {played.act.number} of {len(ACTS)}: {played.act.title}"
    _write(picture, title, (14, 31), 0.62, (255, 255, 255))
    _write(picture, f"frame {seen.index}", (WIDTH + PANEL - 92, 31), 0.5, (200, 200, 200))
    _draw_faces(picture, seen)
    if seen.decision is not None and seen.decision.attack_score is not None:
        _write(picture, "attack score", (WIDTH + 172, BAR + 230), 0.42, _bgr(INK))
        _write(picture, f"{seen.decision.attack_score:.2f}", (WIDTH + 172, BAR + 262), 0.9, _bgr(DEFENDED), 2)
        _write(picture, f"alarm above {limits.alarm:.2f}", (WIDTH + 172, BAR + 286), 0.42, _bgr(INK))
    for row, (label, decision, threshold, colour) in enumerate(
        (("undefended", seen.bare, limits.undefended, BARE), ("immunogate", seen.decision, limits.threshold, DEFENDED))
    ):
        _draw_gate(picture, BAR + 332 + 76 * row, label, decision, threshold, _bgr(colour))
    return picture


def _draw_faces(picture: Pixels, seen: Seen) -> None:
    look = seen.look
    faces = {
        "as it came": None if look is None else look.crop,
        "purified": None if look is None or look.purified is None else as_picture(look.purified),
        "noise x10": None if seen.noise is None else enlarged_noise(seen),
    }
    places = ((16, 26), (172, 26), (16, 186))
    for (label, face), (x, y) in zip(faces.items(), places, strict=True):
        _write(picture, label, (WIDTH + x, BAR + y - 7), 0.42, _bgr(INK))
        cell = picture[BAR + y : BAR + y + CELL, WIDTH + x : WIDTH + x + CELL]
        cell[:] = 225 if face is None else cv2.resize(face, (CELL, CELL), interpolation=cv2.INTER_CUBIC)[:, :, None]


def _draw_gate(
    picture: Pixels, top: int, label: str, decision: Decision | None, threshold: float, colour: Colour
) -> None:
    """A gate's outcome as a lamp, and its similarity as a bar from -1 to 1 with the threshold marked."""
    left, width = WIDTH + 16, PANEL - 32
    outcome = "unseen" if decision is None else decision.outcome
    _write(picture, label, (left, top + 14), 0.55, colour, 2)
    cv2.rectangle(picture, (left + 178, top - 4), (left + width, top + 22), _bgr(OUTCOMES[outcome]), -1)
    _write(picture, outcome.upper(), (left + 192, top + 15), 0.5, (20, 20, 20))
    cv2.rectangle(picture, (left, top + 34), (left + width, top + 46), (215, 215, 215), -1)
    if decision is not None and decision.similarity is not None:
        middle, end = (left + round(width * (1 + value) / 2) for value in (0.0, decision.similarity))
        cv2.rectangle(picture, (min(middle, end), top + 34), (max(middle, end), top + 46), colour, -1)
        _write(picture, f"{decision.similarity:+.2f}", (left + 112, top + 14), 0.5, colour)
    mark = left + round(width * (1 + threshold) / 2)
    cv2.line(picture, (mark, top + 29), (mark, top + 51), _bgr(INK), 2, cv2.LINE_AA)


def _write(picture: Pixels, words: str, place: tuple[int, int], size: float, colour: Colour, weight: int = 1) -> None:
    cv2.putText(picture, words, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, weight, cv2.LINE_AA)


def _bgr(colour: str) -> Colour:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return blue, green, red
