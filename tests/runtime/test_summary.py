from __future__ import annotations

import json

import numpy as np
import pytest

from immunogate.runtime import summary as module
from immunogate.runtime.pipeline import FrameResult
from immunogate.runtime.summary import Summary
from immunogate.structs import Decision, Faces, Frame, Outcome


def decision(outcome: Outcome, reason: str, person: str | None, age_ms: float) -> Decision:
    return Decision(
        *("id", "door", 0, 1, "", "", age_ms, outcome, reason, person, 0.5, 0.5, None, 0.1, 1, (0, 0, 1, 1), {}, "")
    )


def result(decisions: list[Decision], latency: dict[str, float], faces: int = 1, skipped: int = 0) -> FrameResult:
    frame = Frame(np.zeros((2, 2, 3), np.uint8), 0, 0, 0.0, 0.0, "door", skipped)
    found = Faces(np.zeros((faces, 4), np.float32), np.zeros((faces, 5, 2), np.float32), np.zeros(faces, np.float32))
    return FrameResult(frame, found, [], [], decisions, latency)


def test_counts() -> None:
    summary = Summary()
    summary.add(result([decision("allow", "match", "ann", 10), decision("deny", "no_match", "bob", 11)], {}, 2, 3))
    summary.add(result([decision("alarm", "disagreement", "ann", 12)], {}, 1, 1))
    summary.add(result([], {}, 0))
    summary.add(result([decision("allow", "match", "ann", 13)], {}, 4))
    data = summary.to_dict()
    assert (data["frames"], data["faces"], data["skipped"], data["decisions"]) == (4, 7, 4, 4)
    assert data["outcomes"] == {"allow": 2, "deny": 1, "alarm": 1}
    assert data["reasons"] == {"match": 2, "no_match": 1, "disagreement": 1}
    assert data["allowed"] == {"ann": 2}
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize("count", [1, 2, 99, 1000])
def test_percentiles(count: int) -> None:
    spent = np.random.default_rng(count).gamma(2, 10, count)
    summary = Summary()
    for value in spent:
        summary.add(result([decision("deny", "no_match", None, 2 * value)], {"detect": value, "align": value / 4}))
    latency = summary.to_dict()["latency_ms"]
    for name, factor in (("detect", 1), ("align", 0.25), ("age", 2)):
        p50, p99 = np.percentile(factor * spent, [50, 99])
        assert latency[name] == {
            "p50": pytest.approx(p50, abs=1e-3),
            "p99": pytest.approx(p99, abs=1e-3),
            "max": pytest.approx(factor * spent.max(), abs=1e-3),
            "n": count,
        }


def test_memory_is_bounded_and_the_newest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 100)
    summary, longest = Summary(), 0
    for value in range(1000):
        summary.add(result([], {"detect": float(value)}))
        longest = max(longest, len(summary._samples["detect"]))
    assert longest <= 100
    row = summary.to_dict()["latency_ms"]["detect"]
    assert row["max"] == 999
    assert row["p50"] > 900
    assert 50 <= row["n"] <= 100
    assert summary.frames == 1000


def test_an_empty_run_can_be_told() -> None:
    text, data = Summary().to_text(), Summary().to_dict()
    assert "0 frames" in text
    assert "decisions: none; allowed: nobody" in text
    assert data["latency_ms"] == {}


def test_the_text_names_outcomes_people_and_stages() -> None:
    summary = Summary()
    summary.add(result([decision("allow", "match", "José", 12.345)], {"detect": 7.25}, skipped=2))
    lines = summary.to_text().splitlines()
    assert "1 frames" in lines[0]
    assert "2 skipped, 1 faces" in lines[0]
    assert lines[1] == "decisions: 1 allow; allowed: José (1)"
    assert [line.split() for line in lines[4:]] == [
        ["age", "12.35", "12.35", "12.35", "1"],
        ["detect", "7.25", "7.25", "7.25", "1"],
    ]
