"""``immunogate train default-bundle``: every model that ships, from faces to the bundle, by the commands it shows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from immunogate.cli.commands import do_command, save_faces
from immunogate.errors import UsageError

ALIGNED = "faces/lfw_dev_aligned_112.npz"
TEACHER = "models/mobilefacenet_casia_112x96.pt"
KEPT_BACK = (1, 0.3)
"""Seed and share of the people whom no training sees."""

CALIBRATING = (3, 0.5)
"""Seed and share that cut those once more: limits are measured on one half, and the other is for reports."""

COMPONENTS, COPIES = 1000, 2
VIEWS = 4
"""The recogniser that ships is quick enough to look four times."""

REHEARSED = 1500
"""Steps of the purifier."""

HARDENED, HARDENING = 2000, 1e-4
"""Steps of the recogniser behind it, and their peak learning rate: it is smaller than others, and forgets sooner."""

LICENSE = (
    "Apache-2.0 for the weights as this project's work; trained on photos of Labeled Faces in the Wild and taught by "
    "MobileFaceNet (CASIA-WebFace) and YuNet: for research and demonstration"
)


def add_parser(parts: Any) -> None:
    """Add the part."""
    parser = parts.add_parser(
        "default-bundle",
        help="all models that ship with the package",
        description="Train eigenbasis, detector, recogniser and purifier on the development people, then that "
        "recogniser once more under attacks on both; export them as a bundle and calibrate it on people that nothing "
        "was trained on. Takes hours on a CPU. What is there already is not made again, and a training that was "
        "stopped goes on where it was.",
    )
    parser.add_argument("--data", type=Path, help="development data (default: IMMUNOGATE_DATA or ../shared/data)")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made on the way")
    parser.add_argument("--bundle", type=Path, help="where to write the bundle (default OUT/bundle)")
    parser.add_argument("--notes", type=Path, help="Markdown of measured quality for the model card")
    parser.add_argument("--threads", type=int, default=2, help="threads of each training (default 2)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """All steps in their order."""
    from immunogate.files import find_data

    data = arguments.data or find_data()
    if data is None:
        raise UsageError("the development data is not here", "Give --data, or set IMMUNOGATE_DATA to its folder")
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    _split(data / ALIGNED, out)
    threads = ("--threads", arguments.threads)
    basis, recogniser = out / "basis.npz", out / "recogniser.pt"
    if not basis.is_file():
        do_command(
            *("train", "basis", out / "learn.npz", "--copies", COPIES, "--components", COMPONENTS, "--out", basis)
        )
    if not (out / "detector.onnx").is_file():
        do_command("train", "detector", "--out", out / "detector.pt", "--onnx", out / "detector.onnx", *threads)
    if not recogniser.is_file():
        _recogniser(data, out, recogniser, threads)
    purifier = out / "purifier" / "purifier.pt"
    _purifier(out, basis, recogniser, threads)
    hardened = _hardened(data, out, basis, recogniser, purifier, threads)
    bundle = arguments.bundle or out / "bundle"
    do_command(
        *("export", "--basis", basis, "--basis-storage", "int8", "--recogniser", hardened),
        *("--recogniser-arch", "gateface", "--detector", out / "detector.onnx"),
        *("--purifier", purifier, "--views", VIEWS, "--precision", "fp16-weights"),
        *("--out", bundle, "--license", LICENSE),
        *("--calibrate", out / "calibrate.npz", "--overwrite"),
        *(("--notes", arguments.notes) if arguments.notes else ()),
    )
    do_command("inspect", bundle)
    print(f"next: immunogate train demo-attacks --bundle {bundle} --recogniser {hardened} --recogniser-arch gateface")
    return 0


def _split(aligned: Path, out: Path) -> None:
    """Write the people to learn from, to calibrate on and to report on: three files, nobody in two."""
    from immunogate.faces_file import identity_split, load_aligned_faces

    faces = load_aligned_faces(aligned)
    assert faces.identities is not None  # this file has them
    learn, kept_back = identity_split(faces.identities, *KEPT_BACK)
    others = faces.take(kept_back)
    assert others.identities is not None
    calibrate, report = identity_split(others.identities, *CALIBRATING)
    save_faces(faces.take(learn), out / "learn.npz")
    save_faces(others.take(calibrate), out / "calibrate.npz")
    save_faces(others.take(report), out / "report.npz")


def _recogniser(data: Path, out: Path, recogniser: Path, threads: tuple[str, int]) -> None:
    """In two runs: the first also follows the teacher's inner maps, the second looks at each face twice and slower."""
    first = out / "recogniser-first.pt"
    teach = ("train", "recogniser", data / ALIGNED, "--teacher", data / TEACHER, "--precision", "bfloat16", *threads)
    if not first.is_file():
        do_command(
            *(*teach, "--out", first, "--steps", 5000, "--until", 2750),
            *("--set", "pace=0.05", "--set", "mixed=0.5", "--set", "bend=2.2"),
        )
    do_command(
        *(*teach, "--out", recogniser, "--begin", first, "--steps", 4000),
        *("--set", "hints=0", "--set", "reuse=2", "--set", "learning_rate=0.002"),
    )


def _purifier(out: Path, basis: Path, recogniser: Path, threads: tuple[str, int]) -> None:
    """Rehearse in front of the recogniser that ships; a run that is over is left alone."""
    folder = out / "purifier"
    begun = (folder / "checkpoint.pt").is_file()
    do_command(
        *("train", "purifier", out / "learn.npz", "--basis", basis, "--recogniser", recogniser),
        *("--recogniser-arch", "gateface", "--out", folder, *threads),
        *("--steps", REHEARSED, *(("--resume",) if begun else ())),
    )


def _hardened(data: Path, out: Path, basis: Path, recogniser: Path, purifier: Path, threads: tuple[str, int]) -> Path:
    """The recogniser under attacks on all of the gate, taught by the one that taught it from the beginning."""
    folder = out / "hardened"
    begun = (folder / "checkpoint.pt").is_file()
    do_command(
        *("train", "recogniser", "--robust", out / "learn.npz", "--basis", basis, "--purifier", purifier),
        *("--recogniser", recogniser, "--recogniser-arch", "gateface", "--teacher", data / TEACHER),
        *("--steps", HARDENED, "--adapt", HARDENING, "--views", VIEWS, "--out", folder),
        *(*threads, *(("--resume",) if begun else ())),
    )
    return folder / "recogniser.pt"
