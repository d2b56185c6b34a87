"""Float16 and int8 against float32: embeddings, accept rates, decisions and genes on people kept back, and CPU time.

The default bundle and one of the real MobileFaceNet (mode fixed) are converted by the command that users type, on
people to learn on; everything is then measured through the deployed chain on others, who had no part in it. Times
are of the recogniser on ONNX Runtime's CPU provider, all networks in turn in one process. No GPU is involved.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from assets import exported_bundle, split_faces
from common import HEADING, Options, Target, finish, guarded, parse, say
from environment import environment
from timing import compared

from immunogate.bundle import Bundle, open_bundle
from immunogate.calib.precision.accuracy import FMR, compare
from immunogate.calib.precision.half import rounded
from immunogate.calib.precision.networks import finished, float_network
from immunogate.calib.threshold import even_out
from immunogate.cli import main as immunogate
from immunogate.cli.commands import save_faces
from immunogate.cli.tapped_chain import RECOGNISER, TappedChain
from immunogate.default_models import default_bundle
from immunogate.errors import UsageError
from immunogate.faces_file import AlignedFaces, identity_split
from immunogate.files import write_whole
from immunogate.runtime.runners.onnx import OnnxRunner

NAME = "bench_precision"
HALVES = (3, 0.5)
"""Seed and share of those kept back whom the default bundle's limits were not measured on either."""

KINDS = {"fp16": ("fp16",), "int8": ("int8",), "int8 for cpu": ("int8", "--for", "cpu")}
BARS = {"fp16": (0.9999, 0.2), "int8": (0.995, 1.0), "int8 for cpu": (0.995, 1.0)}
BATCHES, THREADS = (1, 8), (1, 2)
CALIBRATING, JUDGING, ROUNDS = 64, 120, 24


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse(NAME, __doc__, argv)
    before = environment()
    measured, targets = measure(options)
    text = table(measured)
    if options.out is not None:
        rows = "\n".join(target.row() for target in targets)
        where = f"{before['cpu']}, {before['cores_usable']} cores shared with other work"
        document = (
            f"# Precision\n\nWritten by `python benchmarks/bench_precision.py`, {before['date'][:10]}, {where} "
            f"(load {before['load_average_before'][0]} before), onnxruntime {before['packages']['onnxruntime']}.\n\n"
            f"{text}\n\n{HEADING}\n{rows}\n"
        )
        write_whole(options.out.with_suffix(".md"), lambda path: path.write_text(document, encoding="utf-8"))
    return finish(NAME, options, before, measured, targets, text)


def measure(options: Options) -> tuple[dict[str, Any], list[Target]]:
    """Everything; see the module."""
    learn, kept_back = split_faces()
    assert kept_back.identities is not None
    tested = kept_back.take(identity_split(kept_back.identities, *HALVES)[1])
    assert tested.identities is not None
    tested = tested.take(even_out(tested.identities))
    bundles = {"default": open_bundle(default_bundle())}
    if options.quick:
        learn, tested = learn.take(np.arange(300)), tested.take(np.arange(120))
    else:
        bundles["mobilefacenet"] = exported_bundle()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        faces = Path(name) / "learn.npz"
        save_faces(learn, faces)
        for title, bundle in bundles.items():
            made = {kind: converted(bundle, faces, Path(name) / f"{title}-{kind}", kind, options) for kind in KINDS}
            found[title] = {
                "accuracy": judged(bundle, made, tested),
                "networks": {kind: other.manifest.provenance["precision"] for kind, other in made.items()},
                "times_ms": times(bundle, made, tested, 4 if options.quick else ROUNDS),
            }
    return {"faces": len(tested), "bundles": found}, targets_of(found)


def converted(bundle: Bundle, faces: Path, out: Path, kind: str, options: Options) -> Bundle:
    """By the command. Its own limits are out of the way: what is missed shall be seen."""
    say(f"{bundle.manifest.recogniser.architecture}, {kind}")
    count = (16, 120) if options.quick else (CALIBRATING, JUDGING)
    words = ["calibrate", "precision", bundle.folder, faces, "--out", out, "--to", *KINDS[kind], "--tar-limit", 100]
    words += ["--calibration-faces", count[0], "--judged-faces", count[1], "--threads", 1]
    if options.quick:  # so few faces give worse scales
        words += ["--limit", 0.98]
    with redirect_stdout(sys.stderr):
        status = immunogate([str(word) for word in words])
    if status:
        raise UsageError(f"immunogate calibrate precision ended with {status}")
    return open_bundle(out)


def judged(bundle: Bundle, made: dict[str, Bundle], faces: AlignedFaces) -> dict[str, Any]:
    """Converted bundles against their source.

    Float16 is done by float32 networks that round where a device would, see `half.rounded`: the CPU provider itself
    passes float32 from one node to the next.
    """
    assert faces.identities is not None
    found = {}
    with TappedChain(bundle, 1) as chain:
        say("float")
        before = chain.see(faces.images, "float")
        for kind, other in made.items():
            say(kind)
            with chain.exchanged({role: stand_in(chain, other, role) for role in chain.taps}):
                found[kind] = compare(before, chain.see(faces.images, kind), faces.identities).as_data()
    return found


