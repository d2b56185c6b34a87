from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from immunogate.errors import CheckpointError, ImmunogateError, UsageError
from immunogate.training.detector import trainer as module
from immunogate.training.detector.draws import draw
from immunogate.training.detector.labels import LabelledPhotos, PhotoFaces
from immunogate.training.detector.optimiser import EvenedMomentum, evened
from immunogate.training.detector.settings import DetectorSettings
from immunogate.training.detector.trainer import Report, Trainer

pytestmark = pytest.mark.torch

SETTINGS = DetectorSettings(steps=4, finish=0.5, batch=4, sizes=(64, 96), warmup=2, save_every=3, seed=5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer_of(material: LabelledPhotos, path: Path, settings: DetectorSettings = SETTINGS, what: str = "a") -> Trainer:
    return Trainer(material, material, settings, path, what, CPU)


def same(first: Any, second: Any) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_training_that_was_killed_ends_with_the_very_same_bits(material: LabelledPhotos, tmp_path: Path) -> None:
    whole = trainer_of(material, tmp_path / "whole.pt")
    reports = list(whole.run())
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert [report.checked is not None for report in reports] == [False, False, True, False, False, True]

    first = trainer_of(material, tmp_path / "killed.pt")
    assert len(list(islice(first.run(), 5))) == 5  # killed after step 5; the checkpoint is of step 3
    torch.rand(7)  # whatever the generator of the process has given meanwhile
    second = trainer_of(material, tmp_path / "killed.pt")
    assert second.step == 3
    assert list(second.run()) == reports[3:]
    assert same(second.average, whole.average)
    assert same(second.network, whole.network)
    assert not same(whole.average, whole.network)


def test_a_finished_training_has_no_steps_left(material: LabelledPhotos, tmp_path: Path) -> None:
    list(trainer_of(material, tmp_path / "a.pt").run())
    assert list(trainer_of(material, tmp_path / "a.pt").run()) == []


def test_another_seed_gives_other_weights(material: LabelledPhotos, tmp_path: Path) -> None:
    one, other = (trainer_of(material, tmp_path / f"{seed}.pt", replace(SETTINGS, seed=seed)) for seed in (5, 6))
    assert not same(one.network, other.network)


def test_the_loss_falls(material: LabelledPhotos, tmp_path: Path) -> None:
    settings = DetectorSettings(steps=30, finish=0, batch=6, sizes=(64,), warmup=5, save_every=30)
    totals = [report.total for report in trainer_of(material, tmp_path / "a.pt", settings).run()]
    assert np.mean(totals[-8:]) < 0.75 * np.mean(totals[:8])


@pytest.mark.parametrize(("settings", "what"), [(replace(SETTINGS, rate=1e-3), "a"), (SETTINGS, "b")])
def test_a_checkpoint_of_another_training_is_refused(
    material: LabelledPhotos, tmp_path: Path, settings: DetectorSettings, what: str
) -> None:
    next(iter(trainer_of(material, tmp_path / "a.pt", replace(SETTINGS, save_every=1)).run()))
    with pytest.raises(UsageError, match="other settings"):
        trainer_of(material, tmp_path / "a.pt", replace(settings, save_every=2), what)


def test_a_damaged_checkpoint_is_refused(material: LabelledPhotos, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        trainer_of(material, tmp_path / "a.pt")
    torch.save({"step": 3}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="settings"):
        trainer_of(material, tmp_path / "b.pt")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    material: LabelledPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trainer_of(material, tmp_path / "a.pt")
    real, calls = module.losses, []

    def broken(*arguments: Any) -> Any:
        found = real(*arguments)
        calls.append(1)
        return replace(found, total=found.total * float("nan")) if len(calls) > 8 else found

    monkeypatch.setattr(module, "losses", broken)  # 3 steps, 4 checks, then one good step more
    with pytest.raises(ImmunogateError, match="diverged at step 5"):
        list(one.run())
    kept = trainer_of(material, tmp_path / "a.pt")
    assert kept.step == 3
    assert all(bool(torch.isfinite(value).all()) for value in kept.network.state_dict().values())


def test_photos_without_a_sure_face_are_refused(material: LabelledPhotos, tmp_path: Path) -> None:
    unsure = [PhotoFaces(one.boxes, one.landmarks, ~one.sure) for one in material.faces]
    with pytest.raises(UsageError, match="sure of no face"):
        Trainer(LabelledPhotos(material.photos, unsure), material, SETTINGS, tmp_path / "a.pt", "a", CPU)


def test_the_rate_rises_then_falls_to_its_last_share() -> None:
    settings = DetectorSettings(steps=100, warmup=10, last_rate=0.1, finish=0.2, finish_rate=0.5)
    shares = [module._share_of_rate(step, settings) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[9] == shares[10] == pytest.approx(1)
    assert shares[-1] == pytest.approx(0.1, abs=0.01)
    assert all(a > b for a, b in pairwise(shares[10:]))


def test_the_second_part_begins_anew_and_ends_at_nothing() -> None:
    settings = DetectorSettings(steps=100, finish=0.2, finish_rate=0.5, finish_strength=0.25)
    shares = [module._share_of_rate(step, settings) for step in range(100, settings.all_steps)]
    assert len(shares) == 20
    assert shares[0] == 0.5
    assert shares[-1] < 0.01
    assert [settings.strength_of(step) for step in (0, 99, 100, 119)] == [1, 1, 0.25, 0.25]


def test_draws_differ_by_each_of_what_they_depend_on() -> None:
    drawn = [draw(*where).integers(0, 2**62) for where in ((1, 2, "a"), (2, 2, "a"), (1, 3, "a"), (1, 2, "b"))]
    assert len({int(one) for one in drawn}) == 4
    assert draw(1, 2, "a").integers(0, 2**62) == drawn[0]


def test_a_report_is_plain_data() -> None:
    assert Report(1, 0.5, 0.25, 0.125, 0.0).checked is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 1.5),
        ("batch", True),
        ("sizes", ()),
        ("sizes", (100,)),
        ("sizes", (32,)),
        ("rate", float("nan")),
        ("rate", -1.0),
        ("average", 1.0),
        ("least_face", 70.0),
        ("largest_face", 20.0),
        ("seed", -1),
        ("finish", -0.1),
        ("finish_strength", 2.0),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        DetectorSettings(**{name: value})


def test_large_scenes_come_in_smaller_batches() -> None:
    settings = DetectorSettings(batch=16, sizes=(192, 192, 320))
    assert [settings.size_of(step) for step in range(4)] == [192, 192, 320, 192]
    assert [settings.batch_of(step) for step in range(4)] == [16, 16, 6, 16]
    assert DetectorSettings(batch=1).batch_of(3) == 1


def test_evened_matrices_keep_their_directions() -> None:
    torch.manual_seed(0)
    for shape in ((24, 40), (40, 24), (16, 16)):
        matrix = torch.randn(shape)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        found = left.T @ evened(matrix) @ right.T
        least = 0.3 if shape == (16, 16) else 0.6  # the smallest of a square one may be tiny
        assert values.max() / values.min() > 3
        assert least < float(found.diagonal().median()) < 1.25
        assert float((found - found.diagonal().diag()).abs().max()) < 0.05


def test_the_optimiser_finds_a_minimum_and_goes_on_after_a_stop() -> None:
    def problem() -> tuple[Any, Any]:
        torch.manual_seed(1)
        network = torch.nn.Sequential(torch.nn.Conv2d(6, 8, 1), torch.nn.Conv2d(8, 3, 1))
        return network, EvenedMomentum(network, [network[1]], 0.01, 2.0, 0.0)

    def steps(network: Any, optimiser: Any, count: int) -> float:
        inputs = torch.randn(32, 6, 1, 1, generator=torch.Generator().manual_seed(2))
        wanted = inputs[:, :3] - 2 * inputs[:, 3:]
        for _ in range(count):
            optimiser.zero_grad()
            loss = (network(inputs) - wanted).square().mean()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    network, optimiser = problem()
    assert steps(network, optimiser, 1) > 3
    assert steps(network, optimiser, 200) < 0.1

    whole, first = problem()
    steps(whole, first, 6)
    halves, second = problem()
    steps(halves, second, 3)
    third = EvenedMomentum(halves, [halves[1]], 0.01, 2.0, 0.0)
    third.load_state_dict(second.state_dict())
    steps(halves, third, 3)
    assert same(whole, halves)
