"""The demo's attacks: noise computed beforehand, so that showing it needs no torch.

Each piece is a (112, 112) picture in the coordinates of the aligned face, in whole grey levels, made for a few
frames of the walk-up by ``immunogate train demo-attacks``. It attacks one recogniser and is bound to its hash.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from immunogate.demo.scene import EDITION
from immunogate.errors import BundleError, InputError, UsageError
from immunogate.files import write_whole
from immunogate.npz import read_npz
from immunogate.structs import CROP_SIZE, Pixels, expect_dtype, expect_shape

Noise = npt.NDArray[np.int8]
Matrix = npt.NDArray[np.float64]

SHIPPED = Path(__file__).with_name("perturbations.npz")
VARIABLE = "IMMUNOGATE_DEMO_NOISE"
"""Environment variable that names another file, for a bundle of one's own."""

MOST_LEVELS = 16
MOST_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Perturbations:
    """Noise for the two acts that are attacked.

    Attributes:
        recogniser_sha256: of the ONNX recogniser that it was computed against.
        edition: of the scene.
        dodge: (K, 112, 112) int8 grey levels: the enrolled person is not to be recognised.
        impersonate: (K, 112, 112) int8: the stranger is to be taken for the enrolled person.

    Frame i of n is given piece ``i K // n``.
    """

    recogniser_sha256: str
    edition: int
    dodge: Noise
    impersonate: Noise

    def __post_init__(self) -> None:
        for name in ("dodge", "impersonate"):
            pieces: Noise = getattr(self, name)
            expect_shape(name, pieces, (None, CROP_SIZE, CROP_SIZE))
            expect_dtype(name, pieces, np.int8)
            if len(pieces) == 0 or int(np.abs(pieces.astype(np.int16)).max()) > MOST_LEVELS:
                raise ValueError(f"{name}: expected at least one piece of at most {MOST_LEVELS} grey levels")

    def levels(self) -> int:
        """The largest change of any pixel in grey levels."""
        return int(max(np.abs(pieces.astype(np.int16)).max() for pieces in (self.dodge, self.impersonate)))


def piece_of(frame: int, frames: int, pieces: int) -> int:
    """Which of so many pieces belongs to a frame of a walk-up of so many frames."""
    return frame * pieces // frames


def paste(pixels: Pixels, noise: Noise, to_crop: Matrix) -> Pixels:
    """A frame with the noise laid over the face; no pixel changes by more than the noise's largest level.

    Args:
        pixels: (H, W, 3) uint8.
        noise: (112, 112) int8 grey levels.
        to_crop: (2, 3) from the frame to the aligned face.
    """
    height, width = pixels.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # the matrix says where in the noise a pixel of the frame lies
    laid = cv2.warpAffine(noise.astype(np.float32), to_crop, (width, height), flags=flags)
    changed = pixels.astype(np.int16) + np.rint(laid).astype(np.int16)[:, :, None]
    return np.asarray(changed.clip(0, 255), np.uint8)


def noise_file() -> Path:
    """The file named by the environment, else the one that ships."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else SHIPPED


def save_perturbations(path: Path, found: Perturbations) -> None:
    """Write them, whole or not at all."""
    arrays = {item.name: np.asarray(getattr(found, item.name)) for item in fields(Perturbations)}
    write_whole(path, lambda to: np.savez_compressed(to, allow_pickle=False, **arrays))


def load_perturbations(path: Path, recogniser_sha256: str) -> Perturbations:
    """Read them for a bundle's recogniser.

    Raises:
        UsageError: there is no such file.
        InputError: the file is damaged or holds something else.
        BundleError: it was made for another recogniser or another scene.
    """
    mend = "Make it: immunogate train demo-attacks --recogniser R.pt --recogniser-arch NAME [--bundle BUNDLE]"
    if not path.is_file():
        raise UsageError(f"the demo's noise {path} is not there", mend)
    names = [item.name for item in fields(Perturbations)]
    with path.open("rb") as stream:
        arrays = read_npz(stream, str(path), names, limit=MOST_BYTES)
    try:
        found = Perturbations(
            str(arrays["recogniser_sha256"]), int(arrays["edition"]), arrays["dodge"], arrays["impersonate"]
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds no noise for the demo: {error}", mend) from error
    if found.recogniser_sha256 != recogniser_sha256:
        raise BundleError(
            f"the noise in {path} attacks another recogniser (sha256 {found.recogniser_sha256[:12]}, this bundle's is "
            f"{recogniser_sha256[:12]})",
            mend,
        )
    if found.edition != EDITION:
        raise BundleError(f"the noise in {path} was made for scene {found.edition}, this is scene {EDITION}", mend)
    return found
