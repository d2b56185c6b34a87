"""Turns pictures into samples for a gallery, and says of each refused picture why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from immunogate.errors import ImmunogateError
from immunogate.files import sha256_of_file
from immunogate.runtime.camera import read_picture
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.gallery import Sample
from immunogate.structs import Faces

LEAST_EYE_DISTANCE = 20.0
"""Pixels between the eyes below which a picture is too coarse to enroll; a gate accepts less, since it looks often."""

MOST_YAW = 0.35
LEAST_SHARPNESS = 10.0
DOMINANT = 2.0
"""In a picture with several faces the largest is taken only if its box is this many times larger than the next."""


class RefusedPictureError(Exception):
    """A picture that is not enrolled; the message is the reason, for the user."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """What became of one picture: a sample, or the reason why not."""

    picture: Path
    person: str
    sample: Sample | None
    reason: str = ""


def attempt_all(chain: FaceChain, pictures: Iterable[tuple[str, Path]]) -> Iterator[Attempt]:
    """Try every (person, picture); a picture that fails never stops the others."""
    for person, path in pictures:
        try:
            yield Attempt(path, person, sample_from(chain, person, path))
        except (RefusedPictureError, ImmunogateError) as error:
            reason = error.what if isinstance(error, ImmunogateError) else str(error)
            yield Attempt(path, person, None, reason)


def sample_from(chain: FaceChain, person: str, path: Path) -> Sample:
    """Detect, align, purify and recognise the one face of a picture.

    Raises:
        RefusedPictureError: no face, several faces, or one that is too small, too blurred or too far turned away.
        InputError: the file is no picture.
        UsageError: the file can not be read.
    """
    pixels = read_picture(path)
    faces = chain.detector.detect(pixels)
    landmarks = faces.landmarks[_the_face(faces)]
    try:
        crop, quality = chain.crop(pixels, landmarks)
    except (ValueError, cv2.error) as error:  # OpenCV 4 can not warp pictures of more than 32,767 pixels a side
        raise RefusedPictureError(str(error)) from error
    if quality.eye_distance < LEAST_EYE_DISTANCE:
        raise RefusedPictureError(
            f"face too small: eyes {quality.eye_distance:.0f} pixels apart, need {LEAST_EYE_DISTANCE:.0f}"
        )
    if quality.yaw > MOST_YAW:
        raise RefusedPictureError(f"face turned away: {quality.yaw:.2f}, at most {MOST_YAW:.2f}")
    if quality.sharpness < LEAST_SHARPNESS:
        raise RefusedPictureError(f"picture too blurred: sharpness {quality.sharpness:.0f}, need {LEAST_SHARPNESS:.0f}")
    try:
        embedding = chain.recognise(crop[None], [0], [0]).purified[0]
    except ValueError as error:
        raise RefusedPictureError(str(error)) from error
    return Sample(person, np.asarray(embedding, np.float32), path.name, sha256_of_file(path))


def _the_face(faces: Faces) -> int:
    if len(faces) == 0:
        raise RefusedPictureError("no face found")
    best = faces.largest()
    if len(faces) > 1:
        areas = np.sort((faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1))
        if areas[-1] < DOMINANT * areas[-2]:
            raise RefusedPictureError(f"{len(faces)} faces of similar size: whose should be enrolled?")
    return best
