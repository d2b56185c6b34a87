"""How far each stage is from what this machine could do, and what other devices could do at best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from immunogate.bundle import Bundle
from immunogate.cli.common import step
from immunogate.cli.profile_setup import Setup
from immunogate.kernels.launch import CudaKernels
from immunogate.profiling.devices import predicted
from immunogate.profiling.layers import NetworkCost, cost_of, slowest
from immunogate.profiling.recording import Recording
from immunogate.profiling.roofline import Rates, Work, stage_row
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.profile.layer_times import layer_runs
from immunogate.runtime.profile.rates import machine_rates
from immunogate.runtime.upright import ANGLES, VIEW
from immunogate.structs import PIXELS

LAYER_RUNS = 20
FLOAT = 4
"""Bytes of a number, as the CPU and by default the GPU hold the eigenfaces."""

ARITHMETIC = {"fp32": "fp32", "fp16": "fp16", "fp16-weights": "fp32", "int8": "int8", "int8-cpu": "int8"}
"""Whose rate holds for a network, by its precision in the manifest."""


@dataclass(frozen=True)
class Load:
    """What comes in with one frame.

    Attributes:
        faces: that are recognised.
        size: height and width of the frame in pixels.
        shown: rows of one frame that reach the recogniser: raw faces, and kept clones in all views.
    """

    faces: int
    size: tuple[int, int]
    shown: int


def limits(
    bundle: Bundle, chain: FaceChain, setup: Setup, runs: Sequence[Recording], stages: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Floors of the stages here, from rates measured now, and elsewhere, from data sheets; the slowest layers.

    None where nobody was recognised, so that there is nothing to compare with, and where something runs on a GPU, whose
    rates are not measured here.

    Raises:
        BundleError: a file of the bundle was changed meanwhile.
    """
    faces = [len(row.tracks) for run in runs for row in run.frames if row.tracks]
    sizes = [row.size for run in runs for row in run.frames]
    if not faces or on_device(chain):
        return None
    load = load_of(bundle, chain, round(float(np.median(faces))), sizes[0])
    with step("limits of this machine"):
        rates = machine_rates(setup.threads)
        costs, layers = network_costs(bundle, chain, setup, load)
    works = works_of(bundle, chain, setup, load, costs)
    flops = max(rates.sgemm, rates.product)
    # ONNX Runtime's CPU converts float16; for int8 processors have at most four times the rate (VNNI, dot products).
    here = Rates(max(rates.triad, rates.read), {"fp32": flops, "fp16": flops, "int8": 4 * flops})
    medians = {name: row["p50"] for name, row in stages.items()}
    return {
        "machine": {
            "triad_gb_s": round(rates.triad / 1e9, 2),
            "read_gb_s": round(rates.read / 1e9, 2),
            "bandwidth_gb_s": round(here.bandwidth / 1e9, 2),
            "sgemm_gflops": round(rates.sgemm / 1e9, 1),
            "product_gflops": round(rates.product / 1e9, 1),
            "gflops": round(flops / 1e9, 1),
            "threads": rates.threads,
        },
        "faces": load.faces,
        "stages": [stage_row(work, here, medians.get(work.stage)) for work in works],
        "predicted": predicted(works),
        "networks": {
            name: {"macs": cost.macs, "weight_bytes": cost.weight_bytes, "slowest_layers": layers[name]}
            for name, cost in costs.items()
        },
    }


def on_device(chain: FaceChain) -> bool:
    """Whether any of its work is done by a GPU."""
    return isinstance(chain.purifier.kernels, CudaKernels) or any(one.kind != "cpu" for one in chain.runners)


def load_of(bundle: Bundle, chain: FaceChain, faces: int, size: tuple[int, int]) -> Load:
    """What one frame with so many faces asks for."""
    used = chain.purifier.settings
    kept = used.keep if used.mode == "select" else 1
    return Load(faces, size, faces * (1 + kept * bundle.manifest.recogniser.views))


def network_costs(
    bundle: Bundle, chain: FaceChain, setup: Setup, load: Load
) -> tuple[dict[str, NetworkCost], dict[str, Any]]:
    """What one run of each network has to do, and its slowest layers on the CPU.

    The recogniser's and analyzer's are of one run as it is at this load, the detector's of one frame.
    """
    entry, analyzer = bundle.manifest.recogniser, bundle.manifest.analyzer
    padded = chain.detector.sizes(load.size)[1]
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "detector": (bundle.manifest.detector.file, (1, 3, *padded)),
        "tilted views": (bundle.manifest.detector.file, (1, 3, VIEW, VIEW)),
        "recogniser": (entry.file, (min(load.shown, setup.batch_or_usual()), 3, entry.height, entry.width)),
    }
    if analyzer is not None and chain.purifier.settings.needs_probabilities:
        reads = (1, 112, 112) if analyzer.reads == "face" else (bundle.manifest.purifier.components + 2,)
        shapes["analyzer"] = (analyzer.file, (load.faces, *reads))
    costs, layers = {}, {}
    for name, (file, shape) in shapes.items():
        model = bundle.read(file)
        plain, edge = layer_runs(model, file, shape, runs=1, fused=False, threads=setup.threads)
        costs[name] = cost_of(plain[0], edge)
        layers[name] = slowest(layer_runs(model, file, shape, runs=LAYER_RUNS, threads=setup.threads)[0])
    return costs, layers


def works_of(bundle: Bundle, chain: FaceChain, setup: Setup, load: Load, costs: dict[str, NetworkCost]) -> list[Work]:
    """The least that each stage has to do for one frame, in the order of the pipeline."""
    manifest, used, faces = bundle.manifest, chain.purifier.settings, load.faces
    rows = used.top_k if used.mode == "fixed" else manifest.purifier.components
    kept = used.keep if used.mode == "select" else 1
    basis, face, product = FLOAT * rows * PIXELS, FLOAT * PIXELS, 2 * rows * PIXELS
    height, width = load.size
    padded = chain.detector.sizes(load.size)[1]
    views = len(ANGLES) * faces
    batches = -(-load.shown // (setup.batch_or_usual()))
    one_batch = costs["recogniser"]
    share = load.shown / min(load.shown, setup.batch_or_usual())  # the last batch may be smaller
    dimension = manifest.recogniser.embedding_dimension
    precision = ARITHMETIC[manifest.recogniser.precision]
    works = [
        Work("detect/letterbox", 3 * height * width + 3 * FLOAT * padded[0] * padded[1], 0),
        Work("detect/network", costs["detector"].bytes, costs["detector"].flops),
        Work("align/upright/network", views * costs["tilted views"].bytes, views * costs["tilted views"].flops),
        Work("purify/project", basis + faces * face, faces * product),
    ]
    if "analyzer" in costs and manifest.analyzer is not None:
        work = costs["analyzer"]
        works.append(Work("purify/analyze/network", work.bytes, work.flops, ARITHMETIC[manifest.analyzer.precision]))
    if used.is_random:  # one comparison and one addition for each gene of each clone
        drawn = used.clones if used.mode == "select" else 1
        works.append(Work("purify/antibodies", 2 * faces * rows * FLOAT, 2.0 * faces * drawn * rows))
    return [
        *works,
        Work("purify/act", basis + faces * kept * face, faces * kept * product),
        Work(
            "recognise/network",
            batches * one_batch.weight_bytes + share * one_batch.edge_bytes,
            share * one_batch.flops,
            precision,
        ),
        Work("match", FLOAT * dimension * (setup.people + faces), 2.0 * faces * dimension * setup.people),
    ]
