"""The pages of a profile and of a sweep: whole, with nothing to load or run, and with what they were given."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from immunogate.pages.markup import VOID
from immunogate.profiling.devices import predicted
from immunogate.profiling.drawings import Bar, bars, heat_map
from immunogate.profiling.frames_drawn import distribution, sensors_drawn, slowest_frame, stacked_frames
from immunogate.profiling.recording import Recording
from immunogate.profiling.report_page import profile_page
from immunogate.profiling.roofline import Rates, Work, stage_row
from immunogate.profiling.summary import readings_to_dict, run_to_dict, samples_of, summed_stages
from immunogate.profiling.sweep import fits, sweep_page, sweep_to_text
from immunogate.profiling.text import profile_to_text

Build = Callable[..., Recording]


class Balanced(HTMLParser):
    """Reads a page and fails where elements do not close; keeps its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Balanced:
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert not reader.names & {"script", "iframe", "object"}
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    return reader


def document(runs: list[Recording], **changes: Any) -> dict[str, Any]:
    stages = summed_stages(runs)
    works = [Work("detect", 4.4e6, 370e6), Work("purify", 50e6, 50e6)]
    rates = Rates(20e9, {"fp32": 2e11, "fp16": 2e11, "int8": 8e11})
    top = {"name": "conv 1", "operator": "Conv", "ms": 0.5, "share": 0.4, "macs": 10, "output": [1, 2]}
    layers = {"runs": 3, "layers": 1, "sum_ms": 1.0, "top": [top]}
    machine = {"triad_gb_s": 18.0, "read_gb_s": 20.0, "bandwidth_gb_s": 20.0, "sgemm_gflops": 190.0,
               "product_gflops": 200.0, "gflops": 200.0, "threads": 2}  # fmt: skip
    return {
        "version": "0", "bundle": {"model_id": "<b>gate</b>", "sha256": "0" * 64}, "warnings": [],
        "settings": {"source": "a scene", "mode": "expected", "runner": "cpu", "backend": "cpu"},
        "environment": {"cpu": "a cpu", "processors": 2, "ram_gb": 8.0, "gpu": None, "load_average": [0.1], "os": "x",
                        "python": "3", "packages": {}, "board": {"power_mode": None}, "date": "today"},
        "stages": stages, "runs": [run_to_dict(run) for run in runs], "samples_ms": samples_of(runs),
        "resources": {**readings_to_dict(runs), "gpu_c": None},
        "cold_start": {"n": 2, "parts_ms": {"imports": {"median": 99.5, "min": 98.0, "max": 101.0}}},
        "overhead": {"frames": 9, "percent": 0.1, "interval_percent": [-0.2, 0.4], "cpu_percent": 0.2,
                     "cpu_interval_percent": [-0.3, 0.5], "spans_per_frame": 30.0,
                     "span_us": 0.8, "counted_percent": 0.1},
        "limits": {"machine": machine, "faces": 2, "predicted": predicted(works),
                   "stages": [stage_row(work, rates, stages[work.stage]["p50"]) for work in works],
                   "networks": {"detector": {"macs": 10, "weight_bytes": 99, "slowest_layers": layers}}},
        **changes,
    }  # fmt: skip


def test_the_page_is_whole_and_says_what_was_measured(build: Build) -> None:
    runs = [build(frames=40), build(frames=40, slower=1.3)]
    found = document(runs)
    shown = read(profile_page(found, runs))
    for words in ("<b>gate</b>", "Nothing disturbed the runs", "Prediction, not a measurement", "n<100", "99.5",
                  "Orin Nano Super", "conv 1", "The slowest frame", "recognise", "gpu_c", "rss_mb"):  # fmt: skip
        assert words in shown.text or words == "rss_mb", words
    assert f"{found['stages']['age']['p50']:.2f}" in shown.text
    bare = document(runs, cold_start=None, limits=None, overhead=None, warnings=["the machine was busy"])
    again = read(profile_page(bare, runs))
    assert "the machine was busy" in again.text
    assert "predicted" not in again.text


