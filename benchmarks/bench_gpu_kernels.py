"""Each kernel on a GPU beside what the device can do at best, measured in the same run, and beside torch's operations.

Times are of device events (see gpu_timing.py): cold, with the caches emptied before each run; warm; and replayed, a
share of a captured graph of many runs. Each is measured twice. The floor is the larger of two times: for the bytes that
have to move at the rate of a large copy, and for the products of the generator at the rate of a kernel that does
nothing else. Targets are held against the cold times, what lies between two events with nothing between them included.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gpu_cases
from common import Options, Target, finish, guarded, parse, say
from environment import environment
from gpu_cases import Case, cases
from gpu_environment import gpu_environment
from gpu_library import WORDS, TorchWays, why_not
from gpu_timing import FULL, QUICK, Bench, Ceilings, times

from immunogate.kernels.device import require_device
from immunogate.kernels.queued import Queued

NAME = "bench_gpu_kernels"
SELECT_LIMITS_US = {1: 10.0, 8: 30.0}
SELECT_GENES, SELECT_CLONES = 1500, 1000
MOST_OVER_COPY, MOST_FOR_EIGHT = 1.5, 2.0
PROMISED_ON = "H200"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse(NAME, __doc__, argv)
    require_device()
    before = environment()
    with Bench(QUICK if options.quick else FULL) as bench:
        before["gpu"] = gpu_environment(bench.device)
        measured = measure(bench, options)
    return finish(NAME, options, before, measured, targets(measured, before["gpu"]["name"]), table(measured))


def measure(bench: Bench, options: Options) -> dict[str, Any]:
    """All figures, plain data."""
    say("copying, reading, multiplying")
    ceilings = bench.ceilings()
    plan = gpu_cases.QUICK if options.quick else gpu_cases.FULL
    missing = why_not()
    library = None if missing else TorchWays(bench, plan.components)
    queued = Queued(bench.device)
    bench.at_the_end(queued.close)
    rows = []
    for case in cases(bench, queued, plan):
        say(f"{case.kernel}, {case.sizes}")
        rows.append(row(bench, case, ceilings, library))
    return {"ceilings": asdict(ceilings), "library": missing or "torch, captured into a CUDA graph", "cases": rows}


def row(bench: Bench, case: Case, ceilings: Ceilings, library: TorchWays | None) -> dict[str, Any]:
    """One case: checked, then timed."""
    case.works[0]()
    case.check()
    floor = ceilings.floor_us(case.nbytes, case.multiplications)
    found: dict[str, Any] = {
        "kernel": case.kernel,
        "sizes": case.sizes,
        "key": list(case.key),
        "bytes": case.nbytes,
        "multiplications": case.multiplications,
        "floor_us": round(floor, 3),
        **times(bench, case.works),
    }
    found["cold_to_floor"] = round(found["cold"]["p50_us"] / floor, 2)
    found["replayed_to_floor"] = round(found["replayed"]["p50_us"] / floor, 2)
    theirs = library.way(case.key) if library is not None else None
    if theirs is not None:
        found["torch"] = {"by": WORDS[case.key[0]], **times(bench, [theirs], replay=False)}
        found["times_as_fast_as_torch"] = round(found["torch"]["cold"]["p50_us"] / found["cold"]["p50_us"], 2)
    return found


def targets(measured: dict[str, Any], device: str) -> list[Target]:
    """The promises, which are of one kind of device; on another there are none."""
    if PROMISED_ON not in device:
        return []
    by_key = {tuple(found["key"]): found for found in measured["cases"] if found["key"]}
    made = []
    for batch, limit in SELECT_LIMITS_US.items():
        found = by_key.get(("select", SELECT_GENES, SELECT_CLONES, batch))
        if found is not None:
            what = f"mutate-select, K = {SELECT_CLONES}, n = {SELECT_GENES}, B = {batch}, cold, p50"
            made.append(Target(what, "<", limit, found["cold"]["p50_us"], "us"))
    one, eight = (by_key.get(("project+act", "fp16", batch)) for batch in (1, 8))
    if one is not None:
        over = one["cold"]["p50_us"] / (one["bytes"] / measured["ceilings"]["copy_gb_per_s"] / 1e3)
        what = "project and act, fp16, B = 1, cold, p50 / time of copying those bytes"
        made.append(Target(what, "<=", MOST_OVER_COPY, round(over, 3), "x"))
        if eight is not None:
            times_one = eight["cold"]["p50_us"] / one["cold"]["p50_us"]
            made.append(
                Target("project and act, fp16, B = 8 / B = 1, cold, p50", "<", MOST_FOR_EIGHT, round(times_one, 3), "x")
            )
    return made


def table(measured: dict[str, Any]) -> str:
    """Markdown for people."""
    best = measured["ceilings"]
    lines = [
        f"copy {best['copy_gb_per_s']:g} GB/s, read {best['read_gb_per_s']:g} GB/s, "
        f"{best['multiply_per_s'] / 1e12:.3g} T products/s, {best['nothing_us']:g} us between two events; "
        f"library: {measured['library']}",
        "",
        "| kernel | sizes | cold us (p90, p99) | warm us | replayed us | floor us | cold / floor | torch us |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in measured["cases"]:
        cold = found["cold"]
        theirs = f"{found['torch']['cold']['p50_us']:.1f}" if "torch" in found else ""
        tail = f"{cold['p90_us']:.1f}, {cold['p99_us']:.1f}"
        lines.append(
            f"| {found['kernel']} | {found['sizes']} | {cold['p50_us']:.1f} ({tail})"
            f" | {found['warm']['p50_us']:.1f} | {found['replayed']['p50_us']:.1f} | {found['floor_us']:.2f}"
            f" | {found['cold_to_floor']:.2f} | {theirs} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
