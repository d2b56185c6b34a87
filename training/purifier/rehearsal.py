"""Rehearsed infections: what a purifier is trained against.

Stage one is Gaussian noise. Stage two attacks the frozen recogniser alone and, adaptively, the whole current
defence, away from each face's own clean feature, as Ren et al., IJCV 2024, do with one FGSM step. Targets are the
embeddings of the clean faces without any defence, so no identities are needed.

Two ways of rehearsing share the shares and sizes of `TrainingSettings`: `AverageRehearsal` attacks a moving average
of the defence anew for every batch, `LiveRehearsal` keeps a pool of attacks alive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from immunogate.networks.attacks import Embed, fgsm, from_levels, pgd
from immunogate.networks.twin import TorchTwin
from immunogate.training.draws import normal, uniform
from immunogate.training.purifier.people import People
from immunogate.training.purifier.settings import TrainingSettings

GAUSSIAN_LEVELS = 5.1
"""Standard deviation of stage one in grey levels: the paper's 0.04 of [-1, 1]."""

GROWTH = 1 / 3
"""Share of stage two in which the largest perturbation grows from half to its full size. Beginning with attacks that
hardly matter teaches to let everything through, and takes long to unlearn."""

STRIDE = 0.35
"""Step of a live attack as a share of its eps: it crosses the ball in six."""

CLEAN, ADAPTIVE, BARE = 0, 1, 2
KINDS = {"clean": CLEAN, "adaptive": ADAPTIVE, "bare": BARE}
"""Kinds of rows: left alone, attacked through the whole defence, attacked on the recogniser alone."""


@dataclass(frozen=True)
class Share:
    """The rows of a global batch that this process works on."""

    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """To cut them out of a draw for the whole batch."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, eq=False)
class Rehearsed:
    """A batch to learn from.

    Attributes:
        clean: (b, D) faces.
        targets: (b, E) unit embeddings of the clean faces, undefended.
        attacked: (b, D) what the purifier is given.
        kinds: (b,) CLEAN, ADAPTIVE or BARE.
    """

    clean: Tensor
    targets: Tensor
    attacked: Tensor
    kinds: Tensor


class Rehearsal(Protocol):
    """What the trainer asks of a rehearsal."""

    def batch(self, step: int) -> Rehearsed:
        """The rows of this process for a step, from 0 over both stages."""

    def follow(self, gradient: Tensor | None) -> None:
        """Be told (b, D) the gradient of the loss of the last batch with respect to what it gave."""

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, on the CPU."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class Infections:
    """What both rehearsals share: faces, targets, kinds and sizes of a step.

    Args:
        defence: the moving average of the purifier, and the recogniser behind it; in evaluation mode.
        original: the recogniser as it was given, whose embeddings of clean faces are the targets.
        faces: (N, D) float32 clean faces in [-1, 1].
        settings: shares and sizes.
        share: the rows of this process.
    """

    def __init__(
        self, defence: TorchTwin, original: Embed, faces: Tensor, settings: TrainingSettings, share: Share
    ) -> None:
        self.defence = defence
        self.original = original
        self.faces = faces
        self.people = People(faces, settings)
        self.settings = settings
        self.share = share

    def clean(self, step: int, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(b, D) faces of a step and (b, E) their targets; of ``wanted`` rows of this process only, or of all.

        A row's face depends on its number in the whole batch alone.
        """
        settings = self.settings
        rows = torch.arange(settings.batch)[self.share.rows]
        rows = rows if wanted is None else rows[wanted.cpu()]
        faces = self.people.faces(step, rows)
        with torch.no_grad():
            return faces, self.original(faces)

    def warming_up(self, step: int) -> bool:
        """Whether a step belongs to stage one."""
        return step < self.settings.warmup_steps

    def noisy(self, clean: Tensor, step: int) -> Tensor:
        """Stage one: Gaussian noise, clamped to pictures."""
        noise = normal(self.settings.seed, step, "noise", self.settings.batch, clean.shape[1])
        return (clean + from_levels(GAUSSIAN_LEVELS) * noise[self.share.rows].to(clean)).clamp(-1, 1)

    def kinds(self) -> Tensor:
        """(b,) the kind of each row, the same in every step."""
        settings = self.settings
        clean = round(settings.batch * settings.clean)
        adaptive = round(settings.batch * (settings.clean + settings.adaptive)) - clean
        bare = settings.batch - clean - adaptive
        counts = torch.tensor([clean, adaptive, bare])
        return torch.tensor([CLEAN, ADAPTIVE, BARE]).repeat_interleave(counts)[self.share.rows]

    def eps(self, step: int) -> Tensor:
        """(b, 1) largest change of each row's pixels, on the scale of [-1, 1]; 0 for clean rows."""
        settings, kinds = self.settings, self.kinds()[:, None]
        progress = (step - settings.warmup_steps + 1) / max(1.0, settings.steps * GROWTH)
        grown = settings.least_eps + (settings.most_eps - settings.least_eps) * (0.5 + 0.5 * min(1.0, progress))
        most = torch.where(kinds == BARE, settings.bare_eps, grown)
        draw = uniform(settings.seed, step, "eps", settings.batch, 1)[self.share.rows]
        eps = from_levels(1.0) * (settings.least_eps + (most - settings.least_eps) * draw)
        return torch.where(kinds == CLEAN, 0.0, eps).to(self.faces)

    def start(self, clean: Tensor, eps: Tensor, step: int, wanted: Tensor | None = None) -> Tensor:
        """(b, D) a uniform draw from the ball of each face, of ``wanted`` rows of this process or of all."""
        draw = uniform(self.settings.seed, step, "start", self.settings.batch, clean.shape[1])[self.share.rows]
        draw = draw if wanted is None else draw[wanted.cpu()]
        return (clean + eps * (2 * draw.to(clean) - 1)).clamp(-1, 1)


