from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from immunogate.networks.attacks.sanity import Run, verdicts

SOUND = [
    Run("none", "clean", 0, 0.1),
    Run("uniform", "noise", 8, 0.12),
    Run("PGD", "white box", 4, 0.5, 100, 10),
    Run("PGD", "white box", 8, 0.9, 100, 10),
    Run("PGD", "white box", 8, 0.905, 200, 10),
    Run("PGD", "white box", 8, 0.9, 100, 20),
    Run("PGD", "white box", 64, 1.0, 100, 10),
    Run("Square", "black box", 8, 0.6, 5000),
    Run("MI-FGSM", "transfer", 8, 0.3, 10),
    Run("patch", "white box", math.inf, 1.0, 100),
]
CHECKS = 5


def faulty(runs: list[Run], tolerance: float = 0.0) -> str:
    return " | ".join(found.reason for found in verdicts(runs, tolerance) if found.outcome == "FAULTY")


def without(attack: str, levels: float) -> list[Run]:
    return [run for run in SOUND if (run.attack, run.levels) != (attack, levels)]


def test_a_sound_table_passes_every_check() -> None:
    found = verdicts(SOUND)
    assert {verdict.outcome for verdict in found} == {"fine"}
    assert len({verdict.check for verdict in found}) == CHECKS


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([*SOUND, Run("PGD", "white box", 4, 0.45, 200, 10)], "the search is broken"),
        ([*SOUND, Run("PGD", "white box", 4, 0.52, 200, 10)], "not converged"),
        ([*SOUND, Run("PGD", "white box", 4, 0.52, 100, 20)], "not converged"),
        ([*without("PGD", 64), Run("PGD", "white box", 64, 0.98, 100, 10)], "expected 0.99"),
        ([*without("patch", math.inf), Run("patch", "white box", math.inf, 0.5, 100)], "no bound"),
        ([*SOUND, Run("PGD", "white box", 2, 0.6, 100, 10)], "with 4 levels 0.500"),
        (
            [*without("Square", 8), Run("Square", "black box", 8, 0.95, 5000)],
            "Square, 8 levels, 5000 steps (black box)",
        ),
        ([*without("MI-FGSM", 8), Run("MI-FGSM", "transfer", 8, 0.95, 10)], "gradients are masked"),
        ([*without("uniform", 8), Run("uniform", "noise", 8, 0.3)], "the gate fails at noise"),
    ],
)
def test_each_sign_of_a_broken_attack_is_named(runs: list[Run], words: str) -> None:
    assert words in faulty(runs)


def test_what_was_not_run_is_said_to_be_not_run() -> None:
    found = verdicts([])
    assert [verdict.outcome for verdict in found] == ["not run"] * CHECKS
    assert all(verdict.reason for verdict in found)


def test_one_pair_may_be_tolerated() -> None:
    runs = [*SOUND, Run("PGD", "white box", 4, 0.48, 200, 10)]
    assert faulty(runs, 0.01)
    assert not faulty(runs, 0.02)


@given(st.permutations(SOUND))
def test_the_order_of_runs_does_not_matter(runs: Any) -> None:
    assert sorted(verdicts(runs), key=str) == sorted(verdicts(SOUND), key=str)


@pytest.mark.parametrize("change", [{"rate": 1.1}, {"rate": math.nan}, {"levels": -1}, {"steps": -1}, {"draws": 0}])
def test_impossible_runs_are_refused(change: dict[str, Any]) -> None:
    values: dict[str, Any] = {
        "attack": "PGD",
        "knowledge": "white box",
        "levels": 8,
        "rate": 0.5,
        "steps": 1,
        "draws": 1,
    }
    with pytest.raises(ValueError, match="expected rate"):
        Run(**values | change)
