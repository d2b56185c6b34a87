from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from immunogate.files import find_data
from immunogate.structs import Pixels

NUMBERS = 26
"""Frames of a numbered video; each carries its number as a level of grey that survives lossy coding."""

WriteVideo = Callable[..., Path]
NumberOf = Callable[[Pixels], int]


@pytest.fixture
def number_of() -> NumberOf:
    return lambda pixels: round((float(pixels.mean()) - 24) / 8)


@pytest.fixture
def write_video(tmp_path: Path) -> WriteVideo:
    def write(name: str, fourcc: str, numbers: Iterable[int] = range(NUMBERS), fps: float = 25.0) -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), fps, (64, 48))
        assert writer.isOpened(), f"this OpenCV can not write {fourcc}"
        for number in numbers:
            writer.write(np.full((48, 64, 3), 24 + 8 * number, np.uint8))
        writer.release()
        return path

    return write


@pytest.fixture
def gif() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        data = find_data()
        if data is None:
            pytest.skip("the development data is not here (IMMUNOGATE_DATA or ../shared/data)")
        return data / "video" / name

    return find
