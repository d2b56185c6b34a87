"""Attacks on whatever turns faces into embeddings, from one sign step to a search through the whole gate.

`signs` has FGSM and PGD as rehearsal and quick looks use them. The others are for evaluation: an `objective` and a
`target` say what is attacked, `balls` how far, `methods` (PGD, APGD) in which steps, `search` runs them. `twins` has
the differentiable stand-ins for modes that choose eigenfaces, `frame` attacks the camera's picture, `square` and
`boundary` know the gate's answers only, `transfer` another network only, `sanity` judges the rates.

All pixels are on the scale [-1, 1]; a bound that the literature states on [0, 1] is half of the one here.
"""

from __future__ import annotations

from immunogate.networks.attacks.balls import Ball, L2Ball, LinfBall, Patch, square_regions
from immunogate.networks.attacks.methods import Apgd, Method, Pgd
from immunogate.networks.attacks.objective import Goal, away_from_itself, dodging, impersonation
from immunogate.networks.attacks.search import Found, search, worst
from immunogate.networks.attacks.signs import Bound, Embed, fgsm, from_levels, pgd
from immunogate.networks.attacks.target import Attackable, Target, deterministic
from immunogate.networks.attacks.transfer import transfer

__all__ = [
    "Apgd",
    "Attackable",
    "Ball",
    "Bound",
    "Embed",
    "Found",
    "Goal",
    "L2Ball",
    "LinfBall",
    "Method",
    "Patch",
    "Pgd",
    "Target",
    "away_from_itself",
    "deterministic",
    "dodging",
    "fgsm",
    "from_levels",
    "impersonation",
    "pgd",
    "search",
    "square_regions",
    "transfer",
    "worst",
]
