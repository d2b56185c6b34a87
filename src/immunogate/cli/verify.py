"""``immunogate verify``: torch, ONNX and NumPy compute the same."""

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
from immunogate.errors import ImmunogateError, UsageError
from immunogate.files import find_data

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.export.verify import Check
    from immunogate.networks.twin import TorchTwin
    from immunogate.structs import Pixels

ALIGNED = Path("faces/lfw_dev_aligned_112.npz")


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "verify",
        help="compare a bundle with its checkpoints",
        description="Compare torch, ONNX Runtime and NumPy output by output on real faces; fails past stated limits. "
        "Checkpoints are found by their hash where they were exported; elsewhere name them.",
    )
    add_bundle(parser, positional=True)
    parser.add_argument("--faces", type=Path, help=f"{FACES_HELP} (default: the development data)")
    parser.add_argument("--basis", type=Path, help="the eigenbasis the bundle was exported from")
    parser.add_argument("--recogniser", type=Path, help="the recogniser's checkpoint")
    parser.add_argument("--purifier", type=Path, help="the purifier's checkpoint")
    parser.add_argument("--detector", type=Path, help="the detector's file (where it is not known, it is not compared)")
    parser.add_argument("--count", type=int, default=64, help="faces to compare (default 64)")
    add_runner(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare and report; exit status 1 where a limit is passed."""
    from immunogate.basis import basis_from_bytes
    from immunogate.export.verify import table, verify
    from immunogate.runtime.chain import open_chain

    bundle = opened_bundle(arguments.bundle)
    bundle.check()
    twin = _twin(bundle, arguments)
    crops = _crops(arguments)
    name = bundle.manifest.purifier.basis
    with step(f"comparing on {len(crops)} faces"), open_chain(bundle, runner=arguments.runner) as chain:
        runners = say_runners(chain, arguments.runner)
        basis = basis_from_bytes(bundle.read(name), name)
        original = "the ONNX given" if "recogniser_description" in bundle.manifest.provenance else "torch"
        precision = bundle.manifest.recogniser.precision
        checks = verify(twin, chain, basis, crops, precision, original=original)
    checks += _detector_checks(bundle, arguments.detector)
    passed = all(check.passed for check in checks)
    if arguments.json:
        listed = [check.to_dict() for check in checks]
        print_json({"passed": passed, "faces": len(crops), "runners": runners, "checks": listed})
    else:
        print(table(checks))
        print("verified" if passed else "NOT verified: a limit is passed")
    return 0 if passed else 1


def _detector_checks(bundle: Bundle, named: Path | None) -> list[Check]:
    """The detector must be, byte for byte, what export makes of its source."""
    from immunogate.export.detectors import portable_detector
    from immunogate.export.verify import same_bytes

    try:
        path = _checkpoint(bundle, "detector", named)
    except UsageError as error:
        if named is not None:
            raise
        print(f"the detector was not compared: {error}", file=sys.stderr)
        return []
    made = portable_detector(path)[0].SerializeToString()
    return [same_bytes("detector", "bundle - its source", bundle.read(bundle.manifest.detector.file), made)]


def _twin(bundle: Bundle, arguments: argparse.Namespace) -> TorchTwin:
    from immunogate.export.description import description_of
    from immunogate.export.sources import load_sources
    from immunogate.networks.twin import TorchTwin

    manifest = bundle.manifest
    roles = ["basis", "recogniser"] + (["purifier"] if manifest.analyzer else [])
    paths = {role: _checkpoint(bundle, role, getattr(arguments, role)) for role in roles}
    described = manifest.provenance.get("recogniser_description")
    sources = load_sources(
        paths["basis"],
        paths["recogniser"],
        manifest.recogniser.architecture,
        paths.get("purifier"),
        float(manifest.provenance.get("memory_temperature", 1.0)),
        None if described is None else description_of(described, "manifest.json: provenance.recogniser_description"),
    )
    mode, top_k, views = manifest.purifier.mode, manifest.purifier.top_k, manifest.recogniser.views
    return TorchTwin(sources.recogniser, sources.spec, sources.basis, mode, top_k, sources.purifier, views)


def _checkpoint(bundle: Bundle, role: str, named: Path | None) -> Path:
    """The checkpoint of a role: the one named, or the one remembered; it must have the hash in the manifest."""
    from immunogate.export.known_checkpoints import find
    from immunogate.files import sha256_of_file

    entry = bundle.manifest.provenance.get("checkpoints", {}).get(role, {})
    expected = str(entry.get("sha256", ""))
    path = named or find(expected)
    if path is None:
        made_from = f"{entry.get('file', 'unknown')}, sha256 {expected[:16]}"
        raise UsageError(
            f"the {role} checkpoint of this bundle ({made_from}) is not known here", f"Name it: --{role} PATH"
        )
    if sha256_of_file(path) != expected:
        raise ImmunogateError(f"{path} is not the {role} this bundle was exported from (sha256 {expected[:16]}...)")
    return path


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
