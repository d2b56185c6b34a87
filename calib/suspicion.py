"""Faces that a gate should not be calibrated on: attacked ones, and people under wrong names.

Whoever may slip pictures into the calibration sets the limits: attacked faces lift the alarm limit until attacks pass
below it, and one picture under two names lifts the threshold until nobody is let in, or a person under two names lets
an operator settle for a laxer rate. What can be told from embeddings is refused; it is no proof that the rest is clean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.structs import Floats

MOST_BEYOND = 0.05
"""Share of faces that may lie beyond the alarm limit of an earlier calibration."""

SAME_PICTURE = 0.999
"""Cosine of the embeddings of two pictures as they came from which they are taken for one: clones that are drawn make
purified ones of the same picture differ."""

NAMED = 5
"""Findings of a kind that are named one by one."""


@dataclass(frozen=True)
class Finding:
    """Why the faces should not be used.

    Attributes:
        kind: attacked, one picture under two names, or one person under two names.
        words: what was found, with names and the rule.
    """

    kind: str
    words: str


def attacked(attack_scores: Floats, limit: float) -> Finding | None:
    """Too many faces whose raw and purified embeddings disagree beyond an earlier limit.

    Args:
        attack_scores: (N,) in [0, 2].
        limit: the alarm limit of an earlier calibration of the same chain.
    """
    beyond = int((attack_scores > limit).sum())
    if beyond <= MOST_BEYOND * len(attack_scores):
        return None
    share = beyond / len(attack_scores)
    words = (
        f"{beyond} of {len(attack_scores)} faces ({share:.0%}) lie beyond the earlier alarm limit of {limit:.3f}; "
        f"clean faces seldom do, and more than {MOST_BEYOND:.0%} are refused: they may be attacked"
    )
    return Finding("attacked", words)


def doubled_pictures(
    raw: Floats, identities: npt.NDArray[np.str_], names: npt.NDArray[np.str_] | None = None
) -> Finding | None:
    """One picture, or a copy of it, under two names.

    Args:
        raw: (N, E) embeddings of unit length of the faces as they came.
        identities: (N,) whose faces they are.
        names: (N,) of the pictures, where they have any.
    """
    alike = raw @ raw.T > SAME_PICTURE
    rows, columns = np.nonzero(np.triu(alike, k=1))
    other = identities[rows] != identities[columns]
    rows, columns = rows[other], columns[other]
    if not len(rows):
        return None

    def called(row: int) -> str:
        return str(identities[row]) if names is None else f"{identities[row]} ({names[row]})"

    pairs = [f"{called(row)} and {called(column)}" for row, column in zip(rows[:NAMED], columns[:NAMED], strict=True)]
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return Finding("one picture under two names", f"the same picture under two names: {'; '.join(pairs)}{more}")


def doubled_people(purified: Floats, identities: npt.NDArray[np.str_]) -> Finding | None:
    """One person under two names: two groups of faces that are as alike as each is to itself.

    Only names with two faces or more can be judged. Two names are taken for one person where their faces are, in the
    mean, more alike than half of all genuine pairs, and no less alike than those of one of the names. Whoever looks
    different from picture to picture is missed: the rule is strict so that people who look alike are left alone.

    Args:
        purified: (N, E) embeddings of unit length.
        identities: (N,) whose faces they are.
    """
    people, owner, counts = np.unique(identities, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts > 1)
    groups = [np.flatnonzero(owner == person) for person in kept]
    cosines = purified @ purified.T
    own = [cosines[np.ix_(group, group)][np.triu_indices(len(group), k=1)] for group in groups]
    if len(groups) < 2:
        return None
    usual = float(np.median(np.concatenate(own)))
    # Rows and columns by group: the mean cosine between any two groups comes out of two reductions.
    order, starts = np.concatenate(groups), np.cumsum([0] + [len(group) for group in groups[:-1]])
    between = cosines[np.ix_(order, order)]
    sizes = np.array([len(group) for group in groups])
    mean = np.add.reduceat(np.add.reduceat(between, starts, axis=0), starts, axis=1) / np.outer(sizes, sizes)
    within = np.array([values.mean() for values in own])
    one = (mean > usual) & (mean >= np.minimum(within[:, None], within[None]))
    pairs = [(people[kept[a]], people[kept[b]]) for a, b in zip(*np.nonzero(np.triu(one, k=1)), strict=True)]
    if not pairs:
        return None
    named = "; ".join(f"{a} and {b}" for a, b in pairs[:NAMED])
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return Finding("one person under two names", f"one person under two names, by their faces: {named}{more}")
