"""A trained face detector, --detector FILE or the one that ships, beside YuNet, its teacher: faces, points, speed.

Photos are those of people kept back from every training; clips are in colour and no training has seen them either.
Both detectors are the gate's own `Detector` with its default settings on the very same picture.

- *Found*: of YuNet's faces (score 0.6) with a side of 40 pixels and more, those that one of ours overlaps by 0.5 and
  more, each of ours counted once. A face's side is the square root of its box's area, in the picture that is given.
- *Extra*: of our faces, those of any size that overlap no face of YuNet's at a score of 0.3 by 0.3, each counted once.
- *Landmarks*: mean distance of the five points over the faces found, in shares of the distance between YuNet's eyes.
  YuNet's points are noisy themselves; how far they move when the picture is moved by a few pixels is measured beside.

Three sets have a better reference than YuNet's one look, and YuNet's one look is measured against it too: its median
over twelve views of a photo; its points after the gate's second, turned look (`immunogate.runtime.upright`) in the
clips; and its faces of the upright photo for photos that are turned.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from assets import CLIP_OF_ONE, CLIP_OF_TWO, DETECTOR, SPLIT_SEED, TEST_SHARE, data
from common import Options, Target, finish, guarded, parse, say
from environment import environment
from timing import compared

from immunogate.default_models import default_bundle
from immunogate.errors import UsageError
from immunogate.export.onnx_graph import portable_yunet
from immunogate.faces_file import identity_split
from immunogate.runtime.camera import open_camera
from immunogate.runtime.detect import Detector
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.runtime.track import overlap_of_boxes
from immunogate.runtime.upright import upright
from immunogate.structs import Faces, Floats, Pixels
from immunogate.training.detector.labels import label_photo

NAME = "bench_detector"
PHOTOS = "faces/lfw_dev_photos.zip"
FOUND, SEEN = 0.5, 0.3
FAINT = 0.3
SIDES = (20.0, 40.0)
ANGLES = (-30, -15, 15, 30)
SHIFT = (11, 7)
QUICK_PHOTOS = 40
FRAMES = ((480, 640), (256, 320))
"""Rows and columns of the networks' input, multiples of 32 as the gate makes them."""


