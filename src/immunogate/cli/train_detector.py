"""``immunogate train detector``: the default face detector, taught by YuNet on photos of people."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import add_json, print_json, progress, step
from immunogate.errors import InputError, UsageError

if TYPE_CHECKING:
    from immunogate.faces_file import Mask
    from immunogate.networks.face_detector import FaceDetector
    from immunogate.structs import Pixels
    from immunogate.training.detector.labels import LabelledPhotos, PhotoFaces
    from immunogate.training.detector.trainer import Report, Trainer

PHOTOS = "faces/lfw_dev_photos.zip"
TEACHER = "models/face_detection_yunet_2023mar.onnx"
KEPT_BACK = (1, 0.3)
"""Seed and share of the people whom no training of this project sees."""

CHECKED = (2, 0.1)
"""Seed and share of the other people, on whom the training's progress is told."""

FAINT = 0.3
"""The teacher's confidence below which it saw nothing; what it is unsure of is left out of the training."""

CHECKED_SCALES = (0.5, 1.0, 2.0)
"""Sizes of the photos on which mistakes are counted."""

SEEN = 0.3
"""Overlap with anything that the teacher saw from which a find is no mistake."""

MOST_PHOTO_BYTES = 64 << 20


def add_parser(parts: Any) -> None:
    """Add ``detector`` to what can be trained."""
    parser = parts.add_parser(
        "detector",
        help="the face detector",
        description="Train the default face detector from photos as YuNet sees them. People whom other trainings keep "
        "back are kept back here too. A training that was stopped goes on where it was.",
    )
    parser.add_argument("--photos", type=Path, help="photos as PERSON/NAME.jpg: a folder or a .zip (default: "
                        f"{PHOTOS} of the development data)")  # fmt: skip
    parser.add_argument("--teacher", type=Path, help=f"YuNet ONNX file (default: {TEACHER} of the same)")
    parser.add_argument("--out", type=Path, required=True, help="where to write the weights, detector.pt")
    parser.add_argument("--onnx", type=Path, help="where to write the detector that the gate runs, detector.onnx")
    parser.add_argument("--steps", type=int, help="optimiser steps (default 20000)")
    parser.add_argument("--batch", type=int, help="scenes in a step (default 8)")
    parser.add_argument("--seed", type=int, help="of every draw (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the training (default 1)")
    add_json(parser)
    parser.set_defaults(run=run_detector)


def run_detector(arguments: argparse.Namespace) -> int:
    """Label, train, write and report."""
    import cv2
    import torch

    from immunogate.export.detector_graph import export_detector
    from immunogate.files import write_whole
    from immunogate.training.detector.settings import DetectorSettings
    from immunogate.training.detector.trainer import Trainer
    from immunogate.training.memory import keep_freed_memory

    _expect_endings(arguments)
    given = {key: getattr(arguments, key) for key in ("steps", "batch", "seed")}
    settings = DetectorSettings(**{key: value for key, value in given.items() if value is not None})
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    start = time.perf_counter()
    learn, check, fingerprint = _material(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = arguments.out.with_suffix(".resume.pt")
    trainer = Trainer(learn, check, settings, checkpoint, fingerprint, device)
    last = _train(trainer, settings.all_steps, len(learn))
    network: FaceDetector = trainer.average.to("cpu")
    with step("telling faces from mistakes on photos of other people"):
        network.lower_scores(_caution(network, check))
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    write_whole(arguments.out, lambda path: torch.save(state, path))
    if arguments.onnx is not None:
        export_detector(network, arguments.onnx)
    checkpoint.unlink(missing_ok=True)
    _report(arguments, network, len(learn), last, time.perf_counter() - start)
    return 0


def _expect_endings(arguments: argparse.Namespace) -> None:
    for flag, path, ending in (("--out", arguments.out, ".pt"), ("--onnx", arguments.onnx, ".onnx")):
        if path is not None and path.suffix != ending:
            raise UsageError(f"{flag} must end in {ending}, got {path.name!r}")
    if arguments.threads < 1:
        raise UsageError(f"--threads: expected at least 1, got {arguments.threads}")


def _train(trainer: Trainer, steps: int, photos: int) -> Report | None:
    last = None
    first = trainer.step
    if first:
        print(f"going on from step {first}", file=sys.stderr)
    start = time.perf_counter()
    for report in progress(trainer.run(), f"training on {photos} photos", steps - first):
        if report.checked is None:
            continue
        last = report
        left = (time.perf_counter() - start) / (report.step - first) * (steps - report.step)
        print(f"step {report.step} of {steps}: loss {report.total:.3f}, of other people {report.checked[0]:.3f} "
              f"(scores {report.checked[1]:.3f}, boxes {report.checked[2]:.3f}, points {report.checked[3]:.4f}), "
              f"{left / 60:.0f} min left", file=sys.stderr, flush=True)  # fmt: skip
    return last


def _caution(network: FaceDetector, check: LabelledPhotos) -> float:
    """By how much the network is too sure of itself on photos of other people, or below 0 not enough."""
    import cv2
    import numpy as np

    from immunogate.export.detector_graph import detector_graph
    from immunogate.runtime.detect import Detector
    from immunogate.runtime.runners.onnx import OnnxRunner
    from immunogate.training.detector.geometry import overlap
    from immunogate.training.detector.threshold import LOWEST, caution

    detector = Detector(OnnxRunner(detector_graph(network).SerializeToString(), "the new detector"), least_score=LOWEST)
    scores: dict[bool, list[float]] = {True: [], False: []}
    for photo, faces in zip(check.photos, check.faces, strict=True):
        for scale in CHECKED_SCALES:
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            sized = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=method)
            found = detector.detect(np.asarray(cv2.cvtColor(sized, cv2.COLOR_GRAY2BGR), np.uint8))
            nearest = overlap(found.boxes, faces.boxes * np.float32(scale)).max(axis=1, initial=0)
            for score, overlapping in zip(found.scores, nearest, strict=True):
                scores[bool(overlapping >= SEEN)].append(float(score))
    return caution(np.array(scores[True], np.float32), np.array(scores[False], np.float32))


