"""A whole evaluation of a small gate: what it finds, how it goes on where it stopped, which faults it sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_document import small_document

from immunogate.bundle import Bundle
from immunogate.calib.robustness.document import CalibrationFacts, Document, document_from
from immunogate.calib.robustness.memory import Memory
from immunogate.calib.robustness.pairs import posed
from immunogate.errors import ImmunogateError
from immunogate.kernels.antibody import AntibodySettings

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.calib.robustness.evaluation import Asked, evaluated  # noqa: E402 - needs torch
from immunogate.calib.robustness.gates import bare_gate, filter_gate, fixed_gate, mode_gate  # noqa: E402
from immunogate.networks.attacks.target import deterministic  # noqa: E402

FMR = 0.05


class Silent:
    """Progress that can end an evaluation after so many shares."""

    def __init__(self, most: int = 10**9) -> None:
        self.shares, self.most, self.planned, self.begun = 0, most, 0.0, 0.0

    def plan(self, cost: float) -> None:
        self.planned = cost

    def begin(self, what: str, cost: float) -> None:
        self.begun += cost

    def share(self, done: float) -> None:
        assert 0 <= done <= 1
        self.shares += 1
        if self.shares == self.most:
            raise KeyboardInterrupt


@pytest.fixture
def asking(world: Any, people: Any, small_budget: Any, tiny_manifest: Any) -> Callable[..., Asked]:
    def make(mode: str = "expected", tiers: tuple[str, ...] = ("controls", "adaptive"), **changes: Any) -> Asked:
        twin, deployed = world.twin, world.deployed
        bare = bare_gate(twin, deployed(deterministic(twin.embed)))
        settings = AntibodySettings(mode, 24, 8, 2, 5)
        raw = deterministic(twin.embed)
        own = mode_gate(twin, settings, lambda *a: None, 0, own=True)  # type: ignore[arg-type,return-value]
        own = replace(own, deployed=deployed(own.forward, raw))
        fixed = fixed_gate(twin, 24, lambda *a: None)  # type: ignore[arg-type,return-value]
        gates = {"none": bare, "fixed": replace(fixed, deployed=deployed(fixed.forward)), "bundle": own}
        gates["jpeg"] = filter_gate("jpeg", twin, bare.deployed)
        document = small_document()
        calibration = CalibrationFacts("measured", "others", FMR, 0.55, 0.9, 0.0)
        asked = Asked(
            tiny_manifest, replace(document.bundle, precision="fp32", mode=mode, calibration=calibration),
            replace(document.setting, fmr=FMR), "immunogate evaluate", {}, posed(people, small_budget.pairs, 0, 3),
            gates, ("none", "fixed", "jpeg", "bundle"), small_budget, tiers,
        )  # fmt: skip
        return replace(asked, **changes)

    return make


@pytest.fixture
def tiny_manifest(tiny_bundle: Bundle) -> Any:
    return tiny_bundle.manifest


def _result(of: Asked, memory: Memory | None = None) -> Document:
    return evaluated(of, memory or Memory(None, {}), Silent())


def _rate(document: Document, attack: str, goal: str, key: str, eps: float | None) -> Any:
    (row,) = [
        row for row in document.rows if (row.attack, row.goal, row.configuration, row.eps) == (attack, goal, key, eps)
    ]
    return row


def test_attacks_get_further_with_size_and_the_document_is_whole(asking: Any) -> None:
    progress = Silent()
    document = evaluated(asking(), Memory(None, {}), progress)
    assert document_from(json.loads(json.dumps(document.to_dict()))) == document
    assert document.sanity.checks
    clean = _rate(document, "clean", "none", "bundle", None)
    less, more = (_rate(document, "PGD-6", "dodging", "bundle", eps) for eps in (4.0, 64.0))
    assert clean.deployed.rate >= less.deployed.rate >= more.deployed.rate == 0
    assert more.note.startswith("a check")
    assert set(less.variants) == {"exact", "constant"}
    assert less.twin.accepted <= min(rate.accepted for rate in less.variants.values())
    assert [row.key for row in document.configurations] == ["none", "fixed", "bundle", "jpeg"]
    own = document.configurations[2]
    assert (own.threshold, own.threshold_from) == (0.55, "the bundle's calibration: others")
    assert "not reported on" in document.configurations[0].threshold_from
    assert document.panels
    assert document.alarm.signals[0].rows
    assert progress.begun == pytest.approx(progress.planned)


@pytest.mark.parametrize("stopped_after", [3, 20, 45])
def test_a_stopped_evaluation_ends_as_one_that_was_not(asking: Any, tmp_path: Path, stopped_after: int) -> None:
    asked = {"bundle": "a"}
    whole = _result(asking())
    with pytest.raises(KeyboardInterrupt):
        evaluated(asking(), Memory(tmp_path, asked), Silent(stopped_after))
    again = Silent()
    going_on = evaluated(asking(), Memory(tmp_path, asked, resume=True), again)
    assert going_on.rows == whole.rows
    assert going_on.sanity == whole.sanity
    assert going_on.verdict == whole.verdict
    assert [panel.input_png for panel in going_on.panels] == [panel.input_png for panel in whole.panels]


def test_a_resumed_search_takes_only_the_steps_that_are_left(asking: Any, tmp_path: Path) -> None:
    counted = Silent()
    evaluated(asking(), Memory(None, {}), counted)
    with pytest.raises(KeyboardInterrupt):
        evaluated(asking(), Memory(tmp_path, {}), Silent(20))
    left = Silent()
    evaluated(asking(), Memory(tmp_path, {}, resume=True), left)
    assert left.shares == counted.shares - 20


def test_a_gate_that_hides_its_gradients_is_called_faulty(asking: Any) -> None:
    of = asking()
    own = of.gates["bundle"]

    def rounded(points: Any, rows: Any, draw: int) -> Any:
        """The same faces to two decimals: no gradient gets through, and the gate is as weak as ever."""
        return own.forward((points * 50).round() / 50, rows, draw)

    masked = replace(own, forward=rounded, gradients={"exact": rounded}, deployed=_deployed_as(rounded, of))
    document = _result(replace(of, gates={**of.gates, "bundle": masked}))
    assert document.verdict.status == "FAULTY"
    assert document.verdict.words[0].startswith("FAULTY")
    failed = {check.name for check in document.sanity.checks if not check.passed}
    assert "gradients have a direction (dodging)" in failed
    assert "without a bound nothing holds (dodging)" in failed


def _deployed_as(forward: Any, of: Asked) -> Any:
    from immunogate.calib.robustness.deployed import Answer
    from immunogate.calib.robustness.pixels import tensor_of

    def asked(crops: Any, frames: list[int], numbers: list[int]) -> Answer:
        with torch.no_grad():
            return Answer(forward(tensor_of(crops), torch.tensor(numbers), 0).numpy())

    return asked


def test_another_deployed_gate_than_the_twin_is_refused(asking: Any, world: Any) -> None:
    of, stranger = asking(), world.another()
    other = world.deployed(deterministic(stranger), deterministic(stranger.embed))
    exchanged = {**of.gates, "bundle": replace(of.gates["bundle"], deployed=other)}
    with pytest.raises(ImmunogateError, match="the torch twin and the deployed gate differ"):
        _result(replace(of, gates=exchanged))


def test_pictures_that_fool_only_the_twin_make_it_faulty(asking: Any) -> None:
    """The deployed gate agrees on clean faces and takes anything near them for them: the replay shows it."""
    of = asking()
    own, images = of.gates["bundle"], of.problem.images

    def remembering(crops: Any, frames: list[int], numbers: list[int]) -> Any:
        far = np.abs(crops[:, None].astype(int) - images[None]).max(axis=(2, 3))
        return own.deployed(images[far.argmin(axis=1)], frames, numbers)

    document = _result(replace(of, gates={**of.gates, "bundle": replace(own, deployed=remembering)}))
    assert document.verdict.status == "FAULTY"
    row = _rate(document, "PGD-6", "dodging", "bundle", 8.0)
    assert row.deployed.accepted > row.twin.accepted
    assert "what fools the twin fools the gate (dodging)" in document.verdict.words[0]


def test_modes_that_draw_are_attacked_in_every_tier(asking: Any) -> None:
    tiers = ("controls", "oblivious", "adaptive", "black box", "patch", "retries")
    of = asking("select", tiers, shown=("none", "bundle"))
    document = _result(of)
    adaptive = _rate(document, "PGD-6, EOT 2", "dodging", "bundle", 8.0)
    assert set(adaptive.variants) == {"straight-through", "expected", "relaxed", "constant"}
    assert adaptive.deployed.of == 2
    retries = [row for row in document.rows if row.tier == "retries"]
    assert {row.goal for row in retries} == {"dodging", "impersonation"}
    assert all(row.tries == 2 for row in retries)
    patches = [row for row in document.rows if row.tier == "patch"]
    assert {row.attack for row in patches} == {"APGD-6 in square", "APGD-6 in eyeglasses"}
    (questions, _) = [row for row in document.rows if row.tier == "black box" and row.configuration == "bundle"]
    assert questions.queries.most <= 6
    assert questions.twin is None
    assert not [row for row in document.rows if row.configuration == "fixed"]


def test_a_threshold_too_low_is_flagged(asking: Any) -> None:
    of = asking(tiers=("controls",))
    loose = replace(of.bundle, calibration=replace(of.bundle.calibration, threshold=-0.5))
    flagged = _result(replace(of, bundle=loose)).verdict
    assert "fitted on attacked or other data" in flagged.flags[0]
    assert flagged.words[1].startswith("Flagged")
    strict = replace(of.bundle, calibration=replace(of.bundle.calibration, threshold=0.99))
    assert _result(replace(of, bundle=strict)).verdict.flags == ()


def test_what_was_calibrated_on_these_photos_is_flagged(asking: Any, tiny_manifest: Any) -> None:
    of = asking(tiers=("controls",))
    calibration = replace(tiny_manifest.calibration, source=f"faces (sha256 {of.setting.photos_sha256[:16]})")
    flags = _result(replace(of, manifest=replace(tiny_manifest, calibration=calibration))).verdict.flags
    assert "those that the threshold was calibrated on" in flags[0]
    named = replace(tiny_manifest, provenance={"training": {"sha256": of.setting.photos_sha256}})
    assert "provenance names these photos" in _result(replace(of, manifest=named)).verdict.flags[0]


def test_a_face_that_can_not_be_judged_counts_as_refused(asking: Any) -> None:
    of = asking(tiers=("controls", "adaptive"))
    own, known = of.gates["bundle"], {image.tobytes() for image in of.problem.images}

    def failing(crops: Any, frames: list[int], numbers: list[int]) -> Any:
        answer = own.deployed(crops, frames, numbers)
        new = np.array([crop.tobytes() not in known for crop in crops])
        return replace(answer, embeddings=np.where(new[:, None], np.float32(np.nan), answer.embeddings))

    document = _result(replace(of, gates={**of.gates, "bundle": replace(own, deployed=failing)}))
    row = _rate(document, "uniform noise", "none", "bundle", 4.0)
    assert (row.deployed.accepted, row.undecided) == (0, 4)