@dataclass
class Tally:
    """Counts over many pictures; faces of YuNet by size: from 40 pixels, and from 20 to 40."""

    pictures: int = 0
    teacher: int = 0
    found: int = 0
    teacher_small: int = 0
    found_small: int = 0
    ours: int = 0
    extra: int = 0
    distances: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Shares and means; None where nothing was counted."""
        counts = {key: value for key, value in asdict(self).items() if isinstance(value, int)}
        return counts | {
            "found_share": _share(self.found, self.teacher),
            "found_share_small": _share(self.found_small, self.teacher_small),
            "extra_share": _share(self.extra, self.ours),
            "landmarks_mean": float(np.mean(self.distances)) if self.distances else None,
            "landmarks_p95": float(np.percentile(self.distances, 95)) if self.distances else None,
            "overlap_mean": float(np.mean(self.overlaps)) if self.overlaps else None,
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True)
class Detectors:
    """The teacher at its default score and at a faint one, and ours."""

    yunet: Detector
    faint: Detector
    ours: Detector


def main(argv: Sequence[str] | None = None) -> int:
    """Measure faces, landmarks and time."""
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--detector", type=Path)
    given, rest = early.parse_known_args(argv)
    options = parse(NAME, __doc__, rest)
    before = environment()
    path = given.detector or default_bundle() / "detector.onnx"
    if not path.is_file():
        raise UsageError(f"there is no detector {path}", "Name one with --detector, or train one: "
                         f"immunogate train detector --out detector.pt --onnx {path}")  # fmt: skip
    runners = {"YuNet": _runner(data() / DETECTOR), "ours": _runner(path)}
    yunet, ours = Detector(runners["YuNet"]), Detector(runners["ours"])
    detectors = Detectors(yunet, Detector(runners["YuNet"], least_score=FAINT), ours)
    photos = kept_back_photos(options.quick)
    measured = {"sets": measure(photos, detectors), "times": _times(runners, options), "bytes": path.stat().st_size}
    return finish(NAME, options, before, measured, _targets(measured), _table(measured))


def _runner(path: Path) -> OnnxRunner:
    return OnnxRunner(portable_yunet(path).SerializeToString(), path.name)


def kept_back_photos(quick: bool) -> list[Pixels]:
    """The photos (H, W, 3) of the people that no training has seen."""
    with zipfile.ZipFile(data() / PHOTOS) as archive:
        names = sorted(archive.namelist())
        _, kept_back = identity_split([name.split("/")[0] for name in names], SPLIT_SEED, TEST_SHARE)
        chosen = [name for name, kept in zip(names, kept_back, strict=True) if kept]
        chosen = chosen[:: max(1, len(chosen) // QUICK_PHOTOS)] if quick else chosen
        encoded = [np.frombuffer(archive.read(name), np.uint8) for name in chosen]
    return [np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8) for content in encoded]


def measure(photos: list[Pixels], detectors: Detectors) -> dict[str, Any]:
    """All sets of pictures."""
    sets: dict[str, Callable[[], dict[str, Any]]] = {
        "photos as they are": lambda: compare(photos, detectors),
        "photos at half size": lambda: compare((_scaled(photo, 0.5) for photo in photos), detectors),
        "photos at a quarter": lambda: compare((_scaled(photo, 0.25) for photo in photos), detectors),
        "photos at double size": lambda: compare((_scaled(photo, 2.0) for photo in photos[::2]), detectors),
        "clip of one": lambda: compare(_frames(CLIP_OF_ONE), detectors),
        "clip of two": lambda: compare(_frames(CLIP_OF_TWO), detectors),
        "YuNet itself, photos moved": lambda: _moved(photos, detectors),
        "photos, median of many looks": lambda: _against(_medians(photos[::4], detectors), detectors),
        "clip of one, second look": lambda: _against(_second_looks(CLIP_OF_ONE, detectors), detectors),
        "clip of two, second look": lambda: _against(_second_looks(CLIP_OF_TWO, detectors), detectors),
        **{f"photos turned by {angle}": lambda angle=angle: _turned(photos[::3], angle, detectors) for angle in ANGLES},  # type: ignore[misc]
    }
    figures = {}
    for name, take in sets.items():
        figures[name] = take()
        say(name)
    return figures


def compare(pictures: Iterable[Pixels], detectors: Detectors) -> dict[str, Any]:
    """Ours against YuNet on the same pictures."""
    tally = Tally()
    for picture in pictures:
        teacher, ours = detectors.yunet.detect(picture), detectors.ours.detect(picture)
        count(tally, teacher, ours, detectors.faint.detect(picture))
    return tally.figures()


def _moved(photos: list[Pixels], detectors: Detectors) -> dict[str, Any]:
    """YuNet on photos that are moved right and down, in the place of ours: how steady the yardstick is."""
    tally = Tally()
    for photo in photos[::3]:
        moved = cv2.copyMakeBorder(photo, SHIFT[1], 0, SHIFT[0], 0, cv2.BORDER_CONSTANT)
        again, shift = detectors.yunet.detect(np.asarray(moved, np.uint8)), np.array(SHIFT, np.float32)
        again = Faces(again.boxes - np.tile(shift, 2), again.landmarks - shift, again.scores)
        count(tally, detectors.yunet.detect(photo), again, detectors.faint.detect(photo))
    return tally.figures()


def _against(pictures: Iterable[tuple[Pixels, Faces]], detectors: Detectors) -> dict[str, Any]:
    """Ours, and one look of YuNet, on pictures whose faces are known better."""
    ours, yunet = Tally(), Tally()
    for picture, faces in pictures:
        faint = detectors.faint.detect(picture)
        count(ours, faces, detectors.ours.detect(picture), faint)
        count(yunet, faces, detectors.yunet.detect(picture), faint)
    return {**ours.figures(), "yunet_itself": yunet.figures()}


def _medians(photos: list[Pixels], detectors: Detectors) -> Iterable[tuple[Pixels, Faces]]:
    for photo in photos:
        seen = label_photo(np.asarray(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), np.uint8), detectors.faint.detect)
        scores = np.ones(int(seen.sure.sum()), np.float32)
        yield photo, Faces(seen.boxes[seen.sure], seen.landmarks[seen.sure, 0], scores)


def _second_looks(clip: str, detectors: Detectors) -> Iterable[tuple[Pixels, Faces]]:
    for picture in _frames(clip):
        faces = detectors.yunet.detect(picture)
        points = [upright(detectors.yunet, picture, landmarks) for landmarks in faces.landmarks]
        landmarks = np.stack(points) if points else faces.landmarks
        yield picture, Faces(faces.boxes, landmarks, faces.scores)


def _turned(photos: list[Pixels], angle: int, detectors: Detectors) -> dict[str, Any]:
    """Ours, and YuNet, on turned photos, each against YuNet's faces of the upright photo, turned."""
    tallies = {"ours": Tally(), "yunet": Tally()}
    for photo in photos:
        middle = ((photo.shape[1] - 1) / 2, (photo.shape[0] - 1) / 2)
        matrix = cv2.getRotationMatrix2D(middle, angle, 1.0)
        turned = np.asarray(cv2.warpAffine(photo, matrix, photo.shape[1::-1]), np.uint8)
        upright, faint = (_turned_faces(one.detect(photo), matrix) for one in (detectors.yunet, detectors.faint))
        for name, detector in (("ours", detectors.ours), ("yunet", detectors.yunet)):
            count(tallies[name], upright, detector.detect(turned), faint)
    return {**tallies["ours"].figures(), "yunet_itself": tallies["yunet"].figures()}


