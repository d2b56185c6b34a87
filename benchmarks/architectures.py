"""The three architectures of purifier, trained alike on the same people: what each holds off, and what it costs.

The purifiers are given by name, each of ``immunogate train purifier --architecture NAME`` with settings that are
otherwise the same. Rates are measured as in `robustness.py`, on people whom no training has seen. Cost is that of the
network alone, for one face; the two products with the eigenfaces are the same for all. The control is the filter that
they begin as: the same soft mask for every face, and nothing trained.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import robustness
import torch
from common import RESULTS, Options, Target, finish, guarded, say
from environment import environment
from robustness import Asked, Problem
from timing import compared
from torch.utils.flop_counter import FlopCounterMode
from verification import OWN

from immunogate.basis import load_basis, truncate
from immunogate.export.onnx_graph import graph_of
from immunogate.files import write_whole
from immunogate.kernels.cpu import CpuKernels
from immunogate.networks.purifier import Purifier
from immunogate.networks.twin import TorchTwin
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import CROP_SIZE, PIXELS
from immunogate.training.purifier.settings import TrainingSettings

NAME = "architectures"
CONTROL = "the filter all begin as"
LEVEL = 2
ROUNDS = 60
LEAST_RATIO = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    asked, options = parse(argv)
    before = environment()
    problem = robustness.posed(asked)
    costs = cost(problem)
    problem.pipelines[CONTROL] = untrained(next(twin for twin in problem.pipelines.values() if twin.purifier), asked)
    measured = {"training": asked.name, "cost": costs, **robustness.measure(problem, asked)}
    text = table(measured)
    if options.out is not None:
        document = f"{head(measured, before)}\n\n{text}\n"
        write_whole(options.out.with_suffix(".md"), lambda path: path.write_text(document, encoding="utf-8"))
    return finish(NAME, options, before, measured, targets(costs), text)


def untrained(twin: TorchTwin, asked: Asked) -> TorchTwin:
    """The filter that every architecture begins as, whatever face it is given."""
    settings = TrainingSettings()
    basis = truncate(load_basis(asked.basis), len(twin.basis))
    mask = Purifier(basis.components, architecture="compact")
    mask.begin_as_filter(torch.from_numpy(basis.eigenvalues), settings.shrinkage, spread=0.0)
    recogniser = twin.recogniser.recogniser
    return TorchTwin(recogniser, twin.spec, basis, "expected", 0, mask.eval(), asked.views)


def cost(problem: Problem) -> dict[str, dict[str, float]]:
    """Parameters, multiply-accumulates and milliseconds of each network, and of the products all of them need."""
    twins = {name: twin for name, twin in problem.pipelines.items() if twin.purifier is not None}
    found = {name: size(twin) for name, twin in twins.items()}
    works: dict[str, Any] = {}
    for name, twin in twins.items():
        runner, inputs = network(twin)
        works[name] = partial(runner.run, inputs)
    twin = next(iter(twins.values()))
    face = np.random.default_rng(0).uniform(-1, 1, (1, PIXELS)).astype(np.float32)
    with CpuKernels(twin.mean.numpy(), twin.basis.numpy()) as kernels:
        weights = np.full((1, 1, len(twin.basis)), 0.5, np.float32)
        works["products"] = lambda: kernels.act(kernels.project(face), weights)
        say("milliseconds of each")
        for name, measured in compared(works, ROUNDS).items():
            found.setdefault(name, {})["p50_ms"] = round(measured.median_ms, 3)
    return found


def size(twin: TorchTwin) -> dict[str, float]:
    """Parameters and multiply-accumulates for one face."""
    assert twin.purifier is not None  # the caller has asked
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin.purifier(example(twin))
    parameters = sum(weight.numel() for weight in twin.purifier.parameters())
    return {"parameters": parameters, "mega_macs": round(counter.get_total_flops() / 2e6, 3)}


def network(twin: TorchTwin) -> tuple[OnnxRunner, np.ndarray[Any, np.dtype[np.float32]]]:
    """The network as it is deployed, and one input."""
    assert twin.purifier is not None  # the caller has asked
    inputs = example(twin)
    graph = graph_of(twin.purifier, tuple(inputs.shape[1:]), twin.purifier.reads, "probabilities")
    content = io.BytesIO()
    onnx.save(graph, content)
    return OnnxRunner(content.getvalue(), twin.purifier.architecture), inputs.numpy()


def example(twin: TorchTwin) -> torch.Tensor:
    """One input of the network."""
    assert twin.purifier is not None  # the caller has asked
    shape = (1, CROP_SIZE, CROP_SIZE) if twin.purifier.reads == "face" else (twin.purifier.components + 2,)
    return torch.rand((1, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1


def targets(costs: dict[str, dict[str, float]]) -> list[Target]:
    """What is promised of the compact network."""
    if not {"paper", "compact"} <= costs.keys():
        return []
    paper, compact = costs["paper"], costs["compact"]
    return [
        Target(f"compact against paper: {words}", ">=", LEAST_RATIO, round(paper[key] / compact[key], 2), "x")
        for key, words in (("mega_macs", "fewer multiply-accumulates"), ("parameters", "fewer parameters"))
    ]


def head(measured: dict[str, Any], before: dict[str, Any]) -> str:
    """What the table shows."""
    asked = measured["setting"]
    return (
        f"# Architectures\n\nMade by `python benchmarks/architectures.py` on {before['date'][:10]} (torch "
        f"{before['packages']['torch']}, {before['cpu']}).\n"
        f"TAR at FMR {asked['fmr']:g} of {asked['genuine_pairs']} genuine pairs with 95 % Wilson intervals, each at "
        f"the threshold of its own {asked['impostor_pairs']:,} clean impostor pairs of other people.\n"
        f"Recogniser: {asked['recogniser']}.\nTraining: {measured['training']}.\n"
        f"Adaptive attacks: {asked['adaptive']}."
    )


def table(measured: dict[str, Any]) -> str:
    """Markdown: a row for each pipeline."""
    rates = measured["tar"][OWN]
    rows = [row for row in rates if "noise" not in row]
    lines = [
        "| | parameters | million multiply-accumulates | ms a face | " + " | ".join(rows) + " |",
        "|---" * (4 + len(rows)) + "|",
    ]
    for name in rates["clean"]:
        found = measured["cost"].get(name)
        cells = [f"{found['parameters']:,}", f"{found['mega_macs']:g}", f"{found['p50_ms']:g}"] if found else [""] * 3
        cells += [
            f"{rate['rate']:.3f} ({rate['low']:.3f}..{rate['high']:.3f})" if (rate := rates[row].get(name)) else ""
            for row in rows
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    products = measured["cost"]["products"]["p50_ms"]
    return "\n".join([*lines, "", f"The two products with the eigenfaces, which all of them need: {products:g} ms."])


def parse(argv: Sequence[str] | None) -> tuple[Asked, Options]:
    """The command line."""
    parser = argparse.ArgumentParser(prog=NAME, description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--basis", type=Path, required=True, help="eigenbasis of the people to fit on")
    parser.add_argument("--purifier", action="append", required=True, metavar="NAME=PATH", help="checkpoint, each")
    parser.add_argument("--recogniser", type=Path, required=True, help="checkpoint that all were trained in front of")
    parser.add_argument("--recogniser-arch", required=True)
    parser.add_argument("--pairs", type=int, default=64, help="genuine pairs (default 64)")
    parser.add_argument("--views", type=int, default=4, help="of each purified face (default 4)")
    parser.add_argument("--trained", default="", help="how they were trained, in words for the document")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--quick", action="store_true", help="few pairs and steps; writes nothing unless --out is given"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    if given.threads:
        torch.set_num_threads(given.threads)
    steps, restarts, pairs = (2, 1, 8) if given.quick else (80, 2, given.pairs)
    purifiers = {name: Path(path) for name, _, path in (word.partition("=") for word in given.purifier)}
    asked = Asked(
        given.basis, purifiers, given.recogniser, given.recogniser_arch, pairs, steps, restarts, False, given.trained,
        given.views, True, (LEVEL,), False,
    )  # fmt: skip
    return asked, Options(given.quick, given.json, given.out or (None if given.quick else RESULTS / f"{NAME}.json"))


if __name__ == "__main__":
    sys.exit(guarded(main))
