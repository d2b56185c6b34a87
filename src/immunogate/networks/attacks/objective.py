"""What an attack on verification wants: to lower or to raise the cosine with a template.

Each sample carries its own templates and direction, so that dodging and impersonation can share a batch and samples
can be dropped from it: attacks written for classifiers that shrink their batches mispair them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from immunogate.networks.attacks.target import JUDGING, Attackable, embedded_in_batches


@dataclass(frozen=True, eq=False)
class Goal:
    """What is wanted of each of B samples.

    The template that the gradient follows and the one that decides may differ: an attacker who lacks the enrolled
    picture moves away from the embedding of the face he has, and is judged by the gallery.

    Attributes:
        push: (B, E) what the gradient moves away from, or towards; of the network that gives the gradient.
        decide: (B, F) the template that the gate compares with.
        impersonates: (B,) bool; True raises the cosine, False (dodging) lowers it.
        limits: (B,) the gate accepts a similarity of at least this; a sample that has won is attacked no further.
            None attacks all to the end.

    Raises:
        ValueError: shapes disagree or a value is not finite.
    """

    push: Tensor
    decide: Tensor
    impersonates: Tensor
    limits: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = [tuple(part.shape) for part in (self.push, self.decide, self.impersonates)]
        rows = {shape[0] for shape in shapes if shape} | ({len(self.limits)} if self.limits is not None else set())
        if [len(shape) for shape in shapes] != [2, 2, 1] or len(rows) != 1:
            raise ValueError(
                f"Goal: expected (B, E), (B, F), (B,) and limits (B,), got {shapes} of {sorted(rows)} rows"
            )
        parts = [self.push, self.decide] + ([] if self.limits is None else [self.limits])
        if not all(bool(part.isfinite().all()) for part in parts):
            raise ValueError("Goal: templates and limits have to be finite")

    def __len__(self) -> int:
        return len(self.push)

    def gain(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(b,) what the attacker's gradient climbs: the cosine with ``push``, its sign turned for dodging."""
        return self._sign(rows) * _cosine(embeddings, self.push[rows])

    def score(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(b,) the gate's similarity: the cosine with ``decide``."""
        return _cosine(embeddings, self.decide[rows])

    def advantage(self, scores: Tensor, rows: Tensor) -> Tensor:
        """(b,) similarities, their sign turned for dodging: the higher, the better for the attacker."""
        return self._sign(rows) * scores

    def lost(self, scores: Tensor, rows: Tensor) -> Tensor:
        """(b,) bool: the gate refuses the person it should accept, or accepts the one that it should refuse."""
        if self.limits is None:
            return torch.zeros_like(scores, dtype=torch.bool)
        return (scores >= self.limits[rows]) == self.impersonates[rows]

    def _sign(self, rows: Tensor) -> Tensor:
        return torch.where(self.impersonates[rows], 1.0, -1.0).to(self.push.dtype)


def dodging(templates: Tensor, limit: float | None = None, push: Tensor | None = None) -> Goal:
    """Not to be recognised as the owner of the (B, E) templates.

    Args:
        templates: that decide.
        limit: of the gate; None attacks all samples to the end.
        push: (B, E) what to move away from instead, where the attacker lacks the templates.
    """
    return _one_way(templates, limit, push, impersonates=False)


def impersonation(templates: Tensor, limit: float | None = None, push: Tensor | None = None) -> Goal:
    """To be recognised as the owner of the (B, E) templates; arguments as `dodging`."""
    return _one_way(templates, limit, push, impersonates=True)


def away_from_itself(embed: Attackable, faces: Tensor, limit: float | None = None, draw: int = JUDGING) -> Goal:
    """Away from each face's own embedding, which needs no other picture.

    At the face itself the cosine is at its maximum and has no gradient: begin at a random start.

    Args:
        embed: what is attacked.
        faces: (B, D) in [-1, 1].
        limit: as `dodging`.
        draw: the clones of the embedding, where it draws.
    """
    return dodging(embedded_in_batches(embed, faces, draw), limit)


def _one_way(templates: Tensor, limit: float | None, push: Tensor | None, *, impersonates: bool) -> Goal:
    everyone = torch.ones(len(templates), device=templates.device)
    limits = None if limit is None else everyone.to(templates.dtype) * limit
    return Goal(templates if push is None else push, templates, everyone.bool() & impersonates, limits)


def _cosine(embeddings: Tensor, templates: Tensor) -> Tensor:
    return torch.cosine_similarity(embeddings, templates.detach(), dim=1)
