from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")  # a package that the settings share needs it
pytestmark = pytest.mark.torch

from immunogate.errors import UsageError  # noqa: E402 - needs torch
from immunogate.training.purifier.settings import PAPER, TrainingSettings, read_settings  # noqa: E402


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_file_and_flags_the_defaults_hold() -> None:
    assert read_settings(None, {}) == TrainingSettings()
    assert read_settings(None, {"steps": None, "clean": None}) == TrainingSettings()


def test_a_file_goes_before_defaults_and_flags_before_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, 'steps = 7\nlearning_rate = 1\nattack = "fgsm"\ngated = false\n')
    found = read_settings(path, {"steps": 9, "seed": None})
    expected = TrainingSettings(steps=9, learning_rate=1, attack="fgsm", gated=False)
    assert found == expected


def test_paper_exact_brings_what_was_published_and_leaves_the_user_s_own(tmp_path: Path) -> None:
    found = read_settings(None, {"paper_exact": True})
    assert all(getattr(found, name) == value for name, value in PAPER.items())
    assert (found.architecture, found.estimator, found.attack, found.clones) == ("paper", "reinforce", "fgsm", 25)
    assert (found.size, found.temperature, found.gated, found.jitter) == (3e-3, 1.0, False, 0.0)
    assert 2 * found.most_eps / 255 == pytest.approx(0.04)
    assert read_settings(written(tmp_path, "paper_exact = true\nclones = 9\n"), {"temperature": 0.5}) == (
        dataclasses.replace(found, clones=9, temperature=0.5)
    )
    assert read_settings(None, {"paper_exact": None}) == TrainingSettings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepps = 3", "no training setting 'stepps'.*warmup_steps"),
        ("[purifier]\nsteps = 3", "no training setting 'purifier'"),
        ("steps = 3.5", "steps must be of type int"),
        ("steps = true", "steps must be of type int"),
        ("clean = true", "clean must be of type float"),
        ("clean = '0.2'", "clean must be of type float"),
        ("gated = 1", "gated must be of type bool"),
        ("paper_exact = 1", "paper_exact must be of type bool"),
        ("attack = 3", "attack must be of type str"),
        ("steps = ", "not TOML"),
        ("steps = 3\nsteps = 4", "not TOML"),
        ("architecture = 'big'", "unknown architecture 'big'.*paper, compact, spectral"),
        ("clean = nan", "clean must be in 0 .. 1, got nan"),
        ("learning_rate = inf", "learning_rate must be in"),
    ],
)
def test_a_file_that_will_not_do(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_settings(written(tmp_path, text), {})


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml"):
        read_settings(tmp_path / "none.toml", {})
    with pytest.raises(UsageError, match="can not be read"):
        read_settings(tmp_path, {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not TOML"):
        read_settings(tmp_path / "bytes.toml", {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rehearsal": "live", "estimator": "reinforce"}, "live rehearsal.*average"),
        ({"hold": True}, "nothing would learn.*adapt"),
        ({"architecture": "none"}, "nothing would learn.*adapt"),
        ({"relation": 1.0, "rehearsal": "average", "estimator": "reinforce"}, "relation compares.*relation = 0"),
        ({"adapt": 1e-4, "rehearsal": "average", "estimator": "reinforce"}, "adapt follows.*adapt = 0"),
        ({"views": 3}, "unknown views 3.*1, 2, 4"),
        ({"clean": 0.6, "adaptive": 0.5}, "0.6.*0.5.*above 1"),
        ({"least_eps": 9.0, "most_eps": 8.0}, "least_eps 9.0 is above most_eps 8.0"),
        ({"least_eps": 3.0, "bare_eps": 2.0}, "least_eps 3.0 is above bare_eps 2.0"),
        ({"steps": 0, "warmup_steps": 0}, "nothing would be trained"),
        *(({name: value}, f"unknown {name} '{value}'")
          for name, value in (("estimator", "mean"), ("rehearsal", "dead"), ("attack", "cw"), ("precision", "fp8"))),
        *(({name: value}, f"{name} must be in")
          for name, value in (("width", 0), ("batch", 1), ("clones", 1), ("steps", -1), ("relaxation", 0.0),
                              ("temperature", 0.0), ("learning_rate", 0.0), ("attack_steps", 0), ("most_eps", 256.0),
                              ("seed", -1), ("seed", 2**63), ("average", 1.1), ("validate_every", 0), ("clean", -0.1),
                              ("validation_share", 0.0), ("jitter", float("nan")), ("shrinkage", 0.0))),
    ],
)  # fmt: skip
def test_values_out_of_range_or_that_do_not_go_together(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainingSettings(**change)


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_shares_of_one_batch_are_accepted_exactly_up_to_all_of_it(clean: float, adaptive: float) -> None:
    if clean + adaptive > 1 + 1e-9:
        with pytest.raises(UsageError):
            TrainingSettings(clean=clean, adaptive=adaptive)
    else:
        TrainingSettings(clean=clean, adaptive=adaptive)