def stand_in(chain: TappedChain, other: Bundle, role: str) -> bytes:
    """What to judge a converted network by."""
    manifest = other.manifest
    entry = manifest.recogniser if role == RECOGNISER else manifest.analyzer
    assert entry is not None  # the mode uses it
    if entry.precision != "fp16":
        return other.read(entry.file)
    model = float_network(chain.content[role], role)
    kept = {part["node"] for part in manifest.provenance["precision"]["networks"][role]["kept_in_float"]}
    return rounded(model, {node.name for node in model.graph.node} - kept)


def times(bundle: Bundle, made: dict[str, Bundle], faces: AlignedFaces, rounds: int) -> dict[str, Any]:
    """Milliseconds of a run of the recogniser: all networks in turn, twice, so that the ratio has a spread."""
    with TappedChain(bundle, 1) as chain:
        inputs = chain.inputs(faces.images[: max(BATCHES)], "inputs")[RECOGNISER]
    networks = {"float": bundle.read(bundle.manifest.recogniser.file)}
    networks["float, PReLU in one node"] = finished(float_network(networks["float"], "recogniser"))
    networks |= {kind: other.read(other.manifest.recogniser.file) for kind, other in made.items()}
    found: dict[str, Any] = {}
    for threads in THREADS:
        runners = {kind: OnnxRunner(data, kind, threads) for kind, data in networks.items()}
        for batch in BATCHES:
            say(f"{threads} threads, {batch} faces")
            calls = {kind: partial(runner.run, inputs[:batch]) for kind, runner in runners.items()}
            twice = [compared(calls, rounds, blocks=3) for _ in range(2)]
            found[f"{threads} threads, {batch} faces"] = {
                kind: {
                    "runs": [asdict(run[kind]) for run in twice],
                    "speed_up": [round(run["float"].median_ms / run[kind].median_ms, 2) for run in twice],
                }
                for kind in networks
            }
    return found


def targets_of(found: dict[str, Any]) -> list[Target]:
    """Promises against measures."""
    targets = []
    for title, part in found.items():
        for kind, entry in part["accuracy"].items():
            cosine, points = BARS[kind]
            what = f"{title}, {kind}: "
            mean = min(entry["raw"]["mean"], entry["purified"]["mean"])
            targets.append(Target(f"{what}mean cosine with float32", ">=", cosine, mean, ""))
            targets.append(
                Target(f"{what}change of TAR at FMR {FMR:g}", "<", points, abs(entry["tar_lost_points"]), "points")
            )
        for setting, entry in part["times_ms"].items():
            least = min(entry["int8 for cpu"]["speed_up"])
            targets.append(Target(f"{title}, int8 for cpu, {setting}: times as fast as float32", ">=", 1, least, "x"))
    return targets


def table(measured: dict[str, Any]) -> str:
    """Markdown for people."""
    lines = [
        f"{measured['faces']} faces of people who had no part in the conversion.",
        "",
        "| bundle | kind | cosine purified: mean, 1st percentile, least | cosine raw: mean, least | "
        "TAR float, converted | decisions flipped: genuine, impostor | "
        "probabilities: mean and largest change, flipped | kept in float |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, part in measured["bundles"].items():
        for kind, entry in part["accuracy"].items():
            one, raw, genes = entry["purified"], entry["raw"], entry["genes"]
            changed = "none" if not genes else (
                f"{genes['mean_change']:.1e}, {genes['largest_change']:.3f}, {genes['flipped']:.3%}"
            )  # fmt: skip
            kept = {
                r: f"{len(n['kept_in_float'])}/{n['layers']}" for r, n in part["networks"][kind]["networks"].items()
            }
            lines.append(
                f"| {title} | {kind} | {one['mean']:.5f}, {one['worst_percent']:.5f}, {one['least']:.5f} | "
                f"{raw['mean']:.5f}, {raw['least']:.5f} | {entry['tar_float']:.4f}, {entry['tar_converted']:.4f} | "
                f"{entry['genuine_flipped']:.2%}, {entry['impostor_flipped']:.4%} | {changed} | "
                f"{', '.join(f'{role} {count}' for role, count in kept.items())} |"
            )
    lines += [
        "",
        "| bundle | setting | network | median ms (two runs) | times as fast as float |",
        "|---|---|---|---|---|",
    ]
    for title, part in measured["bundles"].items():
        for setting, kinds in part["times_ms"].items():
            for kind, entry in kinds.items():
                medians = ", ".join(f"{run['median_ms']:.2f}" for run in entry["runs"])
                ratios = ", ".join(f"{ratio:.2f}" for ratio in entry["speed_up"])
                lines.append(f"| {title} | {setting} | {kind} | {medians} | {ratios} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
