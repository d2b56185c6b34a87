"""``immunogate calibrate``: limits measured on people."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli import calibrate_precision
from immunogate.cli.common import (
    FACES_HELP,
    add_backend,
    add_bundle,
    add_json,
    add_runner,
    identified_faces,
    opened_bundle,
    print_json,
    recognise_all,
    say_runners,
)
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.manifest import Calibration

UNDEFENDED_RATE = 1e-3


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser(
        "calibrate",
        help="measure thresholds, change precision",
        description="Measure on faces, and write into bundles.",
    )
    parts = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    threshold = parts.add_parser(
        "threshold",
        help="decision thresholds and alarm limit",
        description="Measure decision thresholds and the alarm limit on clean pairs of the complete defended chain, "
        "and write them into the bundle. Use people whom the gate will not be judged on.",
    )
    add_bundle(threshold, positional=True)
    threshold.add_argument("faces", type=Path, help=FACES_HELP)
    threshold.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write a calibrated copy there; the shipped bundle is never changed"
    )
    add_backend(threshold)
    add_runner(threshold)
    add_json(threshold)
    threshold.set_defaults(run=run)
    calibrate_precision.add_parser(parts)


def run(arguments: argparse.Namespace) -> int:
    """Measure, write, report."""
    if arguments.bundle is None and arguments.out is None:
        raise UsageError("the shipped bundle is not changed in place", "Give --out FOLDER for a calibrated copy of it")
    bundle = opened_bundle(arguments.bundle)
    identified_faces(arguments.faces)  # refuse a file that will not do before anything is written
    if arguments.out is not None:
        bundle = copied(bundle, arguments.out)
    bundle = calibrate_bundle(bundle, arguments.faces, arguments.backend, arguments.runner)
    calibration = bundle.calibration()
    if arguments.json:
        print_json(dataclasses.asdict(calibration))
    else:
        print(to_text(calibration))
    return 0


def copied(bundle: Bundle, folder: Path) -> Bundle:
    """A copy of a bundle, each file verified on the way.

    Raises:
        UsageError: something is at the folder already, or it can not be written.
        BundleError: a file is missing or damaged.
    """
    from functools import partial

    from immunogate.bundle import open_bundle, write_manifest
    from immunogate.files import write_whole

    if folder.exists():
        raise UsageError(f"{folder} is there already", "Name a folder that is not")
    for name in bundle.manifest.files:
        data = bundle.read(name)
        write_whole(folder / name, partial(Path.write_bytes, data=data))
    write_manifest(folder, bundle.manifest)
    return open_bundle(folder)


def calibrate_bundle(bundle: Bundle, faces_file: Path, backend: str = "cpu", runner: str = "cpu") -> Bundle:
    """Measure on the faces of a file and write the limits into the bundle.

    The threshold that the recogniser would need without purification goes into the provenance: nothing decides by
    it, but a comparison with an undefended gate needs it.
    """
    import numpy as np

    from immunogate.bundle import open_bundle, write_manifest
    from immunogate.calib.threshold import calibrate, even_out, pair_scores, thin, threshold_at
    from immunogate.files import sha256_of_file
    from immunogate.runtime.chain import open_chain

    faces = identified_faces(faces_file)
    assert faces.identities is not None  # identified_faces has seen to it
    even = faces.take(even_out(faces.identities))
    assert even.identities is not None
    chosen = even.take(thin(even.identities))
    assert chosen.identities is not None
    with open_chain(bundle, backend=backend, runner=runner) as chain:
        say_runners(chain, runner)
        found = recognise_all(chain, chosen.images, "calibrating")
    people = len(np.unique(chosen.identities))
    raw = np.concatenate([part.raw for part in found])
    bare = threshold_at(pair_scores(raw, chosen.identities), UNDEFENDED_RATE)
    manifest = bundle.manifest
    stated = {name: value for name, value in manifest.provenance.items() if name != "undefended"}
    if bare is not None:
        recogniser = manifest.files[manifest.recogniser.file].sha256
        stated["undefended"] = {**dataclasses.asdict(bare), "recogniser_sha256": recogniser}
    write_manifest(bundle.folder, dataclasses.replace(manifest, provenance=stated))
    bundle = open_bundle(bundle.folder)
    calibration = calibrate(
        raw,
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
