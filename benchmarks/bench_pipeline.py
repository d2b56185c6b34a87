"""The whole gate on the 480x270 clip of two people: frames a second, latency of each stage, memory, start.

The bundle is real: YuNet, 1000 of 1500 eigenfaces in mode fixed, MobileFaceNet; the man is enrolled from another
clip. The gate runs on two threads a stage. It is measured as the command a user types, and inside this process with
and without decoding; there also with every face recognised in every frame, which a gate does not do (`TrackLimits`).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from assets import CLIP_OF_ONE, CLIP_OF_TWO, data, exported_bundle
from child import Ran, python
from common import Options, Target, finish, guarded, parse, say
from environment import environment

from immunogate.bundle import Bundle
from immunogate.calib.provisional import provisional_calibration
from immunogate.runtime.camera import open_camera
from immunogate.runtime.chain import FaceChain, open_chain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Gallery, Templates
from immunogate.runtime.pipeline import FrameResult, Gate
from immunogate.runtime.track import TrackLimits
from immunogate.structs import Frame

THREADS = 2
ENROLLED = (0, 10, 20, 30, 40, 50)
LEAST_FPS = 25.0
MOST_MB = 500.0
MOST_IMPORT_SECONDS = 0.3
HEAVY = ("torch", "pycuda", "cuda", "cupy", "tensorrt", "onnx", "onnxscript", "matplotlib")
ALWAYS = TrackLimits(eager_looks=sys.maxsize, pause=0.0, recheck=0.0)
IMPORT = "import time; start = time.perf_counter(); import immunogate; print(time.perf_counter() - start)"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_pipeline", __doc__, argv)
    before = environment()
    return finish("bench_pipeline", options, before, *measure(options))


def measure(options: Options) -> tuple[dict[str, Any], list[Target], str]:
    """Everything; see the module."""
    bundle, clip = exported_bundle(), data() / CLIP_OF_TWO
    if bundle.manifest.calibration is None:
        calibration = provisional_calibration(bundle.manifest)
        assert calibration is not None  # this recogniser's limits ship with the package
        bundle = bundle.with_calibration(calibration)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery = enrolled(bundle, folder)
        say("inside this process")
        inside = in_process(bundle, gallery, clip, 2 if options.quick else 9)
        say("as a command")
        command = as_command(bundle, gallery, clip, folder, 1 if options.quick else 5)
    say("start")
    starts = [float(python("-c", IMPORT).stdout) for _ in range(3 if options.quick else 10)]
    measured = {
        "threads": THREADS,
        "in_process": inside,
        "command": command,
        "import_seconds": {"median": round(statistics.median(starts), 4), "all": [round(s, 4) for s in starts]},
    }
    return measured, targets(measured), table(measured)


def enrolled(bundle: Bundle, folder: Path) -> Path:
    """A gallery with the man in it, through the command."""
    pictures, gallery = folder / "faces" / "the man", folder / "gallery.db"
    pictures.mkdir(parents=True)
    with open_camera(str(data() / CLIP_OF_ONE)) as camera:
        for frame in camera:
            if frame.index in ENROLLED:
                cv2.imwrite(str(pictures / f"{frame.index:02d}.png"), frame.pixels)
    python("-m", "immunogate", "enroll", "--bundle", bundle.folder, "--gallery", gallery, pictures.parent)
    return gallery


def in_process(bundle: Bundle, gallery: Path, clip: Path, passes: int) -> dict[str, Any]:
    """The gate over the clip, several times, each with new tracks; the first pass warms up and is not counted."""
    limits = bundle.calibration()
    policy = Policy(threshold=limits.at(1e-3).threshold, alarm=limits.alarm)
    with Gallery(gallery, bundle.manifest.embedding_hash()) as opened:
        templates = opened.templates()
    with open_camera(str(clip)) as camera:
        frames = list(camera)
    found: dict[str, list[dict[str, Any]]] = {
        "decoded before": [],
        "decode included": [],
        "every face, every frame": [],
    }
    with open_chain(bundle, threads=THREADS) as chain:
        for _ in range(1 + passes):
            found["decoded before"].append(one_pass(chain, templates, policy, bundle, map(taken_now, frames)))
            with open_camera(str(clip)) as camera:
                found["decode included"].append(one_pass(chain, templates, policy, bundle, camera))
            every = one_pass(chain, templates, policy, bundle, map(taken_now, frames), ALWAYS)
            found["every face, every frame"].append(every)
    return {name: summed(runs[1:]) for name, runs in found.items()}


def taken_now(frame: Frame) -> Frame:
    """The frame as if the camera had taken it this moment: else a decision on it would be stale."""
    return replace(frame, captured_ns=time.monotonic_ns(), captured_wall=time.time())


def one_pass(
    chain: FaceChain,
    templates: Templates,
    policy: Policy,
    bundle: Bundle,
    frames: Iterable[Frame],
    limits: TrackLimits | None = None,
) -> dict[str, Any]:
    """Frames a second of one pass, and the samples behind the percentiles."""
    gate = Gate(chain, templates, policy, bundle.sha256, limits)
    start = time.perf_counter()
    results: list[FrameResult] = [gate.process(frame) for frame in frames]
    seconds = time.perf_counter() - start
    decisions = [decision for result in results for decision in result.decisions]
    stages: dict[str, list[float]] = {"age": [decision.age_ms for decision in decisions]}
    for result in results:
        for stage, spent in result.latency_ms.items():
            stages.setdefault(stage, []).append(spent)
    return {
        "fps": len(results) / seconds,
        "faces": sum(len(result.faces) for result in results),
        "decisions": len(decisions),
        "allowed": sum(decision.outcome == "allow" for decision in decisions),
        "stages": stages,
    }


def summed(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and spread over the passes; percentiles over all their samples together."""
    rates = [run["fps"] for run in passes]
    latency = {}
    for stage in passes[0]["stages"]:
        samples = np.concatenate([run["stages"][stage] for run in passes])
        p50, p99 = np.percentile(samples, [50, 99])
        latency[stage] = {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "n": len(samples)}
    return {
        "frames_per_second": {"median": round(statistics.median(rates), 1), "all": [round(rate, 1) for rate in rates]},
        **{name: passes[0][name] for name in ("faces", "decisions", "allowed")},
        "latency_ms": latency,
    }