def _report(
    arguments: argparse.Namespace, network: FaceDetector, photos: int, last: Report | None, seconds: float
) -> None:
    parameters = sum(value.numel() for value in network.parameters())
    report = {
        "out": str(arguments.out),
        "onnx": None if arguments.onnx is None else str(arguments.onnx),
        "photos": photos,
        "parameters": parameters,
        "loss_on_other_people": None if last is None or last.checked is None else round(last.checked[0], 5),
        "seconds": round(seconds, 1),
    }
    if arguments.json:
        print_json(report)
        return
    print(f"{arguments.out}: a detector of {parameters:,} parameters, trained on {photos} photos "
          f"in {seconds / 60:.0f} min")  # fmt: skip
    if arguments.onnx is not None:
        print(f"next: immunogate export --detector {arguments.onnx} ...", file=sys.stderr)


def _material(arguments: argparse.Namespace) -> tuple[LabelledPhotos, LabelledPhotos, str]:
    """Photos to learn from and to check on, of different people, and the hash of all that decided about labels."""
    from immunogate.faces_file import identity_split
    from immunogate.files import sha256_of_file
    from immunogate.training.detector.labels import METHOD

    photos_path, teacher = _defaults(arguments)
    photos, people = _read_photos(photos_path)
    ours, _ = identity_split(people, *KEPT_BACK)
    photos = [photo for photo, own in zip(photos, ours, strict=True) if own]
    people = [person for person, own in zip(people, ours, strict=True) if own]
    learned, checked = identity_split(people, *CHECKED)
    digest = hashlib.sha256(f"{METHOD} {FAINT} {sha256_of_file(teacher)}".encode())
    for photo in photos:
        digest.update(f"{photo.shape}".encode() + photo.tobytes())
    fingerprint = digest.hexdigest()
    faces = _labels(photos, teacher, arguments.out.with_name(f"detector-labels-{fingerprint[:16]}.npz"))
    return _taken(photos, faces, learned), _taken(photos, faces, checked), fingerprint


def _taken(photos: list[Pixels], faces: list[PhotoFaces], side: Mask) -> LabelledPhotos:
    from immunogate.training.detector.labels import LabelledPhotos

    chosen = [(photo, found) for photo, found, taken in zip(photos, faces, side, strict=True) if taken]
    return LabelledPhotos([photo for photo, _ in chosen], [found for _, found in chosen])


def _defaults(arguments: argparse.Namespace) -> tuple[Path, Path]:
    from immunogate.files import find_data

    data = find_data()
    paths = []
    for flag, given, usual in (("--photos", arguments.photos, PHOTOS), ("--teacher", arguments.teacher, TEACHER)):
        if given is None and data is None:
            raise UsageError(f"{flag} is not given and the development data is not here", f"Give {flag}")
        path = given or Path(data or "") / usual
        if not path.exists():
            raise UsageError(f"there is no {path}", f"Give {flag}")
        paths.append(path)
    return paths[0], paths[1]


def _read_photos(path: Path) -> tuple[list[Pixels], list[str]]:
    """Grey photos and whose they are: the name of the folder that each lies in."""
    import zipfile

    from immunogate.cli.common import PICTURES, pictures_of

    if path.is_dir():
        found = [(one.read_bytes(), str(one), one.parent.name) for one in pictures_of(path)]
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                names = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in PICTURES)
                too_large = [name for name in names if archive.getinfo(name).file_size > MOST_PHOTO_BYTES]
                if too_large:
                    raise InputError(f"{path}: {too_large[0]} has more than {MOST_PHOTO_BYTES:,} bytes")
                found = [(archive.read(name), f"{path}: {name}", Path(name).parent.name) for name in names]
        except (zipfile.BadZipFile, OSError, RuntimeError) as error:
            raise InputError(f"{path} is no whole zip archive: {error}", "Give a folder or a .zip of photos") from error
    if not found:
        raise UsageError(f"there is no picture in {path}", f"Known endings: {', '.join(sorted(PICTURES))}")
    return [_grey(encoded, where) for encoded, where, _ in found], [person for _, _, person in found]


def _grey(encoded: bytes, where: str) -> Pixels:
    import cv2
    import numpy as np

    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE) if encoded else None
    if picture is None:
        raise InputError(f"{where} can not be decoded", "Take it out, or copy it again")
    return np.asarray(picture, np.uint8)


def _labels(photos: list[Pixels], teacher: Path, kept: Path) -> list[PhotoFaces]:
    """What the teacher sees, from ``kept`` where that is there, else seen now and kept."""
    from immunogate.export.onnx_graph import portable_yunet
    from immunogate.runtime.detect import Detector
    from immunogate.runtime.runners.onnx import OnnxRunner
    from immunogate.training.detector.labels import label_photo, load_labels, save_labels

    if kept.is_file():
        return load_labels(kept, len(photos))
    detector = Detector(OnnxRunner(portable_yunet(teacher).SerializeToString(), teacher.name), least_score=FAINT)
    with step(f"labelling {len(photos)} photos"):
        faces = [label_photo(photo, detector.detect) for photo in progress(photos, "labelling", len(photos))]
    save_labels(kept, faces)
    return faces
