"""Measures the provisional thresholds that ship in ``calib/provisional.json``.

The eigenbasis is fitted on some of the development people, the limits are measured on the others, through the chain
that is deployed: ONNX recogniser, eigenbasis in float16, mode fixed. Run it again whenever that chain changes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from assets import ALIGNED, ARCHITECTURE, COMPONENTS, SPLIT_SEED, TEST_SHARE, data, exported_bundle, split_faces
from common import ROOT, guarded, say
from environment import environment

from immunogate.bundle import Bundle
from immunogate.calib.threshold import calibrate, even_out
from immunogate.cli.common import recognise_all
from immunogate.faces_file import AlignedFaces
from immunogate.files import sha256_of_file, write_whole
from immunogate.runtime.chain import open_chain

TOP_KS = (100, 200, 300, 400, 700, 1000, 1500)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "calib" / "provisional.json", help="(default %(default)s)")
    parser.add_argument("--top-k", type=int, nargs="+", default=TOP_KS, help="eigenfaces kept (default %(default)s)")
    parser.add_argument("--faces", type=int, help="use only so many faces, for trying out")
    arguments = parser.parse_args(argv)
    before = environment()
    bundle, (fit, everybody) = exported_bundle(), split_faces()
    assert everybody.identities is not None  # the development faces have them
    kept_back = everybody.take(even_out(everybody.identities))
    faces = kept_back.take(np.arange(min(arguments.faces or len(kept_back), len(kept_back))))
    entries = [measure(bundle, faces, top_k) for top_k in sorted(arguments.top_k)]
    document = {"source": _source(fit, faces, before), "entries": entries}
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_whole(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))
    for entry in entries:
        rows = ", ".join(f"{row['threshold']:.4f} at FMR {row['fmr']:g}" for row in entry["thresholds"])
        print(f"top {entry['top_k']}: {rows}; alarm {entry['alarm']:.3f}")
    return 0


def measure(bundle: Bundle, faces: AlignedFaces, top_k: int) -> dict[str, Any]:
    """The limits with the leading ``top_k`` eigenfaces, as an entry of the file."""
    assert faces.identities is not None  # the development faces have them
    manifest = replace(bundle.manifest, purifier=replace(bundle.manifest.purifier, top_k=top_k))
    say(f"top {top_k}: {len(faces)} faces")
    with open_chain(replace(bundle, manifest=manifest)) as chain:
        found = recognise_all(chain, faces.images, f"top {top_k}")
    raw, purified = (np.concatenate([getattr(part, name) for part in found]) for name in ("raw", "purified"))
    calibration = calibrate(raw, purified, faces.identities, manifest.embedding_hash(), "")
    return {
        "recogniser_sha256": manifest.provenance["checkpoints"]["recogniser"]["sha256"],
        "architecture": ARCHITECTURE,
        "top_k": top_k,
        "alarm": calibration.alarm,
        "alarm_rate": calibration.alarm_rate,
        "measured_on": calibration.measured_on,
        "thresholds": [asdict(row) for row in calibration.thresholds],
    }


def _source(fit: AlignedFaces, faces: AlignedFaces, before: dict[str, Any]) -> str:
    """What was measured, on what and where, in words."""
    assert fit.identities is not None
    assert faces.identities is not None
    return (
        f"{len(faces)} faces of {len(np.unique(faces.identities))} people of {Path(ALIGNED).name} "
        f"(sha256 {sha256_of_file(data() / ALIGNED)[:16]}) kept back by identity_split(seed {SPLIT_SEED}, "
        f"{TEST_SHARE:g}); another eigenbasis than yours, {COMPONENTS} of {len(fit)} faces of "
        f"{len(np.unique(fit.identities))} other people; benchmarks/provisional.py, {before['date'][:10]}, "
        f"onnxruntime {before['packages']['onnxruntime']}, {before['cpu']}"
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
