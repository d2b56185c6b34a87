"""The whole way of a face on a GPU: crops on the host to answers on the host, one captured graph, torch's networks.

The face path of the runtime (`immunogate.runtime.gpu.face_path`) as a gate runs it, mode select with 1000 clones and a
gallery of 1000 people, its networks played by torch in half precision with random weights; engines would be faster. As
at a gate the recogniser sees each face twice: as it came, and purified. Two times: of the host, from crops to answers,
and of device events around the graph. Beside them the sum of the floors of all parts (bytes at the rate of a large copy
or products at that of a large matmul, both measured in the same run). Then 10,000 faces, and what they left in memory.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Options, Target, finish, guarded, parse, say
from environment import environment
from gpu_cases import eigenfaces
from gpu_environment import gpu_environment
from gpu_library import why_not
from gpu_timing import FULL, QUICK, Bench, Ceilings, Spread, spread

from immunogate.errors import UsageError
from immunogate.kernels.antibody import AntibodySettings
from immunogate.kernels.device import require_device
from immunogate.kernels.launch import CudaKernels
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.structs import CROP_SIZE

NAME = "bench_gpu_path"
COMPONENTS, CLONES, KEEP, PEOPLE = 1500, 1000, 1, 1000
PAIRS = (
    ("paper", "ir50"),
    ("spectral", "ir50"),
    ("paper", "mobilefacenet"),
    ("spectral", "mobilefacenet"),
    ("spectral", "gateface"),
)
PROMISED, PROMISED_ON = ("paper", "ir50"), "H200"
LIMIT_US, MOST_TAIL = 1000.0, 1.3
BATCHES = (1, 8)
WARM_UPS = 50
MIB = float(1 << 20)
MOST_GROWTH_MIB = 1.0


@dataclass(frozen=True)
class Rounds:
    """How often: timed runs, and runs after which memory is looked at."""

    timed: int
    endurance: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse(NAME, __doc__, argv)
    require_device()
    if why_not():
        raise UsageError(f"the networks of this benchmark are torch's, and {why_not()}", "Install torch with CUDA")
    before = environment()
    with Bench(QUICK if options.quick else FULL) as bench:
        before["gpu"] = gpu_environment(bench.device)
        measured = measure(bench, options)
    return finish(NAME, options, before, measured, targets(measured, before["gpu"]["name"]), table(measured))


def measure(bench: Bench, options: Options) -> dict[str, Any]:
    """All pairs of networks."""
    import gpu_networks
    import torch

    torch.manual_seed(0)
    say("copying, multiplying")
    ceilings, rate = bench.ceilings(), gpu_networks.matmul_per_s()
    rounds = Rounds(100, 500) if options.quick else Rounds(1000, 10_000)
    mean, rows = eigenfaces(COMPONENTS)
    settings = AntibodySettings("select", clones=CLONES, keep=KEEP, seed=1)
    found = []
    for kind, name in PAIRS[:1] if options.quick else PAIRS:
        say(f"{kind}, {name}")
        analyzer = gpu_networks.analyzer(kind, COMPONENTS)
        recogniser, entry = gpu_networks.recogniser(name)
        with (
            CudaKernels(mean, rows, bench.device, "fp16") as kernels,
            FacePath(kernels, settings, analyzer, recogniser, entry, buckets=BATCHES) as path,
        ):
            path.know(people(entry.embedding_dimension))
            for batch in BATCHES:
                case = times(bench, path, batch, rounds)
                networks = [analyzer.cost.floor_us(batch, ceilings.copy_gb_per_s, rate)]
                networks.append(recogniser.cost.floor_us(2 * batch, ceilings.copy_gb_per_s, rate))
                floors = kernel_floors(ceilings, kernels.basis.rows.nbytes, case["chosen"], batch)
                floors |= {"analyzer": networks[0], "recogniser": networks[1]}
                case |= {"floors_us": {part: round(value, 2) for part, value in floors.items()}}
                case["floor_us"] = round(sum(floors.values()), 2)
                found.append({"analyzer": kind, "recogniser": name, "batch": batch, **case})
        analyzer.close()
        recogniser.close()
        gc.collect()
    return {
        "ceilings": {**asdict(ceilings), "products_per_s": round(rate)},
        "problem": {"n": COMPONENTS, "clones": CLONES, "kept": KEEP, "people": PEOPLE, "weights": "random"},
        "cases": found,
    }


def people(length: int) -> Templates:
    """A gallery of random people."""
    vectors = np.random.default_rng(2).standard_normal((PEOPLE, length)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Templates([f"person {number}" for number in range(PEOPLE)], vectors)


def times(bench: Bench, path: FacePath, batch: int, rounds: Rounds) -> dict[str, Any]:
    """One bucket: host and device times, the share of eigenfaces that was chosen, and growth of memory."""
    draw = np.random.default_rng(batch)
    crops = [draw.integers(0, 256, (batch, CROP_SIZE, CROP_SIZE), np.uint8) for _ in range(4)]
    frames, numbers = [0] * batch, list(range(batch))
    for turn in range(WARM_UPS):
        answers = path.recognise(crops[turn % 4], frames, numbers)
    bucket = path.bucket(batch)
    ways = {"host": lambda: _of_the_host(path, crops, rounds.timed), "device": lambda: _of_events(bench, path, bucket)}
    found: dict[str, Any] = {"captured": bucket.is_captured}
    for name, way in ways.items():
        first, second = way(), way()
        found[name] = {**asdict(first), "again_p50_us": second.p50_us, "tail": round(first.p99_us / first.p50_us, 3)}
    chosen = float(answers.sizes().mean()) / answers.genes
    faults = [fault for fault in answers.faults if fault]
    return found | {"chosen": round(chosen, 3), "faults": faults, "growth": growth(path, crops, rounds.endurance)}


def _of_the_host(path: FacePath, crops: Sequence[Any], rounds: int) -> Spread:
    batch = len(crops[0])
    spent = []
    for turn in range(rounds):
        start = time.perf_counter_ns()
        path.recognise(crops[turn % len(crops)], [turn] * batch, range(batch))
        spent.append((time.perf_counter_ns() - start) / 1e3)
    return spread(spent)


def _of_events(bench: Bench, path: FacePath, bucket: Any) -> Spread:
    """The graph alone; the host's queueing is hidden (see gpu_timing.py), the caches are as the graph leaves them."""
    path.stream.synchronize()
    return spread(bench.events([lambda: bucket.queue(path.stream)], cold=False, stream=path.stream))


