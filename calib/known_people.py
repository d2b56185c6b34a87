"""Who a bundle was calibrated on, so that nobody is tested on the same faces, without saying their names.

Names and pictures are hashed with the bundle's embedding hash. Whoever has the names and pictures himself can see
whether they were used; from the hashes alone nobody learns a name. They are no protection against somebody who tries
out names: there are few of them.
"""

from __future__ import annotations

import numpy as np

from immunogate.faces_file import AlignedFaces
from immunogate.files import sha256_of_bytes
from immunogate.manifest import Calibration

DIGITS = 16
"""Hexadecimal digits kept of each hash: 64 bits tell millions apart."""


def hashed_people(faces: AlignedFaces, salt: str) -> str:
    """Hashes of the names of those on the faces, sorted, with blanks between them; empty where nobody is named."""
    named = [] if faces.identities is None else np.unique(faces.identities).tolist()
    return " ".join(sorted(hash_of_person(name, salt) for name in named))


def hashed_images(faces: AlignedFaces, salt: str) -> str:
    """Hashes of the (112, 112) uint8 pictures, sorted, with blanks between them."""
    return " ".join(sorted({hash_of_image(image.tobytes(), salt) for image in faces.images}))


def hash_of_person(name: str, salt: str) -> str:
    """16 hexadecimal digits for a name."""
    return sha256_of_bytes(f"person\n{salt}\n{name}".encode())[:DIGITS]


def hash_of_image(pixels: bytes, salt: str) -> str:
    """16 hexadecimal digits for the bytes of a picture."""
    return sha256_of_bytes(f"image\n{salt}\n".encode() + pixels)[:DIGITS]


def used_in(calibration: Calibration, faces: AlignedFaces) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], str]:
    """Which of the faces had a part in a calibration, by person or by picture.

    Returns:
        (N,) bool; and in words why nothing can be said, empty where it can.
    """
    nobody = np.zeros(len(faces), np.bool_)
    known = calibration.measured_with
    if known is None:
        return nobody, "the calibration does not say on whom it was measured: calibrate the bundle again"
    people, images = set(known.people.split()), set(known.images.split())
    seen = [hash_of_image(image.tobytes(), known.salt) in images for image in faces.images]
    named = [] if faces.identities is None else faces.identities.tolist()
    same = [hash_of_person(name, known.salt) in people for name in named] or [False] * len(faces)
    return np.array(seen) | np.array(same), ""
