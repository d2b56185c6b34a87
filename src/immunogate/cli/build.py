"""``immunogate build``: TensorRT engines for the device at hand."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.build_flags import add_builder_flags, builder_flags
from immunogate.cli.common import add_bundle, add_json, opened_bundle, print_json
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from immunogate.bundle import Bundle
    from immunogate.engines.record import Flags, Machine
    from immunogate.export.engine.build import Result
    from immunogate.export.engine.plan import BuildOptions, NetworkPlan
    from immunogate.export.engine.progress import Show

DESCRIPTION = (
    "Build a TensorRT engine of every network in a bundle, for the GPU of this very machine: it runs nowhere else. "
    "TensorRT 10.3 to 11; needs neither torch nor onnx. The precision is that of the ONNX. An engine that is up to "
    "date is kept. Options that trtexec has are also taken under its names, and for each network the equal trtexec "
    "command is shown."
)


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("build", help="build engines for this GPU", description=DESCRIPTION)
    add_bundle(parser, positional=True)
    parser.add_argument(
        "--format", choices=("engine", "triton"), default="engine",
        help="triton: a model repository for NVIDIA Triton instead of engines, into --out (default engine)",
    )  # fmt: skip
    parser.add_argument(
        "--network",
        action="append",
        choices=("detector", "analyzer", "recogniser"),
        help="only this one; may be given again",
    )
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"),
        help="refuse networks that hold another one; to change it, convert the bundle first: "
        "immunogate calibrate precision",
    )  # fmt: skip
    parser.add_argument(
        "--max-batch", type=int, default=8, metavar="N",
        help="most faces in one run; there is a profile for each of 1, 2, 4, 8 and so on up to it (default 8)",
    )  # fmt: skip
    parser.add_argument(
        "--detector-size", type=int, default=640, metavar="N",
        help="longest side of the frames that the detector sees (default 640 pixels)",
    )  # fmt: skip
    parser.add_argument("--device", type=int, default=0, metavar="N", help="number of the GPU (default 0)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where engines go (left out: the user's cache)")
    parser.add_argument("--force", action="store_true", help="build also what is up to date")
    parser.add_argument("--dry-run", action="store_true", help="say what would be built; needs no GPU and no TensorRT")
    add_builder_flags(parser.add_argument_group("TensorRT's builder"))
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build and report."""
    from immunogate.export.engine.plan import BuildOptions, plan

    flags = builder_flags(arguments)
    options = BuildOptions(
        tuple(arguments.network or ()), arguments.precision, arguments.max_batch, arguments.detector_size, flags
    )
    bundle = opened_bundle(arguments.bundle)
    if arguments.format == "triton":
        return _triton(arguments, bundle)
    plans = plan(bundle, options)
    if arguments.dry_run:
        return _dry_run(arguments, bundle, plans, options)
    return _build(arguments, bundle, plans, flags)


def _triton(arguments: argparse.Namespace, bundle: Bundle) -> int:
    from immunogate.export.triton.repository import write_repository

    if arguments.out is None or arguments.dry_run or arguments.network or arguments.precision:
        raise UsageError(
            "--format triton writes the whole chain", "Give --out FOLDER and leave out what is for engines"
        )
    written = write_repository(bundle, arguments.out, max_batch=arguments.max_batch, overwrite=arguments.force)
    if arguments.json:
        print_json({"folder": str(arguments.out), "files": [str(path) for path in written]})
    else:
        print(f"{len(written)} files of a model repository in {arguments.out}")
    return 0


def _dry_run(arguments: argparse.Namespace, bundle: Bundle, plans: list[NetworkPlan], options: BuildOptions) -> int:
    folder = arguments.out or Path("ENGINES")
    report = [
        {
            "network": item.network,
            "file": item.file,
            "precision": item.precision,
            "input": {"name": item.input_name, "shape": list(item.input_shape)},
            "profiles": [dataclasses.asdict(profile) for profile in item.profiles],
            "trtexec": _trtexec(arguments, bundle, item, options.flags, folder),
        }
        for item in plans
    ]
    if arguments.json:
        print_json({"dry_run": True, "flags": dataclasses.asdict(options.flags), "networks": report})
        return 0
    for item, entry in zip(plans, report, strict=True):
        print(f"{item.network}: {item.file}, {item.precision}, {_profiles_in_words(item)}\n  {entry['trtexec']}")
    if arguments.out is None:
        print("nothing was built; ENGINES stands for a folder of this bundle and GPU in the user's cache")
    return 0


