"""``immunogate profile``: times a gate from capture to decision; ``immunogate profile diff`` compares two profiles."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import add_backend, add_json, add_runner, opened_bundle, print_json
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.cli.profile_setup import Setup
    from immunogate.cli.profile_taking import Plan

DIFF = "diff"
LONGEST_S, MOST_RUNS, MOST_STARTS, MOST_WARM_UPS = 3600.0, 20, 20, 10_000


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "profile",
        help="time a gate from capture to decision",
        description="Time the very gate that `immunogate run` opens, stage by stage and from capture to decision, on a "
        "source or a drawn scene; say what a cold start costs, what the machine did meanwhile and how far each stage "
        "is from this machine's limits. Nobody is recognised: the people in its gallery are made up. "
        "`profile diff A.json B.json` compares two profiles instead and exits with 1 where the second is slower.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="BUNDLE",
        help="the bundle (left out: the one that ships); several for --sweep; or: diff A.json B.json "
        "(./diff is a bundle of that name)",
    )
    _add_scene(parser.add_argument_group("what the gate sees"))
    _add_gate(parser.add_argument_group("how the gate runs"))
    _add_measuring(parser.add_argument_group("how it is measured"))
    results = parser.add_argument_group("results")
    add_json(results)
    results.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write profile.json, frames.csv, trace.json (Perfetto), times.json (as trtexec) and report.html there",
    )
    results.add_argument(
        "--fail-over",
        metavar="PERCENT",
        default="0.05",
        help="for diff: how much slower is still allowed, 5%% or 0.05 (default 0.05)",
    )
    parser.set_defaults(run=run)


def _add_scene(group: argparse._ArgumentGroup) -> None:
    from immunogate.cli.run import SOURCES

    group.add_argument("--source", metavar="URI", help=f"{SOURCES} (left out: a drawn scene of the demo's portraits)")
    group.add_argument("--faces", metavar="N", type=int, default=1, help="in the drawn scene (default 1)")
    group.add_argument("--size", metavar="WxH", default="640x480", help="of the drawn scene (default 640x480)")
    group.add_argument(
        "--rate",
        metavar="FPS",
        type=float,
        default=25.0,
        help="frames a second of the drawn scene; files are paced by their own; 0: each frame as soon as the last is "
        "decided (default 25)",
    )
    group.add_argument(
        "--looks",
        choices=("every", "gate"),
        default="every",
        help="recognise every face in every frame, or as often as a gate does (default every)",
    )
    group.add_argument("--people", metavar="N", type=int, default=100, help="made up, in the gallery (default 100)")


def _add_gate(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--mode", help="inference mode instead of the bundle's")
    group.add_argument("--clones", metavar="K", type=int, help="drawn a face in mode select, instead of the bundle's")
    group.add_argument("--top-k", metavar="N", type=int, help="eigenfaces in mode fixed, instead of the bundle's")
    group.add_argument("--batch", metavar="N", type=int, help="faces in one run of the recogniser at the most")
    add_backend(group)
    add_runner(group)
    group.add_argument("--threads", metavar="N", type=int, help="threads of each stage (left out: up to 4)")
    group.add_argument(
        "--detector-size", metavar="PIXELS", type=int, default=640, help="longest side for the detector (default 640)"
    )


def _add_measuring(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--duration", metavar="S", type=float, default=10.0, help="seconds of each run (default 10)")
    group.add_argument(
        "--max-frames", metavar="N", type=int, help="end a run after so many frames (left out: no limit)"
    )
    group.add_argument("--runs", metavar="N", type=int, default=2, help="whose spread is told (default 2)")
    group.add_argument("--warm-up", metavar="N", type=int, default=50, help="frames that do not count (default 50)")
    group.add_argument(
        "--starts", metavar="N", type=int, default=2, help="cold starts, each in a process of its own (default 2)"
    )
    group.add_argument(
        "--sweep",
        action="append",
        nargs="?",
        const="",
        metavar="NAME=V,V",
        help="measure a grid instead, each frame as soon as the last is decided, a fifth of --duration for each point: "
        "faces, batch, clones, top_k, threads, mode, backend, runner; once for each; bundles given are one more axis",
    )
    group.add_argument(
        "--quick",
        action="store_true",
        help="one run of 2 s at the most and nothing else: no starts, no limits, no own cost",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, or measure and report."""
    if arguments.words[:1] == [DIFF]:
        return run_diff(arguments)
    if arguments.sweep is not None:
        return run_sweep(arguments)
    if len(arguments.words) > 1:
        raise UsageError(f"one bundle is profiled at a time, got {len(arguments.words)}", "Or compare them: --sweep")
    from immunogate.cli.profile_outputs import write_all
    from immunogate.cli.profile_taking import Plan, take
    from immunogate.profiling.text import profile_to_text

    setup = setup_of(arguments)
    plan = plan_of(arguments)
    if arguments.quick:
        plan = Plan(min(plan.duration, 2.0), 1, min(plan.warm_up, 10), 0, False, plan.max_frames)
    bundle = opened_bundle(Path(arguments.words[0]) if arguments.words else None)
    document, runs = take(bundle, setup, plan)
    if arguments.out is not None:
        write_all(arguments.out, document, runs)
    if arguments.json:
        print_json(document)
    else:
        print(profile_to_text(document))
    return 0


