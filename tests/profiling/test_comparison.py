"""What a comparison of two profiles says: of equal ones, of slower ones, and of noise."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.errors import InputError, UsageError
from immunogate.profiling.bootstrap import interval, ratio_interval, resampled_medians
from immunogate.profiling.difference import compare, difference_to_text
from immunogate.profiling.document import SCHEMA, load_profile
from immunogate.profiling.quantiles import quantiles


def samples(seed: int, factor: float = 1.0, count: int = 300, drift: float = 0.0) -> np.ndarray[Any, Any]:
    """Like a stage's times: skewed, and alike from frame to frame."""
    draw = np.random.default_rng(seed)
    slow = np.repeat(draw.normal(0, 0.2, count // 10 + 1), 10)[:count]
    return factor * (10 + drift + slow + draw.gamma(2, 0.3, count))


def document(factor: float = 1.0, seed: int = 0, count: int = 300, drift: float = 0.0) -> dict[str, Any]:
    parts = {"frame": 1.0, "age": 1.1, "detect": 0.6, "match": 0.01}
    runs = {
        name: [list(share * samples(seed + run, factor, count, drift * run)) for run in range(2)]
        for name, share in parts.items()
    }
    stages = {name: quantiles(np.concatenate(values)) for name, values in runs.items()}
    settings = {"faces": 1, "mode": "expected"}
    return {
        "schema": SCHEMA, "settings": settings, "environment": {"cpu": "one", "processors": 2, "gpu": None},
        "stages": stages, "samples_ms": runs, "runs": [{}, {}], "warnings": [],
    }  # fmt: skip


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {row["stage"]: row["verdict"] for row in found["stages"]}


def test_a_profile_does_not_differ_from_itself_or_from_another_of_the_same() -> None:
    found = compare(document(), document(), 0.05)
    assert set(verdicts(found).values()) == {"no difference"}
    again = compare(document(seed=0), document(seed=100), 0.05)
    assert not again["fails"]
    assert set(verdicts(again).values()) == {"no difference"}


@pytest.mark.parametrize(("factor", "allowed", "fails"), [(1.2, 0.05, True), (1.2, 0.3, False), (0.8, 0.05, False)])
def test_what_is_slower_beyond_what_is_allowed_fails(factor: float, allowed: float, fails: bool) -> None:
    found = compare(document(), document(factor, seed=50), allowed)
    assert found["fails"] is fails
    assert verdicts(found)["frame"] == ("slower" if factor > 1 else "faster")
    text = difference_to_text(found)
    assert ("beyond 5 %" in text) is fails
    assert text.endswith("slower by more than 5 %" if fails else "not slower than allowed")


def test_noise_between_runs_covers_a_difference() -> None:
    quiet = compare(document(), document(1.08, seed=50), 0.05)
    noisy = compare(document(drift=1.5), document(1.08, seed=50, drift=1.5), 0.05)
    assert verdicts(quiet)["frame"] == "slower"
    assert verdicts(noisy)["frame"] == "no difference"
    assert not noisy["fails"]


def test_a_small_stage_alone_does_not_fail_and_few_samples_are_not_compared() -> None:
    after = document()
    after["samples_ms"]["match"] = [[3 * value for value in run] for run in after["samples_ms"]["match"]]
    found = compare(document(), after, 0.05)
    assert verdicts(found)["match"] == "slower"
    assert not found["fails"]
    few = compare(document(count=8), document(5.0, count=8), 0.05)
    assert set(verdicts(few).values()) == {"too few samples"}
    assert not few["fails"]


def test_other_settings_and_machines_are_said() -> None:
    after = copy.deepcopy(document())
    after["settings"]["faces"], after["environment"]["cpu"] = 4, "two"
    after["warnings"] = ["the machine was busy"]
    del after["samples_ms"]["match"]
    found = compare(document(), after, 0.05)
    assert "faces differs: 1 before, 4 after" in found["warnings"]
    assert "another machine: cpu one before, two after" in found["warnings"]
    assert "after: the machine was busy" in found["warnings"]
    assert found["only_before"] == ["match"]
    after["samples_ms"] = {"other": [[1.0]]}
    with pytest.raises(InputError, match="no stage in common"):
        compare(document(), after, 0.05)
    after["samples_ms"] = {"frame": [["fast"]]}
    with pytest.raises(InputError, match="no numbers"):
        compare(document(), after, 0.05)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        low, high = interval(resampled_medians([draw.exponential(1, 200)], seed, 300), 0.9)
        held += low <= np.log(2) <= high
    assert 44 <= held <= 60  # 90 % of 60 is 54


def test_frames_that_are_alike_widen_the_interval() -> None:
    draw = np.random.default_rng(1)
    alone = draw.normal(10, 1, 1000)
    in_groups = np.repeat(draw.normal(10, 1, 100), 10)
    narrow, wide = (np.ptp(interval(resampled_medians([values], 1, 300))) for values in (alone, in_groups))
    assert wide > 1.5 * narrow


def test_a_median_of_zero_has_no_ratio() -> None:
    with pytest.raises(ValueError, match="above 0"):
        ratio_interval([np.zeros(9)], [np.ones(9)])
    with pytest.raises(ValueError, match="at least one sample"):
        resampled_medians([np.zeros(0)], 1)


def test_files_that_are_no_profiles_are_named(tmp_path: Path) -> None:
    newer, bare = '{"schema": "immunogate.profile/9"}', json.dumps({"schema": SCHEMA})
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", newer), ("d.json", bare)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=name):
            load_profile(tmp_path / name)
    with pytest.raises(UsageError, match="can not be read"):
        load_profile(tmp_path / "none.json")
    (tmp_path / "good.json").write_text(json.dumps(document()), encoding="utf-8")
    assert load_profile(tmp_path / "good.json")["settings"]["faces"] == 1
