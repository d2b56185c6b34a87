"""A grid of short profiles: faces, clones, batches, eigenfaces, modes, backends, runners, bundles."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from immunogate import __version__
from immunogate.bundle import Bundle
from immunogate.cli.common import progress
from immunogate.cli.profile_machine import disturbances, environment, resources, sensors
from immunogate.cli.profile_setup import Setup
from immunogate.cli.profile_taking import Plan
from immunogate.errors import UsageError
from immunogate.files import write_whole
from immunogate.profiling.difference import LEAST_SAMPLES
from immunogate.profiling.document import SWEEP_SCHEMA
from immunogate.profiling.quantiles import spread_percent
from immunogate.profiling.recording import AGE, FRAME, NOT_WORK, Recording
from immunogate.profiling.summary import run_to_dict
from immunogate.profiling.sweep import fits, sweep_page
from immunogate.runtime.chain import FaceChain, antibody_settings
from immunogate.runtime.profile.recorder import Recorder
from immunogate.runtime.profile.sampler import Sampler
from immunogate.runtime.profile.session import Until, record
from immunogate.structs import Pixels

NUMBERS = ("faces", "batch", "clones", "top_k", "threads")
WORDS = ("mode", "backend", "runner")
BUNDLE = "bundle"
MOST_POINTS = 500
PART = 0.2
"""Share of a run's duration that each point gets, in each pass."""

WARM_FRAMES = 3
USUAL_FACES = (1, 2, 4, 8)
USUAL_CLONES = (16, 64, 256)
At = dict[str, Any]


def axes_of(words: Sequence[str], setup: Setup, bundles: Sequence[Bundle]) -> dict[str, list[Any]]:
    """The values of each axis, in the order in which they were given.

    Args:
        words: ``NAME=VALUE,VALUE``; an empty one adds faces, and clones in mode select.
        setup: what holds for all points.
        bundles: an axis of their own where there are several.

    Raises:
        UsageError: a word is none of those, or an axis changes nothing.
    """
    axes: dict[str, list[Any]] = {BUNDLE: [str(bundle.folder) for bundle in bundles]} if len(bundles) > 1 else {}
    for word in words:
        if not word:
            axes["faces"] = list(USUAL_FACES)
            if setup.mode == "select":
                axes["clones"] = list(USUAL_CLONES)
            continue
        name, equals, text = word.replace("-", "_").partition("=")
        values = [value.strip() for value in text.split(",")]
        if not equals or name not in (*NUMBERS, *WORDS) or not all(values):
            raise UsageError(
                f"--sweep {word!r} names no axis",
                f"Write NAME=VALUE,VALUE, NAME one of {', '.join((*NUMBERS, *WORDS))}",
            )
        if name in NUMBERS and not all(re.fullmatch(r"\d{1,6}", value) for value in values):
            raise UsageError(f"--sweep {word!r}: {name} takes whole numbers")
        unique = list(dict.fromkeys(values))
        axes[name] = [int(value) for value in unique] if name in NUMBERS else unique
    if not axes:
        raise UsageError("there is nothing to sweep", "Give --sweep faces=1,2,4 or several bundles")
    count = int(np.prod([len(values) for values in axes.values()]))
    if count > MOST_POINTS:
        raise UsageError(f"the grid has {count} points, at most {MOST_POINTS} are measured", "Give fewer values")
    return axes


def sweep(bundles: Sequence[Bundle], setup: Setup, plan: Plan, words: Sequence[str]) -> dict[str, Any]:
    """Measure the grid, ``plan.runs`` times, every second time from its end, and give the document.

    Raises:
        ImmunogateError: a point can not be opened, or changes nothing.
    """
    before, axes = environment(), axes_of(words, setup, bundles)
    by_folder = {str(bundle.folder): bundle for bundle in bundles}
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    for at in grid:
        _check(at, setup, by_folder.get(at.get(BUNDLE, ""), bundles[0]))
    runs: dict[int, list[Recording]] = defaultdict(list)
    scenes: dict[int, list[Pixels]] = {}
    turns = [(turn, place) for turn in range(plan.runs) for place in _order(grid, backwards=turn % 2 == 1)]
    opened = _Opened()
    with opened.stack:
        for _, place in progress(turns, "sweep", len(turns)):
            at = grid[place]
            here = _at(setup, at)
            chain, bundle = opened.chain(here, by_folder.get(at.get(BUNDLE, ""), bundles[0]))
            if here.faces not in scenes:
                scenes[here.faces] = here.pictures()
            runs[place].append(
                _run(here, bundle, chain, scenes[here.faces], Until(plan.duration * PART, plan.max_frames))
            )
    everything = [run for parts in runs.values() for run in parts]
    found = resources(everything, None)
    said = [line for line in disturbances(before, [], found) if line]
    points = [_point(at, runs[place]) for place, at in enumerate(grid)]
    return {
        "schema": SWEEP_SCHEMA,
        "version": __version__,
        "bundles": [bundle.manifest.model_id for bundle in bundles],
        "settings": _settings(setup, plan, axes),
        "environment": before,
        "warnings": [*said, *_unsure(points)],
        "axes": axes,
        "points": points,
        "fits": fits(points, axes),
    }  # fmt: skip


