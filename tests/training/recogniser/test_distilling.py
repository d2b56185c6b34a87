"""Labels, losses and steps: what is asked of the student, and that a run goes on bit for bit or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.basis import Eigenbasis
from immunogate.errors import InputError, UsageError
from immunogate.faces_file import AlignedFaces

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.checkpoint import load_state  # noqa: E402 - needs torch
from immunogate.networks.recognisers import load_recogniser, recogniser_spec  # noqa: E402
from immunogate.training.recogniser.crowd import Crowd  # noqa: E402
from immunogate.training.recogniser.objective import Projections, objective, relation  # noqa: E402
from immunogate.training.recogniser.teacher import HINT_CHANNELS, Labels, Teacher  # noqa: E402
from immunogate.training.recogniser.trainer import DivergedError, Trainer, train  # noqa: E402
from immunogate.training.recogniser.validation import Examination, marks  # noqa: E402

CPU = torch.device("cpu")
Begin = Callable[..., Trainer]


@pytest.fixture(scope="module")
def teacher(random_teacher: Any) -> Teacher:
    return Teacher(*random_teacher, CPU, torch.float32)


@pytest.fixture
def begin(made_up: AlignedFaces, basis: Eigenbasis, teacher: Teacher, few: Any) -> Begin:
    def make(source: str = "made up", **changes: Any) -> Trainer:
        settings = few(**changes)
        return Trainer(Crowd(made_up.images, basis, settings), teacher, settings, source, CPU)

    return make


def weights(trainer: Trainer) -> list[Any]:
    parts = (trainer.student, trainer.projections, trainer.average)
    return [value.clone() for part in parts for value in part.state_dict().values()]


def test_labels_are_the_networks_own(random_teacher: Any, teacher: Teacher, made_up: AlignedFaces) -> None:
    network, _ = random_teacher
    labels = teacher.label(made_up.images, hints=True)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(network(teacher.planes(made_up.images)), dim=1)
    torch.testing.assert_close(labels.embeddings, expected, rtol=1e-3, atol=1e-4)
    sizes = [(14, 12), (7, 6), (7, 6)]
    shapes = [(36, channels, *size) for channels, size in zip(HINT_CHANNELS, sizes, strict=True)]
    assert [tuple(hint.shape) for hint in labels.hints] == shapes
    for hint in labels.hints:
        assert float(hint.mean()) == pytest.approx(0, abs=1e-3)
        assert float(hint.std()) == pytest.approx(1, abs=0.02)
    assert teacher.label(made_up.images[:2]).hints == ()


def test_a_teacher_of_another_length_is_refused() -> None:
    spec = recogniser_spec("iresnet18")
    with torch.device("meta"), pytest.raises(UsageError, match="128 numbers, the teacher iresnet18 512"):
        Teacher(spec.build(), spec, CPU, torch.float32)


def test_a_perfect_student_has_no_loss_and_others_have() -> None:
    generator = torch.Generator().manual_seed(0)
    taught = torch.nn.functional.normalize(torch.randn(6, 128, generator=generator), dim=1)
    hint = torch.randn(6, 5, 2, 2, generator=generator)
    labels = Labels(taught, (hint,))
    perfect = objective(3 * taught, [hint], labels, 10, 1)
    assert float(perfect.total) == pytest.approx(0, abs=1e-5)
    turned = torch.linalg.qr(torch.randn(128, 128, generator=generator))[0]
    moved = objective(taught @ turned, [hint], labels, 10, 1)
    assert float(moved.relation) == pytest.approx(0, abs=1e-9), "relations do not see a rotation of all"
    assert float(moved.distance) > 0.5
    one = objective(taught[:1].expand(6, -1), [0 * hint], labels, 10, 2)
    assert float(one.relation) > 0.5
    assert float(one.hints) == pytest.approx(float(hint.square().mean()))
    assert float(one.total) == pytest.approx(float(one.distance + 10 * one.relation + 2 * one.hints), rel=1e-5)


def test_projections_fit_the_students_maps(begin: Begin, teacher: Teacher, made_up: AlignedFaces) -> None:
    maps = begin().student.maps(teacher.planes(made_up.images[:2]))
    hints = teacher.label(made_up.images[:2], hints=True).hints
    guesses = Projections()(maps)
    assert [guess.shape for guess in guesses] == [hint.shape for hint in hints]


def test_a_student_learns(begin: Begin) -> None:
    trainer = begin(steps=30, block=1, reuse=30, batch=8, mixed=0.0, learning_rate=2e-3)
    found = [trainer.take_step() for _ in range(16)]
    assert found[-1]["distance"] < 0.75 * found[0]["distance"]
    assert found[-1]["hints"] < 0.8 * found[0]["hints"]


def test_hints_fade_and_then_cost_nothing(begin: Begin) -> None:
    trainer = begin(hints_until=0.5)
    found = [trainer.take_step()["hints"] for _ in range(8)]
    assert all(value > 0 for value in found[:4])
    assert found[4:] == [0, 0, 0, 0]


def test_a_resumed_run_goes_on_bit_for_bit(begin: Begin, tmp_path: Path) -> None:
    whole = begin()
    for _ in range(7):
        whole.take_step()
    first = begin()
    for _ in range(3):  # in the middle of a block
        first.take_step()
    first.save(tmp_path / "state.pt")
    second = begin()
    second.restore(tmp_path / "state.pt")
    assert second.step == 3
    for _ in range(4):
        second.take_step()
    assert all(torch.equal(own, other) for own, other in zip(weights(whole), weights(second), strict=True))


def test_another_seed_is_another_run(begin: Begin) -> None:
    assert begin().take_step() != begin(seed=1).take_step()


@pytest.mark.parametrize(("changes", "words"), [({"pace": 0.1}, "pace"), ({"source": "x"}, "source")])
def test_a_state_of_another_run_is_refused(begin: Begin, tmp_path: Path, changes: Any, words: str) -> None:
    begin().save(tmp_path / "state.pt")
    with pytest.raises(UsageError, match=f"state.pt was trained with {words}"):
        begin(**changes).restore(tmp_path / "state.pt")


def test_a_loss_that_is_not_finite_changes_nothing(begin: Begin) -> None:
    trainer = begin()
    trainer.take_step()
    with torch.no_grad():
        next(trainer.projections.parameters())[:] = float("nan")
    before = weights(trainer)
    with pytest.raises(DivergedError, match="not finite at step 1"):
        trainer.take_step()
    kept = zip(weights(trainer), before, strict=True)
    assert sum(not torch.equal(own, other) for own, other in kept if not other.isnan().any()) <= _statistics(trainer)
    assert trainer.step == 1


def _statistics(trainer: Trainer) -> int:
    """BatchNorms follow what they see before a loss is known."""
    return sum(name.endswith(("mean", "var", "tracked")) for name in trainer.student.state_dict())


def test_the_nearest_average_is_kept_and_loads(
    begin: Begin, teacher: Teacher, made_up: AlignedFaces, tmp_path: Path
) -> None:
    trainer, examination = begin(), Examination(made_up, teacher)
    seen: list[float] = []
    train(trainer, examination, 100, lambda found: seen.append(found.cosine), lambda _: None)
    assert len(seen) == 3  # at 3, 6 and the end, 8
    assert trainer.best["cosine"] == max(seen)
    trainer.save_best(tmp_path / "student.pt")
    network, _ = load_recogniser(tmp_path / "student.pt", "gateface")
    assert examination.examine(network).cosine == pytest.approx(max(seen), abs=1e-4)
    assert load_state(tmp_path / "student.pt").keys() == network.state_dict().keys()


def test_people_of_one_photo_each_make_no_examination(teacher: Teacher, made_up: AlignedFaces) -> None:
    with pytest.raises(InputError, match="12 photos of 12 people"):
        Examination(made_up.take(np.arange(0, 36, 3)), teacher)


def test_marks_of_a_clean_case_and_of_chance() -> None:
    people = np.repeat([f"p{number}" for number in range(30)], 3)
    own = np.eye(30, dtype=np.float32).repeat(3, axis=0)
    perfect = marks(own, own, people)
    assert (perfect.cosine, perfect.accuracy, perfect.tar) == (1, 1, 1)
    noise = np.random.default_rng(0).standard_normal((90, 64)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    chance = marks(noise, own @ np.eye(30, 64, dtype=np.float32), people)
    assert chance.accuracy < 0.65
    assert chance.tar < 0.1


def test_relation_is_the_mean_squared_difference_of_the_cosines_of_pairs() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    pairs = [(0.0 - 0.8) ** 2, (0.6 - 0.0) ** 2, (0.8 - 0.6) ** 2]
    torch.testing.assert_close(relation(embeddings, targets), torch.tensor(sum(pairs) / 3))
    turned = torch.stack([embeddings[:, 1], -embeddings[:, 0]], dim=1)
    assert float(relation(turned, embeddings)) == pytest.approx(0, abs=1e-6)