def as_command(bundle: Bundle, gallery: Path, clip: Path, folder: Path, runs: int) -> dict[str, Any]:
    """``immunogate run`` itself: its own summary, its memory, and what it imports."""
    words = ["-m", "immunogate", "run", "--bundle", bundle.folder, "--gallery", gallery, "--source", clip]
    words += ["--threads", THREADS, "--json", "--summary", folder / "summary.json"]
    ran: list[Ran] = []
    summaries: list[dict[str, Any]] = []
    for _ in range(runs):
        ran.append(python(*words))
        summaries.append(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    rates = [summary["frames_per_second"] for summary in summaries]
    middle = min(summaries, key=lambda summary: abs(summary["frames_per_second"] - statistics.median(rates)))
    python(*words, "--realtime")
    live = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    imports = python("-X", "importtime", *words, "--max-frames", 3).stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in imports.splitlines() if "|" in line}
    return {
        "frames_per_second": {"median": statistics.median(rates), "all": rates},
        "whole_command_seconds": [run.seconds for run in ran],
        "peak_mb": [run.peak_mb for run in ran],
        "latency_ms_of_the_median_run": middle["latency_ms"],
        "outcomes": middle["outcomes"],
        "in_real_time": {key: live[key] for key in ("frames", "skipped", "frames_per_second", "latency_ms")},
        "heavy_modules": sorted(modules & set(HEAVY)),
    }


def targets(measured: dict[str, Any]) -> list[Target]:
    """The promises."""
    inside, command = measured["in_process"], measured["command"]
    rates = {f"in process, {name}": found["frames_per_second"]["median"] for name, found in inside.items()}
    rates["immunogate run, decode included"] = command["frames_per_second"]["median"]
    return [
        *(
            Target(f"gate, 480x270, two people: {name}", ">=", LEAST_FPS, rate, "frames/s")
            for name, rate in rates.items()
        ),
        Target("immunogate run: peak memory", "<", MOST_MB, max(command["peak_mb"]), "MB"),
        Target("import immunogate", "<", MOST_IMPORT_SECONDS, measured["import_seconds"]["median"], "s"),
        Target(
            "immunogate run: modules of torch, CUDA, onnx, matplotlib loaded",
            "==",
            0,
            len(command["heavy_modules"]),
            "modules",
        ),
    ]


def table(measured: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = []
    for name, found in measured["in_process"].items():
        rate = found["frames_per_second"]
        lines.append(
            f"{name}: {rate['median']} frames/s ({min(rate['all'])}..{max(rate['all'])}), "
            f"{found['faces']} faces, {found['decisions']} decisions, {found['allowed']} allow"
        )
        row = ", ".join(f"{stage} {ms['p50']:.2f} / {ms['p99']:.2f}" for stage, ms in found["latency_ms"].items())
        lines.append(f"  p50 / p99 ms: {row}")
    command = measured["command"]
    rate = command["frames_per_second"]
    age = command["in_real_time"]["latency_ms"].get("age", {})
    lines += [
        f"immunogate run: {rate['median']} frames/s ({min(rate['all'])}..{max(rate['all'])}), {command['outcomes']}, "
        f"whole command {statistics.median(command['whole_command_seconds']):.2f} s, {max(command['peak_mb'])} MB",
        f"immunogate run --realtime: age p50 {age.get('p50')} ms, p99 {age.get('p99')} ms, "
        f"{command['in_real_time']['skipped']} frames skipped",
        f"import immunogate: {1e3 * measured['import_seconds']['median']:.0f} ms",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
