"""Rows of the table from what was found, and what else the bundle's own rows are looked at for."""

from __future__ import annotations

import numpy as np

from immunogate.calib.robustness.alarms import raised_by
from immunogate.calib.robustness.desk import Bools, Desk, Look, Side
from immunogate.calib.robustness.document import Aim, Attacker, Panel, Rate, Row, SignalRow, Tier, rate_of
from immunogate.calib.robustness.gates import Gate
from immunogate.calib.robustness.outcome import Attempt, Knowledge, Outcome, Raised
from immunogate.calib.robustness.pixels import crops_of, png
from immunogate.networks.attacks import Found
from immunogate.structs import Pixels

NOISE_GAIN = 10


def rated(accepted: Bools) -> Rate:
    """A rate of pairs."""
    return rate_of(int(accepted.sum()), len(accepted))


def accepted_by(found: Found, gate: Gate) -> Bools:
    """(B,) whether the twin accepts what a search ended with."""
    return np.asarray(found.scores.numpy() >= gate.threshold, np.bool_)


def row(
    tier: Tier,
    attack: str,
    aim: Aim,
    levels: float | None,
    gate: Gate,
    twin: Bools | None,
    look: Look | None,
    *,
    variants: dict[str, Rate] | None = None,
    attacker: Attacker = "aligned crop",
    note: str | None = None,
) -> Row:
    """A row; what is not given was not measured."""
    return Row(
        tier, attack, aim, attacker, levels, gate.key,  # type: ignore[arg-type]
        None if twin is None else rated(twin), None if look is None else look.rate,
        0 if look is None else look.undecided, variants, None, None, note,
    )  # fmt: skip


def attempt(
    attack: str,
    side: Side,
    knowledge: Knowledge,
    levels: float,
    accepted: Bools,
    look: Look | None = None,
    *,
    steps: int = 0,
    draws: int = 1,
    founds: tuple[Found, ...] = (),
) -> Attempt:
    """How an attack on the bundle went, pair by pair."""
    won = side.won(accepted)
    passes = [int(found.passes.sum()) for found in founds]
    shares = [int(found.flat.sum()) / count for found, count in zip(founds, passes, strict=True) if count]
    held = None if look is None else int((won & ~side.won(look.accepted)).sum())
    words = tuple(bool(value) for value in won)
    return Attempt(attack, side.aim, knowledge, levels, steps, draws, words, min(shares, default=None), held)


def signals(
    desk: Desk, gate: Gate, attack: str, side: Side, levels: float | None, look: Look, bare: Look | None = None
) -> tuple[Raised, ...]:
    """How many of the attacked pictures the bundle's alarms flag, by signal.

    Args:
        desk: with the limits.
        gate: that was asked; others than the bundle's own have no alarms.
        attack: in words.
        side: the pairs.
        levels: eps in grey levels.
        look: what the gate said.
        bare: what the recogniser alone said of the same pictures, where it was asked.
    """
    if not gate.own:
        return ()
    right = ~side.won(look.accepted)
    fooled = np.zeros(len(side), np.bool_) if bare is None else side.won(bare.accepted)
    return tuple(
        Raised(
            name,
            SignalRow(
                f"{attack}, {side.aim}",
                levels,
                rated(flagged),
                rated(flagged | right),
                rated((flagged | right)[fooled]) if fooled.any() else None,
            ),
        )
        for name, flagged in raised_by(desk.limits, look.answer).items()
    )


def panels(side: Side, look: Look, crops: Pixels, clean: Look, attack: str) -> tuple[Panel, ...]:
    """The first picture with which the attacker won, else the first."""
    if look.answer.purified is None:
        return ()
    place = int(np.argmax(side.won(look.accepted)))
    noise = NOISE_GAIN * (crops[place].astype(np.float64) - side.crops[place]) + 127.5
    accepted = "accepted" if look.accepted[place] else "refused"
    scores = [float(np.nan_to_num(one.scores[place], nan=-1.0)) for one in (clean, look)]
    return (
        Panel(
            title=f"{attack}, {side.aim}",
            words=f"similarity {scores[0]:.3f} clean, {scores[1]:.3f} attacked: {accepted}",
            input_png=png(crops[place]),
            noise_png=png(np.asarray(np.rint(noise).clip(0, 255), np.uint8)),
            purified_png=png(crops_of(look.answer.purified[place : place + 1])[0]),
            similarity_clean=scores[0],
            similarity_attacked=scores[1],
        ),
    )


def not_run(tier: Tier, attack: str, aim: Aim, levels: float | None, gate: Gate, why: str) -> Outcome:
    """A row that says why it was not measured."""
    return Outcome((row(tier, attack, aim, levels, gate, None, None, note=f"not run: {why}"),))
