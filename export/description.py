"""What an ONNX recogniser does not say of itself: how its input is made from a face, and what its output is."""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunogate.errors import InputError, UsageError
from immunogate.files import read_bytes
from immunogate.structs import CROP_SIZE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST_FILE = 64 << 10
LARGEST_NUMBER = 1e9
"""Of any field; TOML has whole numbers that no float holds."""

COLOURS, LAYOUTS = ("RGB", "BGR", "GREY"), ("NCHW", "NHWC")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class RecogniserDescription:
    """How to feed an ONNX recogniser and how to read it; the keys of a description file.

    Attributes:
        name: what manifests and model cards call it: lower-case letters, digits, ``_ . -``.
        height: rows of its input in pixels, at most 112.
        width: columns of its input in pixels, at most 112.
        crop_left: first column of the aligned 112 x 112 face that the input takes.
        mean: taken off pixel values 0..255; one number, or three in the order of the channels.
        std: divides thereafter; one number, or three.
        colour: RGB, BGR, or GREY for an input of one channel. The gate's faces are grey: three channels are equal.
        layout: NCHW or NHWC.
        embedding: length of the embedding; 0: as the network gives it.
        normalised: whether its embeddings come out at unit length; where not, export appends that to the graph.
        output: name of the output that is the embedding; may be left out where there is only one.
        source: where the weights are from, for the model card.

    Raises:
        InputError: a value is out of its range or of another type.
    """

    name: str = "onnx"
    height: int = CROP_SIZE
    width: int = CROP_SIZE
    crop_left: int = 0
    mean: float | list[float] = 127.5
    std: float | list[float] = 127.5
    colour: str = "RGB"
    layout: str = "NCHW"
    embedding: int = 0
    normalised: bool = False
    output: str = ""
    source: str = "an ONNX file"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _expect_type(field.name, getattr(self, field.name))
        if not _NAME.fullmatch(self.name):
            raise InputError(f"name: expected lower-case letters, digits and _ . -, got {self.name!r}")
        if self.colour not in COLOURS or self.layout not in LAYOUTS:
            raise InputError(
                f"colour and layout: expected one of {', '.join(COLOURS)} and one of {', '.join(LAYOUTS)}, got "
                f"{self.colour!r} and {self.layout!r}"
            )
        if not (1 <= self.height <= CROP_SIZE and 0 <= self.crop_left < self.crop_left + self.width <= CROP_SIZE):
            raise InputError(
                f"{self.width} x {self.height} pixels from column {self.crop_left} do not lie within the aligned face "
                f"of {CROP_SIZE} x {CROP_SIZE}",
                "Recognisers of larger inputs are not supported",
            )
        if min(self.per_channel(self.std)) <= 0 or self.embedding < 0:
            raise InputError(f"expected std above 0 and embedding of at least 0, got {self.std} and {self.embedding}")

    @property
    def channels(self) -> int:
        """Of the network's own input."""
        return 1 if self.colour == "GREY" else 3

    @property
    def is_plain(self) -> bool:
        """Whether one mean and one std hold for all channels, so that a manifest can state them."""
        return not isinstance(self.mean, list) and not isinstance(self.std, list)

    def per_channel(self, value: float | list[float]) -> list[float]:
        """One number for each channel."""
        return [float(part) for part in value] if isinstance(value, list) else [float(value)] * self.channels

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a manifest; `description_of` reads it back."""
        return dataclasses.asdict(self)


def _expect_type(name: str, value: object) -> None:
    default = next(f.default for f in dataclasses.fields(RecogniserDescription) if f.name == name)
    kinds = (int, float) if isinstance(default, float) else (type(default),)
    parts: list[object] = value if isinstance(value, list) and name in ("mean", "std") and len(value) == 3 else [value]
    if not all(isinstance(part, kinds) and isinstance(part, bool) == isinstance(default, bool) for part in parts):
        three = ", or three of them" if name in ("mean", "std") else ""
        raise InputError(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}{three}, got {value!r}")
    if not all(abs(part) <= LARGEST_NUMBER for part in parts if isinstance(part, float | int)):
        raise InputError(f"{name}: expected finite numbers of at most {LARGEST_NUMBER:g}, got {str(value)[:40]}")


READY: dict[str, RecogniserDescription] = {
    entry.name: entry
    for entry in (
        RecogniserDescription("arcface", source="insightface (w600k_r50, w600k_mbf and other PyTorch exports)"),
        RecogniserDescription("arcface-raw", mean=0.0, std=1.0, source="insightface (MXNet exports, pixels 0..255)"),
        RecogniserDescription("sface", mean=0.0, std=1.0, embedding=128, source="OpenCV Zoo, face_recognition_sface"),
    )
}
"""By name: insightface's exports from PyTorch take (x - 127.5) / 127.5, those from MXNet and SFace take pixel values
and normalise within the graph. Facts from insightface's ``arcface_onnx.py`` and OpenCV's ``face_recognize.cpp``."""


def read_description(named: str) -> RecogniserDescription:
    """A ready-made description by its name, or that of a TOML file.

    Raises:
        UsageError: neither a known name nor a file.
        InputError: the file is no TOML, or has an unknown key or a wrong value; it is named.
    """
    if named in READY:
        return READY[named]
    path = Path(named)
    if not path.is_file():
        raise UsageError(
            f"there is no recogniser description {named!r}", f"Name one of {', '.join(READY)}, or a TOML file"
        )
    try:
        data = tomllib.loads(read_bytes(path, LARGEST_FILE).decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also of numbers with too many digits
        raise InputError(f"{path} is no TOML: {error}") from error
    return description_of(data, str(path))


def description_of(data: Any, origin: str) -> RecogniserDescription:
    """The description that plain data states.

    Raises:
        InputError: it is no table, or has an unknown key or a wrong value.
    """
    known = [field.name for field in dataclasses.fields(RecogniserDescription)]
    unknown = sorted(set(data) - set(known)) if isinstance(data, dict) else ["no table"]
    if unknown:
        raise InputError(f"{origin}: unknown key {unknown[0]!r}", f"Known are {', '.join(known)}")
    try:
        return RecogniserDescription(**data)
    except InputError as error:
        raise InputError(f"{origin}: {error.what}", error.mend) from error
