"""Takes a profile: cold starts, warm-up, runs, what listening costs, limits; and makes one document of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from immunogate import __version__
from immunogate.bundle import Bundle
from immunogate.cli.common import say_runners
from immunogate.cli.profile_limits import limits, on_device
from immunogate.cli.profile_machine import disturbances, environment, resources, sensors
from immunogate.cli.profile_overhead import MOST_ROUNDS, overhead
from immunogate.cli.profile_setup import Setup
from immunogate.cli.profile_starts import cold_starts
from immunogate.errors import UsageError
from immunogate.profiling.document import SCHEMA
from immunogate.profiling.recording import FrameRow, Recording
from immunogate.profiling.summary import run_to_dict, samples_of, summed_stages
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.profile.process_sensors import forced_switches
from immunogate.runtime.profile.recorder import Recorder, nvtx_module
from immunogate.runtime.profile.sampler import Sampler
from immunogate.runtime.profile.session import Told, Until, record
from immunogate.structs import Frame, Pixels

WARM_UP_S = 10.0
"""Longest warm-up."""

NO_LIMITS = "limits are measured for the CPU alone; something of this gate runs on a GPU"
OVERHEAD_S = 5.0
KEPT_FRAMES = 8
"""Frames of the source that what listening costs is measured on."""


@dataclass(frozen=True)
class Plan:
    """How it is measured.

    Attributes:
        duration: seconds of each run.
        runs: how many.
        warm_up: frames before them that do not count.
        starts: cold starts.
        whole: whether what listening costs and the machine's limits are measured too.
        max_frames: of each run; None for no limit.
    """

    duration: float
    runs: int
    warm_up: int
    starts: int
    whole: bool
    max_frames: int | None = None


def take(bundle: Bundle, setup: Setup, plan: Plan) -> tuple[dict[str, Any], list[Recording]]:
    """The document, and the runs behind it.

    Raises:
        ImmunogateError: the gate or the source can not be opened.
        UsageError: the source gives no frames.
    """
    before = environment()
    starts = cold_starts(bundle, setup, plan.starts)
    pictures = setup.pictures()
    with ExitStack() as stack:
        chain = stack.enter_context(setup.open_chain(bundle))
        runners = say_runners(chain, setup.runner)
        warm_up(setup, setup.open_gate(bundle, chain), pictures, plan.warm_up)
        switches = forced_switches()
        runs = [one_run(setup, setup.open_gate(bundle, chain), pictures, plan, turn + 1) for turn in range(plan.runs)]
        if not all(run.frames for run in runs):
            raise UsageError(f"{setup.name()} gave no frames", "Name another --source")
        found = resources(runs, switches)
        disturbed = disturbances(before, runs, found)
        gate = setup.open_gate(bundle, chain, looks="every")
        own = None
        if plan.whole:
            rounds = plan.max_frames or MOST_ROUNDS
            own = overhead(gate, kept_frames(setup, pictures), min(OVERHEAD_S, plan.duration), rounds)
        stages = summed_stages(runs)
        document = {
            "schema": SCHEMA,
            "version": __version__,
            "bundle": {"model_id": bundle.manifest.model_id, "sha256": bundle.sha256},
            "settings": {**settings_of(setup, bundle, chain), **asdict(plan)},
            "environment": {**before, "runners": runners},
            "warnings": [*disturbed, *_scene_warnings(setup, runs), *([NO_LIMITS] if on_device(chain) else [])],
            "stages": stages,
            "cold_start": starts,
            "runs": [run_to_dict(run) for run in runs],
            "resources": found,
            "overhead": own,
            "limits": limits(bundle, chain, setup, runs, stages) if plan.whole else None,
            "samples_ms": samples_of(runs),
        }
    return document, runs


def settings_of(setup: Setup, bundle: Bundle, chain: FaceChain) -> dict[str, Any]:
    """The setup, with what the bundle says where nothing was asked for."""
    used = chain.purifier.settings
    chosen = {"mode": used.mode, "clones": used.clones, "keep": used.keep, "top_k": used.top_k}
    return {
        **setup.to_dict(),
        **chosen,
        "source": setup.name(),
        "size": list(setup.size) if setup.source is None else None,
    }


def warm_up(setup: Setup, gate: Gate, pictures: list[Pixels], frames: int) -> None:
    """Frames that do not count: memory is allocated, caches and clocks come up."""
    if frames:
        with setup.open_camera(pictures) as camera, _bar("warm-up", frames, "frame") as (_, told):
            record(gate, camera, Until(WARM_UP_S, frames), told=told)


def one_run(setup: Setup, gate: Gate, pictures: list[Pixels], plan: Plan, number: int) -> Recording:
    """One run with everything listening."""
    recorder, sampler = Recorder(nvtx_module()), Sampler(sensors())
    with setup.open_camera(pictures) as camera, _bar(f"run {number}", plan.duration, "s") as (_, told):
        return record(
            gate, camera, Until(plan.duration, plan.max_frames), recorder=recorder, sampler=sampler, told=told
        )


def kept_frames(setup: Setup, pictures: list[Pixels]) -> list[Frame]:
    """The first few frames of the source."""
    with setup.open_camera(pictures) as camera:
        return [frame for _, frame in zip(range(KEPT_FRAMES), camera, strict=False)]


def _scene_warnings(setup: Setup, runs: list[Recording]) -> list[str]:
    counts = [row.faces for run in runs for row in run.frames]
    poor = sum(reason in ("poor_face", "error") for run in runs for row in run.frames for reason in row.reasons)
    decided = sum(len(row.tracks) for run in runs for row in run.frames)
    said = []
    if setup.source is None and counts and sorted(counts)[len(counts) // 2] != setup.faces:
        said.append(f"the scene has {setup.faces} faces, {sorted(counts)[len(counts) // 2]} were found in most frames")
    if decided == 0:
        said.append("nobody was decided about: there is no end-to-end time")
    elif poor:
        said.append(f"{poor} of {decided} decisions did not go all the way (poor_face or error)")
    return said


@contextmanager
def _bar(what: str, total: float, unit: str) -> Iterator[tuple[Any, Told]]:
    """A progress bar on stderr where that is a terminal, and what to tell of each frame."""
    from tqdm import tqdm

    bar = tqdm(desc=what, total=total, unit=unit, disable=None, file=sys.stderr, leave=False)
    first: list[int] = []

    def told(row: FrameRow) -> None:
        if not first:
            first.append(row.asked_ns)
        done = (row.ended_ns - first[0]) / 1e9 if unit == "s" else bar.n + 1
        bar.update(min(total, done) - bar.n)

    try:
        yield bar, told
    finally:
        bar.close()
