"""The two gates of the demo: what each recognises, and the thresholds they take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.demo.acts import ACTS, NoisyReel, play
from immunogate.demo.gates import enroll, limits_of
from immunogate.demo.portraits import enrolled_person, stranger
from immunogate.demo.scene import WalkUp
from immunogate.demo.undefended import UndefendedChain
from immunogate.errors import BundleError, InputError
from immunogate.faces_file import faces_from_pixels
from immunogate.runtime.chain import open_chain

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")


def test_the_undefended_chain_recognises_the_face_as_it_came(tiny_bundle: Bundle) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112)).astype(np.uint8)
    with open_chain(tiny_bundle) as chain:
        both, bare = (c.recognise(crops, [0] * 3, [1] * 3) for c in (chain, UndefendedChain(chain)))
        np.testing.assert_array_equal(bare.raw, bare.purified)
        np.testing.assert_allclose(bare.raw, both.raw, atol=1e-5)
        assert np.abs(bare.purified - both.purified).max() > 0.01
        np.testing.assert_array_equal(bare.faces[:, 0], faces_from_pixels(crops))


def _stated(bundle: Bundle, entry: Any) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, provenance={"undefended": entry}))


def test_the_undefended_threshold_is_the_bundles_own_only_for_its_own_recogniser(tiny_bundle: Bundle) -> None:
    assert limits_of(tiny_bundle).undefended == limits_of(tiny_bundle).threshold == 0.5
    own = tiny_bundle.manifest.files["recogniser.onnx"].sha256
    found = limits_of(_stated(tiny_bundle, {"threshold": 0.25, "recogniser_sha256": own}))
    assert (found.threshold, found.undefended, found.own) == (0.5, 0.25, True)
    found = limits_of(_stated(tiny_bundle, {"threshold": 0.25, "recogniser_sha256": "0" * 64}))
    assert (found.undefended, found.own) == (0.5, False)
    for nonsense in ("high", 7, None):
        with pytest.raises(BundleError, match="no cosine"):
            limits_of(_stated(tiny_bundle, {"threshold": nonsense, "recogniser_sha256": own}))


def test_noise_is_laid_over_the_frames_of_the_reel() -> None:
    walk = WalkUp(enrolled_person(), 4)
    noise = np.full((2, 112, 112), 5, np.int8)
    noise[1] = -7
    clean, noisy = NoisyReel(walk, None), NoisyReel(walk, noise)
    largest = []
    while clean.advance() and noisy.advance():
        difference = noisy.picture().astype(int) - clean.picture()
        largest.append((difference.min(), difference.max()))
    assert largest == [(0, 5), (0, 5), (-7, 0), (-7, 0)]


@pytest.mark.data
def test_an_act_is_seen_by_both_gates_in_every_frame(tiny_bundle: Bundle, data_dir: Any) -> None:
    limits = limits_of(tiny_bundle)
    with open_chain(tiny_bundle) as chain:
        known = enroll(chain, enrolled_person())
        played = play(ACTS[2], WalkUp(stranger(), 5), None, chain, known, limits, tiny_bundle)
    assert [seen.index for seen in played.frames] == list(range(5))
    for seen in played.frames:
        assert seen.look is not None
        assert seen.decision is not None
        assert seen.bare is not None
        assert seen.decision.antibody["mode"] == "fixed"
        assert seen.bare.antibody["mode"] == "none"
        assert seen.bare.attack_score == pytest.approx(0, abs=1e-5)
        assert seen.noise is None


def test_a_portrait_without_a_face_is_named(tiny_bundle: Bundle) -> None:
    wall = replace(enrolled_person(), pixels=np.full((200, 200, 3), 90, np.uint8))
    with open_chain(tiny_bundle) as chain, pytest.raises(InputError, match="no face in the portrait of Eileen Collins"):
        enroll(chain, wall)
