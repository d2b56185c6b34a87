"""The gate for somebody who can only ask: pictures in, a similarity or a yes or no out, every question counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from immunogate.structs import Floats

Rows = npt.NDArray[np.int64]
Asked = Callable[[Floats, Rows, Rows], Floats]
"""(b, D) faces in [-1, 1], (b,) sample numbers and (b,) how often each was asked before, to (b, E) embeddings. The
deployed networks on their own runner, for instance; the count can be the frame number of a mode that draws."""


class BudgetSpentError(Exception):
    """A sample was asked about more often than the attack may."""


class VerificationOracle:
    """Counts and answers.

    Args:
        embed: the gate.
        templates: (B, E) of any length above 0, one for each sample.
        limit: accepts a similarity of at least this.
        impersonates: (B,) bool; whether a sample's attacker wants to be accepted.
        most: questions that each sample may cost; None is no limit.

    Raises:
        ValueError: shapes disagree.
    """

    def __init__(
        self,
        embed: Asked,
        templates: Floats,
        limit: float,
        impersonates: npt.NDArray[np.bool_],
        most: int | None = None,
    ) -> None:
        if templates.ndim != 2 or impersonates.shape != (len(templates),):
            raise ValueError(f"expected (B, E) templates and (B,), got {templates.shape} and {impersonates.shape}")
        self._embed, self._limit, self.most = embed, limit, most
        self._templates = templates / np.linalg.norm(templates, axis=1, keepdims=True)
        self.impersonates = impersonates
        self.queries: Rows = np.zeros(len(templates), np.int64)

    def scores(self, faces: Floats, rows: Rows) -> Floats:
        """(b,) similarities of (b, D) faces of the samples ``rows``; a row may occur more than once.

        Raises:
            BudgetSpentError: a sample would cost more questions than it may; none of them was asked.
            ValueError: the gate gave a value that is not finite.
        """
        turns = np.array([int((rows[:place] == row).sum()) for place, row in enumerate(rows)], np.int64)
        numbers = self.queries[rows] + turns
        if self.most is not None and len(rows) and int(numbers.max()) >= self.most:
            raise BudgetSpentError
        np.add.at(self.queries, rows, 1)
        embeddings = self._embed(faces, rows, numbers)
        lengths = np.maximum(np.linalg.norm(embeddings, axis=1), 1e-12)
        found = np.einsum("ij,ij->i", embeddings, self._templates[rows]) / lengths
        if not np.isfinite(found).all():
            raise ValueError("the gate gave an embedding that is not finite; the attack's result would say nothing")
        return np.asarray(found, np.float32)

    def advantage(self, scores: Floats, rows: Rows) -> Floats:
        """(b,) the scores, their sign turned for dodging."""
        return np.where(self.impersonates[rows], scores, -scores).astype(np.float32)

    def lost(self, scores: Floats, rows: Rows) -> npt.NDArray[np.bool_]:
        """(b,) whether the attacker has what he wants."""
        return np.asarray((scores >= self._limit) == self.impersonates[rows], np.bool_)
