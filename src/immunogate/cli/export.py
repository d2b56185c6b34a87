"""``immunogate export``: from training checkpoints to a bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from immunogate.cli.common import FACES_HELP, add_json, identified_faces, print_json, step
from immunogate.errors import InputError
from immunogate.manifest import EXPORT_PRECISIONS

LARGEST_NOTES = 1 << 20
RECOGNISERS_HELP = (
    "of a checkpoint: mobilefacenet, irse50, ir50, iresnet50 and more, see immunogate.networks.recognisers, or auto, "
    "which finds it by names and shapes (default auto)"
)
DESCRIPTION_HELP = "how an ONNX recogniser is fed: arcface, arcface-raw, sface, or a TOML file"


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "export",
        help="make a bundle from checkpoints",
        description="Make a bundle: detector, purifier and recogniser as ONNX, the eigenbasis, a manifest with hashes.",
    )
    parser.add_argument("--basis", type=Path, required=True, help="basis.npz, or the public eigenbasis (.pth)")
    parser.add_argument(
        "--recogniser", type=Path, required=True, help="checkpoint (a torch state dict), or an ONNX file"
    )
    parser.add_argument("--recogniser-arch", default="auto", metavar="NAME", help=RECOGNISERS_HELP)
    parser.add_argument("--recogniser-description", metavar="NAME", help=DESCRIPTION_HELP)
    parser.add_argument("--detector", type=Path, required=True, help="ONNX file: a YuNet, or an SCRFD with key points")
    parser.add_argument(
        "--purifier", type=Path, help="checkpoint as training saved it, or a public one; without it mode is fixed"
    )
    parser.add_argument(
        "--temperature", type=float, help="of the purifier's memory (default the checkpoint's, or 1, as published)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--precision",
        choices=EXPORT_PRECISIONS,
        default="fp32",
        help="of the networks; fp16-weights halves their files and calculates in fp32 (default fp32)",
    )
    parser.add_argument(
        "--basis-storage", choices=("float32", "float16", "int8"), default="float16", help="(default float16)"
    )
    parser.add_argument(
        "--mode", help="fixed, expected, threshold, sample or select (default fixed, with --purifier expected)"
    )
    parser.add_argument("--top-k", type=int, help="eigenfaces kept in mode fixed (default 1000, or all if fewer)")
    parser.add_argument("--clones", type=int, default=64, help="drawn in mode select (default 64)")
    parser.add_argument("--keep", type=int, default=4, help="clones kept in mode select (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the clones (default 0)")
    parser.add_argument(
        "--views",
        type=int,
        default=1,
        help="of each purified face to average: 1, 2 or 4; safer, and as many times the recogniser's time (default 1)",
    )
    parser.add_argument(
        "--license", default="not stated", help="of the weights, for manifest and model card (default: not stated)"
    )
    parser.add_argument("--calibrate", type=Path, metavar="FACES", help=f"measure thresholds on {FACES_HELP}")
    parser.add_argument("--notes", type=Path, help="Markdown to end the model card with, such as measured quality")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that stands at --out")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load, export, calibrate and report."""
    from immunogate.cli.calibrate import calibrate_bundle
    from immunogate.export.assemble import ExportOptions, export_bundle
    from immunogate.export.description import read_description
    from immunogate.export.known_checkpoints import remember
    from immunogate.export.sources import load_sources

    options = ExportOptions(
        arguments.precision,
        arguments.basis_storage,
        arguments.mode,
        arguments.top_k,
        arguments.clones,
        arguments.keep,
        arguments.seed,
        arguments.license,
        arguments.overwrite,
        _notes(arguments.notes),
        arguments.views,
    )
    if arguments.calibrate:
        identified_faces(arguments.calibrate)  # refuse a file that will not do before the work, not after
    with step("exporting"):
        named = arguments.recogniser_description
        sources = load_sources(
            arguments.basis,
            arguments.recogniser,
            arguments.recogniser_arch,
            arguments.purifier,
            arguments.temperature,
            read_description(named) if named else None,
        )
        why = "as described" if named else "all names and shapes agree"
        _say(f"recogniser {arguments.recogniser.name}: {sources.spec.name}, of {sources.spec.source} ({why})")
        bundle = export_bundle(sources, arguments.detector, arguments.out, options, _say)
    used = (arguments.basis, arguments.recogniser, arguments.purifier, arguments.detector)
    remember([path for path in used if path])
    bundle = calibrate_bundle(bundle, arguments.calibrate) if arguments.calibrate else _provisional(bundle)
    calibration = bundle.manifest.calibration
    if arguments.json:
        print_json({
            "bundle": str(arguments.out),
            "model_id": bundle.manifest.model_id,
            "sha256": bundle.sha256,
            "bytes": sum(entry.bytes for entry in bundle.manifest.files.values()),
            "opset": bundle.manifest.recogniser.opset,
            "recogniser": bundle.manifest.recogniser.architecture,
            "detector": bundle.manifest.detector.architecture,
            "calibration": calibration.status if calibration else None,
        })  # fmt: skip
    else:
        print(f"{arguments.out}: {bundle.manifest.model_id}, opset {bundle.manifest.recogniser.opset}, "
              f"mode {bundle.manifest.purifier.mode}")  # fmt: skip
    print(f"next: immunogate verify {arguments.out}; immunogate enroll --bundle {arguments.out} --gallery g.db FOLDER",
          file=sys.stderr)  # fmt: skip
    return 0


def _notes(path: Path | None) -> str:
    from immunogate.files import read_bytes

    if path is None:
        return ""
    try:
        return read_bytes(path, LARGEST_NOTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8", "Save it as Markdown in UTF-8") from error


def _provisional(bundle: Any) -> Any:
    from immunogate.calib.provisional import provisional_calibration

    calibration = provisional_calibration(bundle.manifest)
    command = f"immunogate calibrate threshold {bundle.folder} FACES.npz"
    if calibration is None:
        print(f"warning: no threshold is known for this recogniser and mode; before a run: {command}", file=sys.stderr)
        return bundle
    print(
        f"warning: provisional threshold (same recogniser weights, another eigenbasis); measure your own: {command}",
        file=sys.stderr,
    )
    return bundle.with_calibration(calibration)


def _say(name: str) -> None:
    print(f"  {name}", file=sys.stderr, flush=True)