def _turned_faces(faces: Faces, matrix: Any) -> Faces:
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    halves = np.sqrt(((faces.boxes[:, 2:] - faces.boxes[:, :2]) / 2) ** 2 @ (matrix[:, :2] ** 2).T)
    boxes = np.concatenate([middles - halves, middles + halves], axis=1).astype(np.float32)
    return Faces(boxes, (faces.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32), faces.scores)


def count(tally: Tally, teacher: Faces, ours: Faces, faint: Faces) -> None:
    """Add one picture."""
    tally.pictures += 1
    tally.ours += len(ours)
    tally.extra += len(ours) - len(pairs(ours.boxes, faint.boxes, SEEN))
    partner = {first: second for first, second, _ in pairs(teacher.boxes, ours.boxes, FOUND)}
    sides = np.sqrt((teacher.boxes[:, 2:] - teacher.boxes[:, :2]).clip(0).prod(axis=1))
    for face, side in enumerate(sides):
        other = partner.get(face)
        if SIDES[0] <= side < SIDES[1]:
            tally.teacher_small += 1
            tally.found_small += other is not None
        if side < SIDES[1]:
            continue
        tally.teacher += 1
        if other is None:
            continue
        tally.found += 1
        points = teacher.landmarks[face]
        away = np.linalg.norm(points - ours.landmarks[other], axis=1).mean()
        tally.distances.append(float(away / np.linalg.norm(points[1] - points[0])))
        tally.overlaps.append(float(overlap_of_boxes(teacher.boxes[[face]], ours.boxes[[other]])[0, 0]))


def pairs(first: Floats, second: Floats, least: float) -> list[tuple[int, int, float]]:
    """Pairs that overlap by at least this much, best first, each box in one pair."""
    overlaps = overlap_of_boxes(first, second)
    result = []
    while overlaps.size and overlaps.max() >= least:
        row, column = (int(index) for index in np.unravel_index(int(overlaps.argmax()), overlaps.shape))
        result.append((row, column, float(overlaps[row, column])))
        overlaps[row], overlaps[:, column] = -1, -1
    return result


def _scaled(photo: Pixels, factor: float) -> Pixels:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(photo, None, fx=factor, fy=factor, interpolation=method), np.uint8)


def _frames(clip: str) -> Iterable[Pixels]:
    with open_camera(str(data() / clip)) as camera:
        yield from (frame.pixels for frame in camera)


def _times(runners: dict[str, OnnxRunner], options: Options) -> dict[str, Any]:
    """One run of each network, in turn, on a picture of noise: its content does not matter to the time."""
    times = {}
    for height, width in FRAMES:
        noise = np.random.default_rng(0).uniform(0, 255, (1, 3, height, width)).astype(np.float32)
        runs = {name: partial(runner.run, noise) for name, runner in runners.items()}
        timings = compared(runs, 20 if options.quick else 200, blocks=2 if options.quick else 10)
        ratio = timings["ours"].median_ms / timings["YuNet"].median_ms
        times[f"{width}x{height}"] = {**{name: asdict(one) for name, one in timings.items()}, "ratio": round(ratio, 3)}
    return times


def _targets(measured: dict[str, Any]) -> list[Target]:
    targets = []
    for name in ("photos as they are", "clip of one", "clip of two"):
        figures = measured["sets"][name]
        targets += [
            Target(f"{name}: faces found", ">=", 0.98, figures["found_share"] or 0.0, ""),
            Target(f"{name}: extra faces", "<=", 0.01, figures["extra_share"] or 0.0, ""),
            Target(f"{name}: landmarks, in eye distances", "<", 0.05, figures["landmarks_mean"] or 1.0, ""),
        ]
    for frame, figures in measured["times"].items():
        targets.append(Target(f"{frame}: time, as a share of YuNet's", "<=", 1.0, figures["ratio"], ""))
    return targets


def _table(measured: dict[str, Any]) -> str:
    lines = ["| | faces >= 40 px | found | 20 to 40 px | found | ours | extra | landmarks | p95 | overlap |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for name, figures in measured["sets"].items():
        lines.append(_row(name, figures))
        if "yunet_itself" in figures:
            lines.append(_row(f"{name}: YuNet itself", figures["yunet_itself"]))
    for frame, figures in measured["times"].items():
        ours, theirs = figures["ours"]["median_ms"], figures["YuNet"]["median_ms"]
        lines.append(f"\n{frame}: {ours:.2f} ms, YuNet {theirs:.2f} ms, ratio {figures['ratio']:.2f}")
    return "\n".join(lines)


def _row(name: str, figures: dict[str, Any]) -> str:
    def shown(key: str, digits: int = 4) -> str:
        return "-" if figures[key] is None else f"{figures[key]:.{digits}f}"

    return (
        f"| {name} | {figures['teacher']} | {shown('found_share')} | {figures['teacher_small']} | "
        f"{shown('found_share_small')} | {figures['ours']} | {shown('extra_share')} | {shown('landmarks_mean')} | "
        f"{shown('landmarks_p95')} | {shown('overlap_mean')} |"
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