def growth(path: FacePath, crops: Sequence[Any], rounds: int) -> dict[str, float]:
    """What so many runs leave behind: MiB of the device and of this process, objects of the device."""
    device, batch = path.stream.device, len(crops[0])
    before = device.free_bytes(), resident_bytes(), sum(device.made.values())
    for turn in range(rounds):
        path.recognise(crops[turn % len(crops)], [turn] * batch, range(batch))
    after = device.free_bytes(), resident_bytes(), sum(device.made.values())
    return {
        "runs": rounds,
        "device_mib": round((before[0] - after[0]) / MIB, 3),
        "host_mib": round((after[1] - before[1]) / MIB, 3),
        "objects": after[2] - before[2],
    }


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def kernel_floors(ceilings: Ceilings, basis_bytes: int, chosen: float, batch: int) -> dict[str, float]:
    """Microseconds of the parts that are ours, by the bytes and products that each has to move and do."""
    groups = -(-COMPONENTS // 4)
    return {
        "project": ceilings.floor_us(basis_bytes),
        "select": ceilings.floor_us(0, batch * CLONES * groups * 20),
        "act": ceilings.floor_us(basis_bytes * chosen),
        "match": ceilings.floor_us(PEOPLE * 512 * 4),
    }


def targets(measured: dict[str, Any], device: str) -> list[Target]:
    """The promises, which are of one kind of device; memory may not grow on any."""
    made = []
    for found in measured["cases"]:
        pair, batch = (found["analyzer"], found["recogniser"]), found["batch"]
        words = f"{pair[0]}, {pair[1]}, B = {batch}"
        if pair == PROMISED and batch == 1 and PROMISED_ON in device:
            made.append(Target(f"{words}: crops to answers, p50", "<", LIMIT_US, found["host"]["p50_us"], "us"))
            made.append(Target(f"{words}: p99 / p50", "<", MOST_TAIL, found["host"]["tail"], "x"))
        grown = found["growth"]
        what = f"{words}: memory of the device after {grown['runs']} runs"
        made.append(Target(what, "<", MOST_GROWTH_MIB, grown["device_mib"], "MiB"))
        made.append(Target(f"{words}: objects made in these runs", "==", 0, grown["objects"], "objects"))
    return made


def table(measured: dict[str, Any]) -> str:
    """Markdown for people."""
    lines = [
        "| analyzer | recogniser | B | host us p50 (p99, p99/p50) | device us p50 (p99) | floors us | growth MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in measured["cases"]:
        host, device = found["host"], found["device"]
        lines.append(
            f"| {found['analyzer']} | {found['recogniser']} | {found['batch']} | {host['p50_us']:.0f} "
            f"({host['p99_us']:.0f}, {host['tail']:.2f}) | {device['p50_us']:.0f} ({device['p99_us']:.0f}) "
            f"| {found['floor_us']:.0f} | {found['growth']['device_mib']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