def run_sweep(arguments: argparse.Namespace) -> int:
    """Measure a grid and report."""
    from immunogate.cli.profile_sweep import sweep, write_sweep
    from immunogate.profiling.sweep import sweep_to_text

    setup, plan = setup_of(arguments), plan_of(arguments)
    bundles = [opened_bundle(Path(word)) for word in arguments.words] or [opened_bundle(None)]
    document = sweep(bundles, setup, plan, [word for word in arguments.sweep if word or len(arguments.sweep) == 1])
    if arguments.out is not None:
        write_sweep(arguments.out, document)
    if arguments.json:
        print_json(document)
    else:
        print(sweep_to_text(document))
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Compare two profiles; 1 where the second is slower beyond what is allowed."""
    from immunogate.profiling.difference import compare, difference_to_text
    from immunogate.profiling.document import load_profile

    if len(arguments.words) != 3:
        raise UsageError("diff takes two profiles", "Run: immunogate profile diff BEFORE.json AFTER.json")
    allowed = share_of(arguments.fail_over)
    before, after = (load_profile(Path(word)) for word in arguments.words[1:])
    found = compare(before, after, allowed)
    if arguments.json:
        print_json(found)
    else:
        print(difference_to_text(found))
    return 1 if found["fails"] else 0


def share_of(text: str) -> float:
    """``5%`` or ``0.05`` as a number.

    Raises:
        UsageError: it is neither, or not in 0 .. 100 %.
    """
    number = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)", text.strip())
    share = float(number[1]) / (100 if number[2] else 1) if number else -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--fail-over {text!r} is no share", "Write 5% or 0.05")
    return share


def setup_of(arguments: argparse.Namespace) -> Setup:
    """What the flags ask for.

    Raises:
        UsageError: a flag makes no sense.
    """
    from immunogate.cli.profile_setup import Setup

    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", arguments.size)
    if size is None:
        raise UsageError(f"--size {arguments.size!r} is no size", "Write 640x480")
    return Setup(
        source=arguments.source,
        faces=arguments.faces,
        size=(int(size[1]), int(size[2])),
        rate=arguments.rate,
        looks=arguments.looks,
        people=arguments.people,
        mode=arguments.mode,
        clones=arguments.clones,
        top_k=arguments.top_k,
        batch=arguments.batch,
        backend=arguments.backend,
        runner=arguments.runner,
        threads=arguments.threads,
        detector_size=arguments.detector_size,
    )


def plan_of(arguments: argparse.Namespace) -> Plan:
    """How long and how often.

    Raises:
        UsageError: a number is out of its range.
    """
    from immunogate.cli.profile_taking import Plan

    ranges = {
        "duration": (0.1, LONGEST_S),
        "runs": (1, MOST_RUNS),
        "warm_up": (0, MOST_WARM_UPS),
        "starts": (0, MOST_STARTS),
    }
    for name, (low, high) in ranges.items():
        value = getattr(arguments, name)
        if not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')} must be in {low:g} .. {high:g}, got {value:g}")
    if arguments.max_frames is not None and arguments.max_frames < 1:
        raise UsageError(f"--max-frames must be at least 1, got {arguments.max_frames}")
    return Plan(arguments.duration, arguments.runs, arguments.warm_up, arguments.starts, True, arguments.max_frames)
