from __future__ import annotations

import numpy as np

from immunogate.calib.jitter import jittered


def faces(count: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    coarse = np.random.default_rng(1).integers(40, 216, (count, 14, 14))
    return np.kron(coarse, np.ones((1, 8, 8))).astype(np.uint8)


def test_copies_are_near_and_never_the_same() -> None:
    images = faces(40)
    copies = jittered(images)
    assert copies.shape == images.shape
    assert copies.dtype == np.uint8
    apart = np.abs(copies.astype(float) - images).mean(axis=(1, 2))
    assert apart.min() > 1
    assert apart.max() < 45
    for image, copy in zip(images, copies, strict=True):
        assert np.corrcoef(image.ravel(), copy.ravel())[0, 1] > 0.3


def test_a_copy_depends_on_seed_and_place_alone() -> None:
    images = faces(4)
    assert np.array_equal(jittered(images, 5), jittered(images, 5))
    assert np.array_equal(jittered(images, 5)[:2], jittered(images[:2], 5))
    assert not np.array_equal(jittered(images, 5), jittered(images, 6))
    twice = jittered(np.stack([images[0]] * 2))
    assert not np.array_equal(twice[0], twice[1])


def test_a_face_of_one_level_stays_one_but_for_light_and_noise() -> None:
    flat = np.full((200, 112, 112), 128, np.uint8)
    copies = jittered(flat).astype(float)
    assert 1.5 < copies.std(axis=(1, 2)).mean() < 2.5
    assert 4 < copies.mean(axis=(1, 2)).std() < 8
