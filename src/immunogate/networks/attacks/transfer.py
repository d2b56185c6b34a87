"""Attacks made on another network and shown to the gate, which is asked nothing while they are made."""

from __future__ import annotations

import torch
from torch import Tensor

from immunogate.networks.attacks.balls import Ball
from immunogate.networks.attacks.methods import Method
from immunogate.networks.attacks.objective import Goal
from immunogate.networks.attacks.search import BATCH, Found, gate_scores, search
from immunogate.networks.attacks.target import Target, parts_of


def transfer(
    source: Target,
    source_goal: Goal,
    gate: Target,
    gate_goal: Goal,
    clean: Tensor,
    ball: Ball,
    method: Method,
    batch: int = BATCH,
) -> Found:
    """Attack one network as hard as can be, then show the gate the result.

    The best point is chosen by the source's score: by the gate's it would be a black-box attack with as many
    questions as steps. Nobody is dropped early either, since confidence at the source helps a point to carry over.

    Args:
        source: what the attacker has.
        source_goal: with templates by the source; its limits are not used.
        gate: what is fooled or not.
        gate_goal: with templates by the gate.
        clean: (B, D) in [-1, 1].
        ball: how far.
        method: in which steps.
        batch: samples in one pass.

    Returns:
        Points by the source's choice; scores and losses by the gate.

    Raises:
        ValueError: as `search`.
    """
    patient = Goal(source_goal.push, source_goal.decide, source_goal.impersonates)
    made = search(source, clean, patient, ball, method, batch=batch)
    rows = torch.arange(len(clean), device=clean.device)
    scores = torch.cat([gate_scores(gate, gate_goal, made.points[some], some) for some in parts_of(rows, batch)])
    return Found(made.points, scores, gate_goal.lost(scores, rows), made.passes, made.flat)
