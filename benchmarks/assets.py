"""Real things to measure on: development faces, an eigenbasis of some of the people, a bundle made from it.

What is slow to make is kept in ``out/benchmarks`` under a name that holds the hashes of what it was made from.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common import ROOT, guarded, say

from immunogate.basis import Eigenbasis, load_basis, save_basis
from immunogate.bundle import Bundle, open_bundle
from immunogate.errors import UsageError
from immunogate.faces_file import AlignedFaces, identity_split, load_aligned_faces
from immunogate.files import find_data, sha256_of_file
from immunogate.manifest import MANIFEST_NAME

BESIDE = ROOT.parent / "shared" / "data"
KEPT = ROOT / "out" / "benchmarks"
ALIGNED = "faces/lfw_dev_aligned_112.npz"
RECOGNISER = "models/mobilefacenet_casia_112x96.pt"
ARCHITECTURE = "mobilefacenet"
DETECTOR = "models/face_detection_yunet_2023mar.onnx"
CLIP_OF_ONE = "video/head-pose-face-detection-male.gif"
CLIP_OF_TWO = "video/head-pose-face-detection-female-and-male.gif"
COMPONENTS = 1500
SPLIT_SEED = 1
TEST_SHARE = 0.3


def data() -> Path:
    """The folder of development data.

    Raises:
        UsageError: it is not here.
    """
    folder = find_data()
    if folder is None and "IMMUNOGATE_DATA" not in os.environ and BESIDE.is_dir():
        return BESIDE  # called from another folder than the project's
    if folder is None:
        raise UsageError("this benchmark needs the development data", "Set IMMUNOGATE_DATA to its folder")
    return folder


def split_faces() -> tuple[AlignedFaces, AlignedFaces]:
    """The development faces by people: those to fit on, and those kept back."""
    faces = load_aligned_faces(data() / ALIGNED)
    assert faces.identities is not None  # this file has them
    fit, kept_back = identity_split(faces.identities, SPLIT_SEED, TEST_SHARE)
    return faces.take(fit), faces.take(kept_back)


def fitted_basis_file(fresh: bool = False) -> Path:
    """An eigenbasis of the people to fit on, fitted where it is not kept from before, or again if ``fresh``."""
    key = sha256_of_file(data() / ALIGNED)[:12]
    path = KEPT / f"basis-{COMPONENTS}-seed{SPLIT_SEED}-{key}.npz"
    if fresh or not path.is_file():
        from immunogate.training.eigenbasis import fit_eigenbasis

        fit, _ = split_faces()
        say(f"fitting {COMPONENTS} eigenfaces of {len(fit)} faces")
        save_basis(path, fit_eigenbasis(fit.images, COMPONENTS))
    return path


def fitted_basis() -> Eigenbasis:
    """The same, loaded."""
    return load_basis(fitted_basis_file())


def exported_bundle(top_k: int = 1000, fresh: bool = False) -> Bundle:
    """A bundle of the real recogniser and the fitted eigenbasis, mode fixed.

    Exported (which needs torch) where it is not kept from before; both it and the eigenbasis are made again if
    ``fresh``, since what is kept does not know of changes in the code that made it.
    """
    basis = fitted_basis_file(fresh)
    key = "-".join(sha256_of_file(path)[:8] for path in (basis, data() / RECOGNISER, data() / DETECTOR))
    folder = KEPT / f"bundle-{top_k}-{key}"
    if fresh or not (folder / MANIFEST_NAME).is_file():
        from immunogate.export.assemble import ExportOptions, export_bundle
        from immunogate.export.sources import load_sources

        say("exporting a bundle")
        sources = load_sources(basis, data() / RECOGNISER, ARCHITECTURE)
        options = ExportOptions(top_k=top_k, license="not stated", overwrite=True)
        export_bundle(sources, data() / DETECTOR, folder, options)
    return open_bundle(folder)


def main() -> int:
    """Make what is slow to make, anew."""
    print(exported_bundle(fresh=True).folder)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
