"""Attacks on the camera's picture: the face stands twice as large in a colour frame, whose pixels change."""

from __future__ import annotations

import cv2
import numpy as np

from immunogate.calib.robustness.desk import Desk
from immunogate.calib.robustness.gates import Gate
from immunogate.calib.robustness.outcome import Outcome
from immunogate.calib.robustness.pixels import bound
from immunogate.calib.robustness.rows import accepted_by, rated, row, signals
from immunogate.calib.robustness.white_box import method_of
from immunogate.networks.attacks import LinfBall, Target, worst
from immunogate.networks.attacks.frame import FrameGate, Warp, frames_from_points, points_from_frames
from immunogate.structs import CROP_SIZE, Floats, Pixels

TIMES, BORDER, GREY = 2, 16, 128
SIDE = CROP_SIZE * TIMES + 2 * BORDER
NOTE = (
    "aligned crops enlarged into a made-up frame; landmarks are given, so detection is not part of it; the pictures "
    "found are 8-bit frames, aligned by the gate's own code"
)


def framed(crops: Pixels) -> Pixels:
    """(B, 112, 112) uint8 crops as (B, 256, 256, 3) uint8 frames with the face twice as large."""
    size = (CROP_SIZE * TIMES, CROP_SIZE * TIMES)
    frames = np.full((len(crops), SIDE, SIDE, 3), GREY, np.uint8)
    inner = slice(BORDER, BORDER + size[0])
    for frame, crop in zip(frames, crops, strict=True):
        frame[inner, inner] = cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC)[:, :, None]
    return frames


def landmarks_in(template: Floats) -> Floats:
    """(5, 2) landmarks of the crop's template in such a frame; pixel centres are whole numbers."""
    return np.asarray(template * TIMES + (TIMES - 1) / 2 + BORDER, np.float32)


def camera_frame(desk: Desk, gate: Gate, aim: str, levels: float) -> Outcome:
    """PGD on the frame's colours, through the warp and the whole defence."""
    placement, protocol = desk.placement, desk.protocol
    assert placement is not None  # the plan asks for it
    side = desk.side(aim, protocol.random_pairs)
    landmarks = landmarks_in(placement.landmarks)
    clean = framed(side.crops)
    warp = Warp([placement.matrix_of(landmarks)] * len(side), SIDE, SIDE)
    goal, method = desk.goal(gate, side), method_of("PGD", protocol.steps, 1, desk.seed)
    draws, judges = (protocol.eot, protocol.judges) if gate.random else (1, 1)
    founds = {}
    for place, name in enumerate(gate.gradients):
        aligned = gate.target(name, draws, judges)
        stand_in = None if aligned.surrogate is None else FrameGate(aligned.surrogate, warp)
        target = Target(FrameGate(aligned.deployed, warp), stand_in, gate.random, draws, judges)
        share = (place + 1) / len(gate.gradients)
        founds[name] = desk.search(
            name, target, points_from_frames(clean), goal, LinfBall(bound(levels)), method, share
        )
    best = worst(goal, list(founds.values()))
    pictures = frames_from_points(best.points, SIDE, SIDE)
    look = desk.look(gate, side, np.stack([placement.align(picture, landmarks) for picture in pictures]))
    variants = {name: rated(accepted_by(found, gate)) for name, found in founds.items()}
    attack = f"PGD-{protocol.steps}"
    one = row(
        "adaptive", attack, aim, levels, gate, accepted_by(best, gate), look,  # type: ignore[arg-type]
        variants=variants, attacker="camera frame", note=NOTE,
    )  # fmt: skip
    return Outcome((one,), (), signals(desk, gate, f"{attack} on the frame", side, levels, look))
