"""``immunogate train``: what is learned from faces."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli import train_default_bundle, train_demo_attacks, train_detector, train_purifier, train_recogniser
from immunogate.cli.common import add_json, pictures_of, print_json, progress, step
from immunogate.errors import InputError, UsageError

if TYPE_CHECKING:
    from immunogate.structs import Pixels


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser(
        "train", help="learn eigenbasis and networks from faces", description="Learn from faces."
    )
    parts = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    basis = parts.add_parser(
        "basis",
        help="mean face and eigenfaces",
        description="Fit mean face and leading eigenfaces of aligned faces, or of a folder of photos, which are then "
        "detected and aligned as the gate does it.",
    )
    basis.add_argument("faces", type=Path, help="an .npz with images (N,112,112) uint8, or a folder of photos")
    basis.add_argument("--components", type=int, default=1500, help="eigenfaces to keep (default 1500)")
    basis.add_argument("--out", type=Path, required=True, help="where to write basis.npz")
    basis.add_argument("--detector", type=Path, help="YuNet ONNX file; needed for a folder of photos")
    basis.add_argument(
        "--storage",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="of the eigenfaces (default float32)",
    )
    basis.add_argument(
        "--copies", type=int, default=0, help="add so many jittered copies of each face (default 0; needs torch)"
    )
    basis.add_argument("--seed", type=int, default=0, help="of the jitter (default 0)")
    basis.add_argument("--picture", type=Path, help="where to draw mean, eigenfaces and energy (default beside --out)")
    basis.add_argument("--no-picture", action="store_true", help="draw nothing")
    add_json(basis)
    basis.set_defaults(run=run_basis)
    for part in (train_purifier, train_recogniser, train_detector, train_default_bundle, train_demo_attacks):
        part.add_parser(parts)


def run_basis(arguments: argparse.Namespace) -> int:
    """Fit, write, draw and report."""
    from immunogate.basis import orthonormality_error, save_basis
    from immunogate.training.eigenbasis import fit_eigenbasis

    if arguments.out.suffix != ".npz":
        raise UsageError(f"--out must end in .npz, got {arguments.out.name!r}")
    images = _images(arguments)
    if arguments.copies:
        images = _with_copies(images, arguments.copies, arguments.seed)
    with step(f"fitting {arguments.components} eigenfaces of {len(images)} faces"):
        basis = fit_eigenbasis(images, arguments.components)
    save_basis(arguments.out, basis, arguments.storage)
    picture = None if arguments.no_picture else _draw(arguments, basis)
    report = {
        "out": str(arguments.out),
        "faces": len(images),
        "components": basis.components,
        "explained": round(float(basis.explained()[-1]), 5),
        "orthonormality_error": orthonormality_error(basis),
        "storage": arguments.storage,
        "picture": picture,
    }
    if arguments.json:
        print_json(report)
    else:
        print(f"{arguments.out}: {basis.components} eigenfaces of {len(images)} faces hold "
              f"{100 * report['explained']:.1f} % of the variance")  # fmt: skip
        print(f"picture: {picture}" if picture else "no picture drawn", file=sys.stderr)
        print(f"next: immunogate export --basis {arguments.out} --recogniser R.pt --recogniser-arch NAME "
              "--detector yunet.onnx --out bundle", file=sys.stderr)  # fmt: skip
    return 0


def _images(arguments: argparse.Namespace) -> Pixels:
    from immunogate.faces_file import load_aligned_faces

    if not arguments.faces.is_dir():
        return load_aligned_faces(arguments.faces).images
    if arguments.detector is None:
        raise UsageError("a folder of photos needs --detector", "Give the YuNet ONNX file, or an .npz of aligned faces")
    return _aligned_from_folder(arguments.faces, arguments.detector)


def _with_copies(images: Pixels, copies: int, seed: int) -> Pixels:
    """The faces and, after them, jittered copies: eigenfaces of few faces then fit others nearly as well."""
    import numpy as np
    import torch

    from immunogate.faces_file import faces_from_pixels
    from immunogate.training.augment import jittered

    if copies < 0:
        raise UsageError(f"--copies must be 0 or more, got {copies}")
    faces = torch.from_numpy(faces_from_pixels(images))
    made = [
        jittered(faces, seed, copy, 1.0).add(1).mul(127.5).round().to(torch.uint8).numpy() for copy in range(copies)
    ]
    return np.concatenate([images, *(copy.reshape(images.shape) for copy in made)])


def _aligned_from_folder(folder: Path, detector_path: Path) -> Pixels:
    """The largest face of each photo, detected and aligned; photos without one are counted on stderr."""
    import numpy as np

    from immunogate.export.onnx_graph import portable_yunet
    from immunogate.runtime.align import align
    from immunogate.runtime.camera.pixels import read_picture
    from immunogate.runtime.detect import Detector
    from immunogate.runtime.runners.onnx import OnnxRunner
    from immunogate.runtime.upright import upright

    detector = Detector(OnnxRunner(portable_yunet(detector_path).SerializeToString(), detector_path.name))
    photos = pictures_of(folder)
    crops = []
    for path in progress(photos, "aligning", len(photos)):
        try:
            pixels = read_picture(path)
        except InputError as error:
            print(f"left out: {error.what}", file=sys.stderr)
            continue
        faces = detector.detect(pixels)
        if len(faces):
            crops.append(align(pixels, upright(detector, pixels, faces.landmarks[faces.largest()])))
    print(f"{len(crops)} of {len(photos)} photos have a face", file=sys.stderr)
    if not crops:
        raise InputError(f"no face was found in {folder}")
    return np.stack(crops)


def _draw(arguments: argparse.Namespace, basis: Any) -> str | None:
    from immunogate.errors import MissingExtraError
    from immunogate.training.plots import picture_of_basis

    path = arguments.picture or arguments.out.with_suffix(".png")
    try:
        picture_of_basis(basis, path)
    except MissingExtraError as error:
        if arguments.picture:
            raise
        print(f"no picture: {error}", file=sys.stderr)
        return None
    return str(path)
