"""All budgets of an evaluation in one table: pairs, sizes of attacks, steps, questions.

A size is in grey levels of 255; a bound eps on [-1, 1] is 2 / 255 of it. The full protocol is the one whose figures are
worth quoting; the quick one answers in two minutes whether anything holds at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal["quick", "standard", "full"]
TIERS = ("controls", "oblivious", "adaptive", "black box", "patch", "retries")
BASELINES = ("none", "jpeg", "blur", "bits", "fixed")
HOPELESS = 64
"""Grey levels at which no defence can hold; who survives hides gradients. Counts as a check, not as a result."""

FGSM_LEVELS = 5.1
"""0.04 on [-1, 1], the size of the paper's rehearsal."""


@dataclass(frozen=True)
class Protocol:
    """What is spent.

    Attributes:
        name: of the protocol.
        pairs: genuine pairs, and as many impostor pairs.
        random_pairs: the same for modes that draw clones, whose every gradient is an average.
        faces_of_one: faces of one person that count for thresholds and false match rates.
        configurations: which are tried; empty for all that there are.
        tiers: which are tried.
        control_levels: sizes of noise.
        oblivious: attacks made on the bare recogniser.
        oblivious_levels: their sizes (FGSM has its own).
        adaptive: attacks through everything, strongest last.
        steps: gradient steps of these.
        restarts: trajectories of these.
        dodging_levels: their sizes when a person hides.
        impersonation_levels: their sizes when somebody poses as another.
        eot: draws averaged for a gradient of a mode that draws.
        judges: draws whose mean judges a point of such a mode.
        doubled_level: size at which steps (and draws) are doubled as a check; None leaves it out.
        black_level: size of attacks by questions.
        square_queries: questions of Square for each pair.
        square_pairs: pairs that it is tried on.
        hop_queries: questions of HopSkipJump for each pair; 0 leaves it out.
        hop_pairs: pairs that it is tried on.
        patch_side: side of the square patch in pixels; 0 leaves patches out.
        frame_levels: sizes of attacks on the camera's picture.
        lockout: tries that somebody has.
        timed: faces whose time is taken.
    """

    name: Name
    pairs: int
    random_pairs: int
    faces_of_one: int
    configurations: tuple[str, ...]
    tiers: tuple[str, ...]
    control_levels: tuple[int, ...]
    oblivious: tuple[str, ...]
    oblivious_levels: tuple[int, ...]
    adaptive: tuple[str, ...]
    steps: int
    restarts: int
    dodging_levels: tuple[int, ...]
    impersonation_levels: tuple[int, ...]
    eot: int
    judges: int
    doubled_level: int | None
    black_level: int
    square_queries: int
    square_pairs: int
    hop_queries: int
    hop_pairs: int
    patch_side: int
    frame_levels: tuple[int, ...]
    lockout: int
    timed: int


PROTOCOLS: dict[str, Protocol] = {
    "quick": Protocol(
        name="quick",
        pairs=8,
        random_pairs=4,
        faces_of_one=3,
        configurations=("none", "fixed", "bundle"),
        tiers=("controls", "oblivious", "adaptive", "black box"),
        control_levels=(4,),
        oblivious=("FGSM", "PGD"),
        oblivious_levels=(4,),
        adaptive=("PGD",),
        steps=30,
        restarts=1,
        dodging_levels=(2, 4),
        impersonation_levels=(4,),
        eot=2,
        judges=2,
        doubled_level=None,
        black_level=4,
        square_queries=100,
        square_pairs=4,
        hop_queries=0,
        hop_pairs=0,
        patch_side=0,
        frame_levels=(),
        lockout=3,
        timed=20,
    ),
    "standard": Protocol(
        name="standard",
        pairs=32,
        random_pairs=8,
        faces_of_one=20,
        configurations=(),
        tiers=TIERS,
        control_levels=(2, 4, 8),
        oblivious=("FGSM", "PGD", "MI-FGSM", "DI-FGSM"),
        oblivious_levels=(4, 8),
        adaptive=("PGD", "APGD"),
        steps=100,
        restarts=1,
        dodging_levels=(2, 4, 8),
        impersonation_levels=(4, 8),
        eot=5,
        judges=4,
        doubled_level=4,
        black_level=8,
        square_queries=1000,
        square_pairs=8,
        hop_queries=1000,
        hop_pairs=4,
        patch_side=28,
        frame_levels=(4,),
        lockout=5,
        timed=100,
    ),
    "full": Protocol(
        name="full",
        pairs=128,
        random_pairs=32,
        faces_of_one=20,
        configurations=(),
        tiers=TIERS,
        control_levels=(2, 4, 8, 16),
        oblivious=("FGSM", "PGD", "MI-FGSM", "DI-FGSM"),
        oblivious_levels=(2, 4, 8),
        adaptive=("PGD", "APGD"),
        steps=200,
        restarts=2,
        dodging_levels=(2, 4, 8),
        impersonation_levels=(2, 4, 8),
        eot=20,
        judges=8,
        doubled_level=4,
        black_level=8,
        square_queries=5000,
        square_pairs=64,
        hop_queries=5000,
        hop_pairs=16,
        patch_side=28,
        frame_levels=(2, 4, 8),
        lockout=5,
        timed=200,
    ),
}
