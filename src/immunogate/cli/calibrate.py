"""``immunogate calibrate``: limits measured on people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli import calibrate_clones, calibrate_precision
from immunogate.cli.calibrate_measure import FALSE_ALARMS, Asked, measured
from immunogate.cli.calibrate_report import check_picture, plot_det, report_to_text, to_data, to_text
from immunogate.cli.common import (
    FACES_HELP,
    add_backend,
    add_bundle,
    add_json,
    add_runner,
    identified_faces,
    opened_bundle,
    print_json,
)
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle

__all__ = ["add_parser", "calibrate_bundle", "run", "to_text"]


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser(
        "calibrate",
        help="measure thresholds, choose clones, change precision",
        description="Measure on faces, and write into bundles.",
    )
    parts = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    threshold = parts.add_parser(
        "threshold",
        help="decision thresholds and alarm limits",
        description="Measure decision thresholds and alarm limits on clean pairs of the complete defended chain, "
        "and write them into the bundle. Use people whom the gate will not be judged on. Faces that look attacked or "
        "are under wrong names are refused.",
    )
    add_bundle(threshold, positional=True)
    threshold.add_argument("faces", type=Path, help=FACES_HELP)
    threshold.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write a calibrated copy there; the shipped bundle is never changed"
    )
    threshold.add_argument(
        "--fmr", type=float, nargs="+", metavar="RATE",
        help="false match rates beside 1e-2, 1e-3 and 1e-4; refused where the comparisons do not support them",
    )  # fmt: skip
    threshold.add_argument(
        "--false-alarms", type=float, default=FALSE_ALARMS, metavar="RATE",
        help="share of clean faces that may raise an alarm, split over the signals (default 0.001)",
    )  # fmt: skip
    threshold.add_argument("--plot", type=Path, metavar="FILE", help="draw the DET curve, .png or .svg")
    threshold.add_argument(
        "--force", action="store_true", help="measure on faces that would be refused; the manifest says so"
    )
    add_backend(threshold)
    add_runner(threshold)
    add_json(threshold)
    threshold.set_defaults(run=run)
    calibrate_clones.add_parser(parts)
    calibrate_precision.add_parser(parts)


def run(arguments: argparse.Namespace) -> int:
    """Measure, write, report."""
    from immunogate.bundle import write_manifest

    if arguments.bundle is None and arguments.out is None:
        raise UsageError("the shipped bundle is not changed in place", "Give --out FOLDER for a calibrated copy of it")
    asked = Asked(
        arguments.backend, arguments.runner, tuple(arguments.fmr or ()), arguments.false_alarms, arguments.force
    )
    check_picture(arguments.plot)
    bundle = opened_bundle(arguments.bundle)
    identified_faces(arguments.faces)  # refuse a file that will not do before anything is written
    with to_be_changed(bundle, arguments.out) as target:
        manifest, report = measured(target, arguments.faces, asked)
        write_manifest(target.folder, manifest)
    calibration = manifest.calibration
    assert calibration is not None  # it was just measured
    if arguments.plot:
        plot_det(report, calibration, arguments.plot)
    if arguments.json:
        print_json(to_data(calibration, report))
    else:
        print(f"{to_text(calibration)}\n\n{report_to_text(report)}")
    used = calibration.measured_with
    for words in used.forced if used else []:
        print(f"warning: forced: {words}", file=sys.stderr)
    return 0


@contextmanager
def to_be_changed(bundle: Bundle, out: Path | None) -> Iterator[Bundle]:
    """The bundle itself, or a copy that stands at ``out`` once the block ends without an error.

    Raises:
        UsageError: something is at the folder already, or it can not be written.
        BundleError: a file is missing or damaged.
    """
    from immunogate.bundle import open_bundle, write_manifest
    from immunogate.folders import folder_written_whole

    if out is None:
        yield bundle
        return
    if out.exists():
        raise UsageError(f"{out} is there already", "Name a folder that is not")
    with folder_written_whole(out) as folder:
        for name in bundle.manifest.files:
            (folder / name).write_bytes(bundle.read(name))
        write_manifest(folder, bundle.manifest)
        yield open_bundle(folder)


def calibrate_bundle(bundle: Bundle, faces_file: Path, asked: Asked | None = None) -> Bundle:
    """Measure on the faces of a file, write the limits into the bundle, and open it anew; see `measured`."""
    from immunogate.bundle import open_bundle, write_manifest

    manifest, _ = measured(bundle, faces_file, asked or Asked())
    write_manifest(bundle.folder, manifest)
    return open_bundle(bundle.folder)
