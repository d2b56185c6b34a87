"""Attacks through the whole defence, by gradients: within a bound, within a patch, on the camera's picture, again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from immunogate.calib.robustness.desk import Bools, Desk, Look, Side
from immunogate.calib.robustness.document import Rate
from immunogate.calib.robustness.gates import Gate
from immunogate.calib.robustness.outcome import Outcome
from immunogate.calib.robustness.pixels import bound, crops_within
from immunogate.calib.robustness.protocols import HOPELESS
from immunogate.calib.robustness.rows import accepted_by, attempt, panels, rated, row, signals
from immunogate.networks.attacks import Apgd, Ball, Found, LinfBall, Method, Patch, Pgd, square_regions, worst
from immunogate.structs import CROP_SIZE

GLASSES = (36, 66, 14, 98)
"""Top, bottom, left and right of the band of eyeglasses in the crop: the eyes are at row 52, columns 38 and 74."""

REPLAYED = "found on the twin, rounded to whole grey levels within the bound, then shown to the deployed gate"
NOTHING_HOLDS = f"a check, no result: nothing can hold at {HOPELESS} grey levels"


def method_of(name: str, steps: int, restarts: int, seed: int) -> Method:
    """PGD or APGD."""
    return Apgd(steps, restarts, seed) if name == "APGD" else Pgd(steps, restarts, seed=seed)


def adaptive(
    desk: Desk, gate: Gate, aim: str, levels: float, name: str, *, steps: int, eot: int, shown: bool = False
) -> Outcome:
    """PGD or APGD with each of the gate's gradients; the worst of them counts for each pair."""
    side = desk.side(aim, desk.count(gate))
    method = method_of(name, steps, desk.protocol.restarts, desk.seed)
    draws = eot if gate.random else 1
    words = f"{name}-{steps}" + (f" x {method.restarts}" if method.restarts > 1 else "")
    attack = words + (f", EOT {draws}" if gate.random else "")
    best, variants, founds = _searched(desk, gate, side, LinfBall(bound(levels)), method, draws)
    crops = crops_within(best.points, side.clean, levels)
    accepted, look = accepted_by(best, gate), desk.look(gate, side, crops)
    note = NOTHING_HOLDS if levels >= HOPELESS else REPLAYED
    rows = (row("adaptive", attack, aim, levels, gate, accepted, look, variants=variants, note=note),)  # type: ignore[arg-type]
    if not gate.own:
        return Outcome(rows)
    # A gate that draws is judged on the twin by several draws and shown a picture once: these need not agree.
    seen = None if gate.random else look
    tried = attempt(name, side, "white box", levels, accepted, seen, steps=steps, draws=draws, founds=founds)
    pictures = (
        panels(side, look, crops, desk.look(gate, side, side.crops), f"{attack}, {levels:g}/255") if shown else ()
    )
    return Outcome(rows, (tried,), signals(desk, gate, attack, side, levels, look), pictures)


def patch(desk: Desk, gate: Gate, aim: str, kind: str) -> Outcome:
    """Any pixels within a square or in the place of eyeglasses, none outside."""
    side, protocol = desk.side(aim, desk.count(gate)), desk.protocol
    draws = protocol.eot if gate.random else 1
    method = method_of("APGD", protocol.steps, protocol.restarts, desk.seed)
    regions = _glasses(len(side)) if kind == "eyeglasses" else _squares(len(side), protocol.patch_side, desk.seed)
    best, variants, _ = _searched(desk, gate, side, Patch(regions), method, draws)
    crops = crops_within(best.points, side.clean, None)
    accepted, look = accepted_by(best, gate), desk.look(gate, side, crops)
    share = float(regions[0].float().mean())
    attack, note = f"APGD-{protocol.steps} in {kind}", f"{100 * share:.0f} % of the crop, unbounded"
    one = row("patch", attack, aim, None, gate, accepted, look, variants=variants, note=note)  # type: ignore[arg-type]
    return Outcome((one,), (), signals(desk, gate, attack, side, None, look))


def retries(desk: Desk, gate: Gate, aim: str, levels: float) -> Outcome:
    """Success in any of as many tries as somebody has before he is locked out.

    A gate that draws is shown one picture again and again; one that does not is shown a picture from another start at
    each try.
    """
    protocol = desk.protocol
    side = desk.side(aim, protocol.random_pairs)
    ball, tries = LinfBall(bound(levels)), protocol.lockout
    won, undecided = np.zeros(len(side), np.bool_), 0
    looks: list[Look] = []
    for turn in range(tries):
        if turn == 0 or not gate.random:
            method = method_of("PGD", protocol.steps, 1, desk.seed + turn)
            draws = protocol.eot if gate.random else 1
            best, _, _ = _searched(desk, gate, side, ball, method, draws, f"try {turn} ")
            crops = crops_within(best.points, side.clean, levels)
        looks.append(desk.look(gate, side, crops, turn))
        won |= side.won(looks[-1].accepted)
        undecided += looks[-1].undecided
    accepted: Bools = won if aim == "impersonation" else ~won
    how = "one picture, other clones each time" if gate.random else "pictures from different starts"
    note = f"{how}; counted as won if any of {tries} tries is; undecided of all tries"
    one = row("retries", f"PGD-{protocol.steps}", aim, levels, gate, None, looks[0], note=note)  # type: ignore[arg-type]
    return Outcome((replace(one, deployed=rated(accepted), tries=tries, undecided=undecided),))


def _searched(
    desk: Desk, gate: Gate, side: Side, ball: Ball, method: Method, draws: int, prefix: str = ""
) -> tuple[Found, dict[str, Rate], tuple[Found, ...]]:
    """The worst over the gate's gradients, the rate of each, and each."""
    goal = desk.goal(gate, side)
    judges = desk.protocol.judges if gate.random else 1
    founds = {
        name: desk.search(
            f"{prefix}{name}",
            gate.target(name, draws, judges),
            side.clean,
            goal,
            ball,
            method,
            (place + 1) / len(gate.gradients),
        )
        for place, name in enumerate(gate.gradients)
    }
    every: tuple[Found, ...] = tuple(founds.values())
    return worst(goal, every), {name: rated(accepted_by(found, gate)) for name, found in founds.items()}, every


def _glasses(count: int) -> torch.Tensor:
    region = torch.zeros(CROP_SIZE, CROP_SIZE, dtype=torch.bool)
    top, bottom, left, right = GLASSES
    region[top:bottom, left:right] = True
    return region.flatten().expand(count, -1)


def _squares(count: int, side: int, seed: int) -> torch.Tensor:
    return square_regions(count, side, (CROP_SIZE, CROP_SIZE), seed)
