"""What a purifier learns from: the paper's loss, and two ways to take its gradient through drawn clones.

Equations: Ren et al., IJCV 2024. L = MSE(x_hat, x) + size |a|_0 + identity (1 - cos(F(x), F(x_hat))), for a clean
face x, the purified adversarial one x_hat, the antibody a and the frozen recogniser F.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from immunogate.networks.attacks import Embed
from immunogate.training.purifier.rehearsal import KINDS, Rehearsed

LEAST_PROBABILITY = 1e-6
"""Keeps the logarithms of the policy gradient finite; the published code has no such guard at 1 - p."""


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts.

    Attributes:
        identity: of 1 - cosine (the paper's 8).
        size: of each chosen eigenface (the paper's 3e-3; 0 leaves the size free).
    """

    identity: float = 8.0
    size: float = 0.0


@dataclass(frozen=True)
class Losses:
    """(B,) each: the terms of the loss of every face, or of every clone as (B, S)."""

    total: Tensor
    identity: Tensor
    pixels: Tensor
    size: Tensor


def losses(purified: Tensor, clean: Tensor, mask: Tensor, embed: Embed, target: Tensor, weights: LossWeights) -> Losses:
    """The paper's loss for each row.

    Args:
        purified: (B, D).
        clean: (B, D).
        mask: (B, n) antibodies.
        embed: (B, D) to unit embeddings (B, E).
        target: (B, E) unit embeddings of the clean faces.
        weights: of the terms.
    """
    identity = 1 - (embed(purified) * target).sum(dim=1)
    pixels = (purified - clean).square().mean(dim=1)
    size = mask.sum(dim=1)
    return Losses(weights.identity * identity + pixels + weights.size * size, identity, pixels, size)


def policy_loss(clone_losses: Tensor, masks: Tensor, probabilities: Tensor, *, summed: bool = False) -> Tensor:
    """REINFORCE with the mean of the clones as its baseline, one value for each face, (B,).

    Its gradient is that of mean_s (L^s - mean L) log P(a^s | p). The published code sums, so that its step size grows
    with the number of clones.

    Args:
        clone_losses: (B, S) loss of each clone, without gradient.
        masks: (B, S, n) 0 and 1.
        probabilities: (B, n) with gradient.
        summed: over the clones, as published, instead of their mean.
    """
    p = probabilities.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)[:, None]
    likelihood = (masks * p.log() + (1 - masks) * torch.log1p(-p)).sum(dim=2)
    advantage = clone_losses - clone_losses.mean(dim=1, keepdim=True)
    each = advantage.detach() * likelihood
    return each.sum(dim=1) if summed else each.mean(dim=1)


def antibody_statistics(probabilities: Tensor) -> dict[str, float]:
    """Sparsity, specificity and mutation as the paper defines them, of a batch of (B, n) probabilities.

    Sparsity is the mean number of p > 0.5; specificity the mean Hamming distance of (p > 0.5) between two faces of
    the batch, counted in eigenfaces; mutation the mean of |p - 0.5|.
    """
    chosen = (probabilities > 0.5).to(torch.float32)
    faces = len(chosen)
    agreeing = chosen @ chosen.T + (1 - chosen) @ (1 - chosen).T
    distances = chosen.shape[1] - agreeing
    return {
        "sparsity": float(chosen.sum(dim=1).mean()),
        "specificity": float(distances.sum() / (faces * (faces - 1))) if faces > 1 else 0.0,
        "mutation": float((probabilities - 0.5).abs().mean()),
    }


def means_of(found: Losses, batch: Rehearsed) -> dict[str, float]:
    """Mean of each term, and the mean cosine with the clean target for each kind of row."""
    means = {name: float(getattr(found, name).detach().mean()) for name in ("total", "identity", "pixels", "size")}
    cosine = (1 - found.identity.detach()).reshape(len(batch.kinds), -1).mean(dim=1)
    for name, kind in KINDS.items():
        rows = batch.kinds == kind
        if bool(rows.any()):
            means[f"cosine_{name}"] = float(cosine[rows].mean())
    return means
