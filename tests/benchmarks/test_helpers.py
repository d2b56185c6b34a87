from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child import python
from common import RESULTS, Options, Target, finish, guarded, parse
from environment import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import cosines, empirical_threshold, genuine_pairs, impostor_pairs
from run_all import readme
from timing import Evictor, compared, timing

from immunogate.errors import UsageError


@pytest.mark.parametrize(
    ("relation", "measured", "met"),
    [
        ("<=", 1.5, True),
        ("<=", 1.6, False),
        ("<", 1.5, False),
        (">=", 1.5, True),
        (">=", 1.4, False),
        ("==", 1.5, True),
    ],
)
def test_a_target_knows_whether_it_was_met(relation: str, measured: float, met: bool) -> None:
    target = Target("speed", relation, 1.5, measured, "x")
    assert target.met is met
    assert target.row().endswith("| met |") is met
    assert (f"missed by {abs(measured - 1.5):.3g} x" in target.row()) is not met


def test_a_quick_run_writes_nothing_unless_told(tmp_path: Path) -> None:
    assert parse("bench_it", "words", ["--quick"]).out is None
    assert parse("bench_it", "words", []).out == RESULTS / "bench_it.json"
    assert parse("bench_it", "words", ["--quick", "--out", str(tmp_path / "a.json")]).out == tmp_path / "a.json"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_missed_target_is_told_and_no_error(tmp_path: Path, capsys: Any, as_json: bool) -> None:
    out = tmp_path / "deeper" / "it.json"
    targets = [Target("speed", ">=", 2.0, 1.0, "x"), Target("memory", "<", 2.0, 1.0, "MB")]
    assert finish("it", Options(False, as_json, out), {"cpu": "some"}, {"a": 1}, targets, "the table") == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    assert [entry["met"] for entry in document["targets"]] == [False, True]
    assert document["environment"] == {"cpu": "some"}
    printed = capsys.readouterr().out
    if as_json:
        assert json.loads(printed) == document
    else:
        assert printed.startswith("the table")
        assert "missed by 1 x" in printed


def test_errors_of_the_user_are_one_line(capsys: Any) -> None:
    def fail() -> int:
        raise UsageError("there is nothing", "Give something")

    assert guarded(fail) == 2
    assert capsys.readouterr().err == "there is nothing. Give something\n"
    assert guarded(lambda: 0) == 0


def test_the_environment_says_where_and_when() -> None:
    found = environment()
    assert found["packages"]["numpy"] == np.__version__
    assert found["cores_usable"] >= 1
    assert found["ram_gib"] > 0.1
    assert len(found["load_average_before"]) == 3
    assert found["cpu"]
    assert found["blas"]
    json.dumps(found, allow_nan=False)


def test_compared_calls_every_function_as_often_and_leaves_warm_ups_out() -> None:
    calls: Counter[str] = Counter()

    def slow_at_first() -> None:
        calls["slow at first"] += 1
        time.sleep(0.05 if calls["slow at first"] == 1 else 0.001)

    functions = {"slow at first": slow_at_first, "slow": lambda: (calls.update(["slow"]), time.sleep(0.004))}
    found = compared(functions, rounds=7, warmups=1, blocks=2, before_each=lambda: calls.update(["before"]))
    assert calls == {"slow at first": 10, "slow": 10, "before": 20}
    assert {entry.rounds for entry in found.values()} == {8}
    assert found["slow"].min_ms >= 4
    assert 1 <= found["slow at first"].median_ms < found["slow"].median_ms
    assert found["slow at first"].p90_ms < 50


