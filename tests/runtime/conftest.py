from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.runtime.camera import open_camera
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.structs import Frame, Pixels

MAN = "head-pose-face-detection-male.gif"
BOTH = "head-pose-face-detection-female-and-male.gif"

Clip = Callable[[str], list[Frame]]


@pytest.fixture(scope="session")
def photos(data_dir: Path) -> list[Pixels]:
    """Every fortieth development photo, decoded: 98 pictures of about 250 x 250."""
    with zipfile.ZipFile(data_dir / "faces" / "lfw_dev_photos.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::40]
        files = [np.frombuffer(archive.read(name), np.uint8) for name in names]
    return [np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8) for file in files]


@pytest.fixture(scope="session")
def clip(data_dir: Path) -> Clip:
    """All frames of a clip: ``clip("man")`` or ``clip("both")``."""

    @lru_cache
    def read(name: str) -> list[Frame]:
        with open_camera(str(data_dir / "video" / {"man": MAN, "both": BOTH}[name])) as camera:
            return list(camera)

    return read


@pytest.fixture(scope="session")
def real_chain(real_bundle: Bundle) -> Iterator[FaceChain]:
    with open_chain(real_bundle) as chain:
        yield chain


@pytest.fixture(scope="session")
def noise() -> Pixels:
    """A frame of smooth noise: any two places in it look different."""
    draw = np.random.default_rng(5)
    coarse = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture
def frame_of() -> Callable[..., Frame]:
    """Make a frame that was taken this moment: ``frame_of(pixels, index=0, age_ms=0.0)``."""

    def make(pixels: Pixels, index: int = 0, age_ms: float = 0.0, media_time: float | None = None) -> Frame:
        taken = time.monotonic_ns() - int(age_ms * 1e6)
        at = 0.08 * index if media_time is None else media_time
        return Frame(pixels, index, taken, time.time() - age_ms / 1e3, at, "test://door")

    return make
