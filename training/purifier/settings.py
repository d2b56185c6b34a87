"""All that decides how a purifier is trained: a TOML file, flags over it, and the checks on both."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunogate.errors import UsageError
from immunogate.files import read_bytes
from immunogate.networks.purifier import ARCHITECTURES
from immunogate.training.ranges import expect_within
from immunogate.views import VIEWS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NO_PURIFIER = "none"
ESTIMATORS = ("expected", "relaxed", "reinforce")
REHEARSALS = ("live", "average")
ATTACKS = ("fgsm", "pgd")
PRECISIONS = ("fp32", "bf16")
SETTINGS_LIMIT = 1 << 20


@dataclass(frozen=True)
class TrainingSettings:
    """How a purifier is trained.

    Attributes:
        architecture: paper, compact or spectral; or none, where the recogniser adapts without a purifier before it.
        width: of the hidden layers of spectral.
        gated: whether a share of the remainder, which no eigenface explains, may be let through.
        shrinkage: every architecture begins as the filter v / (v + s^2) of each coefficient's variance v: paper and
            compact, which do not know the grain, with s = shrinkage, spectral with that s at twice the usual grain.
        temperature: of the memory of paper and compact; 1 as published.
        estimator: expected (the gradient of the mean of all clones), relaxed (one drawn clone, binary concrete,
            straight through) or reinforce (the paper's policy gradient over ``clones``).
        clones: S of reinforce (the paper's 25).
        relaxation: temperature of relaxed.
        steps: optimiser steps of stage two, the rehearsal.
        warmup_steps: optimiser steps of stage one, on Gaussian noise.
        batch: faces a step, over all processes.
        learning_rate: peak of Adam's; rises over 50 steps, then falls along a cosine to a hundredth.
        identity: weight of 1 - cosine in the loss (the paper's 8).
        size: weight of each chosen eigenface in the loss (the paper's 3e-3).
        clean: share of a batch that stays clean in stage two.
        adaptive: share attacked through the whole current defence; the rest is attacked on the bare recogniser.
        rehearsal: average attacks a moving average of the defence anew for each batch, as the paper does. live keeps
            a pool of attacks, each of which takes one step with the gradient that the training step yields anyway:
            several times more steps for the same time.
        attack: fgsm or pgd, of average.
        attack_steps: gradient steps of pgd, and the longest life of an attack in the pool.
        least_eps: smallest perturbation in grey levels of 255.
        most_eps: largest through the defence; it grows linearly from half of the range over the first third of stage
            two. A network that has met small attacks only lets large ones through, so it does not grow from nothing.
        bare_eps: largest on the bare recogniser, from the beginning: what everybody can make, and easier to take away.
        jitter: size of the random turns, shifts and scalings of faces; 0 leaves them as they are, 1 is about what
            a detector's landmarks vary by.
        mixed: share of faces that are mixed of two people: who learns for long from a few thousand photos learns them
            by heart, and new people help; made on the CPU like the next.
        varied: strength, 0 to 1, of further variations of each face (light, focus, grain, occlusion, a bend by a
            pixel), see `immunogate.training.recogniser.variations`; they are made on the CPU.
        adapt: peak learning rate of the recogniser's own weights, its BatchNorm statistics kept; 0 leaves it alone, as
            the method does. Above 0 a copy of it learns to give, under attack, what the original gives for the clean
            face and its mirror image: for recognisers that are one's own to change.
        relation: weight of the squared differences between the batch's cosines, adapting recogniser against original:
            false matches are made of them, and the threshold follows.
        hold: leave the purifier as it begins, so that only the recogniser adapts.
        softened: share of the faces, attacked or not, that are seen a little out of focus. Noise that was resampled
            with its picture is smooth, and a purifier that met fine noise only takes it for harmless.
        views: of the purified face in deployment, 1, 2 or 4, see `immunogate.views`; each step sees one of them.
        average: decay of the moving average of the purifier, which is what is validated and kept.
        seed: of everything drawn. Every draw depends on it and the step alone, so a resumed run repeats bit for bit.
        validate_every: steps between two validations.
        patience: validations without a better result before training stops; 0 never stops.
        validation_share: share of people kept back for validation.
        precision: of the recogniser's and the analyzer's arithmetic: fp32, or bf16 by autocast.
        paper_exact: keep the published faults: memory slots that nobody chose decay, FGSM is not clamped to the range
            of pictures, a REINFORCE that grows with the number of clones, an average that skips buffers.

    Raises:
        UsageError: a value is unknown or out of range, or two do not go together.
    """

    architecture: str = "spectral"
    width: int = 512
    gated: bool = False
    shrinkage: float = 0.25
    temperature: float = 0.1
    estimator: str = "expected"
    clones: int = 25
    relaxation: float = 0.7
    steps: int = 2400
    warmup_steps: int = 0
    batch: int = 48
    learning_rate: float = 2e-3
    identity: float = 8.0
    size: float = 0.0
    clean: float = 0.15
    adaptive: float = 0.7
    rehearsal: str = "live"
    attack: str = "pgd"
    attack_steps: int = 10
    least_eps: float = 1.0
    most_eps: float = 6.0
    bare_eps: float = 10.0
    jitter: float = 1.0
    mixed: float = 0.0
    varied: float = 0.0
    adapt: float = 0.0
    relation: float = 0.0
    hold: bool = False
    softened: float = 0.25
    views: int = 4
    average: float = 0.99
    seed: int = 0
    validate_every: int = 300
    patience: int = 0
    validation_share: float = 0.1
    precision: str = "fp32"
    paper_exact: bool = False

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise UsageError(f"unknown {name} {value!r}", f"Use one of: {', '.join(map(str, known))}")
        expect_within(self, _RANGES)
        if self.clean + self.adaptive > 1 + 1e-9:
            raise UsageError(
                f"clean and adaptive are shares of one batch, but {self.clean} + {self.adaptive} is above 1"
            )
        if self.steps + self.warmup_steps < 1:
            raise UsageError("steps and warmup_steps are both 0: nothing would be trained")
        if self.least_eps > self.most_eps:
            raise UsageError(f"least_eps {self.least_eps} is above most_eps {self.most_eps}")
        if self.least_eps > self.bare_eps:
            raise UsageError(f"least_eps {self.least_eps} is above bare_eps {self.bare_eps}")
        if not self.adapt and (self.hold or self.architecture == NO_PURIFIER):
            raise UsageError(
                "nothing would learn: the purifier is held or there is none, and the recogniser does not adapt",
                "Set adapt to a learning rate such as 3e-4",
            )
        if self.relation and self.estimator == "reinforce":
            raise UsageError(
                "relation compares the faces of a batch, and reinforce has clones of them", "Set relation = 0"
            )
        following = [name for name, on in (("a live rehearsal", self.rehearsal == "live"), ("adapt", self.adapt)) if on]
        if following and self.estimator == "reinforce":
            raise UsageError(
                f"{following[0]} follows the gradient of the loss, and reinforce has none",
                "Use --rehearsal average and adapt = 0, or the estimator expected or relaxed",
            )


_CHOICES: dict[str, tuple[object, ...]] = {
    "architecture": (*ARCHITECTURES, NO_PURIFIER),
    "estimator": ESTIMATORS,
    "rehearsal": REHEARSALS,
    "attack": ATTACKS,
    "precision": PRECISIONS,
    "views": tuple(VIEWS),
}
_RANGES: dict[str, tuple[float, float]] = {
    "width": (1, 8192),
    "shrinkage": (1e-4, 1e4),
    "temperature": (1e-3, 1e3),
    "clones": (2, 4096),
    "relaxation": (0.01, 10),
    "steps": (0, 10**8),
    "warmup_steps": (0, 10**8),
    "batch": (2, 65536),
    "learning_rate": (1e-8, 1),
    "identity": (0, 1e6),
    "size": (0, 1e3),
    "clean": (0, 1),
    "adaptive": (0, 1),
    "attack_steps": (1, 1000),
    "least_eps": (0, 255),
    "most_eps": (0, 255),
    "bare_eps": (0, 255),
    "jitter": (0, 5),
    "mixed": (0, 1),
    "varied": (0, 1),
    "adapt": (0, 1),
    "relation": (0, 1e6),
    "softened": (0, 1),
    "average": (0, 1),
    "seed": (0, 2**63 - 1),
    "validate_every": (1, 10**8),
    "patience": (0, 10**8),
    "validation_share": (0.01, 0.9),
}

PAPER = {
    "architecture": "paper",
    "gated": False,
    "temperature": 1.0,
    "estimator": "reinforce",
    "clones": 25,
    "size": 3e-3,
    "clean": 0.0,
    "adaptive": 1.0,
    "rehearsal": "average",
    "attack": "fgsm",
    "least_eps": 5.1,
    "most_eps": 5.1,
    "bare_eps": 5.1,
    "jitter": 0.0,
    "softened": 0.0,
    "views": 1,
    "paper_exact": True,
}
"""What ``--paper-exact`` sets: the published training; 5.1 of 255 is the 0.04 of [-1, 1]."""


ROBUST: dict[str, Any] = {
    "adapt": 3e-4,
    "relation": 10.0,
    "varied": 0.3,
    "mixed": 0.5,
    "hold": True,
    "identity": 1.0,
    "steps": 1500,
    "clean": 0.25,
    "adaptive": 0.75,
    "most_eps": 5.0,
    "softened": 0.0,
    "average": 0.998,
}
"""What ``train recogniser --robust`` begins with, chosen in short trials on people kept for choosing."""


def read_settings(
    path: Path | None, changes: dict[str, Any], beginning: dict[str, Any] | None = None
) -> TrainingSettings:
    """Settings from a TOML file, with changes over them.

    Args:
        path: file of ``name = value`` lines, or None for the defaults.
        changes: what the user gave by flags; None values are left aside. A true ``paper_exact`` brings `PAPER`.
        beginning: values that both go before, such as `ROBUST`.

    Raises:
        UsageError: the file can not be read, is no TOML, or has an unknown or mistyped name.
    """
    values = {**(beginning or {}), **({} if path is None else _parsed(path))}
    given = {name: value for name, value in changes.items() if value is not None}
    if values.get("paper_exact") or given.get("paper_exact"):
        values = {**PAPER, **values}
    values |= given
    known = {field.name: field for field in dataclasses.fields(TrainingSettings)}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"there is no training setting {name!r}", f"Known are {', '.join(known)}")
        default = known[name].default
        if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
            raise UsageError(f"{name} must be of type {type(default).__name__}, got {value!r}")
    return TrainingSettings(**values)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = tomllib.loads(read_bytes(path, SETTINGS_LIMIT).decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also of numbers with too many digits
        raise UsageError(f"{path} is not TOML: {error}") from error
    return parsed
