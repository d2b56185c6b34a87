"""What recording costs a decision: made durable on this disk, with and without its crop, and verified again."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Target, finish, guarded, parse, say
from environment import environment

from immunogate.errors import MissingExtraError
from immunogate.runtime.audit.evidence import EvidenceKey
from immunogate.runtime.audit.log import AuditLog
from immunogate.runtime.audit.reading import AuditReader
from immunogate.runtime.audit.settle import Settlement
from immunogate.runtime.audit.verify import verify

sys.path.insert(0, str(ROOT / "tools"))
from kill_writer import frame_of

DECISIONS, QUICK_DECISIONS, WARM_UPS = 2000, 30, 5
MOST_P99_MS = 50.0
"""A tenth of the age up to which a decision may set anything off."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_audit", __doc__, argv)
    before = environment()
    count = QUICK_DECISIONS if options.quick else DECISIONS
    keys: dict[str, EvidenceKey | None] = {"record": None}
    try:
        keys["record and crop"] = EvidenceKey(bytes(32))
    except MissingExtraError as error:
        say(f"without crops: {error}")
    measured: dict[str, Any] = {}
    for name, key in keys.items():
        say(f"{count} decisions: {name}")
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = _measured(Path(folder) / "audit.db", count, key)
    targets = [Target(f"audit, {name}: p99", "<=", MOST_P99_MS, one["p99_ms"], "ms") for name, one in measured.items()]
    lines = [
        f"{name}: p50 {one['p50_ms']} ms, p99 {one['p99_ms']} ms, max {one['max_ms']} ms, "
        f"{one['bytes_per_decision']} bytes each, verified at {one['verified_per_second']:,} a second"
        for name, one in measured.items()
    ]
    return finish("bench_audit", options, before, measured, [] if options.quick else targets, "\n".join(lines))


def _measured(path: Path, count: int, key: EvidenceKey | None) -> dict[str, Any]:
    draw, spent = np.random.default_rng(1), []
    with AuditLog(path) as audit:
        settlement = Settlement(audit, audit.context({"benchmark": True}), 60_000.0, key=key)
        for number in range(WARM_UPS + count):
            result = frame_of(number, f"{number:08d}")
            look = replace(result.looks[0], crop=draw.integers(0, 256, (112, 112), np.uint8) if key else None)
            start = time.perf_counter_ns()
            settlement.settle(replace(result, looks=[look]))
            spent.append((time.perf_counter_ns() - start) / 1e6)
    p50, p99 = np.percentile(spent[WARM_UPS:], [50, 99])
    start = time.perf_counter_ns()
    with AuditReader(path) as reader:
        found = verify(reader)
    seconds = (time.perf_counter_ns() - start) / 1e9
    if found.problem:
        raise RuntimeError(found.problem)
    return {
        "decisions": count,
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "max_ms": round(max(spent[WARM_UPS:]), 3),
        "bytes_per_decision": round(path.stat().st_size / (WARM_UPS + count)),
        "verified_per_second": round(found.records / seconds),
    }


if __name__ == "__main__":
    sys.exit(guarded(main))
