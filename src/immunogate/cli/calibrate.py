"""``immunogate calibrate``: limits measured on people."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import FACES_HELP, add_json, identified_faces, print_json, recognise_all

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.manifest import Calibration


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser("calibrate", help="measure thresholds", description="Measure a bundle's limits.")
    parts = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    threshold = parts.add_parser(
        "threshold",
        help="decision thresholds and alarm limit",
        description="Measure decision thresholds and the alarm limit on clean pairs of the complete defended chain, "
        "and write them into the bundle. Use people whom the gate will not be judged on.",
    )
    threshold.add_argument("bundle", type=Path, help="the bundle to calibrate")
    threshold.add_argument("faces", type=Path, help=FACES_HELP)
    add_json(threshold)
    threshold.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, write, report."""
    from immunogate.bundle import open_bundle

    bundle = calibrate_bundle(open_bundle(arguments.bundle), arguments.faces)
    calibration = bundle.calibration()
    if arguments.json:
        print_json(dataclasses.asdict(calibration))
    else:
        print(to_text(calibration))
    return 0


def calibrate_bundle(bundle: Bundle, faces_file: Path) -> Bundle:
    """Measure on the faces of a file and write the limits into the bundle."""
    import numpy as np

    from immunogate.calib.threshold import calibrate, even_out, thin
    from immunogate.files import sha256_of_file
    from immunogate.runtime.chain import open_chain

    faces = identified_faces(faces_file)
    assert faces.identities is not None  # identified_faces has seen to it
    even = faces.take(even_out(faces.identities))
    assert even.identities is not None
    chosen = even.take(thin(even.identities))
    assert chosen.identities is not None
    with open_chain(bundle) as chain:
        found = recognise_all(chain, chosen.images, "calibrating")
    people = len(np.unique(chosen.identities))
    calibration = calibrate(
        np.concatenate([part.raw for part in found]),
        np.concatenate([part.purified for part in found]),
        chosen.identities,
        bundle.manifest.embedding_hash(),
        f"{len(chosen)} faces of {people} people in {faces_file.name} (sha256 {sha256_of_file(faces_file)[:16]})",
    )
    return bundle.with_calibration(calibration)


def to_text(calibration: Calibration) -> str:
    """The limits as a table."""
    lines = [
        f"{calibration.status}: {calibration.source}",
        f"{'FMR':>8}{'threshold':>12}{'FMR upper 95 %':>17}{'impostor pairs':>17}{'TAR':>8}{'genuine pairs':>15}",
    ]
    lines += [
        f"{row.fmr:>8g}{row.threshold:>12.4f}{row.fmr_upper:>17.2e}{row.impostor_pairs:>17,}{row.tar:>8.3f}"
        f"{row.genuine_pairs:>15,}"
        for row in calibration.thresholds
    ]
    lines.append(
        f"alarm above an attack score of {calibration.alarm:.3f} ({100 * calibration.alarm_rate:.2g} % of clean faces)"
    )
    return "\n".join(lines)