def test_timing_is_median_and_spread() -> None:
    found = timing([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.median_ms, found.p10_ms, found.p90_ms, found.min_ms, found.rounds) == (3.0, 1.4, 4.6, 1.0, 5)


def test_the_evictor_makes_reading_slower() -> None:
    small = np.ones(1 << 16, np.float32)  # a quarter of a megabyte stays in a cache unless it is driven out
    warm = compared({"sum": small.sum}, 30)["sum"]
    cold = compared({"sum": small.sum}, 30, before_each=Evictor())["sum"]
    assert cold.median_ms > warm.median_ms


def test_a_child_s_memory_is_its_own() -> None:
    ballast = bytearray(400 << 20)
    ballast[:: 1 << 12] = b"x" * (400 << 8)  # touched: resident in this process
    small = python("-c", "import time; time.sleep(0.2)")
    large = python("-c", "import time; b = bytearray(200 << 20); time.sleep(0.2); print(len(b))")
    assert small.peak_mb < 100
    assert 200 < large.peak_mb < 320
    assert large.stdout == f"{200 << 20}\n"
    assert large.seconds >= 0.2
    assert len(ballast) == 400 << 20


def test_a_child_that_fails_is_quoted() -> None:
    with pytest.raises(RuntimeError, match="ended with 3: so it is"):
        python("-c", "import sys; sys.stderr.write('so it is'); sys.exit(3)")


names = st.lists(st.sampled_from("abcdefgh"), min_size=12, max_size=60).map(np.array)


@given(identities=names, count=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_genuine_pairs_are_different_and_people_take_turns(identities: Any, count: int, seed: int) -> None:
    pairs = genuine_pairs(identities, count, seed)
    sizes = Counter(identities.tolist())
    there = {name: size * (size - 1) // 2 for name, size in sizes.items() if size > 1}
    assert len(pairs) == min(count, sum(there.values()))
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert all(len({left, right}) == 2 for left, right in pairs.tolist())
    assert np.array_equal(identities[pairs[:, 0]], identities[pairs[:, 1]])
    drawn = Counter(identities[pairs[:, 0]].tolist())
    most = max(drawn.values(), default=0)
    assert all(drawn[name] >= min(most - 1, own) for name, own in there.items())
    assert np.array_equal(pairs, genuine_pairs(identities, count, seed))


@given(identities=names.filter(lambda n: len(set(n.tolist())) > 3), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_impostor_pairs_are_different_pairs_of_different_people(identities: Any, seed: int) -> None:
    pairs = impostor_pairs(identities, 5, seed)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs) == 5
    assert np.all(identities[pairs[:, 0]] != identities[pairs[:, 1]])
    assert np.array_equal(pairs, impostor_pairs(identities, 5, seed))


def test_impostors_are_drawn_by_person_not_by_photo() -> None:
    identities = np.array(["many"] * 300 + [f"p{i}" for i in range(100)])
    pairs = impostor_pairs(identities, 2000, 0)
    share = np.mean(np.any(identities[pairs] == "many", axis=1))
    assert share < 0.05  # 2 of 101 people; by photo it would be 0.91


def test_more_impostors_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="at most half of the 3 pairs"):
        impostor_pairs(np.array(["a", "b", "c"]), 2, 0)


@given(
    scores=st.lists(st.floats(-1, 1, width=32), min_size=20, max_size=200, unique=True), fmr=st.sampled_from([0.1, 0.3])
)
@settings(max_examples=60, deadline=None)
def test_the_empirical_threshold_is_the_smallest_that_keeps_the_rate(scores: list[float], fmr: float) -> None:
    impostors = np.array(scores, np.float32)
    threshold = empirical_threshold(impostors, fmr)
    assert np.mean(impostors >= threshold) <= fmr
    assert np.mean(impostors >= np.nextafter(np.float32(threshold), np.float32(-2))) > fmr


def test_cosines_pair_the_rows() -> None:
    embeddings = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(cosines(embeddings, np.array([[0, 0], [0, 1], [2, 2]])), [1, 0, 1])


def test_the_results_page_states_misses_devices_and_quick_runs() -> None:
    document = {
        "benchmark": "bench_it",
        "quick": True,
        "environment": environment(),
        "targets": [{"what": "w", "relation": "<", "limit": 2, "measured": 3, "unit": "ms", "met": False}],
        "measured": {},
    }
    text = readme([document])
    assert "| w | < 2 ms | 3 | missed by 1 ms |" in text
    assert "not for quoting" in text
    assert f"Python {sys.version.split()[0]}, " in text
    assert "not for quoting" not in readme([{**document, "quick": False}])