def test_the_same_for_a_terminal(build: Build) -> None:
    runs = [build(frames=40)]
    text = profile_to_text(document(runs, warnings=["the machine was busy"]))
    for words in ("n<100", "imports", "18.0 GB/s (triad)", "nothing of it was measured", "warning: the machine was",
                  "not told by this machine: gpu_w, gpu_c", "+0.10 % of a frame"):  # fmt: skip
        assert words in text, words


def test_a_profile_in_which_nobody_was_decided_has_a_page(build: Build) -> None:
    run = build(frames=5)
    empty = Recording(run.spans, [row._replace(tracks=(), ages_ms=(), outcomes=(), reasons=(), faces=0)
                                  for row in run.frames], run.readings, run.threads, run.seconds)  # fmt: skip
    shown = read(profile_page(document([empty], limits=None), [empty]))
    assert "nobody decided" in shown.text


def test_drawings_show_every_stage_in_its_place(build: Build) -> None:
    runs = [build(frames=20), build(frames=20, slower=2)]
    stacked = stacked_frames(runs)
    for words in ("p50, frame", "p99, frame", "slowest, frame", "detect: ", "recognise: ", "between stages: "):
        assert words in stacked, words
    assert "network: " not in stacked  # parts are contained in their stage
    timeline = slowest_frame(runs)
    for words in ("pick-up", "decode (camera)", "detect/network", "decide"):
        assert f">{words}<" in timeline, words
    assert distribution(runs).count('class="line') >= 4
    assert len(sensors_drawn(runs)) == 1


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    drawing = bars("d", "ms", {"a": [Bar(0, 10, "first", 0), Bar(10, 20, "second", 1)]})
    rects = [
        tuple(map(float, found)) for found in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawing)
    ]
    assert rects[1][1] == pytest.approx(2 * rects[0][1], rel=0.01)
    assert rects[1][0] == pytest.approx(rects[0][0] + rects[0][1], abs=0.1)


def point(faces: int, clones: int, ms: float) -> dict[str, Any]:
    return {"at": {"faces": faces, "clones": clones}, "n": 30, "faces": float(faces), "frame_ms": ms, "age_ms": ms + 1,
            "each_face_ms": ms / faces, "frames_per_second": 1000 / ms, "spread_percent": 1.5,
            "stages_ms": {"detect": 5.0}}  # fmt: skip


def test_a_sweep_is_fitted_and_drawn() -> None:
    axes = {"faces": [1, 2, 4], "clones": [16, 64]}
    points = [
        point(faces, clones, 8 + faces * (5 + clones / 16)) for faces in axes["faces"] for clones in axes["clones"]
    ]
    found = fits(points, axes)
    assert [(fit["at"], fit["frame_ms"], fit["each_face_ms"]) for fit in found] == [
        ({"clones": 16}, 8, 6),
        ({"clones": 64}, 8, 9),
    ]
    assert fits(points, {"faces": [1, 2], "clones": [16, 64]}) == []
    whole = {"bundles": ["gate"], "axes": axes, "points": points, "fits": found, "warnings": ["busy"], "version": "0",
             "settings": {"looks": "every"},
             "environment": {"cpu": "c", "processors": 2, "gpu": None, "date": "d"}}  # fmt: skip
    shown = read(sweep_page(whole))
    for words in ("Heat map", "clones 64", "faces 4", "Against faces", "Against clones", "busy", "44.0"):
        assert words in shown.text, words
    text = sweep_to_text(whole)
    assert "clones 64: a frame costs 8.00 ms and each face 9.00 ms more" in text
    assert "warning: busy" in text


def test_a_heat_map_leaves_out_what_was_not_measured() -> None:
    drawing = heat_map("d", ["a", "b"], ["c"], {(0, 0): 3.0})
    assert drawing.count("<rect") == 1
