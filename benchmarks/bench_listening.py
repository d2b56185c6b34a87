"""What the profile's own listening costs a gate: the same frames with a listener and without, by turns, in one process.

The bundle that ships looks at one drawn portrait in every frame, on one thread, which others on the machine disturb
least. Spans are also timed alone and counted, which finds
what the noise of whole frames hides; so is a span to which nobody listens, which every gate pays.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from common import Options, Target, finish, guarded, parse, say
from environment import environment

from immunogate.bundle import open_bundle
from immunogate.cli.profile_overhead import SPANS_TIMED, overhead
from immunogate.cli.profile_setup import Setup
from immunogate.cli.profile_taking import kept_frames, warm_up
from immunogate.default_models import shipped_bundle
from immunogate.profiling.text import overhead_to_text
from immunogate.runtime.profile.spans import span

MOST_PERCENT = 1.0
SECONDS, QUICK_SECONDS = 120.0, 2.0
ROUNDS = 4000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse("bench_listening", __doc__, argv)
    before = environment()
    return finish("bench_listening", options, before, *measure(options))


def measure(options: Options) -> tuple[dict[str, Any], list[Target], str]:
    """Everything; see the module."""
    setup, bundle = Setup(faces=1, rate=0, threads=1), open_bundle(shipped_bundle())
    with ExitStack() as stack:
        chain = stack.enter_context(setup.open_chain(bundle))
        gate, pictures = setup.open_gate(bundle, chain), setup.pictures()
        warm_up(setup, gate, pictures, 20)
        say("frames by turns")
        found = overhead(gate, kept_frames(setup, pictures), QUICK_SECONDS if options.quick else SECONDS, ROUNDS)
    assert found is not None  # the drawn scene has frames
    measured = {**found, "silent_span_us": round(silent_span_us(), 4)}
    silent_ns = 1e3 * measured["silent_span_us"]
    table = f"{overhead_to_text(found)}; a span to which nobody listens {silent_ns:.0f} ns"
    targets = [
        Target("listening, counted", "<", MOST_PERCENT, found["counted_percent"], "%"),
        Target("listening, processor time by turns, median", "<", MOST_PERCENT, found["cpu_percent"], "%"),
    ]
    return measured, targets, table


def silent_span_us() -> float:
    """Microseconds of a span to which nobody listens, the fastest of five rounds."""
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(SPANS_TIMED):
            with span("a span"):
                pass
        rounds.append(time.perf_counter() - start)
    return min(rounds) / SPANS_TIMED * 1e6


if __name__ == "__main__":
    sys.exit(guarded(main))