class AverageRehearsal:
    """Attacks on the moving average of the defence, made anew for each batch.

    Args:
        infections: what is shared.
    """

    def __init__(self, infections: Infections) -> None:
        self._infections = infections

    def batch(self, step: int) -> Rehearsed:
        """See `Rehearsal`."""
        shared = self._infections
        clean, targets = shared.clean(step)
        kinds = shared.kinds().to(clean.device)
        if shared.warming_up(step):
            return Rehearsed(clean, targets, shared.noisy(clean, step), kinds)
        eps, attacked = shared.eps(step), clean.clone()
        start = shared.start(clean, eps, step)
        for kind, embed in ((ADAPTIVE, shared.defence), (BARE, shared.defence.embed)):
            rows = kinds == kind
            if bool(rows.any()):
                attacked[rows] = self._attack(kind, embed, *(part[rows] for part in (clean, targets, eps, start)))
        return Rehearsed(clean, targets, attacked, kinds)

    def _attack(self, kind: int, embed: Embed, clean: Tensor, targets: Tensor, eps: Tensor, start: Tensor) -> Tensor:
        settings = self._infections.settings
        if settings.attack == "fgsm" and kind == ADAPTIVE:
            return fgsm(embed, clean, targets, eps, clamp=not settings.paper_exact)
        # At its own clean embedding the bare recogniser has no gradient: there FGSM needs a start beside the face.
        steps = 1 if settings.attack == "fgsm" else settings.attack_steps
        return pgd(embed, clean, targets, eps, steps, eps * min(1.0, 1.5 / steps), start=start, best=False)

    def follow(self, gradient: Tensor | None) -> None:
        """Nothing is kept."""

    def state(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""


class LiveRehearsal:
    """A pool of attacks that grow with the gradients that training yields anyway.

    Each row holds one face and its attack. An adaptive row takes a sign step along the gradient of the loss that the
    training step itself computed (as in Shafahi et al., "Adversarial Training for Free!", NeurIPS 2019), so every
    forward and backward pass serves attacker and defender both; rows on the bare recogniser take their own small
    pass. A row lives for a drawn number of steps and is then given another face.

    Args:
        infections: what is shared.
    """

    def __init__(self, infections: Infections) -> None:
        self._infections = infections
        self._kinds = infections.kinds().to(infections.faces.device)
        self._pool: dict[str, Tensor] = {}

    def batch(self, step: int) -> Rehearsed:
        """See `Rehearsal`."""
        shared = self._infections
        if shared.warming_up(step):
            clean, targets = shared.clean(step)
            return Rehearsed(clean, targets, shared.noisy(clean, step), self._kinds)
        self._renew(step)
        self._attack_bare()
        return Rehearsed(self._pool["clean"], self._pool["targets"], self._pool["attacked"].clone(), self._kinds)

    def follow(self, gradient: Tensor | None) -> None:
        """One step uphill for the adaptive rows, and all rows grow older."""
        if not self._pool or gradient is None:
            return
        self._move(self._kinds == ADAPTIVE, gradient)
        self._pool["left"] -= 1

    def state(self) -> dict[str, Any]:
        """The pool."""
        return {name: value.cpu() for name, value in self._pool.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take a pool over.

        Raises:
            ValueError: it has another number of rows, as that of a run with another number of processes.
        """
        rows = {len(value) for value in state.values()}
        if not rows <= {len(self._kinds)}:
            raise ValueError(
                f"its pool has {sorted(rows)} rows, not {len(self._kinds)}; give as many processes as before"
            )
        self._pool = {name: value.to(self._infections.faces.device) for name, value in state.items()}

    def _renew(self, step: int) -> None:
        """Give new faces to the rows whose life is over; what one gets does not depend on which others are renewed."""
        shared, settings = self._infections, self._infections.settings
        over = self._pool["left"] <= 0 if self._pool else torch.ones_like(self._kinds, dtype=torch.bool)
        if not bool(over.any()):
            return
        clean, targets = shared.clean(step, over)
        eps = shared.eps(step)
        draw = uniform(settings.seed, step, "life", settings.batch)[shared.share.rows].to(eps)
        least = max(1, settings.attack_steps // 2)
        life = least + (draw * (settings.attack_steps - least + 1)).floor()
        new = {
            "clean": clean,
            "targets": targets,
            "eps": eps[over],
            "attacked": shared.start(clean, eps[over], step, over),
            "left": torch.where(self._kinds == CLEAN, torch.ones_like(life), life)[over],
        }
        if not self._pool:
            self._pool = new
            return
        for name, value in new.items():
            self._pool[name][over] = value

    def _attack_bare(self) -> None:
        rows = self._kinds == BARE
        if not bool(rows.any()):
            return
        points = self._pool["attacked"][rows].requires_grad_()
        cosine = (self._infections.defence.embed(points) * self._pool["targets"][rows]).sum()
        gradient = torch.zeros_like(self._pool["attacked"])
        (gradient[rows],) = torch.autograd.grad(-cosine, points)
        self._move(rows, gradient)

    def _move(self, rows: Tensor, gradient: Tensor) -> None:
        clean, eps = self._pool["clean"][rows], self._pool["eps"][rows]
        moved = self._pool["attacked"][rows] + STRIDE * eps * gradient[rows].sign()
        self._pool["attacked"][rows] = torch.maximum(torch.minimum(moved, clean + eps), clean - eps).clamp(-1, 1)


def rehearsal_for(infections: Infections) -> Rehearsal:
    """The one that the settings name."""
    if infections.settings.rehearsal == "live":
        return LiveRehearsal(infections)
    return AverageRehearsal(infections)


def spread(count: int, process: int, processes: int) -> Share:
    """The rows of process ``process``: as even as can be, in order."""
    bounds = torch.linspace(0, count, processes + 1).round().to(torch.long).tolist()
    return Share(int(bounds[process]), int(bounds[process + 1]))
