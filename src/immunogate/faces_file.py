"""Aligned faces from an ``.npz`` file, and the split of people into those to learn from and those kept back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from immunogate.errors import InputError, UsageError
from immunogate.npz import Arrays, read_npz
from immunogate.structs import CROP_SIZE, Floats, Pixels, expect_dtype, expect_shape

Texts = npt.NDArray[np.str_]
Mask = npt.NDArray[np.bool_]

_LARGEST_FILE = 1 << 34
_MEND = "Align faces to the 112x112 template and save them as uint8 under the key 'images'"


@dataclass(frozen=True, eq=False)
class AlignedFaces:
    """N aligned grey faces.

    Attributes:
        images: (N, 112, 112) uint8, 0 to 255, N at least 1.
        names: (N,) text, where each face came from, or None.
        identities: (N,) text, whose face each is, or None.

    Raises:
        ValueError: a field has another shape or dtype; says expected and actual.
    """

    images: Pixels
    names: Texts | None = None
    identities: Texts | None = None

    def __post_init__(self) -> None:
        expect_shape("images", self.images, (None, CROP_SIZE, CROP_SIZE))
        expect_dtype("images", self.images, np.uint8)
        if len(self.images) == 0:
            raise ValueError("images: expected at least one face, got none")
        for name, texts in (("names", self.names), ("identities", self.identities)):
            if texts is None:
                continue
            expect_shape(name, texts, (len(self.images),))
            if texts.dtype.kind != "U":
                raise ValueError(f"{name}: expected text, got dtype {texts.dtype}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> AlignedFaces:
        """The faces that a mask or indices choose, in that order; at least one."""
        return AlignedFaces(
            self.images[chosen],
            None if self.names is None else self.names[chosen],
            None if self.identities is None else self.identities[chosen],
        )


def load_aligned_faces(path: Path) -> AlignedFaces:
    """Read an ``.npz`` with the key ``images`` and, if they are there, ``names`` and ``identities``.

    Raises:
        UsageError: the file is not there or can not be read.
        InputError: not such a file; says which keys, shapes and dtypes were expected and are there.
    """
    try:
        with path.open("rb") as stream:
            arrays = read_npz(stream, str(path), ("images",), ("names", "identities"), _LARGEST_FILE)
    except OSError as error:
        raise UsageError(f"{path} can not be read: {error.strerror}") from error
    return _faces(arrays, path)


def faces_from_pixels(images: Pixels) -> Floats:
    """Grey pictures (B, H, W) uint8 as rows of faces (B, H W) float32 in [-1, 1]: x / 127.5 - 1."""
    expect_dtype("images", images, np.uint8)
    faces = images.reshape(len(images), -1).astype(np.float32)
    faces /= np.float32(127.5)
    faces -= np.float32(1)
    return faces


def identity_split(identities: Texts | Sequence[str], seed: int, fraction: float) -> tuple[Mask, Mask]:
    """Two masks (N,) bool over rows, ``(development, test)``: nobody is in both, everybody is in one.

    A person's side follows from the hash of the seed and the name alone, hence neither the order of the rows
    nor people added later move anybody. The share of people in the test is therefore ``fraction`` on average
    only: with P people it deviates by about sqrt(fraction (1 - fraction) / P).

    Args:
        identities: (N,) text, whose face each row is.
        seed: another seed gives another split.
        fraction: share of people kept back for the test, between 0 and 1, both excluded.

    Raises:
        UsageError: fraction out of range.
        InputError: everybody fell on one side, which happens with few people.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"expected a fraction of people between 0 and 1, got {fraction}")
    people, rows = np.unique(np.asarray(identities, dtype=np.str_), return_inverse=True)
    limit = int(fraction * 2**64)
    kept_back = np.array([_hash64(seed, str(person)) < limit for person in people], dtype=np.bool_)
    if kept_back.all() or not kept_back.any():
        raise InputError(
            f"expected people on both sides of the split, got all {len(people)} on one",
            "Use another seed, another fraction, or more people",
        )
    test = kept_back[rows]
    return ~test, test


def _hash64(seed: int, person: str) -> int:
    digest = hashlib.sha256(f"{seed}\n{person}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _faces(arrays: Arrays, path: Path) -> AlignedFaces:
    try:
        return AlignedFaces(arrays["images"], arrays.get("names"), arrays.get("identities"))
    except ValueError as error:
        raise InputError(f"{path}: {error}", _MEND) from error
