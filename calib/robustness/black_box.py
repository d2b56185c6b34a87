"""Attacks by questions, put to the exported networks on their own runner: they need no gradient and no twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from immunogate.calib.robustness.deployed import asked
from immunogate.calib.robustness.desk import Bools, Desk, Side
from immunogate.calib.robustness.document import Queries
from immunogate.calib.robustness.gates import Gate
from immunogate.calib.robustness.outcome import Outcome
from immunogate.calib.robustness.pixels import bound, crops_of, crops_within, faces_of, tensor_of
from immunogate.calib.robustness.rows import attempt, not_run, rated, row, signals
from immunogate.errors import MissingExtraError
from immunogate.networks.attacks.boundary import hop_skip_jump
from immunogate.networks.attacks.oracle import Rows, VerificationOracle
from immunogate.networks.attacks.square import Answered, square
from immunogate.structs import Floats

BLOCK = 4
"""Pairs after which an attack by questions is kept."""


def by_questions(desk: Desk, gate: Gate, aim: str, name: str, levels: float) -> Outcome:
    """Square (similarities) or HopSkipJump (yes or no) on the deployed gate."""
    protocol = desk.protocol
    count, queries = protocol.square_pairs, protocol.square_queries
    if name == "HopSkipJump":
        count, queries = protocol.hop_pairs, protocol.hop_queries
    side = desk.side(aim, count)
    try:
        found = _in_blocks(desk, gate, side, name, levels, queries)
    except MissingExtraError as error:
        why = f"{error.what.removeprefix('this command needs ')}: library missing"
        return not_run("black box", name, aim, levels, gate, why)  # type: ignore[arg-type]
    return _outcome(desk, gate, side, name, levels, queries, found)


def _outcome(desk: Desk, gate: Gate, side: Side, name: str, levels: float, queries: int, found: Answered) -> Outcome:
    clean = desk.look(gate, side, side.crops)
    won = found.lost | side.won(clean.accepted)  # who has won without an attack needs none
    accepted: Bools = won if side.aim == "impersonation" else ~won
    crops = crops_within(tensor_of(crops_of(found.points)), side.clean, levels)
    look = desk.look(gate, side, crops)
    words = f"{name}, {queries:,} questions"
    # A gate that draws clones may say something else when it is shown the picture again: what it was asked counts.
    note = "asked the deployed gate; the rate is of its answers while it was asked"
    one = row("black box", words, side.aim, levels, gate, None, look, note=note)  # type: ignore[arg-type]
    asked_of = Queries(float(np.median(found.queries)), int(found.queries.max()))
    tried = (attempt(name, side, "black box", levels, accepted, steps=queries),) if gate.own else ()
    return Outcome(
        (replace(one, deployed=rated(accepted), queries=asked_of),),
        tried,
        signals(desk, gate, name, side, levels, look),
    )


def _in_blocks(desk: Desk, gate: Gate, side: Side, name: str, levels: float, queries: int) -> Answered:
    parts = []
    for begin in range(0, len(side), BLOCK):
        rows = slice(begin, begin + BLOCK)
        kept = desk.memory.arrays(f"block {begin}")
        if kept is None:
            done = _block(desk, gate, side, rows, name, levels, queries)
            kept = {key: getattr(done, key) for key in ("points", "scores", "lost", "queries")}
            desk.memory.keep(f"block {begin}", kept)
        parts.append(kept)
        desk.tick(min(1.0, (begin + BLOCK) / len(side)))
    points, scores, lost, counts = (
        np.concatenate([part[key] for part in parts]) for key in ("points", "scores", "lost", "queries")
    )
    return Answered(points, scores, lost, counts)


def _block(desk: Desk, gate: Gate, side: Side, rows: slice, name: str, levels: float, queries: int) -> Answered:
    faces, begin = faces_of(side.crops[rows]), rows.start
    impersonates = np.full(len(faces), side.aim == "impersonation")

    def answers(points: Floats, those: Rows, turns: Rows) -> Floats:
        frames, numbers = [int(turn) for turn in turns], [begin + int(row) for row in those]
        found = asked(gate.deployed, crops_of(points), frames, numbers).embeddings
        return np.nan_to_num(found)  # an undecided face agrees with nobody

    templates = desk.templates(gate, side)[rows]
    oracle = VerificationOracle(answers, templates, gate.threshold, impersonates, queries)
    seed = desk.seed + begin
    if name == "Square":
        share = BLOCK / len(side)
        return square(
            oracle, faces, bound(levels), queries, seed=seed,
            watch=lambda done, total: desk.tick(min(1.0, (begin / len(side)) + share * done / total)),
        )  # fmt: skip
    starts = faces_of(side.enrolled[rows]) if side.aim == "impersonation" else None
    return hop_skip_jump(oracle, faces, bound(levels), seed=seed, starts=starts)
