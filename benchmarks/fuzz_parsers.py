"""Feeds every parser changed inputs for a while and counts: taken, refused, and whatever should not have happened.

Each parser has a process of its own, so that a crash of native code is seen and the others go on. Inputs follow from
the seed, the parser's name and a number alone: what was found can be made again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from common import RESULTS, Options, Target, finish, guarded, say
from environment import environment
from fuzz_targets import all_targets, mutated

SECONDS = 600
SLOWEST_MS = 2000.0
MOST_SHOWN = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz and report; status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="fuzz_parsers", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"in all (default {SECONDS})")
    parser.add_argument("--seed", type=int, default=1, help="of the inputs (default 1)")
    parser.add_argument("--only", help="one parser by its name")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="five seconds; writes nothing unless --out is given")
    parser.add_argument("--out", type=Path, help="where to write the JSON (default benchmarks/results)")
    given = parser.parse_args(argv)
    seconds = 5.0 if given.quick else given.seconds
    options = Options(given.quick, given.json, given.out or (None if given.quick else RESULTS / "fuzz_parsers.json"))
    before = environment()
    with tempfile.TemporaryDirectory() as folder:
        names = [target.name for target in all_targets(_made(Path(folder) / "names"))]
    names = [name for name in names if given.only in (None, name)]
    start = time.perf_counter()
    found = {name: _fuzzed(name, given.seed, seconds / len(names)) for name in names}
    measured = {"seed": given.seed, "seconds": round(time.perf_counter() - start, 1), "parsers": found}
    inputs = sum(one["inputs"] for one in found.values())
    findings = sum(one["findings"] for one in found.values())
    slowest = max(one["slowest_ms"] for one in found.values())
    targets = [
        Target("fuzzed parsers: anything but an answer or a refusal", "==", 0, findings, "findings"),
        Target("fuzzed parsers: slowest input", "<=", SLOWEST_MS, slowest, "ms"),
    ]
    lines = [f"{inputs:,} inputs in {measured['seconds']} s, seed {given.seed}", "",
             "| parser | inputs | refused | taken | findings | slowest ms |", "|---|---|---|---|---|---|"]  # fmt: skip
    for name, one in found.items():
        counts = (one["inputs"], one["refused"], one["taken"], one["findings"], one["slowest_ms"])
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return max(finish("fuzz_parsers", options, before, measured, targets, "\n".join(lines)), int(findings > 0))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _fuzzed(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """One parser in a process of its own; a process that dies is a finding with the number of its last input."""
    say(f"{name}, {seconds:.0f} s")
    context = multiprocessing.get_context("forkserver")  # a fork of this process would share its threads' locks
    context.set_forkserver_preload(["fuzz_targets"])
    last = context.Value("q", -1)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, seed, seconds, last, sender))
    process.start()
    sender.close()
    try:
        report: dict[str, Any] = receiver.recv()
    except EOFError:
        number = int(last.value)
        crash = f"input {number}: the process died"
        report = {"inputs": number + 1, "refused": 0, "taken": 0, "findings": 1, "slowest_ms": 0.0, "first": [crash]}
    process.join()
    for line in report["first"]:
        say(f"FOUND in {name}: {line}")
    return report


def _work(name: str, seed: int, seconds: float, last: Synchronized[int], sender: Any) -> None:
    counts = {"inputs": 0, "refused": 0, "taken": 0, "findings": 0}
    first: list[str] = []
    slowest = 0.0
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # libpng and libtiff write there on their own
    with tempfile.TemporaryDirectory() as folder:
        targets = all_targets(_made(Path(folder) / "gate"), exports=False)
        if name not in {one.name for one in targets}:  # torch takes longer to load than a short run has
            targets = all_targets(_made(Path(folder) / "all"))
        target = next(one for one in targets if one.name == name)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            number = counts["inputs"]
            last.value = number
            data = mutated(target.seeds, random.Random(f"{seed} {name} {number}"))
            start = time.perf_counter()
            try:
                counts["refused" if target.is_refused(data) else "taken"] += 1
            except BaseException:  # whatever it is, it is what is looked for
                counts["findings"] += 1
                first += [f"input {number}: {traceback.format_exc()[-600:]}"] * (len(first) < MOST_SHOWN)
            slowest = max(slowest, 1000 * (time.perf_counter() - start))
            counts["inputs"] += 1
    sender.send({**counts, "slowest_ms": round(slowest, 1), "first": first})


if __name__ == "__main__":
    sys.exit(guarded(main))
