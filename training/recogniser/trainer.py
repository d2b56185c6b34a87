"""Distils a teacher into a student that begins with random weights.

`Trainer` holds what changes; `train` is the loop. Every draw depends on the seed, a number and a purpose alone, so a
run that was killed goes on from its last state as if nothing had been.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from immunogate.errors import ImmunogateError, UsageError
from immunogate.files import write_whole
from immunogate.networks.checkpoint import fit_state, load_state, read_sections
from immunogate.networks.gateface import GateFace
from immunogate.training.recogniser.crowd import Crowd
from immunogate.training.recogniser.draws import draws
from immunogate.training.recogniser.objective import Objective, Projections, objective
from immunogate.training.recogniser.optimiser import Orthogonal
from immunogate.training.recogniser.settings import DistilSettings
from immunogate.training.recogniser.teacher import Labels, Teacher
from immunogate.training.recogniser.validation import Examination, Marks

MOST_GRADIENT = 5.0
"""Norm to which gradients are clipped."""

Report = Callable[[dict[str, float]], None]

_SECTIONS = ("settings", "source", "step", "student", "projections", "average", "optimisers", "best")


class DivergedError(ImmunogateError):
    """A loss or gradient is no longer finite; the state that was saved is from before."""


@dataclass(frozen=True, eq=False)
class _Lesson:
    """A block of faces, as the student's input, with their labels."""

    number: int
    planes: Tensor
    labels: Labels


