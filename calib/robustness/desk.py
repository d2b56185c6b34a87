"""Where attacks are made and judged: pairs, templates, searches that can be stopped, and looks at the deployed gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from immunogate.calib.robustness.deployed import LOOK_FRAME, TEMPLATE_FRAME, Answer, Placement, asked, similarities
from immunogate.calib.robustness.document import Rate, rate_of
from immunogate.calib.robustness.gates import Gate
from immunogate.calib.robustness.memory import Memory
from immunogate.calib.robustness.pairs import Problem
from immunogate.calib.robustness.pixels import tensor_of
from immunogate.calib.robustness.protocols import Protocol
from immunogate.networks.attacks import Ball, Found, Goal, Method, Target, dodging, impersonation, search
from immunogate.networks.attacks.search import gate_scores
from immunogate.networks.attacks.target import embedded_in_batches, parts_of
from immunogate.structs import Floats, Pixels

MARGIN = 0.01
"""By how much an attack goes past the threshold before it rests: rounding to grey levels and to the deployed
networks' precision costs it a little."""

JUDGED_EVERY = 5
"""Steps between judgements where a judgement costs passes of its own."""

NO_LIMITS: Mapping[str, float] = {}

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Side:
    """The pairs that one attack is made on.

    Attributes:
        aim: dodging or impersonation.
        crops: (B, 112, 112) uint8 of those who stand at the gate.
        enrolled: (B, 112, 112) uint8 of those whom they are compared with.
        clean: (B, D) the crops in [-1, 1].
    """

    aim: str
    crops: Pixels
    enrolled: Pixels
    clean: Tensor

    def __len__(self) -> int:
        return len(self.crops)

    def won(self, accepted: Bools) -> Bools:
        """(B,) whether the attacker has what he wants."""
        return accepted if self.aim == "impersonation" else ~accepted


@dataclass(frozen=True, eq=False)
class Look:
    """What the deployed gate said of B pictures.

    Attributes:
        accepted: (B,) bool.
        undecided: pictures that it could not judge, which are refused.
        scores: (B,) similarities; NaN where undecided.
        answer: all of it.
    """

    accepted: Bools
    undecided: int
    scores: Floats
    answer: Answer

    @property
    def rate(self) -> Rate:
        """Of those accepted."""
        return rate_of(int(self.accepted.sum()), len(self.accepted))


class Desk:
    """See the module.

    Args:
        problem: faces and pairs.
        gates: configurations with their thresholds, by key.
        protocol: budgets.
        seed: of all attacks.
        memory: where searches are kept.
        limits: of the bundle's alarms, by signal.
        placement: how frames are made and cropped, or None.
        tick: is told what share of the job under way is done.
    """

    def __init__(
        self,
        problem: Problem,
        gates: Mapping[str, Gate],
        protocol: Protocol,
        seed: int,
        memory: Memory,
        limits: Mapping[str, float] = NO_LIMITS,
        placement: Placement | None = None,
        tick: Callable[[float], None] = lambda share: None,
    ) -> None:
        self.problem, self.gates, self.protocol, self.seed = problem, gates, protocol, seed
        self.memory, self.limits, self.placement, self.tick = memory, limits, placement, tick
        self._templates: dict[tuple[str, str, int], Floats] = {}
        self._twin_templates: dict[tuple[str, str, int], Tensor] = {}

    def side(self, aim: str, count: int) -> Side:
        """The first ``count`` pairs of an aim."""
        first, second = self.problem.pairs(aim)[:count].T
        crops = self.problem.images[first]
        return Side(aim, crops, self.problem.images[second], tensor_of(crops))

    def count(self, gate: Gate) -> int:
        """Pairs that a gate is attacked on."""
        return self.protocol.random_pairs if gate.random else self.protocol.pairs

    def goal(self, gate: Gate, side: Side, *, patient: bool = False) -> Goal:
        """What an attacker wants of the twin; the patient one goes on after he has won."""
        key = (gate.key, side.aim, len(side))
        if key not in self._twin_templates:
            enrolled = tensor_of(side.enrolled)
            self._twin_templates[key] = embedded_in_batches(gate.forward, enrolled, TEMPLATE_FRAME)
        templates = self._twin_templates[key]
        if side.aim == "impersonation":
            return impersonation(templates, None if patient else gate.threshold + MARGIN)
        return dodging(templates, None if patient else gate.threshold - MARGIN)

    def templates(self, gate: Gate, side: Side) -> Floats:
        """(B, E) what the deployed gate has enrolled."""
        key = (gate.key, side.aim, len(side))
        if key not in self._templates:
            frames, numbers = [TEMPLATE_FRAME] * len(side), list(range(len(side)))
            self._templates[key] = asked(gate.deployed, side.enrolled, frames, numbers).embeddings
        return self._templates[key]

    def look(self, gate: Gate, side: Side, crops: Pixels, turn: int = 0) -> Look:
        """Show the deployed gate (B, 112, 112) pictures of the attackers; at each turn it draws other clones."""
        answer = asked(gate.deployed, crops, [LOOK_FRAME + turn] * len(crops), list(range(len(crops))))
        scores = similarities(answer.embeddings, self.templates(gate, side))
        # A comparison with NaN is False: what can not be judged is refused.
        return Look(scores >= gate.threshold, int((~np.isfinite(scores)).sum()), scores, answer)

    def twin_accepts(self, gate: Gate, goal: Goal, points: Tensor) -> Bools:
        """(B,) whether the twin accepts (B, D) points."""
        target = Target(gate.forward, random=gate.random, judges=self.protocol.judges if gate.random else 1)
        rows = torch.arange(len(points))
        scores = torch.cat([gate_scores(target, goal, points[part], part) for part in parts_of(rows, 16)])
        return np.asarray(scores.numpy() >= gate.threshold, np.bool_)

    def search(
        self, name: str, target: Target, clean: Tensor, goal: Goal, ball: Ball, method: Method, share: float = 1.0
    ) -> Found:
        """A search of the job under way, which goes on where it was stopped; ``share`` of the job is its own."""
        finished = self.memory.arrays(f"{name} found")
        if finished is not None:
            return Found(**{key: torch.from_numpy(array.copy()) for key, array in finished.items()})
        kept = self.memory.arrays(name)
        state = None if kept is None else {key: torch.from_numpy(array.copy()) for key, array in kept.items()}

        def watch(done: int, total: int, now: dict[str, Tensor]) -> None:
            self.memory.keep(name, {key: value.numpy().copy() for key, value in now.items()})
            self.tick(share * done / total)

        every = JUDGED_EVERY if target.random else 1
        found = search(target, clean, goal, ball, method, every=every, state=state, watch=watch)
        arrays = {key: getattr(found, key).numpy() for key in ("points", "scores", "lost", "passes", "flat")}
        self.memory.keep(f"{name} found", arrays, replaces=name)
        return found
