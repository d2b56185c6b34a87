"""Runs a method against a target until every sample is lost or all restarts are spent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from immunogate.networks.attacks.balls import Ball
from immunogate.networks.attacks.methods import Method, Tensors
from immunogate.networks.attacks.objective import Goal
from immunogate.networks.attacks.target import JUDGING, Target, parts_of

BATCH = 16
SHARED = ("best", "score", "lost", "passes", "flat", "clock")
"""Tensors of the state that outlive a restart; the others are the method's own."""

Watch = Callable[[int, int, Tensors], None]
"""Is told after every step: steps done, steps in all, and the state to go on from. Clone what you keep."""


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack came by.

    Attributes:
        points: (B, D) in [-1, 1], for each sample the best for the attacker by the true decision score.
        scores: (B,) that score: the gate's similarity to the template that decides, over its judging draws.
        lost: (B,) bool, whether the limit was passed; False where there was none.
        passes: (B,) int64 gradients taken of each sample.
        flat: (B,) int64 of them without any direction (all zero): many mean that the gradient is masked.
    """

    points: Tensor
    scores: Tensor
    lost: Tensor
    passes: Tensor
    flat: Tensor


def search(
    target: Target,
    clean: Tensor,
    goal: Goal,
    ball: Ball,
    method: Method,
    *,
    batch: int = BATCH,
    every: int = 1,
    starts: Tensor | None = None,
    state: Tensors | None = None,
    watch: Watch | None = None,
) -> Found:
    """Attack all samples.

    The clean points are judged first, so the result is never worse for the attacker than no attack at all. All draws
    depend on the method's seed, the restart and the step alone: neither the batch nor who has been lost changes
    anybody else's, and a run that goes on from a state ends as one that was never stopped, bit for bit on one machine
    with as many threads.

    Args:
        target: what is attacked.
        clean: (B, D) float32 in [-1, 1].
        goal: what is wanted of each.
        ball: how far.
        method: in which steps.
        batch: samples in one pass.
        every: steps between two judgements where judging costs passes of its own; the end is always judged.
        starts: (B, D) where the first trajectory begins, instead of a random point.
        state: from a `Watch`, to go on from; it is not changed.
        watch: is told of every step. What it raises ends the search.

    Raises:
        ValueError: shapes or ranges disagree, or a gradient or an embedding is not finite: a broken attack must not
            pass for a strong defence.
    """
    _check(clean, goal, batch, every)
    kept = (
        {name: value.clone() for name, value in state.items()}
        if state is not None
        else _judged_clean(target, clean, goal, batch)
    )
    total = method.steps * method.restarts
    for clock in range(int(kept["clock"]), total):
        if bool(kept["lost"].all()):
            break
        restart, step = divmod(clock, method.steps)
        if step == 0:
            start = _random_start(ball, clean, method.seed, restart)
            if starts is not None and restart == 0:
                start = ball.inside(starts.to(clean), clean, torch.arange(len(clean), device=clean.device))
            kept |= method.begin(start, ball.reach(clean))
        for rows in parts_of(torch.nonzero(~kept["lost"]).flatten(), batch):
            gain, gradient = _climb(target, goal, kept, rows, clock, judged=step % every == 0)
            own = {name: value[rows] for name, value in kept.items() if name not in SHARED}
            for name, value in method.move(own, clean[rows], rows, ball, step, gain, gradient).items():
                kept[name][rows] = value
        if step + 1 == method.steps:
            for rows in parts_of(torch.nonzero(~kept["lost"]).flatten(), batch):
                _judge(goal, kept, rows, gate_scores(target, goal, kept["point"][rows], rows))
        kept["clock"] = torch.tensor(clock + 1)
        if watch is not None:
            watch(clock + 1, total, kept)
    return Found(kept["best"], kept["score"], kept["lost"], kept["passes"], kept["flat"])


def worst(goal: Goal, founds: Sequence[Found]) -> Found:
    """For each sample what was best for the attacker among several searches: the worst case over gradient variants.

    Passes and flat gradients are summed.

    Raises:
        ValueError: there is none.
    """
    if not founds:
        raise ValueError("worst: expected at least one search")
    rows = torch.arange(len(goal), device=founds[0].scores.device)
    gains = torch.stack([goal.advantage(found.scores, rows) for found in founds])
    chosen = gains.argmax(dim=0)
    points, scores, lost = (
        torch.stack([getattr(found, name) for found in founds])[chosen, rows] for name in ("points", "scores", "lost")
    )
    passes, flat = (torch.stack([getattr(found, name) for found in founds]).sum(dim=0) for name in ("passes", "flat"))
    return Found(points, scores, lost, passes, flat)


def _climb(
    target: Target, goal: Goal, kept: Tensors, rows: Tensor, clock: int, *, judged: bool
) -> tuple[Tensor, Tensor]:
    """(b,) mean gain and (b, D) mean gradient over the step's draws; the points are judged on the way."""
    points = kept["point"][rows]
    gains, gradients = torch.zeros_like(points[:, 0]), torch.zeros_like(points)
    for draw in range(clock * target.draws, (clock + 1) * target.draws):
        asked = points.detach().requires_grad_()
        with torch.enable_grad():
            embeddings = target.differentiable(asked, rows, draw)
            gain = goal.gain(embeddings, rows)
            (gradient,) = torch.autograd.grad(gain.sum(), asked)
        gains += gain.detach() / target.draws
        gradients += gradient / target.draws
    if not bool(gradients.isfinite().all() and gains.isfinite().all()):
        raise ValueError("the attack met a gradient or an embedding that is not finite; its result would say nothing")
    kept["passes"][rows] += target.draws
    kept["flat"][rows] += target.draws * (gradients == 0).all(dim=1)
    if target.judged_by_its_gradient:
        _judge(goal, kept, rows, goal.score(embeddings.detach(), rows))
    elif judged:
        _judge(goal, kept, rows, gate_scores(target, goal, points, rows))
    return gains, gradients