class Trainer:
    """What a run consists of.

    Args:
        crowd: makes faces.
        teacher: labels them.
        settings: how to learn.
        source: names photos and teacher, so that a state is not continued with others.
        device: to work on.
    """

    def __init__(
        self, crowd: Crowd, teacher: Teacher, settings: DistilSettings, source: str, device: torch.device
    ) -> None:
        self.settings, self.source = settings, source
        self._crowd, self._teacher, self._device = crowd, teacher, device
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.student = GateFace()
            self.projections = Projections()
        for module in (self.student, self.projections):
            module.to(device)
            _channels_last(module)
        self.average = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.optimisers = self._optimisers()
        self.best: dict[str, Any] = {"cosine": -1.0, "step": 0, "weights": {}}
        self.step = 0
        self._lesson: _Lesson | None = None

    def take_step(self) -> dict[str, float]:
        """One optimiser step; gives the parts of its loss.

        Raises:
            DivergedError: a loss or gradient is not finite; no weight was changed by it.
        """
        planes, labels = self._batch()
        found = self._loss(planes, labels)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        found.total.backward()  # type: ignore[no-untyped-call]
        weights = [*self.student.parameters(), *self.projections.parameters()]
        norm = float(nn.utils.clip_grad_norm_(weights, MOST_GRADIENT))
        if not (math.isfinite(norm) and math.isfinite(float(found.total.detach()))):
            raise DivergedError(
                f"the loss is not finite at step {self.step}",
                "The last saved state is from before: begin anew with a lower learning rate",
            )
        for optimiser, rate in zip(self.optimisers, self._rates(), strict=True):
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
        self._follow()
        self.step += 1
        return {name: float(getattr(found, name).detach()) for name in ("total", "distance", "relation", "hints")} | {
            "gradient": norm
        }

    def begin_with(self, weights: Path) -> None:
        """Take the student's weights from a run of before instead of random ones.

        Raises:
            UsageError: the file is not there.
            CheckpointError: it does not hold a student's weights.
        """
        state = load_state(weights)
        for network in (self.student, self.average):
            fit_state(network, state, f"{weights} as gateface")

    def note(self, marks: Marks) -> None:
        """Keep the present average if it is the nearest to the teacher so far."""
        if marks.cosine > self.best["cosine"]:
            weights = {name: value.clone() for name, value in self.average.state_dict().items()}
            self.best = {"cosine": marks.cosine, "step": self.step, "weights": weights}

    def save(self, path: Path) -> None:
        """Write all that is needed to go on, whole or not at all."""
        values = (
            asdict(self.settings),
            self.source,
            self.step,
            self.student.state_dict(),
            self.projections.state_dict(),
            self.average.state_dict(),
            [optimiser.state_dict() for optimiser in self.optimisers],
            self.best,
        )
        content = dict(zip(_SECTIONS, values, strict=True))
        write_whole(path, lambda temporary: torch.save(content, temporary))

    def save_best(self, path: Path) -> None:
        """Write the weights of the best average as a plain state dict."""
        weights = {name: value.cpu().contiguous() for name, value in self.best["weights"].items()}
        write_whole(path, lambda temporary: torch.save(weights, temporary))

    def restore(self, path: Path) -> None:
        """Go on from a saved state.

        Raises:
            UsageError: it was made with other settings, photos or another teacher; says which.
            CheckpointError: it is no state of a run.
        """
        content = read_sections(path, _SECTIONS, "Give a state that this command has saved.")
        there = {"source": content["source"], **content["settings"]}
        for name, own in {"source": self.source, **asdict(self.settings)}.items():
            if there.get(name) != own:
                raise UsageError(
                    f"{path} was trained with {name} = {there.get(name)}, now it is {own}",
                    "Go on with the same settings, photos and teacher, or take that state away to begin anew",
                )
        self.student.load_state_dict(content["student"])
        self.projections.load_state_dict(content["projections"])
        self.average.load_state_dict(content["average"])
        for optimiser, state in zip(self.optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.best = content["best"]
        self.step = int(content["step"])

    def _batch(self) -> tuple[Tensor, Labels]:
        """The faces of this step: each of the block's once in each of its passes."""
        settings = self.settings
        length = settings.block * settings.reuse
        lesson = self._lesson_of(self.step // length)
        turn, place = divmod(self.step % length, settings.block)
        order = draws(settings.seed, lesson.number * settings.reuse + turn, "order").permutation(len(lesson.planes))
        rows = torch.from_numpy(order[place * settings.batch : (place + 1) * settings.batch]).to(self._device)
        labels = Labels(lesson.labels.embeddings[rows], tuple(maps[rows] for maps in lesson.labels.hints))
        return lesson.planes[rows], labels

    def _lesson_of(self, number: int) -> _Lesson:
        if self._lesson is None or self._lesson.number != number:
            self._lesson = None  # frees its memory before the next is made
            start = number * self.settings.block * self.settings.reuse
            images = self._crowd.block(number, self.settings.strength(start))
            hints = self._teacher.taps and self.settings.hint_weight(start) > 0
            labels = self._teacher.label(images, hints=hints)
            self._lesson = _Lesson(number, self._teacher.planes(images), labels)
        return self._lesson

    def _loss(self, planes: Tensor, labels: Labels) -> Objective:
        self.student.train()
        settings = self.settings
        half = settings.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            maps = self.student.maps(planes.contiguous(memory_format=torch.channels_last))
            guesses = self.projections(maps) if labels.hints else []
            embeddings = self.student.head(maps[-1])
        return objective(embeddings, guesses, labels, settings.relation, settings.hint_weight(self.step))

    def _optimisers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """One for the student's dense convolutions, one for all else."""
        dense = [part.weight for part in self.student.modules() if isinstance(part, nn.Conv2d) and part.groups == 1]
        apart = {id(weight) for weight in dense}
        rest = [w for w in (*self.student.parameters(), *self.projections.parameters()) if id(w) not in apart]
        settings = self.settings
        return (
            Orthogonal(dense, settings.pace),
            torch.optim.AdamW(rest, settings.learning_rate, weight_decay=0.0),
        )

    def _rates(self) -> tuple[float, float]:
        """Learning rates of this step."""
        settings = self.settings
        rising = min(1.0, (self.step + 1) / max(1, settings.warmup))
        share = rising * 0.5 * (1 + math.cos(math.pi * self.step / settings.steps))
        return settings.pace * share, settings.learning_rate * share

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the student, running statistics included; early on it follows faster."""
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        own = self.student.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(own[name], 1 - decay)
            else:
                value.copy_(own[name])


def _channels_last(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)


def train(
    trainer: Trainer, examination: Examination, until: int, keep: Callable[[Marks], None], report: Report
) -> None:
    """Take the steps that are left.

    Args:
        trainer: begun or restored.
        examination: on people who are not learned from.
        until: step to stop at, at most all steps.
        keep: called after each validation, and at the end, to save.
        report: told of each step's losses.
    """
    settings = trainer.settings
    end = min(until, settings.steps)
    while trainer.step < end:
        report(trainer.take_step())
        if trainer.step % settings.validate_every == 0 or trainer.step == end:
            found = examination.examine(trainer.average)
            trainer.note(found)
            keep(found)
