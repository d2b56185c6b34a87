"""The trace, the table of frames and trtexec's times, from one recording."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from immunogate.profiling.chrome_trace import FLOW, chrome_trace
from immunogate.profiling.recording import Recording
from immunogate.profiling.summary import MOST_SAMPLES, readings_to_dict, run_to_dict, samples_of, summed_stages
from immunogate.profiling.tables import COLUMNS, frames_csv, trtexec_times

Build = Callable[..., Recording]

NEEDED = {
    "X": {"name", "ts", "dur", "pid", "tid"},
    "M": {"name", "pid", "args"},
    "C": {"name", "ts", "pid", "args"},
    "s": {"name", "cat", "id", "ts", "pid", "tid"},
    "t": {"name", "cat", "id", "ts", "pid", "tid"},
    "f": {"name", "cat", "id", "ts", "pid", "tid", "bp"},
}
"""What each kind of event has to have by the Trace Event Format."""


def test_the_trace_keeps_to_the_format(build: Build) -> None:
    trace = json.loads(json.dumps(chrome_trace([build(), build()], "a gate"), allow_nan=False))
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    events: list[dict[str, Any]] = trace["traceEvents"]
    for event in events:
        assert NEEDED[event["ph"]] <= set(event), event
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0
    names = {(event["name"], event["args"]["name"]) for event in events if event["ph"] == "M"}
    assert names == {("process_name", "a gate"), ("thread_name", "camera"), ("thread_name", "MainThread")}
    counters = [event for event in events if event["ph"] == "C"]
    assert {event["name"] for event in counters} == {"rss_mb"}  # the sensor that told nothing has no track


def test_every_face_is_followed_from_the_cameras_thread_to_its_decision(build: Build) -> None:
    events = chrome_trace([build(frames=3)], "a gate")["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in "stf":
            flows[event["id"]].append(event)
    assert len(flows) == 6  # two faces in each of three frames
    for stops in flows.values():
        assert [stop["ph"] for stop in stops] == ["s", *["t"] * (len(FLOW) - 2), "f"]
        assert [stop["ts"] for stop in stops] == sorted(stop["ts"] for stop in stops)
        assert len({stop["tid"] for stop in stops}) == 2
        for stop, stage in zip(stops, FLOW, strict=True):
            within = [
                one["name"] for one in slices
                if one["tid"] == stop["tid"] and one["ts"] <= stop["ts"] <= one["ts"] + one["dur"]
            ]  # fmt: skip
            assert stage in within


def test_a_row_for_every_frame_and_stage(build: Build) -> None:
    run = build(frames=4)
    rows = list(csv.DictReader(io.StringIO(frames_csv([run, run]))))
    assert tuple(rows[0]) == COLUMNS
    stages = {
        "wait",
        "pick-up",
        "frame",
        "decode",
        "detect",
        "detect/network",
        "purify",
        "recognise",
        "match",
        "decide",
    }
    assert {(row["run"], row["frame"], row["stage"]) for row in rows} == {
        (str(number), str(frame), stage) for number in (1, 2) for frame in range(4) for stage in stages
    }
    assert len(rows) == 2 * 4 * len(stages)
    for stage in ("detect", "frame"):
        told = [float(row["ms"]) for row in rows if row["stage"] == stage and row["run"] == "1"]
        assert told == pytest.approx(list(run.stages[stage]), abs=1e-4)


def test_times_are_as_trtexec_writes_them(build: Build) -> None:
    entries = trtexec_times([build(frames=5)])
    assert len(entries) == 5
    keys = "startEnqMs endEnqMs startH2dMs endH2dMs startComputeMs endComputeMs startD2hMs endD2hMs "
    keys += "h2dMs computeMs d2hMs latencyMs"
    for entry, row in zip(entries, build(frames=5).frames, strict=True):
        assert list(entry) == keys.split()
        for part in ("H2d", "Compute", "D2h"):
            length = entry[f"{part[0].lower()}{part[1:]}Ms"]
            assert entry[f"end{part}Ms"] - entry[f"start{part}Ms"] == pytest.approx(length, abs=1e-5)
        assert entry["h2dMs"] + entry["computeMs"] + entry["d2hMs"] == pytest.approx(entry["latencyMs"], abs=1e-5)
        assert entry["latencyMs"] == pytest.approx(row.ages_ms[0], abs=1e-5)
    assert entries[1]["startH2dMs"] - entries[0]["startH2dMs"] == pytest.approx(40)


def test_the_summary_adds_up(build: Build) -> None:
    fast, slow = build(frames=50), build(frames=50, slower=1.2)
    stages = summed_stages([fast, slow])
    assert list(stages)[:4] == ["age", "wait", "pick-up", "frame"]
    assert list(stages)[4:7] == ["decode", "detect", "detect/network"]
    assert stages["age"]["n"] == 200
    assert stages["detect"]["n"] == 100
    assert stages["detect"]["spread_percent"] == pytest.approx(18.2, abs=0.3)
    run = run_to_dict(fast)
    assert (run["frames"], run["faces"], run["decisions"]) == (50, 100, 100)
    assert run["outcomes"] == {"deny": 100}
    assert run["frames_per_second"] == 25
    assert run["capacity_frames_per_second"] == pytest.approx(1000 / fast.stages["frame"].mean(), abs=0.01)
    assert run["interval_ms"]["p50"] == 40
    frames = [row._replace(skipped=place + 5) for place, row in enumerate(fast.frames[:3])]
    lossy = Recording(fast.spans, frames, seconds=0.12)
    assert run_to_dict(lossy)["skipped"] == 13  # not those before the first frame, when nobody looked yet
    assert readings_to_dict([fast]) == {"rss_mb": {"mean": 201.5, "min": 200.0, "max": 203.0}, "gpu_w": None}


def test_kept_samples_are_thinned_in_their_order(build: Build) -> None:
    kept = samples_of([build(frames=1500, slower=0.5)])
    assert len(kept["detect"][0]) == MOST_SAMPLES
    assert len(samples_of([build(frames=10)])["detect"][0]) == 10
