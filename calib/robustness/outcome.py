"""What one job of an evaluation leaves behind; plain enough to be kept in a file and read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from immunogate.calib.robustness.document import Panel, Row, SignalRow

Knowledge = Literal["clean", "noise", "transfer", "black box", "white box"]


@dataclass(frozen=True)
class Attempt:
    """An attack on the bundle's own configuration, pair by pair, for the checks of whether attacks work.

    Attributes:
        attack: its name without its size and effort.
        aim: dodging or impersonation.
        knowledge: what the attacker has.
        levels: eps in grey levels.
        steps: gradient steps, or questions; 0 where there are none.
        draws: gradients averaged a step.
        won: for each pair whether the attacker got what he wanted, by the twin, black boxes by the gate.
        flat: share of gradients without any direction, of the stand-in with fewest; None without gradients.
        kept_by_gate: of the pairs won on the twin, how many the deployed gate still held; None if not replayed.
    """

    attack: str
    aim: str
    knowledge: Knowledge
    levels: float
    steps: int
    draws: int
    won: tuple[bool, ...]
    flat: float | None
    kept_by_gate: int | None


@dataclass(frozen=True)
class Raised:
    """How many of an attack's pictures a signal flags, by the signal's name."""

    signal: str
    row: SignalRow


@dataclass(frozen=True)
class Outcome:
    """Rows of the table, and what else is made of the pictures that were found."""

    rows: tuple[Row, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    raised: tuple[Raised, ...] = ()
    panels: tuple[Panel, ...] = ()
