"""HopSkipJump: an attack by yes and no alone, through the Adversarial Robustness Toolbox (extra ``evaluate``).

Source: Chen, Jordan, Wainwright, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack", IEEE S&P 2020. The
library is handed one sample at a time, a start of our own and a gate that counts; whatever it returns, the nearest
picture that the gate was really asked about and lost to is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from immunogate.errors import MissingExtraError
from immunogate.networks.attacks.oracle import BudgetSpentError, VerificationOracle
from immunogate.networks.attacks.square import Answered
from immunogate.structs import Floats

FIRST_TRIES = 100
"""Random pictures asked about in search of a first one that the gate loses to."""


@dataclass(eq=False)
class _Nearest:
    """Answers yes or no about one sample and remembers the nearest picture that won."""

    oracle: VerificationOracle
    clean: Floats
    row: int
    norm: float
    distance: float = float("inf")
    point: Floats | None = None
    score: float = field(default=float("nan"))

    def __call__(self, faces: Any) -> Any:
        """(b, D) to (b, 2) one-hot: class 1 where the attacker has what he wants.

        Asked one by one, so that the last question within the budget is still used.
        """
        return np.concatenate([self._one(np.asarray(face, np.float32)[None]) for face in faces])

    def _one(self, face: Floats) -> Any:
        rows = np.array([self.row])
        scores = self.oracle.scores(face, rows)
        won = bool(self.oracle.lost(scores, rows)[0])
        distance = float(np.linalg.norm((face - self.clean).ravel(), ord=self.norm))
        if won and distance < self.distance:
            self.distance, self.point, self.score = distance, face[0].copy(), float(scores[0])
        return np.eye(2, dtype=np.float32)[[int(won)]]


def hop_skip_jump(
    oracle: VerificationOracle,
    clean: Floats,
    eps: float,
    *,
    norm: Literal["inf", "2"] = "inf",
    seed: int = 0,
    starts: Floats | None = None,
) -> Answered:
    """Bring each sample as near to its clean picture as the oracle's budget allows, on the attacker's side.

    A sample whose first picture can not be found (an impersonation without the victim's picture, mostly) stays clean.
    The attack minimises the distance, so it runs until the budget is spent, whatever eps is.

    Args:
        oracle: the gate; its budget ends the attack.
        clean: (B, D) float32 in [-1, 1].
        eps: a sample has lost if its nearest picture is within this distance, on the scale of [-1, 1].
        norm: of the distance.
        seed: of all draws.
        starts: (B, D) pictures to begin at, the victim's own for instance; by default random ones.

    Returns:
        The nearest pictures that won, their similarities, and whether they are within eps. Where none won the clean
        picture stands, with NaN as its similarity.

    Raises:
        MissingExtraError: the library is not installed.
        ValueError: the oracle has no budget.
    """
    attack_class, classifier_class = _library()
    if oracle.most is None:
        raise ValueError("HopSkipJump runs until the budget is spent: give the oracle one")
    points, scores = clean.copy(), np.full(len(clean), np.nan, np.float32)
    lost = np.zeros(len(clean), np.bool_)
    for row in range(len(clean)):
        nearest = _Nearest(oracle, clean[row : row + 1], row, np.inf if norm == "inf" else 2)
        with _seeded(seed + row):
            try:
                start = _first(nearest, np.random.default_rng([seed, row]), None if starts is None else starts[row])
                if start is not None and nearest.distance > 0:
                    gate = classifier_class(nearest, (clean.shape[1],), 2, clip_values=(-1.0, 1.0))
                    attack = attack_class(
                        gate, batch_size=64, norm=norm if norm == "inf" else 2, max_iter=10**6, verbose=False
                    )
                    attack.generate(clean[row : row + 1], x_adv_init=start[None])
            except BudgetSpentError:
                pass  # as meant: the nearest picture so far is the result
        if nearest.point is not None:
            points[row], scores[row], lost[row] = nearest.point, nearest.score, nearest.distance <= eps
    return Answered(points, scores, lost, oracle.queries.copy())


def _first(nearest: _Nearest, draw: np.random.Generator, start: Floats | None) -> Floats | None:
    """A picture on the attacker's side: the clean one, the one given, or a random one."""
    pictures = [nearest.clean[0]] if start is None else [nearest.clean[0], start]
    for face in pictures:
        if nearest(face[None])[0, 1]:
            return np.asarray(face, np.float32)
    for _ in range(FIRST_TRIES):
        face = draw.uniform(-1, 1, size=nearest.clean.shape[1:]).astype(np.float32)
        if nearest(face[None])[0, 1]:
            return np.asarray(face, np.float32)
    return None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The library draws from NumPy's global generator: it is seeded, and put back as it was."""
    before = np.random.get_state()  # noqa: NPY002 - the library knows no other
    np.random.seed(seed % (1 << 32))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _library() -> tuple[Any, Any]:
    try:
        from art.attacks.evasion import HopSkipJump
        from art.estimators.classification import BlackBoxClassifier
    except ImportError as error:
        raise MissingExtraError("adversarial-robustness-toolbox", "evaluate") from error
    return HopSkipJump, BlackBoxClassifier
