"""``immunogate inspect``: what is in a bundle."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import add_bundle, add_json, opened_bundle, print_json

if TYPE_CHECKING:
    from immunogate.bundle import Bundle


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "inspect", help="show a bundle", description="Show what a bundle holds, and verify the hash of every file."
    )
    add_bundle(parser, positional=True)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify and print."""
    bundle = opened_bundle(arguments.bundle)
    bundle.check()
    if arguments.json:
        derived = {"sha256": bundle.sha256, "embedding_hash": bundle.manifest.embedding_hash()}
        print_json({**dataclasses.asdict(bundle.manifest), **derived})
    else:
        print(to_text(bundle))
    return 0


def to_text(bundle: Bundle) -> str:
    """What a person wants to know first."""
    from immunogate.cli.calibrate import to_text as calibration_to_text

    manifest = bundle.manifest
    purifier, recogniser = manifest.purifier, manifest.recogniser
    kept = f", top {purifier.top_k}" if purifier.mode == "fixed" else ""
    views = f", mean of {recogniser.views} views" if recogniser.views > 1 else ""
    analyzer = f"{manifest.analyzer.architecture}, {manifest.analyzer.precision}" if manifest.analyzer else "none"
    lines = [
        f"{manifest.model_id}  ({bundle.folder}, made {manifest.created})",
        f"licence     {manifest.license}",
        f"detector    {manifest.detector.architecture}",
        f"analyzer    {analyzer}",
        f"purifier    mode {purifier.mode}{kept} of {purifier.components} eigenfaces stored as {purifier.storage}",
        f"recogniser  {recogniser.architecture}, {recogniser.width}x{recogniser.height}, "
        f"{recogniser.embedding_dimension} values, {recogniser.precision}, opset {recogniser.opset}{views}",
        "",
        *(f"{name:<18}{entry.bytes:>12,} bytes  sha256 {entry.sha256}" for name, entry in manifest.files.items()),
        "every file has the hash in the manifest",
        "",
    ]
    if manifest.calibration is None:
        lines.append(f"not calibrated; run: immunogate calibrate threshold {bundle.folder} FACES.npz")
    else:
        lines.append(calibration_to_text(manifest.calibration))
    return "\n".join(lines)
