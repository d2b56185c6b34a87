"""The bundle that ships, on 640x480 frames with one face: frames a second, latency of a frame, memory, size.

A person walks up (the demo's own scene of a public-domain portrait), the portrait is enrolled, and the gate runs as the
command that a user types, on two threads, and inside this process with every face recognised in every frame, which a
gate does not do. No development data is needed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from child import Ran, python
from common import Options, Target, finish, guarded, parse, say
from environment import environment

from immunogate.bundle import Bundle, open_bundle
from immunogate.default_models import default_bundle
from immunogate.demo.portraits import enrolled_person
from immunogate.demo.scene import WalkUp
from immunogate.runtime.chain import open_chain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Gallery
from immunogate.runtime.pipeline import Gate
from immunogate.runtime.track import TrackLimits
from immunogate.structs import Frame

NAME = "bench_default_bundle"
THREADS = 2
FRAMES, PASSES, RUNS = 96, 4, 3
LEAST_FPS, MOST_SPREAD, MOST_MB, MOST_BUNDLE_MB = 30.0, 2.0, 400.0, 25.0
ALWAYS = TrackLimits(eager_looks=sys.maxsize, pause=0.0, recheck=0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse(NAME, __doc__, argv)
    before = environment()
    return finish(NAME, options, before, *measure(options))


def measure(options: Options) -> tuple[dict[str, Any], list[Target], str]:
    """Everything; see the module."""
    bundle = open_bundle(default_bundle())
    frames = 24 if options.quick else FRAMES
    walk = WalkUp(enrolled_person(), frames)
    pictures = [walk.frame(index) for index in range(frames)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery = enrolled(bundle, folder)
        say("inside this process")
        inside = in_process(bundle, gallery, pictures, 1 if options.quick else PASSES)
        say("as a command")
        command = as_command(bundle, gallery, pictures, folder, 1 if options.quick else RUNS)
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    measured = {
        "bundle": {"model_id": bundle.manifest.model_id, "sha256": bundle.sha256, "bytes": size},
        "frames": frames,
        "threads": THREADS,
        "every_face_in_every_frame": inside,
        "command": command,
    }
    frame = inside["frame_ms"]
    targets = [
        Target("default bundle, 640x480, a face in each frame", ">=", LEAST_FPS, inside["frames_per_second"], "fps"),
        Target("default bundle: p99 of a frame against its p50", "<", MOST_SPREAD, frame["p99"] / frame["p50"], "x"),
        Target("default bundle: peak memory of immunogate run", "<=", MOST_MB, max(command["peak_mb"]), "MB"),
        Target("default bundle: size", "<=", MOST_BUNDLE_MB, size / 1e6, "MB"),
    ]  # fmt: skip
    return measured, targets, table(measured)


def enrolled(bundle: Bundle, folder: Path) -> Path:
    """A gallery with the portrait in it, through the command."""
    pictures, gallery = folder / "faces" / "enrolled person", folder / "gallery.db"
    pictures.mkdir(parents=True)
    cv2.imwrite(str(pictures / "portrait.png"), enrolled_person().pixels)
    python("-m", "immunogate", "enroll", "--bundle", bundle.folder, "--gallery", gallery, pictures.parent)
    return gallery


def in_process(bundle: Bundle, gallery: Path, pictures: list[Any], passes: int) -> dict[str, Any]:
    """The gate over the frames, several times, each with new tracks; the first pass warms up and is not counted."""
    limits = bundle.calibration()
    policy = Policy(threshold=limits.at(1e-3).threshold, alarm=limits.alarm)
    with Gallery(gallery, bundle.manifest.embedding_hash()) as opened:
        templates = opened.templates()
    spent, rates, outcomes = [], [], {}
    stages: dict[str, list[float]] = {}
    with open_chain(bundle, threads=THREADS) as chain:
        for number in range(1 + passes):
            gate = Gate(chain, templates, policy, bundle.sha256, ALWAYS)
            begin = time.perf_counter()
            for index, pixels in enumerate(pictures):
                start = time.perf_counter()
                found = gate.process(Frame(pixels, index, time.monotonic_ns(), time.time(), index / 25, "walk-up", 0))
                if number:
                    spent.append(1000 * (time.perf_counter() - start))
                    for stage, value in found.latency_ms.items():
                        stages.setdefault(stage, []).append(value)
                    for decision in found.decisions:
                        outcomes[decision.outcome] = outcomes.get(decision.outcome, 0) + 1
            if number:
                rates.append(len(pictures) / (time.perf_counter() - begin))
    return {
        "frames_per_second": round(float(np.median(rates)), 1),
        "all": [round(rate, 1) for rate in rates],
        "frame_ms": percentiles(spent),
        "stages_ms": {stage: percentiles(values) for stage, values in stages.items()},
        "outcomes": outcomes,
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50 and p99 with the number of samples."""
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "n": len(values)}


def as_command(bundle: Bundle, gallery: Path, pictures: list[Any], folder: Path, runs: int) -> dict[str, Any]:
    """``immunogate run`` on the frames as PNG files."""
    source = folder / "frames"
    source.mkdir()
    for index, pixels in enumerate(pictures):
        cv2.imwrite(str(source / f"{index:04d}.png"), pixels)
    words = ["-m", "immunogate", "run", "--bundle", bundle.folder, "--gallery", gallery, "--source", source]
    words += ["--threads", THREADS, "--json", "--summary", folder / "summary.json"]
    ran: list[Ran] = []
    summaries = []
    for _ in range(runs):
        ran.append(python(*words))
        summaries.append(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    return {
        "frames_per_second": [summary["frames_per_second"] for summary in summaries],
        "outcomes": summaries[0]["outcomes"],
        "peak_mb": [run.peak_mb for run in ran],
    }


def table(measured: dict[str, Any]) -> str:
    """A few lines for people."""
    inside, command = measured["every_face_in_every_frame"], measured["command"]
    row = ", ".join(f"{stage} {ms['p50']:.2f} / {ms['p99']:.2f}" for stage, ms in inside["stages_ms"].items())
    return "\n".join([
        f"{measured['bundle']['model_id']}: {measured['bundle']['bytes'] / 1e6:.1f} MB",
        f"every face in every frame: {inside['frames_per_second']} frames/s, frame p50 / p99 "
        f"{inside['frame_ms']['p50']:.1f} / {inside['frame_ms']['p99']:.1f} ms, {inside['outcomes']}",
        f"  p50 / p99 ms: {row}",
        f"immunogate run: {command['frames_per_second']} frames/s, {command['outcomes']}, {max(command['peak_mb'])} MB",
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(guarded(main))
