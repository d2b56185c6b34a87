"""A person walks up to a gate: frames drawn from one portrait, the same ones every time.

The person sways, comes nearer, tilts the head and passes through a darker stretch; the camera is slightly out of
focus and noisy. It is one flat photo that moves, so nothing here says how well a gate knows people: what the demo
shows is what an attack does to frames that a gate handles well without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from immunogate.demo.portraits import Portrait
from immunogate.errors import UsageError
from immunogate.structs import Floats, Pixels

WIDTH, HEIGHT = 640, 480
FRAMES = 72
"""Of a whole walk-up; fewer show the same way in longer strides."""

FEWEST_FRAMES = 4
RATE = 12.0
"""Frames per second."""

EDITION = 1
"""Number of this scene; noise that was made for another one does not fit."""

NEAREST, FURTHEST = 62.0, 36.0
"""Pixels between the eyes at the end and at the start."""

DARKEST = 0.62
NOISE = 2.5
"""Standard deviation of the camera's noise in grey levels."""

COUNTER = 368
"""Row where the counter begins that hides where the portrait ends."""

VANISHING = (320, 176)
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """Where the person stands in one frame.

    Attributes:
        x, y: the middle between the eyes in pixels.
        eyes: pixels between the eyes.
        roll: of the head in degrees, clockwise on the screen.
        light: factor on all brightness.
    """

    x: float
    y: float
    eyes: float
    roll: float
    light: float


def pose(part: float) -> Pose:
    """The pose after a part of the way, 0 to 1."""
    eased = part * part * (3 - 2 * part)
    return Pose(
        x=VANISHING[0] + 64 * math.sin(2 * math.pi * 1.15 * part) * (1 - 0.5 * part),
        y=188 + 8 * eased + 4 * abs(math.sin(2 * math.pi * 3 * part)),
        eyes=FURTHEST * (NEAREST / FURTHEST) ** eased,
        roll=5 * math.sin(2 * math.pi * 1.7 * part),
        light=1 - (1 - DARKEST) * math.sin(math.pi * part) ** 4,
    )


class WalkUp:
    """The frames of one person's walk-up.

    Args:
        portrait: who walks.
        frames: how many there are.
        seed: of the camera's noise.

    Raises:
        UsageError: there are too few frames for a gate to make up its mind.
    """

    def __init__(self, portrait: Portrait, frames: int = FRAMES, seed: int = 0) -> None:
        if not FEWEST_FRAMES <= frames <= 10_000:
            raise UsageError(f"a walk-up has {FEWEST_FRAMES} to 10000 frames, not {frames}")
        self.portrait = portrait
        self.frames = frames
        self._seed = seed
        self._backdrop = _corridor()
        self._counter = _counter(self._backdrop)
        self._cut_out = _cut_out(portrait)

    def frame(self, index: int) -> Pixels:
        """(480, 640, 3) uint8 BGR."""
        stand = self._pose(index)
        person = cv2.warpAffine(
            self._cut_out, self.matrix(index), (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT
        )
        seen = self._backdrop * (1 - person[:, :, 3:]) + person[:, :, :3]  # colours are already times their cover
        seen[COUNTER:] = self._counter
        seen = cv2.GaussianBlur(seen, (0, 0), 0.6) * np.float32(stand.light)
        draw = np.random.default_rng((self._seed, index))
        noise = draw.standard_normal((HEIGHT, WIDTH, 3), dtype=np.float32)
        return np.asarray(np.rint(seen + NOISE * noise).clip(0, 255), np.uint8)

    def landmarks(self, index: int) -> Floats:
        """(5, 2) float32 where the portrait's landmarks are in the frame."""
        matrix = self.matrix(index)
        points = self.portrait.landmarks.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
        return np.asarray(points, np.float32)

    def matrix(self, index: int) -> Matrix:
        """(2, 3) from the portrait to the frame."""
        stand = self._pose(index)
        left, right = self.portrait.landmarks[:2].astype(np.float64)
        scale = stand.eyes / float(np.hypot(*(right - left)))
        cosine, sine = (scale * turn(math.radians(stand.roll)) for turn in (math.cos, math.sin))
        linear = np.array([[cosine, -sine], [sine, cosine]])
        return np.column_stack([linear, np.array([stand.x, stand.y]) - linear @ (left + right) / 2])

    def _pose(self, index: int) -> Pose:
        return pose(index / (self.frames - 1))


def _cut_out(portrait: Portrait) -> Floats:
    """(H, W, 4) float32: the person's colours times the cover, and the cover in 0 .. 1, soft at the edge."""
    cover = np.zeros(portrait.pixels.shape[:2], np.uint8)
    cv2.fillPoly(cover, [np.rint(portrait.outline).astype(np.int32)], 255)
    inner = cv2.erode(cover, np.ones((3, 3), np.uint8), iterations=3)  # the portrait's own background stays out
    soft = cv2.GaussianBlur(inner, (0, 0), 1.8).astype(np.float32)[:, :, None] / 255
    return np.concatenate([portrait.pixels * soft, soft], axis=2)


def _corridor() -> Floats:
    """(480, 640, 3) float32: a corridor with a bright door at its end."""
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    door = (VANISHING[0] - 92, VANISHING[1] - 110, VANISHING[0] + 92, VANISHING[1] + 150)
    corners = [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)]
    inner = [(door[0], door[1]), (door[2], door[1]), (door[2], door[3]), (door[0], door[3])]
    for side, colour in enumerate(((196, 192, 186), (150, 142, 132), (92, 84, 78), (166, 158, 148))):
        after = (side + 1) % 4
        wall = np.array([corners[side], corners[after], inner[after], inner[side]], np.int32)
        cv2.fillPoly(canvas, [wall], colour, cv2.LINE_AA)
    for part in (0.25, 0.45, 0.62, 0.76, 0.88):  # seams of the walls, nearer ones further apart
        left, right = round(door[0] * part), round(WIDTH - (WIDTH - door[2]) * part)
        for x in (left, right):
            top, bottom = round(door[1] * part), round(HEIGHT - (HEIGHT - door[3]) * part)
            cv2.line(canvas, (x, top), (x, bottom), (120, 114, 106), 1, cv2.LINE_AA)
    lamps = np.array([[(270, 0), (370, 0), (338, door[1]), (302, door[1])]], np.int32)
    cv2.fillPoly(canvas, list(lamps), (250, 250, 246), cv2.LINE_AA)
    cv2.rectangle(canvas, door[:2], door[2:], (214, 206, 190), -1)
    cv2.rectangle(canvas, door[:2], door[2:], (98, 88, 74), 3)
    glow = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.circle(glow, VANISHING, 120, 1.0, -1)
    light = np.float32(0.68) + np.float32(0.4) * cv2.GaussianBlur(glow, (0, 0), 70)[:, :, None]
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 3) * light, np.float32)


def _counter(backdrop: Floats) -> Floats:
    """The gate's counter that stands before the person: the lower rows of the frame, float32."""
    rows = HEIGHT - COUNTER
    shade = np.linspace(1.0, 0.55, rows, dtype=np.float32)[:, None, None]
    counter = np.empty((rows, WIDTH, 3), np.float32)
    counter[:] = np.array([74, 62, 50], np.float32) * shade
    counter[:7] = (176, 160, 140)
    counter[7:10] = (44, 38, 32)
    return 0.85 * counter + 0.15 * backdrop[COUNTER:]
