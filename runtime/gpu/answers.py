"""What comes back from the GPU for B faces: a few kilobytes in one copy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels.antibody import AntibodySettings
from immunogate.kernels.queued import BAD_EMBEDDING, BAD_PROBABILITY, BAD_WEIGHT
from immunogate.kernels.reference import unpack
from immunogate.runtime.gpu.antibody import DRAWN, clones_of
from immunogate.runtime.recognise import spread
from immunogate.structs import Antibodies, Floats, Masks, Match

FAULTS = {
    BAD_PROBABILITY: "the analyzer gave a probability that is not in [0, 1]",
    BAD_WEIGHT: "the weight of an eigenface is not a number",
    BAD_EMBEDDING: "the recogniser gave an embedding that is not finite",
}
"""What each bit of a face's status says."""


@dataclass(frozen=True, eq=False)
class Answers:
    """B faces after purification, recognition and matching.

    Attributes:
        raw, purified: (B, E) float32 of unit length; NaN in the rows of faces with a fault.
        matches: of each; of a face with a fault: nobody, with a similarity of -1.
        faults: why a face has to be denied; None where nothing is wrong.
        masks: (B, m, W) uint32, the chosen genes as bits; in mode expected those above one half.
        winners: (B, m) int64, numbers of the kept clones; None where none were drawn.
        genes: how many bits of a mask count.
        pictures: (B, m, D) float32 purified faces, where they were asked for.
        probabilities: (B, genes) float32, where they were asked for and there is an analyzer.
        spreads: (B,) how much the looks at each purified face disagree, see `immunogate.runtime.recognise.spread`;
            None where there is one look only.
    """

    raw: Floats
    purified: Floats
    matches: list[Match]
    faults: list[str | None]
    masks: Masks
    winners: npt.NDArray[np.int64] | None
    genes: int
    pictures: Floats | None = None
    probabilities: Floats | None = None
    spreads: Floats | None = None

    def __len__(self) -> int:
        return len(self.raw)

    def sizes(self) -> npt.NDArray[np.int64]:
        """(B,) chosen genes of each face's first antibody; see `Antibodies.sizes`."""
        sizes: npt.NDArray[np.int64] = unpack(self.masks[:, 0], self.genes).sum(axis=1, dtype=np.int64)
        return sizes

    def antibodies(self, settings: AntibodySettings) -> Antibodies:
        """The antibodies as the CPU gives them.

        Raises:
            ValueError: in mode expected, where the probabilities were not asked for.
        """
        if settings.mode == "expected":
            if self.probabilities is None:
                raise ValueError("probabilities: mode expected needs them, and the path was made without details")
            weights = self.probabilities[:, None]
        else:
            weights = unpack(self.masks, self.genes).astype(np.float32)
        return Antibodies(settings.mode, settings.seed, clones_of(settings), weights, self.winners)


def read_answers(
    host: dict[str, npt.NDArray[Any]],
    details: dict[str, npt.NDArray[Any]],
    count: int,
    names: list[str],
    settings: AntibodySettings,
    genes: int,
) -> Answers:
    """The first ``count`` faces of a bucket's answer, copied out of its memory.

    Args:
        host: raw, purified, status, best, similarity, margin, masks, winners; embeddings, first those of the bucket's
            faces as they came, then the looks at each purified one.
        details: pictures and probabilities, or empty.
        count: faces that are not padding.
        names: of the gallery's templates.
        settings: of the antibodies.
        genes: of an antibody.
    """
    embeddings, size = host["embeddings"], len(host["raw"])
    spreads = spread(embeddings[size:].reshape(size, -1, embeddings.shape[1])[:count])
    copied = {name: values[:count].copy() for name, values in (host | details).items() if name != "embeddings"}
    faults = [_fault(int(status)) for status in copied["status"]]
    broken = np.array([fault is not None for fault in faults], np.bool_)
    for name in ("raw", "purified"):
        copied[name][broken] = np.nan  # whoever overlooks a fault finds nobody either
    found = zip(copied["best"], copied["similarity"], copied["margin"], faults, strict=True)
    matches = [_match(names, int(best), float(near), float(margin), fault) for best, near, margin, fault in found]
    winners = copied["winners"].astype(np.int64) if settings.mode in DRAWN else None
    return Answers(
        np.asarray(copied["raw"], np.float32),
        np.asarray(copied["purified"], np.float32),
        matches,
        faults,
        np.asarray(copied["masks"], np.uint32),
        winners,
        genes,
        copied.get("pictures"),
        copied.get("probabilities"),
        spreads,
    )


def joined(parts: list[Answers]) -> Answers:
    """The answers to one batch after the other as one; there is at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first

    def both(name: str) -> npt.NDArray[np.generic] | None:
        return None if getattr(first, name) is None else np.concatenate([getattr(part, name) for part in parts])

    arrays = {
        name: both(name) for name in ("raw", "purified", "masks", "winners", "pictures", "probabilities", "spreads")
    }
    matches = [match for part in parts for match in part.matches]
    faults = [fault for part in parts for fault in part.faults]
    return Answers(matches=matches, faults=faults, genes=first.genes, **arrays)  # type: ignore[arg-type]


def _fault(status: int) -> str | None:
    return "; ".join(words for bit, words in FAULTS.items() if status & bit) or (f"status {status}" if status else None)


def _match(names: list[str], best: int, similarity: float, margin: float, fault: str | None) -> Match:
    if fault is not None or best < 0:
        return Match(None, -1.0)
    return Match(names[best], similarity, margin if math.isfinite(margin) else math.inf)
