"""The loop around a purifier's steps: save, validate, keep the best, stop early."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from immunogate.training.purifier.journal import PICTURED, Journal
from immunogate.training.purifier.trainer import DivergedError, Trainer
from immunogate.training.purifier.validation import ValidationPairs, attack, validate

logger = logging.getLogger(__name__)

CHECKPOINT, BEST, LAST = "checkpoint.pt", "purifier.pt", "last.pt"
"""In a run's folder: everything to go on from; the best averaged purifier by validation; the one of the last step."""

BEST_RECOGNISER, LAST_RECOGNISER = "recogniser.pt", "last-recogniser.pt"
"""The recogniser that goes with each, where it adapts."""

SAVE_SECONDS = 60.0
NOTE_EVERY = 10
PICTURE_LEVELS = 4.0

Told = Callable[[int, dict[str, float]], None]


def checkpoint_of_run(folder: Path, rank: int) -> Path:
    """Where a process keeps its state: attacks that are alive differ from process to process."""
    return folder / (CHECKPOINT if rank == 0 else f"checkpoint-{rank}.pt")


def train(
    trainer: Trainer,
    pairs: ValidationPairs,
    folder: Path,
    told: Told = lambda step, values: None,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Take the steps that are left.

    Every process of a parallel run calls this; the leading one validates, notes and writes.

    Args:
        trainer: begun or restored.
        pairs: of people kept back.
        folder: of the run.
        told: told of every step and its numbers, with those of a validation where there was one.
        stopped: asked after each step; True saves and ends.

    Returns:
        Whether the run is over, by its last step or by early stopping; False if it was stopped.

    Raises:
        DivergedError: see `Trainer.take_step`; checkpoint and best purifier stay as they were.
    """
    leads = trainer.processes.leads
    saved_at = time.monotonic()
    with Journal(folder, trainer.step) if leads else nullcontext() as journal:
        while trainer.step < trainer.last:
            values = trainer.take_step()
            step = trainer.step
            if journal is not None and (step % NOTE_EVERY == 0 or step == trainer.last):
                journal.note(step, "train", values)
            if step % trainer.settings.validate_every == 0 or step == trainer.last:
                values |= _validated(trainer, pairs, folder, journal)
                _save(trainer, folder)
                saved_at = time.monotonic()
            told(step, values)
            if trainer.settings.patience and trainer.waited >= trainer.settings.patience:
                logger.info("no better result in %d validations: stopped at step %d", trainer.waited, step)
                return True
            if trainer.processes.any_asks(stopped()):
                _save(trainer, folder)
                return False
            if trainer.processes.count == 1 and time.monotonic() - saved_at > SAVE_SECONDS:
                _save(trainer, folder)
                saved_at = time.monotonic()
    return True


def _save(trainer: Trainer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    trainer.save(checkpoint_of_run(folder, trainer.processes.rank))


def _validated(trainer: Trainer, pairs: ValidationPairs, folder: Path, journal: Journal | None) -> dict[str, float]:
    """Validate in the leading process, tell the others, and keep what is best."""
    rates = {} if journal is None else validate(trainer.average, pairs)
    if trainer.processes.any_asks(not math.isfinite(rates.get("threshold", 0.0))):  # nothing is above a NaN
        raise DivergedError(f"validation at step {trainer.step} gave no number", "Resume with a lower --learning-rate")
    if journal is not None:
        journal.note(trainer.step, "validation", rates)
        _draw(trainer, pairs, journal)
    score = trainer.processes.from_leader(rates.get("score", 0.0))
    better = score > trainer.best
    trainer.best, trainer.waited = max(score, trainer.best), 0 if better else trainer.waited + 1
    if journal is not None:
        trainer.export(folder / LAST)
        if better:
            trainer.export(folder / BEST)
        if trainer.settings.adapt:
            trainer.export_recogniser(folder / LAST_RECOGNISER)
            if better:
                trainer.export_recogniser(folder / BEST_RECOGNISER)
    return {f"validation_{name}": value for name, value in rates.items()}


def _draw(trainer: Trainer, pairs: ValidationPairs, journal: Journal) -> None:
    if not journal.pictures:
        return
    clean = pairs.faces[:PICTURED].to(trainer.average.mean.device)
    attacked = attack(trainer.average, clean, PICTURE_LEVELS)
    with torch.no_grad():
        journal.picture(trainer.step, clean, attacked, trainer.average.purify(attacked))