def _settings(setup: Setup, plan: Plan, axes: dict[str, list[Any]]) -> dict[str, Any]:
    """What held for all points."""
    shared = {name: value for name, value in setup.to_dict().items() if name not in axes}
    measured = {
        "rate": 0.0,
        "looks": "every",
        "seconds_of_a_point": round(plan.duration * PART, 3),
        "passes": plan.runs,
    }
    return {**shared, "source": setup.name() if setup.source else None, **measured}


def write_sweep(folder: Path, document: dict[str, Any]) -> None:
    """sweep.json and sweep.html; said on stderr.

    Raises:
        UsageError: the folder can not be written.
    """
    texts = {"sweep.json": json.dumps(document, indent=1, allow_nan=False) + "\n", "sweep.html": sweep_page(document)}
    for name, text in texts.items():
        write_whole(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    print(f"{folder}: {', '.join(texts)}", file=sys.stderr)


class _Opened:
    """The chain of the last point; the next one keeps it where only the scene differs."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self._key: object = None
        self._held: tuple[FaceChain, Bundle] | None = None

    def chain(self, setup: Setup, bundle: Bundle) -> tuple[FaceChain, Bundle]:
        """The chain for a point."""
        key = (replace(setup, faces=0), bundle.sha256)
        if self._held is None or key != self._key:
            self.stack.close()
            self._held = self.stack.enter_context(setup.open_chain(bundle)), bundle
            self._key = key
        return self._held


def _order(grid: list[At], *, backwards: bool) -> Iterator[int]:
    """Points that share a chain after one another."""
    places = sorted(range(len(grid)), key=lambda place: str([v for k, v in grid[place].items() if k != "faces"]))
    return reversed(places) if backwards else iter(places)


def _at(setup: Setup, at: At) -> Setup:
    return replace(setup, rate=0.0, looks="every", **{name: value for name, value in at.items() if name != BUNDLE})


def _check(at: At, setup: Setup, bundle: Bundle) -> None:
    here = _at(setup, at)
    mode = antibody_settings(bundle.manifest.purifier, here.mode, None, here.clones, here.top_k).mode
    for name, needed in (("clones", "select"), ("top_k", "fixed")):
        if name in at and mode != needed:
            raise UsageError(f"{name} changes nothing in mode {mode}", f"Add --mode {needed}")
    if "faces" in at and setup.source is not None:
        raise UsageError("a source has the faces that it has", "Leave --source out to sweep over faces")


def _run(setup: Setup, bundle: Bundle, chain: FaceChain, pictures: list[Pixels], until: Until) -> Recording:
    gate = setup.open_gate(bundle, chain)
    with setup.open_camera(pictures) as camera:
        record(gate, camera, Until(until.seconds, WARM_FRAMES))
        return record(gate, camera, until, recorder=Recorder(), sampler=Sampler(sensors()))


def _point(at: At, runs: list[Recording]) -> dict[str, Any]:
    if not all(run.frames for run in runs):
        raise UsageError(f"the point {at} gave no frames", "Give a longer --duration")
    work = np.concatenate([run.stages[FRAME] for run in runs])
    ages = [run.stages[AGE] for run in runs if AGE in run.stages]
    decided = np.concatenate([[len(row.tracks) for row in run.frames] for run in runs])
    faces = float(np.median(decided))
    stages = {
        name: round(float(np.median(np.concatenate([run.stages[name] for run in runs if name in run.stages]))), 4)
        for name in runs[0].stages
        if "/" not in name and name not in (*NOT_WORK, FRAME)
    }
    middle = round(float(np.median(work)), 4)
    return {
        "at": at,
        "n": len(work),
        "faces": faces,
        "frame_ms": middle,
        "age_ms": round(float(np.median(np.concatenate(ages))), 4) if ages else None,
        "each_face_ms": round(middle / faces, 4) if faces else None,
        "frames_per_second": float(np.mean([run_to_dict(run)["frames_per_second"] for run in runs])),
        "spread_percent": spread_percent([float(np.median(run.stages[FRAME])) for run in runs]),
        "stages_ms": stages,
    }


def _unsure(points: list[dict[str, Any]]) -> list[str]:
    far = [point["spread_percent"] for point in points if (point["spread_percent"] or 0) > 10]
    said = []
    if far:
        said += [f"{len(far)} of {len(points)} points differ by more than 10 % between passes, up to {max(far):.0f} %"]
    few = [point["at"] for point in points if point["n"] < LEAST_SAMPLES]
    if few:
        said += [f"{len(few)} of {len(points)} points have fewer than {LEAST_SAMPLES} frames: give a longer --duration"]
    lost = [point["at"] for point in points if "faces" in point["at"] and point["faces"] != point["at"]["faces"]]
    return said + [f"at {at} another number of faces was decided about" for at in lost]