@torch.no_grad()
def gate_scores(target: Target, goal: Goal, points: Tensor, rows: Tensor) -> Tensor:
    """(b,) the gate's similarities of (b, D) points of the samples (b,), over its judging draws.

    Raises:
        ValueError: an embedding is not finite.
    """
    draws = range(JUDGING, JUDGING + target.judges)
    scores = torch.stack([goal.score(target.deployed(points, rows, draw), rows) for draw in draws]).mean(dim=0)
    if not bool(scores.isfinite().all()):
        raise ValueError("the gate gave an embedding that is not finite; the attack's result would say nothing")
    return scores


def _judge(goal: Goal, kept: Tensors, rows: Tensor, scores: Tensor) -> None:
    """Keep the points of these rows that are better than the best so far, and see who has lost."""
    better = goal.advantage(scores, rows) > goal.advantage(kept["score"][rows], rows)
    chosen = rows[better]
    kept["best"][chosen] = kept["point"][chosen]
    kept["score"][chosen] = scores[better]
    kept["lost"][rows] = goal.lost(kept["score"][rows], rows)


def _judged_clean(target: Target, clean: Tensor, goal: Goal, batch: int) -> Tensors:
    rows = torch.arange(len(clean), device=clean.device)
    scores = torch.cat([gate_scores(target, goal, clean[some], some) for some in parts_of(rows, batch)])
    return {
        "best": clean.clone(),
        "score": scores,
        "lost": goal.lost(scores, rows),
        "passes": torch.zeros_like(rows),
        "flat": torch.zeros_like(rows),
        "clock": torch.tensor(0),
    }


def _random_start(ball: Ball, clean: Tensor, seed: int, restart: int) -> Tensor:
    words = hashlib.sha256(f"{seed}/{restart}/start".encode()).digest()
    return ball.start(clean, torch.Generator().manual_seed(int.from_bytes(words[:8], "big") >> 1))


def _check(clean: Tensor, goal: Goal, batch: int, every: int) -> None:
    if clean.ndim != 2 or not len(clean) or len(clean) != len(goal):
        raise ValueError(f"expected (B, D) points and a goal for each of B, got {tuple(clean.shape)} and {len(goal)}")
    if not (clean.min() >= -1 and clean.max() <= 1):
        raise ValueError(f"points: expected values in [-1, 1], got {clean.min():.4g} to {clean.max():.4g}")
    if batch < 1 or every < 1:
        raise ValueError(f"batch, every: expected at least 1, got {batch} and {every}")
