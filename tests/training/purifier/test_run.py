"""The loop: what it saves, notes, keeps and when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.purifier import load_purifier  # noqa: E402 - needs torch
from immunogate.training.purifier import journal, run  # noqa: E402
from immunogate.training.purifier.run import BEST, CHECKPOINT, LAST, checkpoint_of_run, train  # noqa: E402
from immunogate.training.purifier.trainer import DivergedError  # noqa: E402


class KilledError(Exception):
    """As if the process were gone."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A note for every second step, and no TensorBoard, which the journal's own tests have."""
    monkeypatch.setattr(run, "NOTE_EVERY", 2)
    monkeypatch.setattr(journal, "_board", lambda folder, resumed_at: None)


@pytest.fixture
def quick_validation(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Validations that give these scores, one after the other."""

    def set_scores(*scores: float) -> None:
        left = iter(scores)
        monkeypatch.setattr(run, "validate", lambda twin, pairs: {"score": next(left), "threshold": 0.5})

    return set_scores


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def state(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def flat(content: Any, name: str = "") -> dict[str, Any]:
    """A checkpoint's leaves by their path; tensors as lists, so that == compares bits."""
    if isinstance(content, dict):
        parts = [flat(value, f"{name}.{key}") for key, value in content.items()]
        return {key: value for part in parts for key, value in part.items()}
    return {name: content.tolist() if isinstance(content, torch.Tensor) else content}


@pytest.mark.parametrize("rehearsal", ["live", "average"])
def test_a_killed_and_resumed_run_leaves_what_an_unbroken_one_leaves(
    begin: Any, few: Any, pairs: Any, tmp_path: Path, rehearsal: str
) -> None:
    settings = few(rehearsal=rehearsal, validate_every=4)
    whole = begin(settings)
    assert train(whole, pairs, tmp_path / "whole")

    def told(step: int, values: dict[str, float]) -> None:
        if step == 7:
            raise KilledError

    with pytest.raises(KilledError):
        train(begin(settings), pairs, tmp_path / "killed", told)
    resumed = begin(settings)
    resumed.restore(tmp_path / "killed" / CHECKPOINT)
    assert resumed.step == 4
    assert train(resumed, pairs, tmp_path / "killed")
    assert (resumed.step, resumed.best, resumed.waited) == (10, whole.best, whole.waited)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "whole")] == [2, 4, 4, 6, 8, 8, 10, 10]
    for name in (CHECKPOINT, BEST, LAST):
        assert flat(state(tmp_path / "killed" / name)) == flat(state(tmp_path / "whole" / name)), name


def test_a_stop_saves_at_once_and_says_that_it_is_not_over(begin: Any, few: Any, pairs: Any, tmp_path: Path) -> None:
    seen: list[int] = []
    trainer = begin(few(validate_every=100))
    over = train(trainer, pairs, tmp_path, lambda step, values: seen.append(step), lambda: len(seen) >= 3)
    assert not over
    assert seen == [1, 2, 3]
    assert state(tmp_path / CHECKPOINT)["step"] == 3
    assert not (tmp_path / BEST).exists()


def test_a_finished_run_has_no_steps_left(
    begin: Any, few: Any, pairs: Any, tmp_path: Path, quick_validation: Any
) -> None:
    quick_validation(0.5)
    trainer = begin(few(steps=2, warmup_steps=0))
    assert train(trainer, pairs, tmp_path)
    log = lines(tmp_path)
    again = begin(few(steps=2, warmup_steps=0))
    again.restore(tmp_path / CHECKPOINT)
    assert train(again, pairs, tmp_path)
    assert again.step == 2
    assert lines(tmp_path) == log


def test_the_best_is_kept_and_patience_ends_the_run(
    begin: Any, few: Any, pairs: Any, tmp_path: Path, quick_validation: Any
) -> None:
    quick_validation(0.3, 0.5, 0.5, 0.4, 0.9)
    trainer = begin(few(validate_every=1, patience=2))
    kept: list[Any] = []

    def told(step: int, values: dict[str, float]) -> None:
        assert values["validation_score"] == (0.3, 0.5, 0.5, 0.4)[step - 1]
        kept.append(flat(dict(trainer.averaged.state_dict())))

    assert train(trainer, pairs, tmp_path, told)
    assert (trainer.step, trainer.best, trainer.waited) == (4, 0.5, 2)
    assert flat(dict(load_purifier(tmp_path / BEST).state_dict())) == kept[1]
    assert flat(dict(load_purifier(tmp_path / LAST).state_dict())) == kept[3]
    assert state(tmp_path / CHECKPOINT)["waited"] == 2


def test_time_alone_saves_too(
    begin: Any, few: Any, pairs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SAVE_SECONDS", 0.0)
    seen: list[int] = []

    def told(step: int, values: dict[str, float]) -> None:
        path = tmp_path / CHECKPOINT
        seen.append(state(path)["step"] if path.exists() else 0)
        if step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train(begin(few(validate_every=100)), pairs, tmp_path, told)
    assert seen == [0, 1, 2]


def test_a_run_that_diverges_leaves_a_good_checkpoint_and_a_good_purifier(
    begin: Any, few: Any, pairs: Any, tmp_path: Path, quick_validation: Any
) -> None:
    quick_validation(0.5, 0.6)
    trainer = begin(few())

    def told(step: int, values: dict[str, float]) -> None:
        if step == 4:
            with torch.no_grad():
                trainer.purifier.own[0] = float("nan")

    with pytest.raises(DivergedError, match="at step 4"):
        train(trainer, pairs, tmp_path, told)
    again = begin(few())
    again.restore(tmp_path / CHECKPOINT)
    assert again.step == 3
    assert all(bool(torch.isfinite(value).all()) for value in again.purifier.state_dict().values())
    again.take_step()
    load_purifier(tmp_path / BEST)


def test_a_validation_without_a_number_is_no_best_result(begin: Any, few: Any, pairs: Any, tmp_path: Path) -> None:
    trainer = begin(few(validate_every=2))

    def told(step: int, values: dict[str, float]) -> None:
        with torch.no_grad():
            trainer.averaged.own[0] = float("nan")

    with pytest.raises(DivergedError, match="validation at step 2"):
        train(trainer, pairs, tmp_path, told)
    assert not (tmp_path / BEST).exists()
    assert {line["kind"] for line in lines(tmp_path)} == {"train"}


def test_every_process_has_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    names = [checkpoint_of_run(tmp_path, rank).name for rank in range(3)]
    assert names == ["checkpoint.pt", "checkpoint-1.pt", "checkpoint-2.pt"]
