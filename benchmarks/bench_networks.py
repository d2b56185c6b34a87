"""Every network as torch's exporter gives it against the same as export gives it: time on the CPU, top operators.

Weights are random (time does not depend on them) and so are the slopes of PReLUs, one for each channel as training
leaves them. Both forms run in turn in one process, and each turn gives a ratio, of which median, 10th and 90th
percentile are told: other work on the machine meets both. Networks in which nothing is written otherwise are only
profiled: those that ship, and YuNet where the development data is. Shares of operators are of ONNX Runtime's own
profiler, one thread, one face or one picture of 480 x 640.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from common import HEADING, Options, Target, finish, guarded, parse, say
from environment import environment
from torch import nn

from immunogate.default_models import default_bundle
from immunogate.export.onnx_graph import graph_of, portable_yunet, traced
from immunogate.files import find_data, write_whole
from immunogate.graphs.rectifiers import without_prelu
from immunogate.networks.purifier import Purifier
from immunogate.networks.recognisers import recogniser_spec
from immunogate.networks.twin import UnitEmbedding
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import CROP_SIZE, Floats

NAME = "bench_networks"
THREADS, BATCHES = (1, 2), (1, 8)
SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 4.0, 5, 60
COMPONENTS = 1500
PICTURE = (480, 640)
TOP = 3
LEAST_GAIN, LARGEST_CHANGE = 1.2, 1e-5
YUNET = "models/face_detection_yunet_2023mar.onnx"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse(NAME, __doc__, argv)
    before = environment()
    measured = measure(options)
    text = table(measured)
    goals = targets(measured)
    if options.out is not None:
        rows = "\n".join(goal.row() for goal in goals)
        where = f"{before['cpu']}, {before['cores_usable']} cores shared with other work"
        document = (
            f"# Networks\n\nWritten by `python benchmarks/bench_networks.py`, {before['date'][:10]}, {where} "
            f"(load {before['load_average_before'][0]} before), onnxruntime {before['packages']['onnxruntime']}.\n\n"
            f"{text}\n\n{HEADING}\n{rows}\n"
        )
        write_whole(options.out.with_suffix(".md"), lambda path: path.write_text(document, encoding="utf-8"))
    return finish(NAME, options, before, measured, goals, text)


def measure(options: Options) -> dict[str, Any]:
    """Everything; see the module."""
    return {
        "written_otherwise": {name: both_forms(name, make, options) for name, make in made(options.quick).items()},
        "as_they_are": {name: top_operators(model) for name, model in there(options.quick).items()},
    }


def made(quick: bool) -> dict[str, Callable[[], tuple[nn.Module, tuple[int, ...], str, str]]]:
    """Networks with PReLUs, and what `graph_of` has to know of them."""
    found: dict[str, Callable[[], Any]] = {
        "compact analyzer": partial(analyzer, "compact"),
        "MobileFaceNet": partial(recogniser, "mobilefacenet"),
        "paper's analyzer": partial(analyzer, "paper"),
        "IR-50": partial(recogniser, "ir50"),
    }
    return dict(list(found.items())[:1]) if quick else found


def analyzer(architecture: str) -> tuple[nn.Module, tuple[int, ...], str, str]:
    """An antibody network that reads faces."""
    network = Purifier(COMPONENTS, architecture=architecture)
    return with_slopes(network), (1, CROP_SIZE, CROP_SIZE), "face", "probabilities"


def recogniser(architecture: str) -> tuple[nn.Module, tuple[int, ...], str, str]:
    """A recogniser with embeddings of unit length."""
    spec = recogniser_spec(architecture)
    return with_slopes(UnitEmbedding(spec.build())), (3, spec.height, spec.width), "face", "embedding"


def with_slopes(network: nn.Module) -> nn.Module:
    """The network with other slopes for each channel, some of them negative and some above 1."""
    draw = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            module.weight.data = torch.rand(module.weight.shape, generator=draw) * 2 - 0.5
    return network.eval()


def there(quick: bool) -> dict[str, bytes]:
    """Networks without any PReLU."""
    names = {"detector that ships": "detector.onnx"}
    if not quick:
        names |= {"recogniser that ships (GateFace)": "recogniser.onnx", "analyzer that ships": "analyzer.onnx"}
    found = {title: (default_bundle() / name).read_bytes() for title, name in names.items()}
    data = find_data()
    if data is not None and not quick:
        found["YuNet"] = portable_yunet(data / YUNET).SerializeToString()
    return found


def both_forms(
    name: str, make: Callable[[], tuple[nn.Module, tuple[int, ...], str, str]], options: Options
) -> dict[str, Any]:
    """Times, top operators, and how far the outputs are from each other."""
    say(name)
    torch.manual_seed(0)
    network, shape, source, result = make()
    first = traced(network, shape, source, result)
    models = {"before": first.SerializeToString(), "after": without_prelu(first).SerializeToString()}
    if options.quick:  # that export does the same is worth its time once
        assert graph_of(network, shape, source, result).SerializeToString() == models["after"]
    faces = np.random.default_rng(0).uniform(-1, 1, (max(BATCHES), *shape)).astype(np.float32)
    found: dict[str, Any] = {"top": {form: top_operators(model) for form, model in models.items()}, "times": {}}
    for threads in THREADS:
        runners = {form: OnnxRunner(model, f"{name}, {form}", threads) for form, model in models.items()}
        for batch in BATCHES:
            times = in_turn({form: partial(one.run, faces[:batch]) for form, one in runners.items()}, options.quick)
            found["times"][f"{threads} threads, {batch} faces"] = times
        before, after = (runner.run(faces)[result] for runner in runners.values())
        found["largest_change"] = float(np.abs(before - after).max())
        for runner in runners.values():
            runner.close()
    return found


def in_turn(calls: dict[str, Callable[[], object]], quick: bool) -> dict[str, Any]:
    """Milliseconds of both, and median, 10th and 90th percentile of the ratio of neighbours."""
    first = sum(spent(call) + spent(call) for call in calls.values()) / 2  # milliseconds; the first run of all is slow
    rounds = 2 if quick else int(np.clip(SECONDS * 1e3 / first, LEAST_ROUNDS, MOST_ROUNDS))
    times = np.array([[spent(call) for call in calls.values()] for _ in range(rounds)])
    medians = dict(zip(calls, (round(float(value), 3) for value in np.median(times, axis=0)), strict=True))
    ratio = [round(float(value), 2) for value in np.percentile(times[:, 0] / times[:, 1], [10, 50, 90])]
    return {"rounds": rounds, "median_ms": medians, "ratio": dict(zip(("p10", "median", "p90"), ratio, strict=True))}


def spent(call: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def top_operators(model: bytes, runs: int = 9) -> dict[str, float]:
    """The share of each of the operators that take most time; of a node, the median of several runs."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, {session.get_inputs()[0].name: example(session.get_inputs()[0].shape)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event["name"].endswith("_kernel_time"):
            nodes.setdefault((event["name"], event["args"]["op_name"]), []).append(event["dur"])
    shares: Counter[str] = Counter()
    for (_, operator), durations in nodes.items():
        shares[operator] += float(np.median(durations))
    whole = sum(shares.values())
    return {operator: round(share / whole, 3) for operator, share in shares.most_common(TOP)}


