"""What an evaluation keeps: it comes back whole, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.calib.robustness import memory as module
from immunogate.calib.robustness.memory import SEARCH, STATE, Memory
from immunogate.errors import InputError, UsageError

ASKED = {"bundle": "a" * 64, "seed": 0, "choice of tiers": ["adaptive"]}


def _arrays(value: float) -> dict[str, Any]:
    return {"point": np.full((2, 3), value, np.float32), "lost": np.array([True, False]), "clock": np.array(4)}


def test_jobs_and_searches_come_back(tmp_path: Path) -> None:
    kept = Memory(tmp_path, ASKED)
    kept.begin("first")
    kept.finish("first", {"rows": [1, 2]})
    kept.begin("second")
    kept.keep("a name", _arrays(1))
    kept.keep("a name found", _arrays(2), replaces="a name")
    kept.keep("another", _arrays(3))
    kept.save()
    again = Memory(tmp_path, ASKED, resume=True)
    assert again.done("first") == {"rows": [1, 2]}
    assert again.done("second") is None
    again.begin("second")
    assert again.arrays("a name") is None
    for name, value in (("a name found", 2), ("another", 3)):
        found = again.arrays(name)
        assert found is not None
        for key, array in _arrays(value).items():
            assert np.array_equal(found[key], array)
            assert found[key].dtype == array.dtype


def test_searches_of_another_job_are_forgotten(tmp_path: Path) -> None:
    kept = Memory(tmp_path, ASKED)
    kept.begin("first")
    kept.keep("exact", _arrays(1))
    kept.save()
    kept.begin("second")
    assert kept.arrays("exact") is None
    kept.finish("second", {})
    assert not (tmp_path / SEARCH).exists()


@pytest.mark.parametrize(("name", "value"), [("bundle", "b" * 64), ("seed", 1), ("choice of tiers", []), ("new", 1)])
def test_another_evaluation_is_refused_by_name(tmp_path: Path, name: str, value: Any) -> None:
    Memory(tmp_path, ASKED)
    with pytest.raises(UsageError, match=f"with another {name}"):
        Memory(tmp_path, {**ASKED, name: value}, resume=True)


def test_nothing_is_overwritten_and_nothing_is_made_up(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to go on with"):
        Memory(tmp_path, ASKED, resume=True)
    Memory(tmp_path, ASKED)
    with pytest.raises(UsageError, match="--resume"):
        Memory(tmp_path, ASKED)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"asked": ASKED})])
def test_a_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        Memory(tmp_path, ASKED, resume=True)


def test_a_search_that_is_not_the_one_saved_is_begun_anew(tmp_path: Path) -> None:
    kept = Memory(tmp_path, ASKED)
    kept.begin("job")
    kept.keep("exact", _arrays(1))
    kept.save()
    with (tmp_path / SEARCH).open("ab") as stream:
        stream.write(b"more")
    again = Memory(tmp_path, ASKED, resume=True)
    again.begin("job")
    assert again.arrays("exact") is None


def test_a_search_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Memory(tmp_path, ASKED)
    kept.begin("job")
    kept.keep("exact", _arrays(1))
    assert not (tmp_path / SEARCH).exists()
    monkeypatch.setattr(module, "EVERY", 0.0)
    kept.keep("exact", _arrays(2))
    again = Memory(tmp_path, ASKED, resume=True)
    again.begin("job")
    found = again.arrays("exact")
    assert found is not None
    assert found["point"][0, 0] == 2
