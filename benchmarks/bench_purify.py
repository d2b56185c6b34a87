"""The purify stage without the analyzer against what this machine's memory allows, and against the public code's way.

Paper size: n = 1500 eigenfaces of D = 12544 pixels, B faces, one antibody each. The stage is `CpuKernels.project`
followed by `CpuKernels.act`. project needs every row of the basis, act the rows of the antibody. Caches are emptied
before every timed call.

Two floors are measured in the same run, each with whichever plain reading was fastest:

* needed: each byte that the stage has to read, read once. A row that the antibody keeps is asked for twice, once by
  project and once by act, so it is counted twice.
* basis once: the basis alone, as if both products could share one pass.

The public code's way, from its description: for every image the boolean mask is expanded to (1, D, n), turned into
floats and multiplied with the basis, whose columns are eigenfaces; two matrix products with the masked basis follow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from common import Options, Target, finish, guarded, parse, say
from environment import environment
from threadpoolctl import ThreadpoolController
from timing import Evictor, Timing, compared

from immunogate.kernels.cpu import CpuKernels
from immunogate.kernels.reference import act, project
from immunogate.structs import PIXELS, Floats

COMPONENTS = 1500
PREFIX = 1000
BATCHES = (1, 4, 8)
SLOWEST_RATIO = 1.5
LEAST_SPEED_UP = 7.0
THREADS = min(4, len(os.sched_getaffinity(0)))  # as CpuKernels takes by default
Work = Callable[[], object]
_readers = ThreadPoolExecutor(THREADS, "reader")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_purify", __doc__, argv)
    before = environment()
    return finish("bench_purify", options, before, *measure(options))


def measure(options: Options) -> tuple[dict[str, Any], list[Target], str]:
    """All cases; see the module."""
    components, batches = (300, BATCHES[:1]) if options.quick else (COMPONENTS, BATCHES)
    draw = np.random.default_rng(0)
    basis = draw.standard_normal((components, PIXELS), np.float32)
    basis /= np.float32(PIXELS**0.5)  # rows of about unit length, about orthogonal: time does not depend on more
    mean = draw.uniform(-0.2, 0.2, PIXELS).astype(np.float32)
    evict = Evictor()
    cases = {}
    for name, (rows, mask) in antibodies(components).items():
        for batch in batches:
            say(f"{name}, {batch} faces")
            faces = draw.uniform(-1, 1, (batch, PIXELS)).astype(np.float32)
            cases[f"{name}, B = {batch}"] = case(basis[:rows], mean, faces, mask, evict, options.quick)
    measured = {
        "problem": {"components": components, "pixels": PIXELS, "basis_bytes": basis.nbytes},
        "cases": cases,
    }
    return measured, targets(cases), table(measured)


def antibodies(components: int) -> dict[str, tuple[int, np.ndarray[Any, np.dtype[np.float32]]]]:
    """By name: how many rows of the basis are kept in memory, and the mask over them."""
    third = (np.random.default_rng(1).random(components) < 1 / 3).astype(np.float32)
    prefix = components * PREFIX // COMPONENTS
    return {
        "dense": (components, np.ones(components, np.float32)),
        "top-1000 prefix": (prefix, np.ones(prefix, np.float32)),
        "random third": (components, third),
    }


def readers(basis: Floats) -> dict[str, Work]:
    """Plain ways to read an array once, by NumPy alone, on one thread and on all."""
    flat, ones = basis.reshape(-1), np.ones(basis.shape[1], np.float32)
    out = np.empty(len(basis), np.float32)
    parts, rows = np.array_split(flat, THREADS), np.array_split(basis, THREADS)
    blas = ThreadpoolController()

    def each(work: Callable[[Floats], object], pieces: list[Floats]) -> None:
        with blas.limit(limits=1, user_api="blas"):
            list(_readers.map(work, pieces))

    return {
        "dot with itself (BLAS)": lambda: flat @ flat,
        "dot with itself, own threads": lambda: each(lambda part: part @ part, parts),
        "max": lambda: flat.max(),
        "max, own threads": lambda: each(lambda part: part.max(), parts),
        "matrix times vector (BLAS)": lambda: np.dot(basis, ones, out=out),
        "matrix times vector, own threads": lambda: each(lambda part: part @ ones, rows),
    }


def case(basis: Floats, mean: Floats, faces: Floats, mask: Floats, evict: Evictor, quick: bool) -> dict[str, Any]:
    """One antibody and batch: the stage, its floors and the public way, in alternating blocks."""
    batch, kept = len(faces), np.flatnonzero(mask)
    weights = np.broadcast_to(mask, (batch, 1, len(mask))).copy()
    public = public_ways(basis, mean, faces, mask)
    with CpuKernels(mean, basis) as kernels:

        def stage() -> Floats:
            return kernels.act(kernels.project(faces), weights)

        expected = act(project(faces, mean, basis), weights, mean, basis)[:, 0]
        for name, found in {"stage": stage()[:, 0], **{name: way() for name, way in public.items()}}.items():
            np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=name)
        reading = readers(basis)
        ours = compared({"stage": stage, **reading}, 6 if quick else 30, before_each=evict)
        theirs = compared({"stage": stage, **public}, 3 if quick else 9, 1, before_each=evict)
        fastest = min(reading, key=lambda name: ours[name].median_ms)
        again = ours[fastest]
        if len(kept) < len(basis):
            readings = compared(readers(basis[kept]), 6 if quick else 30, before_each=evict)
            again = min(readings.values(), key=lambda found: found.median_ms)
    floor, stage_ms = ours[fastest].median_ms + again.median_ms, ours["stage"].median_ms
    return {
        "bytes_needed": basis.nbytes + len(kept) * basis[0].nbytes,
        "stage": asdict(ours["stage"]),
        "fastest_reading": fastest,
        "reading_gb_per_s": round(basis.nbytes / ours[fastest].median_ms / 1e6, 1),
        "readings_of_the_basis": {name: asdict(ours[name]) for name in reading},
        "needed_bytes_once_ms": round(floor, 4),
        "ratio_to_needed": round(stage_ms / floor, 3),
        "ratio_to_basis_once": round(stage_ms / ours[fastest].median_ms, 3),
        "public_way": {name: asdict(theirs[name]) for name in public},
        "speed_up": {name: round(theirs[name].median_ms / theirs["stage"].median_ms, 2) for name in public},
    }


def public_ways(basis: Floats, mean: Floats, faces: Floats, mask: Floats) -> dict[str, Callable[[], Any]]:
    """The materialising way in NumPy and, where it is installed, in torch; each gives (B, D)."""
    columns = np.ascontiguousarray(basis.T)
    chosen = mask > 0

    def one(face: Floats) -> Floats:
        as_floats = np.broadcast_to(chosen, columns.shape).astype(np.float32)
        masked = as_floats * columns
        rebuilt: Floats = masked @ (masked.T @ (face - mean)[:, None])
        return rebuilt[:, 0] + mean

    ways: dict[str, Callable[[], Any]] = {"NumPy": lambda: np.stack([one(face) for face in faces])}
    try:
        import torch
    except ImportError:
        return ways
    basis_t, mean_t, faces_t, chosen_t = (torch.from_numpy(array) for array in (columns, mean, faces, chosen))

    def one_in_torch(face: torch.Tensor) -> torch.Tensor:
        as_floats = chosen_t.view(1, 1, -1).expand(1, *basis_t.shape).float()
        masked = (as_floats * basis_t)[0]
        return torch.mm(masked, torch.mm(masked.t(), (face - mean_t)[:, None]))[:, 0] + mean_t

    return {**ways, "torch": lambda: torch.stack([one_in_torch(face) for face in faces_t]).numpy()}


def targets(cases: dict[str, Any]) -> list[Target]:
    """The promises: the floors for one face, the public way for any batch."""
    floors = (("ratio_to_needed", "needed bytes read once"), ("ratio_to_basis_once", "basis read once"))
    rows = [
        Target(f"purify, {name}: time / {words}", "<=", SLOWEST_RATIO, found[key], "x")
        for key, words in floors
        for name, found in cases.items()
        if name.endswith("B = 1")
    ]
    return rows + [
        Target(f"purify, {name}: faster than the public way in {way}", ">=", LEAST_SPEED_UP, times, "x")
        for name, found in cases.items()
        for way, times in found["speed_up"].items()
    ]


def table(measured: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = [
        f"{'case':<25}{'ms':>7}{'p10..p90':>13}{'needed':>8}{'basis':>7}{'GB/s':>7}  fastest plain reading; speed-up"
    ]
    for name, found in measured["cases"].items():
        stage = Timing(**found["stage"])
        ways = ", ".join(f"{times:.1f} x {way}" for way, times in found["speed_up"].items())
        spread = f"{stage.p10_ms:.1f}..{stage.p90_ms:.1f}"
        lines.append(
            f"{name:<25}{stage.median_ms:>7.2f}{spread:>13}{found['ratio_to_needed']:>8.2f}"
            f"{found['ratio_to_basis_once']:>7.2f}{found['reading_gb_per_s']:>7.1f}  {found['fastest_reading']}; {ways}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
