"""The two people of the demo: public-domain portraits that come with scikit-image and matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from immunogate.errors import InputError, MissingExtraError
from immunogate.structs import Floats, Pixels


@dataclass(frozen=True, eq=False)
class Portrait:
    """A person to cut out of a picture.

    Attributes:
        name: the person.
        credit: whose picture it is.
        pixels: (H, W, 3) uint8 BGR.
        landmarks: (5, 2) float32, in the order of `immunogate.structs.Faces`.
        outline: (N, 2) float32, corners of a polygon around head and shoulders, down to the picture's lower edge.
    """

    name: str
    credit: str
    pixels: Pixels
    landmarks: Floats
    outline: Floats


def enrolled_person() -> Portrait:
    """Eileen Collins, astronaut: whom the gate knows.

    Raises:
        MissingExtraError: scikit-image is not installed.
        InputError: the picture that came with it can not be read.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise MissingExtraError("scikit-image", "demo") from error
    try:
        colours = np.asarray(skimage.data.astronaut(), np.uint8)  # type: ignore[no-untyped-call, unused-ignore]
    except OSError as error:
        raise InputError(f"scikit-image's picture of the astronaut can not be read: {error}") from error
    return Portrait(
        "Eileen Collins",
        "NASA, public domain, from scikit-image",
        np.ascontiguousarray(colours[:, :, ::-1]),
        np.array([[200.6, 103.6], [246.0, 104.4], [221.3, 125.0], [202.0, 142.9], [240.9, 143.6]], np.float32),
        np.array(_COLLINS, np.float32),
    )


def stranger() -> Portrait:
    """Grace Hopper, rear admiral and computer scientist: whom the gate does not know.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the picture that came with it can not be read.
    """
    try:
        from matplotlib.cbook import get_sample_data
    except ImportError as error:
        raise MissingExtraError("matplotlib", "demo") from error
    path = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"matplotlib's sample picture {path} can not be read", "Install matplotlib again")
    return Portrait(
        "Grace Hopper",
        "U.S. Navy, public domain, from matplotlib",
        np.asarray(pixels, np.uint8),
        np.array([[226.3, 192.3], [308.1, 192.5], [267.8, 238.2], [230.9, 270.9], [302.0, 271.4]], np.float32),
        np.array(_HOPPER, np.float32),
    )


# fmt: off
_COLLINS = [
    (20, 512), (25, 430), (35, 340), (55, 262), (95, 218), (116, 200), (120, 175), (150, 152), (174, 148), (160, 120),
    (154, 92), (159, 60), (181, 34), (215, 18), (253, 25), (282, 46), (298, 80), (298, 112), (282, 138), (266, 148),
    (259, 172), (282, 190), (299, 215), (302, 240), (330, 262), (352, 300), (364, 350), (402, 346), (450, 362),
    (490, 410), (510, 470), (511, 512),
]
_HOPPER = [
    (15, 600), (25, 480), (36, 402), (60, 380), (130, 352), (196, 330), (200, 310), (180, 290), (162, 265), (166, 242),
    (156, 215), (155, 182), (167, 150), (154, 125), (156, 100), (176, 80), (187, 47), (230, 27), (290, 27), (338, 47),
    (350, 76), (369, 96), (366, 145), (364, 170), (374, 190), (368, 220), (354, 245), (355, 275), (340, 300),
    (330, 318), (400, 346), (470, 377), (500, 402), (511, 440), (511, 600),
]
# fmt: on
