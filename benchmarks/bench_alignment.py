"""What the second, turned look at a face is worth: real photos, and a clip of two people with tilted heads.

Photos: development people with two to eight photos, who are kept back from the eigenbasis and from nothing else: TAR
at FMR 1e-3 of all their pairs, raw and purified, with landmarks as the detector first gives them and as
`immunogate.runtime.upright` mends them. Clip: the man, enrolled from a clip of his own, and the woman beside him.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from assets import CLIP_OF_ONE, CLIP_OF_TWO, data, exported_bundle, split_faces
from common import Options, Target, finish, guarded, parse, say
from environment import environment

from immunogate.calib.threshold import pair_scores, threshold_at
from immunogate.runtime.align import align
from immunogate.runtime.camera import open_camera
from immunogate.runtime.chain import FaceChain, Recognised, open_chain
from immunogate.runtime.recognise import mean_embedding
from immunogate.runtime.upright import upright
from immunogate.structs import Floats, Pixels

NAME = "bench_alignment"
FEWEST, MOST = 2, 8
PHOTOS = 900
QUICK_PHOTOS = 120
ENROLLED_EVERY = 10

Landmarks = Callable[[Pixels, Floats], Floats]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both ways of aligning on photos and clip."""
    options = parse(NAME, __doc__, argv)
    before = environment()
    with open_chain(exported_bundle()) as chain:
        ways: dict[str, Landmarks] = {
            "first look": lambda pixels, landmarks: landmarks,
            "second look": lambda pixels, landmarks: upright(chain.detector, pixels, landmarks),
        }
        measured = {
            name: {"photos": _photos(chain, way, options), "clip": _clip(chain, way)} for name, way in ways.items()
        }
    return finish(NAME, options, before, measured, _targets(measured), _table(measured))


def _photos(chain: FaceChain, way: Landmarks, options: Options) -> dict[str, Any]:
    _, kept_back = split_faces()
    assert kept_back.names is not None
    assert kept_back.identities is not None
    people, owner, counts = np.unique(kept_back.identities, return_inverse=True, return_counts=True)
    chosen = np.flatnonzero((counts[owner] >= FEWEST) & (counts[owner] <= MOST))
    chosen = chosen[: QUICK_PHOTOS if options.quick else PHOTOS]
    say(f"{len(chosen)} photos of {len(np.unique(owner[chosen]))} of {len(people)} people")
    crops, identities = [], []
    with zipfile.ZipFile(data() / "faces/lfw_dev_photos.zip") as archive:
        paths = {path.rsplit("/", 1)[-1]: path for path in archive.namelist()}
        for face in chosen:
            encoded = np.frombuffer(archive.read(paths[str(kept_back.names[face])]), np.uint8)
            pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
            found = chain.detector.detect(pixels)
            if len(found):
                crops.append(align(pixels, way(pixels, found.landmarks[found.largest()])))
                identities.append(str(kept_back.identities[face]))
    result = _recognised(chain, crops)
    figures: dict[str, Any] = {"photos": len(crops), "people": len(set(identities))}
    for kind in ("raw", "purified"):
        scores = pair_scores(np.concatenate([getattr(part, kind) for part in result]), np.array(identities))
        limit = threshold_at(scores, 1e-3)
        figures[f"tar_{kind}"] = None if limit is None else limit.tar
        figures["genuine_pairs"] = len(scores.genuine)
    return figures


def _clip(chain: FaceChain, way: Landmarks) -> dict[str, Any]:
    """Similarity with the enrolled man of both people over all frames, and of the two with each other."""
    own = [crops[0] for crops in _crops_of(chain, way, CLIP_OF_ONE, 1)[::ENROLLED_EVERY]]
    template = mean_embedding(np.concatenate([part.purified for part in _recognised(chain, own)]))
    both = _crops_of(chain, way, CLIP_OF_TWO, 2)
    woman, man = (np.concatenate([p.purified for p in _recognised(chain, [c[side] for c in both])]) for side in (0, 1))
    return {
        "frames": len(both),
        "man_lowest": float((man @ template).min()),
        "man_median": float(np.median(man @ template)),
        "woman_highest": float((woman @ template).max()),
        "each_other_highest": float((woman @ man.T).max()),
    }


def _crops_of(chain: FaceChain, way: Landmarks, clip: str, people: int) -> list[list[Pixels]]:
    """The crops of each frame that shows this many people, from left to right."""
    frames = []
    with open_camera(str(data() / clip)) as camera:
        for frame in camera:
            faces = chain.detector.detect(frame.pixels)
            if len(faces) == people:
                order = np.argsort(faces.boxes[:, 0])
                frames.append([align(frame.pixels, way(frame.pixels, faces.landmarks[face])) for face in order])
    return frames


def _recognised(chain: FaceChain, crops: list[Pixels], batch: int = 16) -> list[Recognised]:
    groups = [np.stack(crops[start : start + batch]) for start in range(0, len(crops), batch)]
    return [chain.recognise(group, [0] * len(group), list(range(len(group)))) for group in groups]


def _targets(measured: dict[str, Any]) -> list[Target]:
    first, second = (measured[name]["clip"]["man_lowest"] for name in ("first look", "second look"))
    return [Target("clip: lowest similarity of the man, second look above first", ">=", first, second, "")]


def _table(measured: dict[str, Any]) -> str:
    lines = ["| | TAR raw | TAR purified | man, lowest | man, median | woman, highest | two people, highest |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, way in measured.items():
        photos, clip = way["photos"], way["clip"]
        tars = ["-" if photos[key] is None else f"{photos[key]:.3f}" for key in ("tar_raw", "tar_purified")]
        rest = [f"{clip[key]:.2f}" for key in ("man_lowest", "man_median", "woman_highest", "each_other_highest")]
        lines.append(f"| {name} | {' | '.join(tars + rest)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
