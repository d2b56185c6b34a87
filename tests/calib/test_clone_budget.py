from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.calib.clone_budget import Setting, Tried, alike, choose, on_front, settings_of
from immunogate.calib.curves import Rate
from immunogate.calib.intervals import wilson
from immunogate.errors import ImmunogateError, UsageError
from immunogate.kernels.antibody import MODES
from immunogate.manifest import PurifierEntry

ENTRY = PurifierEntry("basis.npz", 1000, "int8", "expected", 800, 64, 4, 0)


def rate(accepted: int, of: int = 24) -> Rate:
    return Rate(accepted, of, accepted / of, *wilson(accepted, of))


def tried(mode: str, p99: float, adaptive: int | None = None, replayed: int = 12, clean: int = 18) -> Tried:
    setting = Setting(mode, 16 if mode == "select" else 0, 1, 1000)
    attacked = None if adaptive is None else rate(adaptive)
    return Tried(setting, p99 / 2, p99, 50, 0.5, rate(clean), rate(replayed), attacked)


def test_every_mode_has_its_settings() -> None:
    found = settings_of(ENTRY, True)
    assert [setting.components for setting in found if setting.mode == "fixed"] == [250, 500, 750, 800, 1000]
    assert {setting.mode for setting in found} == set(MODES)
    drawn = [(setting.clones, setting.keep) for setting in found if setting.mode == "select"]
    assert (1000, 8) in drawn
    assert len(set(drawn)) == len(drawn) == 20
    assert all(keep <= clones for clones, keep in drawn)
    assert [setting.is_random for setting in found] == sorted(setting.is_random for setting in found)
    assert {setting.mode for setting in settings_of(ENTRY, False)} == {"fixed"}


def test_a_setting_goes_into_the_purifier() -> None:
    assert Setting("fixed", 0, 1, 500).entry(ENTRY).top_k == 500
    changed = Setting("select", 256, 8, 1000).entry(ENTRY)
    assert (changed.mode, changed.clones, changed.keep, changed.top_k) == ("select", 256, 8, 800)
    assert Setting("expected", 0, 1, 1000).entry(ENTRY) == ENTRY


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modes": ["best"]}, "unknown mode 'best'"),
        ({"clones": [0]}, "--clones must be in 1 .. 4096, got 0"),
        ({"kept": [5000]}, "--kept"),
        ({"components": [1001]}, "--components must be in 1 .. 1000"),
        ({"modes": ["select"], "clones": [1], "kept": [4]}, "no setting is left"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings_of(ENTRY, True, **options)


def test_a_mode_without_its_analyzer_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="needs an analyzer"):
        settings_of(ENTRY, False, ["expected"])


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_front_is_what_nobody_beats(points: list[tuple[int, int]]) -> None:
    made = [tried("expected", time, held) for time, held in points]
    for (time, held), best in zip(points, on_front(made), strict=True):
        beaten = any((t <= time and h > held) or (t < time and h >= held) for t, h in points)
        assert best == (not beaten)


def test_the_most_robust_within_the_budget_is_chosen() -> None:
    slow, quick, poor = tried("expected", 30, 20), tried("threshold", 10, 9), tried("fixed", 5, 4)
    assert choose([slow, quick, poor], 40, was_attacked=True) is slow
    assert choose([slow, quick, poor], 29, was_attacked=True) is quick
    assert choose([slow, quick, poor], 9, was_attacked=True) is poor
    equal = tried("fixed", 8, 9)
    assert choose([quick, equal], 40, was_attacked=True) is equal


def test_a_budget_that_nothing_meets_names_the_fastest() -> None:
    with pytest.raises(ImmunogateError, match="the fastest is threshold with p99 10"):
        choose([tried("expected", 30, 20), tried("threshold", 10, 9)], 9.9, was_attacked=True)


def test_drawn_clones_have_to_be_clearly_better() -> None:
    plain, little, much = tried("expected", 10, 4), tried("select", 10, 6), tried("select", 10, 20)
    assert choose([plain, little], 20, was_attacked=True) is plain
    assert choose([plain, little, much], 20, was_attacked=True) is much
    assert choose([little], 20, was_attacked=True) is little, "where there is nothing else"


def test_without_an_adaptive_attack_nothing_that_draws_is_chosen() -> None:
    plain, drawing = tried("fixed", 10, None, 5), tried("select", 10, None, 24)
    assert choose([plain, drawing], 20, was_attacked=False) is plain
    with pytest.raises(ImmunogateError, match="only modes that draw clones meet the budget"):
        choose([drawing], 20, was_attacked=False)


def test_who_can_not_be_told_apart_is_said() -> None:
    best, near, far, slow = (tried("expected", 10, 12), tried("fixed", 9, 10), tried("fixed", 8, 1),
                             tried("select", 50, 12))  # fmt: skip
    assert alike([best, near, far, slow], best, 20) == [near]
