"""Holds engines against the ONNX networks that they were built from, on real faces. Needs neither torch nor onnx.

Every network on its own, then the whole chain: embeddings, scores of pairs, probabilities, the eigenfaces that are
chosen, and whether any pair is decided otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from immunogate.export.checks import Check, at_least, at_most, least_cosine, pair_shift
from immunogate.faces_file import faces_from_pixels
from immunogate.structs import CROP_SIZE, Floats, Pixels

_FLOAT32 = {"cosine": 0.9999, "probability": 1e-3, "bits": 1e-3, "pair": 2e-3, "pixels": 0.1}
LIMITS: dict[str, dict[str, float]] = {
    "fp32": _FLOAT32,
    "fp16-weights": _FLOAT32,
    "fp16": {"cosine": 0.999, "probability": 1e-2, "bits": 1e-2, "pair": 1e-2, "pixels": 0.5},
    "int8": {"cosine": 0.98, "probability": 5e-2, "bits": 3e-2, "pair": 5e-2, "pixels": 2.0},
}
"""Limits by precision: least cosine of an embedding, largest shift of a probability, share of eigenfaces chosen
otherwise, largest shift of the score of a pair, and of a landmark in pixels. Both sides hold the same weights and the
same rounded arithmetic; what differs is the order of sums, and in float16 and int8 where TensorRT rounds between."""

BETWEEN = "engine - ONNX"
FRAME, ENLARGED = (384, 640), 2
"""Height and width of the frames that faces are pasted into, and how much larger."""


class Chain(Protocol):
    """What is asked of both chains (`immunogate.runtime.chain.FaceChain`)."""

    detector: Any
    purifier: Any
    recogniser: Any

    def recognise(self, crops: npt.NDArray[np.uint8], frames: list[int], numbers: list[int]) -> Any:
        """Purify and recognise (B, 112, 112) crops."""


def verify_engines(
    onnx: Chain,
    engines: Chain,
    crops: npt.NDArray[np.uint8],
    precisions: dict[str, str],
    threshold: float | None,
    batch: int = 16,
) -> list[Check]:
    """Compare what runs on engines with the same networks on ONNX Runtime.

    Args:
        onnx: the chain with all networks on ONNX Runtime.
        engines: the chain with some on engines.
        crops: (N, 112, 112) uint8 real faces, N >= 2.
        precisions: of each network that is on an engine: detector, analyzer, recogniser.
        threshold: similarity from which a pair is decided to be one person; None where there is none.
        batch: faces a run.
    """
    checks: list[Check] = []
    if "detector" in precisions:
        checks += _detector_checks(onnx, engines, crops, LIMITS[precisions["detector"]])
    if "analyzer" in precisions and onnx.purifier.settings.needs_probabilities:
        checks += _analyzer_checks(onnx, engines, crops, LIMITS[precisions["analyzer"]])
    if not {"analyzer", "recogniser"} & set(precisions):
        return checks
    starts = range(0, len(crops), batch)
    found = [[chain.recognise(*_part(crops, start, batch)) for start in starts] for chain in (onnx, engines)]
    raw = [np.concatenate([part.raw for part in parts]) for parts in found]
    purified = [np.concatenate([part.purified for part in parts]) for parts in found]
    faces = [LIMITS[precisions[name]] for name in ("analyzer", "recogniser") if name in precisions]
    limits = {
        "cosine": min(limit["cosine"] for limit in faces),
        "pair": max(limit["pair"] for limit in faces),
    }
    if "recogniser" in precisions:
        least = LIMITS[precisions["recogniser"]]["cosine"]
        checks.append(at_least("embedding of raw faces", BETWEEN, "min cosine", least_cosine(raw[0], raw[1]), least))
    checks += [
        at_least(
            "embedding of purified faces",
            BETWEEN,
            "min cosine",
            least_cosine(purified[0], purified[1]),
            limits["cosine"],
        ),
        at_most("score of a pair", BETWEEN, "max shift", pair_shift(purified[0], purified[1]), limits["pair"]),
    ]
    if threshold is not None:
        checks.append(_decisions(purified[0], purified[1], threshold, limits["pair"]))
    return checks


def _part(crops: npt.NDArray[np.uint8], start: int, batch: int) -> tuple[Any, list[int], list[int]]:
    numbers = list(range(start, min(start + batch, len(crops))))
    return crops[start : start + batch], numbers, numbers


def _analyzer_checks(
    onnx: Chain, engines: Chain, crops: npt.NDArray[np.uint8], limits: dict[str, float]
) -> list[Check]:
    faces = faces_from_pixels(crops)
    first, second = (np.asarray(chain.purifier.probabilities(faces)) for chain in (onnx, engines))
    shift = float(np.abs(first - second).max())
    bits = float(((first >= 0.5) != (second >= 0.5)).mean())
    return [
        at_most("probabilities", BETWEEN, "max shift", shift, limits["probability"]),
        at_most("chosen bits", BETWEEN, "share that differs", bits, limits["bits"]),
    ]


def _decisions(first: Floats, second: Floats, threshold: float, tolerance: float) -> Check:
    """How many pairs are decided otherwise; as many may be as lie so near the threshold that rounding decides."""
    upper = np.triu_indices(len(first), 1)
    before, after = (first @ first.T)[upper], (second @ second.T)[upper]
    changed = int(((before >= threshold) != (after >= threshold)).sum())
    near = int((np.abs(before - threshold) <= tolerance).sum())
    return at_most("decisions of pairs", BETWEEN, f"changed of {len(before)}", changed, near)


def _detector_checks(
    onnx: Chain, engines: Chain, crops: npt.NDArray[np.uint8], limits: dict[str, float]
) -> list[Check]:
    """Faces found in frames made of the crops: as many, at the same places."""
    missed, shift = 0, 0.0
    for frame in frames_of(crops):
        first, second = (chain.detector.detect(frame) for chain in (onnx, engines))
        missed += abs(len(first) - len(second))
        for landmarks in first.landmarks if len(first) == len(second) else ():
            # The strongest comes first, and two of the same strength may change places.
            nearest = np.abs(second.landmarks - landmarks).max(axis=(1, 2)).min()
            shift = max(shift, float(nearest))
    return [
        at_most("faces in frames", BETWEEN, "more or fewer", missed, 0),
        at_most("landmarks in frames", BETWEEN, "max pixels", shift, limits["pixels"]),
    ]


def frames_of(crops: npt.NDArray[np.uint8], most: int = 4) -> list[Pixels]:
    """Up to ``most`` (384, 640, 3) BGR frames with two of the crops in each, twice as large, on grey."""
    side = CROP_SIZE * ENLARGED
    top = (FRAME[0] - side) // 2
    frames = []
    for start in range(0, min(len(crops) - 1, 2 * most), 2):
        frame = np.full((*FRAME, 3), 128, np.uint8)
        for place, crop in enumerate(crops[start : start + 2]):
            left = 48 + place * (FRAME[1] // 2)
            large = crop.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
            frame[top : top + side, left : left + side] = large[:, :, None]
        frames.append(frame)
    return frames


def precisions_in_words(precisions: dict[str, str], order: Sequence[str]) -> str:
    """``detector fp32, recogniser fp16`` for instance."""
    return ", ".join(f"{name} {precisions[name]}" for name in order if name in precisions)
