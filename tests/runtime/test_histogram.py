from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.runtime.histogram import NAME, StageHistogram
from immunogate.runtime.pipeline import FrameResult
from immunogate.structs import Decision, Faces, Frame

LINE = re.compile(NAME + r'_(bucket|sum|count)\{stage="([^"]*)"(?:,le="([^"]+)")?\} (\S+)')


def read(text: str) -> dict[str, dict[str, float]]:
    """Values by stage, and by ``le``, ``sum`` or ``count``; every line has to be one that Prometheus reads."""
    first, second, *rest = text.splitlines()
    assert first.startswith(f"# HELP {NAME} ")
    assert second == f"# TYPE {NAME} histogram"
    found: dict[str, dict[str, float]] = {}
    for line in rest:
        matched = LINE.fullmatch(line)
        assert matched, line
        kind, stage, bound, value = matched.groups()
        found.setdefault(stage, {})[bound if kind == "bucket" else kind] = float(value)
    return found


def test_buckets_hold_their_upper_end_and_add_up() -> None:
    histogram = StageHistogram((0.01, 0.1))
    for seconds in (0.005, 0.01, 0.0100001, 0.1, 0.5):
        histogram.observe("detect", seconds)
    row = read(histogram.to_text())["detect"]
    assert row == {"0.01": 2, "0.1": 4, "+Inf": 5, "count": 5, "sum": pytest.approx(0.6250001)}
    assert histogram.to_text().endswith("\n")


@given(st.lists(st.floats(0, 100), max_size=60))
def test_counts_rise_from_bucket_to_bucket(values: list[float]) -> None:
    histogram = StageHistogram()
    for value in values:
        histogram.observe("a", value)
    if not values:
        assert histogram.to_text().count("\n") == 2
        return
    row = read(histogram.to_text())["a"]
    counts = [row[name] for name in row if name not in ("sum", "count")]
    assert counts == sorted(counts)
    assert counts[-1] == row["count"] == len(values)
    for name, count in row.items():
        if name not in ("sum", "count", "+Inf"):
            assert count == sum(value <= float(name) for value in values)
    assert row["sum"] == pytest.approx(sum(values))


def test_a_frame_gives_its_stages_and_its_decisions() -> None:
    frame = Frame(np.zeros((2, 2, 3), np.uint8), 0, 0, 0.0, 0.0, "door")
    decision = Decision(
        *("id", "door", 0, 1, "", "", 42.0, "deny", "no_match", None, 0.5, 0.5, None, 0.1, 1, (0, 0, 1, 1), {}, "")
    )
    histogram = StageHistogram()
    histogram.add(FrameResult(frame, Faces.none(), [], [], [decision, decision], {"detect": 3.0, "match": 0.5}))
    found = read(histogram.to_text())
    assert {stage: row["count"] for stage, row in found.items()} == {"detect": 1, "match": 1, "decision": 2}
    assert found["decision"]["sum"] == pytest.approx(0.084)


def test_broken_clocks_and_names_do_no_harm() -> None:
    histogram = StageHistogram()
    for seconds in (float("nan"), float("inf"), -1.0):
        histogram.observe("detect", seconds)
    assert read(histogram.to_text()) == {}
    histogram.observe('a "stage"\n', 0.1)
    assert r'stage="a \"stage\"\n"' in histogram.to_text()


def test_threads_lose_nothing() -> None:
    histogram = StageHistogram()
    threads = [threading.Thread(target=lambda: [histogram.observe("a", 0.01) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(histogram.to_text())["a"]["count"] == 8000


@pytest.mark.parametrize("bounds", [(), (0.1, 0.1), (0.2, 0.1), (0.1, float("inf"))])
def test_bounds_that_do_not_ascend_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        StageHistogram(bounds)