def example(shape: Sequence[int | str]) -> Floats:
    """One face, or one picture where height and width are free."""
    free = iter((1, *PICTURE) if isinstance(shape[0], str) else PICTURE)
    sides = [side if isinstance(side, int) else next(free) for side in shape]
    return np.random.default_rng(0).uniform(-1, 1, sides).astype(np.float32)


def targets(measured: dict[str, Any]) -> list[Target]:
    """Promises against measures."""
    found = []
    for name, entry in measured["written_otherwise"].items():
        least = min(times["ratio"]["median"] for times in entry["times"].values())
        what = f"{name}, PReLU written out"
        found.append(Target(f"{what}: times as fast, least of all settings", ">=", LEAST_GAIN, least, "x"))
        found.append(Target(f"{what}: largest change of an output", "<=", LARGEST_CHANGE, entry["largest_change"], ""))
    return found


def table(measured: dict[str, Any]) -> str:
    """Markdown for people."""
    lines = [
        "| network | setting | before, ms | after, ms | times as fast: median (10th to 90th percentile) |",
        "|---|---|---|---|---|",
    ]
    for name, entry in measured["written_otherwise"].items():
        for setting, times in entry["times"].items():
            ms, ratio = times["median_ms"], times["ratio"]
            lines.append(
                f"| {name} | {setting} | {ms['before']:.2f} | {ms['after']:.2f} | "
                f"{ratio['median']:.2f} ({ratio['p10']:.2f} to {ratio['p90']:.2f}) |"
            )
    lines += ["", "| network | form | operators that take most time |", "|---|---|---|"]
    for name, entry in measured["written_otherwise"].items():
        lines += [f"| {name} | {form} | {_shares(top)} |" for form, top in entry["top"].items()]
    lines += [f"| {name} | as it is | {_shares(top)} |" for name, top in measured["as_they_are"].items()]
    return "\n".join(lines)


def _shares(top: dict[str, float]) -> str:
    return ", ".join(f"{operator} {share:.0%}" for operator, share in top.items())


if __name__ == "__main__":
    sys.exit(guarded(main))
