"""Open parts for bundles of one's own that the project does not ship: where they are, and what they must be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from immunogate.errors import UsageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class Recipe:
    """One file to fetch.

    Attributes:
        name: what the user calls it.
        role: what it is in a bundle.
        file: its file name.
        url: where it is, pinned to a revision; https, or http on this machine itself.
        bytes: its length.
        sha256: its hash, 64 lower-case hexadecimal digits.
        licence: under which its makers give it.
        about: what it is good for here, one sentence.

    Raises:
        ValueError: a field is not what it has to be.
    """

    name: str
    role: str
    file: str
    url: str
    bytes: int
    sha256: str
    licence: str
    about: str

    def __post_init__(self) -> None:
        if not is_safe(self.url):
            raise ValueError(f"{self.name}: expected an https address, got {self.url}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256) or not 0 < self.bytes <= MOST_BYTES:
            raise ValueError(f"{self.name}: expected a SHA-256 and a length, got {self.sha256!r} and {self.bytes}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.file):
            raise ValueError(f"{self.name}: expected a plain file name, got {self.file!r}")


def is_safe(url: str) -> bool:
    """Whether an address is https, or plain http that never leaves this machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))


_OPENCV_ZOO = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/966be4cb6eefc2a4f586ed0581bf4bbaa2533070/models/"
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="yunet",
            role="detector",
            file="face_detection_yunet_2023mar.onnx",
            url=_OPENCV_ZOO + "face_detection_yunet/face_detection_yunet_2023mar.onnx",
            bytes=232_589,
            sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            licence="MIT",
            about="Face detector with five landmarks, of OpenCV Zoo: immunogate export --detector FILE.",
        ),
        Recipe(
            name="sface",
            role="recogniser",
            file="face_recognition_sface_2021dec.onnx",
            url=_OPENCV_ZOO + "face_recognition_sface/face_recognition_sface_2021dec.onnx",
            bytes=38_696_353,
            sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
            licence="Apache-2.0",
            about="Recogniser of 128 values, of OpenCV Zoo, as ONNX; immunogate export takes torch checkpoints so far.",
        ),
    )
}
"""Every recipe by its name. Lengths and hashes are those of the project's own Git LFS pointers at that commit."""


def recipe_named(name: str, recipes: dict[str, Recipe]) -> Recipe:
    """The recipe of this name.

    Raises:
        UsageError: there is none; the names are listed.
    """
    if name not in recipes:
        raise UsageError(f"there is no part named {name!r}", f"Known are {', '.join(recipes)}")
    return recipes[name]
