"""What a purifier's training run consists of, and one step of it.

Everything drawn depends on the seed and the step alone (see `training.draws`), so a run that was killed goes on bit
for bit from its last checkpoint, and two processes with half a batch each take the same steps as one with all of it,
up to the order of sums. BatchNorm, which the paper's and the compact analyzer have, is the exception: each process
then normalises by its own half.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from immunogate.basis import Eigenbasis, truncate
from immunogate.errors import CheckpointError, ImmunogateError, UsageError
from immunogate.files import write_whole
from immunogate.networks.attacks import Embed
from immunogate.networks.checkpoint import misfits, read_sections
from immunogate.networks.frozen import frozen
from immunogate.networks.purifier import AntibodyNetwork, checkpoint_of
from immunogate.networks.recognisers import RecogniserSpec
from immunogate.networks.relaxed import relaxed_mask
from immunogate.networks.tunable import Tunable
from immunogate.networks.twin import TorchTwin, seen
from immunogate.training.augment import softened
from immunogate.training.draws import uniform
from immunogate.training.processes import Processes
from immunogate.training.purifier.beginning import new_purifier
from immunogate.training.purifier.objective import (
    Losses,
    LossWeights,
    antibody_statistics,
    losses,
    means_of,
    policy_loss,
)
from immunogate.training.purifier.rehearsal import (
    Infections,
    Rehearsed,
    rehearsal_for,
    spread,
)
from immunogate.training.purifier.settings import TrainingSettings
from immunogate.training.recogniser.objective import relation
from immunogate.views import View

MOST_GRADIENT = 1.0
"""Norm to which gradients are clipped."""

RISE = 50
"""Steps in which the learning rate rises to its peak."""

SECTIONS = ("settings", "step", "best", "waited", "purifier", "average", "recognisers", "optimiser", "rehearsal")


class DivergedError(ImmunogateError):
    """A loss or gradient is no longer finite; the last checkpoint is from before."""

    exit_code = 1


class Trainer:
    """A training run.

    Args:
        basis: eigenfaces.
        recogniser: left alone; a frozen copy of it is used, and with ``adapt`` another that learns.
        spec: its input.
        faces: (N, D) float32 clean faces in [-1, 1].
        settings: how to train.
        processes: the processes that share each batch.
        device: where to compute.
        beginning: a trained purifier of the same kind to begin with, for instance in front of another recogniser.
        teacher: another recogniser, and its input, whose embeddings of clean faces the adapting one learns to give.

    Raises:
        UsageError: the batch is smaller than the number of processes, or ``beginning`` is of another kind.
    """

    def __init__(
        self,
        basis: Eigenbasis,
        recogniser: nn.Module,
        spec: RecogniserSpec,
        faces: Tensor,
        settings: TrainingSettings,
        processes: Processes | None = None,
        device: torch.device | str = "cpu",
        beginning: AntibodyNetwork | None = None,
        teacher: tuple[nn.Module, RecogniserSpec] | None = None,
    ) -> None:
        if settings.batch < (processes or Processes()).count:
            raise UsageError(f"a batch of {settings.batch} is less than one face for each of the processes")
        self.settings = settings
        self.processes = processes or Processes()
        self.purifier = new_purifier(settings, basis, faces)
        if beginning is not None:
            self._begin_with(beginning)
        still, mode = frozen(recogniser), "none" if self.purifier is None else "expected"
        self.twin = TorchTwin(still, spec, basis, mode, 0, self.purifier, settings.views).to(device)
        original: Embed = self.twin.embed
        if settings.adapt:
            taught, its_spec = (still, spec) if teacher is None else (frozen(teacher[0]), teacher[1])
            original = TorchTwin(taught, its_spec, truncate(basis, 1), views=2).to(device).embed_views
            self.twin.recogniser.recogniser = Tunable(recogniser).to(device)
        if self.purifier is not None and settings.hold:
            self.purifier.requires_grad_(False)
        self.average = copy.deepcopy(self.twin).eval().requires_grad_(False)
        share = spread(settings.batch, self.processes.rank, self.processes.count)
        self.share = share
        self.rehearsal = rehearsal_for(Infections(self.average, original, faces.to(device), settings, share))
        self.optimiser = torch.optim.Adam(
            [{"params": [*_learned(part)], "peak": peak} for part, peak in self._parts()], lr=settings.learning_rate
        )
        self.step = 0
        self.best = -1.0
        self.waited = 0

    @property
    def last(self) -> int:
        """The step at which the run is over."""
        return self.settings.warmup_steps + self.settings.steps

    def take_step(self) -> dict[str, float]:
        """One optimiser step; gives its mean losses over this process's rows, and the antibodies' statistics.

        Raises:
            DivergedError: a loss or gradient is not finite; the weights were not changed.
        """
        batch = self.rehearsal.batch(self.step)
        attacked = batch.attacked.detach().requires_grad_(self.settings.rehearsal == "live")
        if self.purifier is not None and not self.settings.hold:
            self.purifier.train()
        found, probabilities, objective = self._losses(attacked, batch)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(objective.sum() / self.settings.batch)
        for part, _ in self._parts():
            self.processes.sum_gradients(part)
        norm = max(float(nn.utils.clip_grad_norm_(part.parameters(), MOST_GRADIENT)) for part, _ in self._parts())
        if not (math.isfinite(norm) and math.isfinite(float(objective.detach().sum()))):
            raise DivergedError(
                f"the loss or its gradient is not finite at step {self.step}",
                "The last checkpoint is good: resume from it with a lower --learning-rate",
            )
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * self._rise_and_fall()
        self.optimiser.step()
        for part, _ in self._parts():
            self.processes.average_buffers(part)
        self._follow()
        self.rehearsal.follow(attacked.grad)
        self.step += 1
        return {**means_of(found, batch), **antibody_statistics(probabilities.detach()), "gradient": norm}

    def _parts(self) -> list[tuple[nn.Module, float]]:
        """What learns, with its peak learning rate."""
        settings = self.settings
        parts: list[tuple[nn.Module, float]] = []
        if self.purifier is not None and not settings.hold:
            parts.append((self.purifier, settings.learning_rate))
        if settings.adapt:
            parts.append((self.twin.recogniser.recogniser, settings.adapt))
        return parts

    def checkpoint(self) -> dict[str, Any]:
        """Everything needed to go on; with several processes, this one's part of it."""
        return {
            "settings": asdict(self.settings),
            "step": self.step,
            "best": self.best,
            "waited": self.waited,
            "purifier": _state(self.purifier),
            "average": _state(self.average.purifier),
            "recognisers": self._recognisers(),
            "optimiser": self.optimiser.state_dict(),
            "rehearsal": self.rehearsal.state(),
        }

    @property
    def averaged(self) -> AntibodyNetwork | None:
        """The moving average of the purifier: what is attacked, validated and exported; None without one."""
        return self.average.purifier

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        write_whole(path, lambda temporary: torch.save(self.checkpoint(), temporary))

    def export(self, path: Path) -> None:
        """Write the averaged purifier alone, for `immunogate export`; nothing where there is none."""
        if self.averaged is None:
            return
        averaged = self.averaged
        write_whole(path, lambda temporary: torch.save(checkpoint_of(averaged), temporary))

    def export_recogniser(self, path: Path) -> None:
        """Write the averaged recogniser that has adapted, as a state dict of the architecture it came in."""
        tunable = self.average.recogniser.recogniser
        assert isinstance(tunable, Tunable)  # the caller knows that it adapts
        weights = tunable.unfolded()
        write_whole(path, lambda temporary: torch.save(weights, temporary))

    def _recognisers(self) -> list[dict[str, Tensor]]:
        """The weights of the recogniser that adapts, and their average; nothing where none does."""
        if not self.settings.adapt:
            return []
        return [twin.recogniser.recogniser.state_dict() for twin in (self.twin, self.average)]

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings.

        Raises:
            UsageError: it was made with other settings; the first that differs is named.
            CheckpointError: the file is no checkpoint of a training run.
        """
        content = read_sections(path, SECTIONS, "Give the checkpoint that the interrupted run wrote")
        own, stored = asdict(self.settings), content["settings"]
        if not isinstance(stored, dict):
            raise CheckpointError(
                f"{path} does not fit this run: its settings are no dict", "Begin anew without --resume"
            )
        for name in own:
            value = stored.get(name)
            if own[name] != value and name not in RESUMABLE:
                raise UsageError(
                    f"{path} was trained with {name} = {value}, now it is {own[name]}",
                    "Resume with the same settings, or begin anew without --resume",
                )
        try:
            for purifier, weights in ((self.purifier, content["purifier"]), (self.averaged, content["average"])):
                if purifier is not None:
                    purifier.load_state_dict(weights)
            for twin, weights in zip((self.twin, self.average), content["recognisers"], strict=False):
                twin.recogniser.recogniser.load_state_dict(weights)
            self.optimiser.load_state_dict(content["optimiser"])
            self.rehearsal.restore(content["rehearsal"])
            self.step, self.waited = int(content["step"]), int(content["waited"])
            self.best = float(content["best"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} does not fit this run: {error}", "Begin anew without --resume") from error
        if self.processes.any_asks(self.step != self.processes.from_leader(self.step)):
            raise CheckpointError(
                f"{path} and those of the other processes are of different steps",
                "The run was killed while they were written: begin anew without --resume",
            )

    def _begin_with(self, other: AntibodyNetwork) -> None:
        if self.purifier is None:
            raise UsageError("there is no purifier in this run that another could begin", "Leave it out")
        problems = misfits(self.purifier, other.state_dict())
        if other.architecture != self.settings.architecture or other.gated != self.settings.gated or problems:
            raise UsageError(
                f"the purifier to begin with is another network ({other.architecture}, {other.components} eigenfaces)",
                "Give one of the same architecture, width, gate and number of eigenfaces",
            )
        self.purifier.load_state_dict(other.state_dict())

    def _losses(self, attacked: Tensor, batch: Rehearsed) -> tuple[Losses, Tensor, Tensor]:
        """The terms, the probabilities, and (b,) what is minimised."""
        settings, twin = self.settings, self.twin
        attacked = softened(attacked, settings.seed, self.step, settings.softened, self.share.rows, settings.batch)
        centred = attacked - twin.mean
        coefficients = centred @ twin.basis.T
        if twin.purifier is None:
            everything = torch.ones_like(coefficients)
            found, related = self._against(attacked, everything, batch)
            return found, everything, found.total + related
        with self._rounding():
            probabilities = twin.probabilities_of(attacked, centred, coefficients).float()
        if settings.estimator == "reinforce":
            return self._policy(centred, coefficients, probabilities, batch)
        mask = probabilities
        if settings.estimator == "relaxed":
            draw = uniform(settings.seed, self.step, "mask", settings.batch, probabilities.shape[1])
            logits = torch.logit(probabilities, eps=1e-6)
            mask = relaxed_mask(logits, draw[self.share.rows].to(logits), settings.relaxation)
        purified = twin.act(centred, coefficients, mask)
        found, related = self._against(purified, mask, batch)
        return found, probabilities, found.total + related

    def _against(self, purified: Tensor, mask: Tensor, batch: Rehearsed) -> tuple[Losses, Tensor | float]:
        """The terms of each face, and the term of all pairs of two faces of the batch."""
        settings, embeddings = self.settings, self._embed(purified)
        weights = LossWeights(settings.identity, settings.size)
        found = losses(purified, batch.clean, mask, lambda faces: embeddings, batch.targets, weights)
        if not settings.relation:
            return found, 0.0
        return found, settings.relation * relation(embeddings, batch.targets)

    def _rounding(self) -> torch.autocast:
        """bf16 for analyzer and recogniser; never for products with the basis, whose remainder it would drown."""
        return torch.autocast(self.twin.mean.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def _embed(self, faces: Tensor) -> Tensor:
        with self._rounding():
            return self.twin.embed(seen(faces, self._view())).float()

    def _view(self) -> View:
        """The view of this step; over the steps of its life an attack meets all of them."""
        views = self.twin.views
        return views[int(float(uniform(self.settings.seed, self.step, "view", 1)) * len(views))]

    def _policy(
        self, centred: Tensor, coefficients: Tensor, probabilities: Tensor, batch: Rehearsed
    ) -> tuple[Losses, Tensor, Tensor]:
        """All clones of the batch in one product with the basis; the recogniser needs no gradient here."""
        clones, (faces, genes) = self.settings.clones, probabilities.shape
        weights = LossWeights(self.settings.identity, self.settings.size)
        draw = uniform(self.settings.seed, self.step, "clones", self.settings.batch, clones, genes)
        with torch.no_grad():
            masks = (draw[self.share.rows].to(probabilities) < probabilities[:, None]).to(probabilities.dtype)
            parts = (centred, coefficients, batch.clean, batch.targets)
            repeated = [part.repeat_interleave(clones, dim=0) for part in parts]
            purified = self.twin.act(repeated[0], repeated[1], masks.reshape(-1, genes))
            found = losses(purified, repeated[2], masks.reshape(-1, genes), self._embed, repeated[3], weights)
        policy = policy_loss(found.total.reshape(faces, clones), masks, probabilities, summed=self.settings.paper_exact)
        return found, probabilities, policy

    def _rise_and_fall(self) -> float:
        """The share of the peak learning rates at this step."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / max(1, self.last))))
        rise = min(1.0, (self.step + 1) / RISE)
        return rise * (0.01 + 0.99 * cosine)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averages towards what learns, buffers included; early on they follow faster."""
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        left_out: set[str] = set()
        if self.settings.paper_exact and self.averaged is not None:
            left_out = {name for name, _ in self.averaged.named_buffers()}
        purifiers = [_state(part) for part in (self.purifier, self.averaged)]
        for learning, following in (pair for pair in (purifiers, self._recognisers()) if pair):
            for name, value in following.items():
                if name in left_out:
                    continue
                if value.is_floating_point():
                    value.lerp_(learning[name], 1 - decay)
                else:
                    value.copy_(learning[name])


RESUMABLE = ("patience", "validate_every")
"""Settings that may change when a run goes on: they decide about stopping, not about steps."""


def _state(network: nn.Module | None) -> dict[str, Tensor]:
    return {} if network is None else network.state_dict()


def _learned(part: nn.Module) -> Iterator[nn.Parameter]:
    return (weight for weight in part.parameters() if weight.requires_grad)
