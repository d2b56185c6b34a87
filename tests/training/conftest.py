"""Smooth made-up faces and their eigenbasis, for training runs of a few steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.basis import Eigenbasis
from immunogate.faces_file import AlignedFaces
from immunogate.training.eigenbasis import fit_eigenbasis

PEOPLE, EACH, GENES = 12, 3, 20


@pytest.fixture(scope="package", autouse=True)
def one_thread(one_torch_thread: Any) -> Iterator[None]:
    """Keep torch on one thread: steps are compared bit for bit, and the machine is shared."""
    with one_torch_thread():
        yield


@pytest.fixture(scope="session")
def made_up() -> AlignedFaces:
    """36 smooth pictures of 12 people: each person's own, and a little noise."""
    draw = np.random.default_rng(5)
    coarse = draw.integers(40, 216, (PEOPLE, 9, 9)).astype(np.float32).repeat(EACH, axis=0)
    coarse += draw.normal(0, 12, coarse.shape).astype(np.float32)
    images = [cv2.resize(picture, (112, 112), interpolation=cv2.INTER_CUBIC) for picture in coarse]
    people = np.repeat([f"p{number:02}" for number in range(PEOPLE)], EACH)
    return AlignedFaces(np.clip(np.stack(images), 0, 255).astype(np.uint8), None, people)


@pytest.fixture(scope="session")
def basis(made_up: AlignedFaces) -> Eigenbasis:
    return fit_eigenbasis(made_up.images, GENES)
