"""``immunogate verify``: torch, ONNX, engines and NumPy compute the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import (
    FACES_HELP,
    add_bundle,
    add_json,
    add_runner,
    opened_bundle,
    print_json,
    say_runners,
    step,
)
from immunogate.cli.twin import ROLES, checkpoint_of, twin_of
from immunogate.errors import ImmunogateError, UsageError
from immunogate.files import find_data

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.cli.verify_engines import Engines
    from immunogate.export.checks import Check
    from immunogate.networks.twin import TorchTwin
    from immunogate.structs import Pixels

ALIGNED = Path("faces/lfw_dev_aligned_112.npz")


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "verify",
        help="compare a bundle with its checkpoints",
        description="Compare torch, ONNX Runtime, NumPy and the TensorRT engines of this machine output by output on "
        "real faces; fails past stated limits. Checkpoints are found by their hash where they were exported; elsewhere "
        "name them, or compare engines alone.",
    )
    add_bundle(parser, positional=True)
    parser.add_argument("--faces", type=Path, help=f"{FACES_HELP} (default: the development data)")
    parser.add_argument("--basis", type=Path, help="the eigenbasis the bundle was exported from")
    parser.add_argument("--recogniser", type=Path, help="the recogniser's checkpoint")
    parser.add_argument("--purifier", type=Path, help="the purifier's checkpoint")
    parser.add_argument("--detector", type=Path, help="the detector's file (where it is not known, it is not compared)")
    parser.add_argument(
        "--engines", type=Path, metavar="FOLDER", help="where the engines are (left out: the user's cache)"
    )
    parser.add_argument(
        "--engines-only",
        action="store_true",
        help="compare engines with ONNX alone: needs neither torch nor checkpoints",
    )
    parser.add_argument("--device", type=int, default=0, metavar="N", help="number of the GPU (default 0)")
    parser.add_argument("--count", type=int, default=64, help="faces to compare (default 64)")
    add_runner(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare and report; exit status 1 where a limit is passed."""
    from immunogate.cli.verify_engines import opened_engines
    from immunogate.export.checks import table

    bundle = opened_bundle(arguments.bundle)
    bundle.check()
    twin = None if arguments.engines_only else twin_of(bundle, {role: getattr(arguments, role) for role in ROLES})
    crops = _crops(arguments)
    with opened_engines(bundle, arguments.engines, arguments.device) as engines:
        if engines.chain is None and (arguments.engines_only or arguments.engines):
            raise ImmunogateError(f"engines: not checked: {engines.reason}")
        with step(f"comparing on {len(crops)} faces"):
            checks, runners = _checks(bundle, crops, twin, engines, arguments.runner)
    if twin is not None:
        checks += _detector_checks(bundle, arguments.detector)
    passed = all(check.passed for check in checks)
    if arguments.json:
        about = {"passed": passed, "faces": len(crops), "runners": runners, "engines": engines.to_dict()}
        print_json({**about, "checks": [check.to_dict() for check in checks]})
    else:
        print(table(checks))
        print(f"engines: {_in_words(engines)}")
        print("verified" if passed else "NOT verified: a limit is passed")
    return 0 if passed else 1


def _checks(
    bundle: Bundle, crops: Pixels, twin: TorchTwin | None, engines: Engines, runner: str
) -> tuple[list[Check], dict[str, str]]:
    """ONNX against torch, engines against ONNX, engines against torch: each where both are here; who ran the ONNX."""
    from immunogate.basis import basis_from_bytes
    from immunogate.export.verify_engines import verify_engines
    from immunogate.runtime.chain import open_chain

    name, precision = bundle.manifest.purifier.basis, bundle.manifest.recogniser.precision
    basis = basis_from_bytes(bundle.read(name), name)
    original = "the ONNX given" if "recogniser_description" in bundle.manifest.provenance else "torch"
    checks: list[Check] = []
    with open_chain(bundle, runner=runner) as chain:
        runners = say_runners(chain, runner)
        if twin is not None:
            from immunogate.export.verify import verify

            checks += verify(twin, chain, basis, crops, precision, original=original)
        if engines.chain is not None:
            checks += verify_engines(chain, engines.chain, crops, engines.precisions, _threshold(bundle))
            if twin is not None:
                checks += verify(twin, engines.chain, basis, crops, precision, runner="engine", original=original)
    return checks, runners


def _threshold(bundle: Bundle) -> float | None:
    """Of the strictest rate that was calibrated; None where none was."""
    calibration = bundle.manifest.calibration
    return min(calibration.thresholds, key=lambda row: row.fmr).threshold if calibration else None


def _in_words(engines: Engines) -> str:
    from immunogate.engines.record import NETWORKS
    from immunogate.export.verify_engines import precisions_in_words

    if engines.chain is None:
        return f"not checked: {engines.reason}"
    return precisions_in_words(engines.precisions, NETWORKS)


def _detector_checks(bundle: Bundle, named: Path | None) -> list[Check]:
    """The detector must be, byte for byte, what export makes of its source."""
    from immunogate.export.checks import same_bytes
    from immunogate.export.detectors import portable_detector

    try:
        path = checkpoint_of(bundle, "detector", named)
    except UsageError as error:
        if named is not None:
            raise
        print(f"the detector was not compared: {error}", file=sys.stderr)
        return []
    made = portable_detector(path)[0].SerializeToString()
    return [same_bytes("detector", "bundle - its source", bundle.read(bundle.manifest.detector.file), made)]


def _crops(arguments: argparse.Namespace) -> Pixels:
    import numpy as np

    from immunogate.faces_file import load_aligned_faces

    data = find_data()
    path = arguments.faces or (data / ALIGNED if data else None)
    if path is None:
        raise UsageError("verification needs real faces", "Give them: --faces FACES.npz")
    if arguments.count < 2:
        raise UsageError(f"--count must be at least 2, got {arguments.count}")
    images = load_aligned_faces(path).images
    chosen = np.linspace(0, len(images) - 1, min(arguments.count, len(images))).astype(np.intp)
    print(f"faces: {path}", file=sys.stderr)
    crops: Pixels = images[chosen]
    return crops