def _build(arguments: argparse.Namespace, bundle: Bundle, plans: list[NetworkPlan], flags: Flags) -> int:
    from immunogate.cli.interrupt import StopRequest
    from immunogate.engines.machine import this_machine
    from immunogate.engines.store import engines_folder
    from immunogate.export.engine.build import default_timing_cache
    from immunogate.export.engine.builder import EngineBuilder, load_tensorrt

    trt, state = load_tensorrt(arguments.device)
    machine = this_machine(state, arguments.device, str(trt.__version__))
    folder = arguments.out or engines_folder(bundle, machine.compute_capability)
    cache = None if arguments.no_timing_cache else arguments.timing_cache or default_timing_cache(machine)
    builder = EngineBuilder(trt, arguments.device)
    request = StopRequest()
    with request.listening(), request.shielded():
        results = [_built(arguments, builder, bundle, item, flags, machine, folder, cache, request) for item in plans]
    if request.requested:
        raise KeyboardInterrupt
    _report(arguments, bundle, plans, results, machine, folder, cache)
    return 0


def _built(
    arguments: argparse.Namespace, builder: Any, bundle: Bundle, item: NetworkPlan, flags: Flags, machine: Machine,
    folder: Path, cache: Path | None, request: Any,
) -> Result:  # fmt: skip
    from immunogate.engines.store import engine_path
    from immunogate.export.engine.build import Result, build_network, up_to_date

    record = None if arguments.force else up_to_date(folder, bundle, item, flags, machine)
    if record is not None:
        print(f"{item.network}: up to date", file=sys.stderr)
        return Result(record, engine_path(folder, item.network), False)
    print(f"{item.network}: building {item.precision}, {_profiles_in_words(item)} ...", file=sys.stderr, flush=True)
    with _bar(item.network) as show:
        result = build_network(
            builder, bundle, item, flags, machine, folder, cache, show, lambda: bool(request.requested)
        )
    print(f"{item.network}: {result.record.build_seconds:.1f} s", file=sys.stderr, flush=True)
    for note in result.notes:
        print(f"{item.network}: {note}", file=sys.stderr)
    return result


@contextmanager
def _bar(what: str) -> Iterator[Show]:
    """A bar on stderr where that is a terminal, with the innermost phase and the time left."""
    from tqdm import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"
    with tqdm(total=1.0, desc=what, disable=None, file=sys.stderr, leave=False, bar_format=layout) as bar:

        def show(share: float, phase: str) -> None:
            bar.set_postfix_str(phase[:40], refresh=False)
            bar.update(share - bar.n)

        yield show


def _report(
    arguments: argparse.Namespace, bundle: Bundle, plans: list[NetworkPlan], results: list[Result], machine: Machine,
    folder: Path, cache: Path | None,
) -> None:  # fmt: skip
    networks = []
    for item, result in zip(plans, results, strict=True):
        line = _trtexec(arguments, bundle, item, result.record.flags, folder, cache)
        about = {"engine": str(result.path), "built": result.fresh, "notes": list(result.notes), "trtexec": line}
        networks.append({**dataclasses.asdict(result.record), **about})
    if arguments.json:
        print_json(
            {
                "folder": str(folder),
                "timing_cache": None if cache is None else str(cache),
                "machine": dataclasses.asdict(machine),
                "networks": networks,
            }
        )
        return
    for result, entry in zip(results, networks, strict=True):
        record = result.record
        state = f"built in {record.build_seconds:.1f} s" if result.fresh else "up to date"
        print(f"{record.network:<12}{record.precision:<14}{record.engine_bytes / 1e6:>8.1f} MB  {state}  {result.path}")
        print(f"  {entry['trtexec']}")
    if any(result.record.flags.version_compatible for result in results):
        print("version compatible engines carry code and are loaded only when signed: immunogate bundle sign --engines")
    print(f"next: immunogate verify {bundle.folder} --engines-only --faces FACES.npz")


def _trtexec(
    arguments: argparse.Namespace, bundle: Bundle, item: NetworkPlan, flags: Flags, folder: Path,
    cache: Path | None = None,
) -> str:  # fmt: skip
    from immunogate.engines.store import engine_path
    from immunogate.export.engine.trtexec import trtexec_command

    return trtexec_command(
        item, flags, bundle.folder / item.file, engine_path(folder, item.network), cache or arguments.timing_cache,
        arguments.device,
    )  # fmt: skip


def _profiles_in_words(item: NetworkPlan) -> str:
    if not item.profiles:
        return "its only shape"
    if item.network == "detector":
        frames = item.profiles[0].max
        return f"frames up to {frames[3]} x {frames[2]} pixels"
    return f"batches of {', '.join(str(profile.opt[0]) for profile in item.profiles)}"
