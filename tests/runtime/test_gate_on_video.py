"""The gate on real clips: the man is enrolled from a clip of his own and looked for in another, beside a woman."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Templates
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.recognise import mean_embedding
from immunogate.structs import Decision, Frame

pytestmark = pytest.mark.data

Clip = Callable[[str], list[Frame]]
MIDDLE = 240
"""In the clip of both the woman is on the left, the man on the right of this column."""


@pytest.fixture(scope="module")
def policy(real_bundle: Bundle) -> Policy:
    """The bundle's own threshold at FMR 1e-3, set on faces of other people; only a slow machine is forgiven."""
    limits = real_bundle.calibration()
    return Policy(threshold=limits.at(1e-3).threshold, alarm=limits.alarm, max_decision_age_ms=60_000)


def template(chain: FaceChain, name: str, frames: list[Frame], left_half: bool | None = None) -> Templates:
    """One person from one face of each frame."""
    crops = []
    for frame in frames:
        faces = chain.detector.detect(frame.pixels)
        wanted = [i for i in range(len(faces)) if left_half is None or (faces.boxes[i, 0] < MIDDLE) == left_half]
        assert len(wanted) == 1
        crops.append(chain.crop(frame.pixels, faces.landmarks[wanted[0]])[0])
    found = chain.recognise(np.stack(crops), [0] * len(crops), list(range(len(crops))))
    return Templates([name], mean_embedding(found.purified)[None])


def decisions_on(
    chain: FaceChain, templates: Templates, policy: Policy, bundle: Bundle, frames: list[Frame]
) -> tuple[list[Decision], list[Decision]]:
    """What the gate says of the face on the left and of the one on the right."""
    gate, said = Gate(chain, templates, policy, bundle.sha256), []
    for frame in frames:
        said += gate.process(replace(frame, captured_ns=time.monotonic_ns(), captured_wall=time.time())).decisions
    for decision in said:
        json.loads(decision.to_json())
    return [d for d in said if d.box[0] < MIDDLE], [d for d in said if d.box[0] >= MIDDLE]


def test_the_man_is_allowed_and_the_woman_never(
    real_chain: FaceChain, real_bundle: Bundle, policy: Policy, clip: Clip
) -> None:
    templates = template(real_chain, "the man", clip("man")[::10])
    woman, man = decisions_on(real_chain, templates, policy, real_bundle, clip("both"))
    assert len(woman) > 10
    assert len(man) > 5  # later he turns too far away to be recognised
    assert {d.outcome for d in woman} <= {"deny", "alarm"}
    first = next(d for d in man if d.outcome == "allow")
    assert first.person == "the man"
    assert first.similarity is not None
    assert first.similarity >= policy.threshold
    assert first.confirmations >= policy.confirm_frames
    before = [d for d in man if d.track == first.track and first.frame - policy.confirm_frames < d.frame < first.frame]
    assert [d.reason for d in before] == ["confirming"] * (policy.confirm_frames - 1)
    assert max(d.similarity or -1 for d in woman) < policy.threshold


def test_a_gallery_of_the_woman_never_allows_the_man(
    real_chain: FaceChain, real_bundle: Bundle, policy: Policy, clip: Clip
) -> None:
    templates = template(real_chain, "the woman", clip("both")[:3], left_half=True)
    woman, man = decisions_on(real_chain, templates, policy, real_bundle, clip("both"))
    assert "allow" in {d.outcome for d in woman}
    assert {d.outcome for d in man} <= {"deny", "alarm"}
    alone = [d for side in decisions_on(real_chain, templates, policy, real_bundle, clip("man")) for d in side]
    assert len(alone) > 10
    assert {d.outcome for d in alone} <= {"deny", "alarm"}


def test_heads_tilted_alike_are_still_two_people(
    real_chain: FaceChain, real_bundle: Bundle, policy: Policy, clip: Clip
) -> None:
    """YuNet's landmarks stay almost upright on a tilted head; to the recogniser all tilted crops are alike."""
    templates = template(real_chain, "the woman", clip("both")[4:14:3], left_half=True)
    woman, man = decisions_on(real_chain, templates, policy, real_bundle, clip("both"))
    assert "allow" in {d.outcome for d in woman}
    assert {d.outcome for d in man} <= {"deny", "alarm"}


def test_nobody_is_allowed_by_a_gallery_of_strangers(
    real_chain: FaceChain, real_bundle: Bundle, policy: Policy, clip: Clip, fit_and_kept_back: tuple[object, object]
) -> None:
    """Both people against 60 development faces at once."""
    fit = fit_and_kept_back[0]
    images = fit.images[:60]  # type: ignore[attr-defined]
    found = real_chain.recognise(images, [0] * 60, list(range(60)))
    templates = Templates([f"stranger {i}" for i in range(60)], found.purified)
    strict = replace(policy, threshold=real_bundle.calibration().at(1e-4).threshold)
    for side in decisions_on(real_chain, templates, strict, real_bundle, clip("both")):
        assert side
        assert {d.outcome for d in side} <= {"deny", "alarm"}
