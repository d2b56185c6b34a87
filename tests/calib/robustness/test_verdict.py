"""The rules by which figures become words, and the checks of whether attacks worked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_document import small_document

from immunogate.calib.robustness.checks import sanity_of
from immunogate.calib.robustness.document import Check, Row, Sanity, rate_of
from immunogate.calib.robustness.outcome import Attempt
from immunogate.calib.robustness.verdict import LIVENESS, QUICK, verdict_of

FINE = Sanity(False, (Check("converged", True, None, None, "fine"),))
PAIRS = 200
SETTING = small_document().setting


def _row(goal: str, eps: float | None, accepted: int, key: str = "bundle", **changes: Any) -> Row:
    rate = rate_of(accepted, PAIRS)
    tier: Any = "controls" if goal == "none" else "adaptive"
    attack = "clean" if goal == "none" else "PGD-100"
    row = Row(tier, attack, goal, "aligned crop", eps, key, rate, rate, 0, None, None, None, None)  # type: ignore[arg-type]
    return replace(row, **changes)


def _rows(dodging: dict[float, int], entering: dict[float, int], clean: int = 180) -> list[Row]:
    return [
        _row("none", None, clean),
        *(_row("dodging", eps, accepted) for eps, accepted in dodging.items()),
        *(_row("impersonation", eps, accepted) for eps, accepted in entering.items()),
    ]


@pytest.mark.parametrize(
    ("dodging", "entering", "status"),
    [
        ({2: 175, 4: 170, 8: 0}, {4: 5}, "HOLDS"),
        ({2: 175, 4: 150, 8: 0}, {4: 5}, "WEAK"),
        ({2: 175, 4: 170}, {4: 20}, "WEAK"),
        ({2: 120, 4: 0}, {4: 150}, "WEAK"),
        ({2: 60, 4: 0}, {4: 5}, "BROKEN"),
        ({2: 175, 4: 170}, {2: 130}, "BROKEN"),
        ({}, {}, "WEAK"),
    ],
)
def test_the_rules(dodging: dict[float, int], entering: dict[float, int], status: str) -> None:
    verdict = verdict_of(_rows(dodging, entering), FINE, replace(SETTING, protocol="full"), ())
    assert verdict.status == status
    assert verdict.words[0].startswith(f"{status}: ")
    assert verdict.words[-1] == LIVENESS
    assert QUICK not in verdict.words


def test_a_failed_check_comes_before_all_figures() -> None:
    failed = Sanity(True, (Check("converged", False, 0.2, 0.01, "0.5 became 0.3"),))
    verdict = verdict_of(_rows({2: 200}, {2: 0}), failed, SETTING, ("made up.",))
    assert verdict.status == "FAULTY"
    assert "converged: 0.5 became 0.3" in verdict.words[0]
    assert verdict.words[1] == "Flagged: made up."
    assert QUICK in verdict.words


def test_the_worse_of_twin_and_deployed_counts_and_checks_do_not() -> None:
    rows = [*_rows({2: 180, 4: 180, 64: 0}, {}), _row("dodging", 4, 180, twin=rate_of(0, PAIRS))]
    verdict = verdict_of(rows, FINE, SETTING, ())
    assert verdict.status == "WEAK"
    assert any(words.startswith("Adaptive, 4/255: a person who hides is recognised in 0 %") for words in verdict.words)
    assert not any("64/255" in words for words in verdict.words)


def test_the_fixed_projection_has_to_be_beaten_beyond_the_interval() -> None:
    beaten = [*_rows({4: 120}, {4: 20}), _row("dodging", 4, 60, "fixed"), _row("impersonation", 4, 25, "fixed")]
    said = [words for words in verdict_of(beaten, FINE, SETTING, ()).words if "fixed projection" in words]
    assert said[0].startswith("The antibody beats the fixed projection beyond the interval at 4/255, dodging")
    assert said[1].startswith("The antibody does not beat the fixed projection beyond the interval at 4/255, imp")


def test_easier_attacks_are_said_to_flatter() -> None:
    easy = _row("dodging", 4, 170, tier="oblivious")
    words = verdict_of([*_rows({4: 20}, {}), easy], FINE, SETTING, ()).words
    assert any("that flatters" in one for one in words)
    hard = _row("dodging", 4, 10, tier="oblivious")
    assert not any("that flatters" in one for one in verdict_of([*_rows({4: 20}, {}), hard], FINE, SETTING, ()).words)


def _attempt(knowledge: Any, levels: float, won: int, of: int = 20, **changes: Any) -> Attempt:
    tried = Attempt("PGD", "dodging", knowledge, levels, 100, 1, tuple(n < won for n in range(of)), 0.0, 0)
    return replace(tried, **changes)


SOUND = [
    _attempt("clean", 0, 1, attack="clean", steps=0, flat=None, kept_by_gate=None),
    _attempt("noise", 4, 1, attack="noise", steps=0, flat=None, kept_by_gate=None),
    _attempt("transfer", 4, 8, attack="PGD-40", steps=0, flat=None, kept_by_gate=None),
    _attempt("white box", 4, 12),
    _attempt("white box", 4, 12, steps=200),
    _attempt("white box", 64, 20),
    _attempt("black box", 4, 4, of=8, attack="Square", flat=None, kept_by_gate=None),
]


def test_sound_attacks_pass_every_check() -> None:
    sanity, missing = sanity_of(SOUND)
    assert not sanity.faulty, [check for check in sanity.checks if not check.passed]
    assert len({check.name for check in sanity.checks}) == 7
    assert missing == [
        "Attacks by gradients on the bundle's own mode (impersonation) were not run, so nothing was checked."
    ]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_attempt("white box", 4, 17, steps=200), "twice the effort"),
        (_attempt("white box", 64, 12), "without a bound"),
        (_attempt("white box", 8, 9), "a larger bound"),
        (_attempt("transfer", 4, 15, attack="MI", steps=0), "who knows more"),
        (_attempt("black box", 4, 8, of=8, attack="Hop"), "who knows more"),
        (_attempt("noise", 4, 6, attack="more noise", steps=0), "noise is no attack"),
        (_attempt("white box", 4, 12, flat=0.4), "gradients have a direction"),
        (_attempt("white box", 4, 12, kept_by_gate=4), "what fools the twin"),
    ],
)
def test_each_fault_is_seen_by_its_own_check(change: Attempt, name: str) -> None:
    same = (change.attack, change.levels, change.steps)
    others = [one for one in SOUND if (one.attack, one.levels, one.steps) != same]
    if name == "who knows more" and change.knowledge == "black box":
        others = [replace(one, won=tuple(reversed(one.won))) for one in others]  # the last pairs were won, not these
    sanity, _ = sanity_of([*others, change])
    failed = {check.name for check in sanity.checks if not check.passed}
    assert any(one.startswith(name) for one in failed), failed


def test_checks_that_could_not_be_made_are_named() -> None:
    _, missing = sanity_of([_attempt("white box", 4, 12)])
    assert any("twice the effort" in words for words in missing)
    assert any("noise is no attack" in words for words in missing)
    assert any("without a bound" in words for words in missing)
