"""A recorded decision comes out again bit for bit, and what differs is named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import ScriptedDetector

from immunogate.bundle import Bundle
from immunogate.errors import UsageError
from immunogate.runtime.align import TEMPLATE
from immunogate.runtime.audit.context import context_of, differences
from immunogate.runtime.audit.evidence import EvidenceKey
from immunogate.runtime.audit.log import AuditLog
from immunogate.runtime.audit.reading import AuditReader
from immunogate.runtime.audit.replay import Replay, read_decision, replay
from immunogate.runtime.audit.retention import Limits, prune
from immunogate.runtime.audit.settle import Settlement
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Templates
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.track import TrackLimits
from immunogate.structs import Decision, Faces, Pixels

POLICY = Policy(threshold=0.9, alarm=2.0, max_decision_age_ms=60_000)
ANN, BOB, FAR = (50, 100), (350, 200), (500, 20)


def seen(*places: tuple[int, int]) -> Faces:
    """One frontal face for each place; the one far away is too small."""
    offsets = np.array(places, np.float32).reshape(-1, 1, 2)
    scale = np.array([0.3 if place == FAR else 1.2 for place in places], np.float32).reshape(-1, 1, 1)
    corners = np.concatenate([offsets, offsets + 112 * scale], axis=1).reshape(-1, 4)
    landmarks = (TEMPLATE * scale + offsets).astype(np.float32)
    return Faces(corners.astype(np.float32), landmarks, np.ones(len(places), np.float32))


@dataclass
class Night:
    """What a gate recorded, and what it was."""

    path: Path
    bundle: Bundle
    templates: Templates
    decisions: list[Decision]
    key: EvidenceKey
    mode: str

    @contextmanager
    def chain(self, **options: Any) -> Iterator[FaceChain]:
        with open_chain(self.bundle, **{"mode": self.mode, "seed": 5, "threads": 1, **options}) as chain:
            yield chain

    def replays(self, *decisions: Decision, **options: Any) -> list[Replay]:
        gallery = options.pop("templates", self.templates)
        key = options.pop("key", self.key)
        with AuditReader(self.path) as reader, self.chain(**options) as chain:
            named = [read_decision(reader, decision.decision_id) for decision in decisions]
            return [replay(reader, one, chain, gallery, key) for one in named]

    def replay(self, decision: Decision, **options: Any) -> Replay:
        return self.replays(decision, **options)[0]


EVERY_MODE = pytest.mark.parametrize("night", ["fixed", "expected", "select"], indirect=True)


@pytest.fixture
def night(request: Any, tiny_bundle: Bundle, noise: Pixels, frame_of: Any, tmp_path: Path) -> Night:
    """Four frames: ann and bob and somebody too far away, then ann alone."""
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    key, mode, decisions = EvidenceKey(bytes(32)), getattr(request, "param", "select"), []
    with open_chain(tiny_bundle, mode=mode, seed=5, threads=1) as chain, AuditLog(tmp_path / "a.db") as audit:
        crops = [chain.crop(noise, seen(place).landmarks[0])[0] for place in (ANN, BOB)]
        vectors = chain.recognise(np.stack(crops), [0, 0], [0, 1]).purified
        templates = Templates(["ann", "bob"], vectors)
        detector: Any = ScriptedDetector()
        chain.detector = detector
        gate = Gate(chain, templates, POLICY, tiny_bundle.sha256, TrackLimits(recheck=0.0))
        context = audit.context(context_of(tiny_bundle, chain, POLICY, templates, 1))
        settlement = Settlement(audit, context, 60_000.0, key=key)
        for index, places in enumerate([(ANN, FAR, BOB)] * 3 + [(ANN,)]):
            detector.next = seen(*places)
            decisions += settlement.settle(gate.process(frame_of(noise, index))).decisions
    return Night(tmp_path / "a.db", tiny_bundle, templates, decisions, key, mode)


@EVERY_MODE
def test_every_recognised_face_comes_out_the_same(night: Night) -> None:
    outcomes = set()
    for decision, found in zip(night.decisions, night.replays(*night.decisions), strict=True):
        if decision.reason == "poor_face":
            assert not found.is_same
            assert "poor_face" in found.missing[0]
            continue
        assert found.missing == []
        assert [one for one in found.compared if not one["same"]] == []
        assert found.is_same
        assert {"antibody.sha256", "outcome", "similarity"} <= {one["what"] for one in found.compared}
        outcomes.add((decision.outcome, decision.reason))
    assert {("deny", "confirming"), ("allow", "match")} <= outcomes


@EVERY_MODE
def test_another_seed_is_another_antibody_where_clones_are_drawn(night: Night) -> None:
    found = night.replay(night.decisions[0], seed=6)
    first = found.compared[0]
    assert first["what"] == "antibody.sha256"
    assert first["same"] == (night.mode != "select")


def test_other_people_in_the_gallery_are_another_outcome(night: Night) -> None:
    strangers = Templates(["eve"], -night.templates.vectors[:1])
    found = night.replay(night.decisions[-1], templates=strangers)
    differing = {one["what"] for one in found.compared if not one["same"]}
    assert {"outcome", "reason", "person", "similarity"} <= differing
    assert "antibody.sha256" not in differing


def test_without_gallery_key_or_crop_it_says_what_is_missing(night: Night) -> None:
    decision = night.decisions[0]
    found = night.replay(decision, templates=None)
    assert found.is_same
    assert "no gallery" in found.missing[0]
    assert "give its key" in night.replay(decision, key=None).missing[0]
    with AuditLog(night.path) as audit:
        prune(audit, Limits(crop_days=1), time.time() + 2 * 86_400)
    found = night.replay(decision)
    assert "pruned" in found.missing[0]
    assert not found.is_same
    with pytest.raises(UsageError, match="no decision"):
        night.replay(frame_without_record(decision))


def frame_without_record(decision: Decision) -> Decision:
    from dataclasses import replace

    return replace(decision, decision_id="nobody-knows")


def test_what_a_run_was_about_is_compared_leaf_by_leaf(night: Night) -> None:
    with night.chain() as chain, night.chain(mode="threshold", seed=9) as other:
        was = context_of(night.bundle, chain, POLICY, night.templates, 1)
        now = context_of(night.bundle, other, POLICY, night.templates, None)
    assert differences(was, was) == []
    changed = {one["what"]: (one["recorded"], one["now"]) for one in differences(was, now)}
    assert changed == {"mode": (night.mode, "threshold"), "seed": (5, 9), "threads": (1, None)}
