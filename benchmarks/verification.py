"""Verification with fixed projections, clean and attacked: what a learned antibody has to beat.

Development people only, split by identity; the eigenbasis is fitted on one side and everything else is drawn from the
other. MobileFaceNet in float32 (`networks.twin.TorchTwin`), bare or behind the leading k eigenfaces. Attacks are
computed on the bare recogniser and know nothing of the purifier: rates of an attacker who does are lower.

Which way an attack goes is not in the paper's tables. Here, as in the paper's own rehearsal, one face of each pair is
pushed away from its own clean embedding; since the gradient is zero there, the embedding is that of the face with a
noise of 0.001 of [-1, 1]. A row of its own shows the stronger attack, away from the embedding of the picture that it
is compared with, for an attacker who has it.

Thresholds are empirical: the smallest with no more than one in a thousand of the clean impostor pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from assets import (
    ALIGNED,
    ARCHITECTURE,
    COMPONENTS,
    RECOGNISER,
    SPLIT_SEED,
    TEST_SHARE,
    data,
    fitted_basis,
    split_faces,
)
from common import Options, finish, guarded, parse, say
from environment import environment
from pairs import Pairs, cosines, empirical_threshold, genuine_pairs, impostor_pairs
from torch import Tensor

from immunogate.basis import truncate
from immunogate.calib.intervals import wilson
from immunogate.faces_file import faces_from_pixels
from immunogate.files import sha256_of_file, write_whole
from immunogate.networks.attacks import fgsm, from_levels, pgd
from immunogate.networks.recognisers import load_recogniser
from immunogate.networks.twin import TorchTwin
from immunogate.structs import Floats

NAME = "verification_mobilefacenet_lfw_dev"
TOP_KS = (400, 700, 1000, 1500)
GENUINE, IMPOSTORS, SEED = 256, 60_000, 0
FMR = 1e-3
EPS = 0.04
STEPS, QUICK_STEPS = 10, 2
NOISE = 1e-3
BATCH = 64
UNDEFENDED = "undefended"
SHARED, OWN = "threshold of the clean undefended pairs", "threshold of each pipeline's own clean pairs"
Pipeline = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """What is asked.

    Attributes:
        faces: (N, D) in [-1, 1], of people kept back.
        genuine: pairs; the first face of each is attacked.
        impostors: pairs.
        pipelines: by name, (B, D) faces to (B, E) embeddings of unit length.
        steps: of PGD.
    """

    faces: Tensor
    genuine: Pairs
    impostors: Pairs
    pipelines: dict[str, Pipeline]
    steps: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse(NAME, __doc__, argv)
    before = environment()
    problem = posed(options)
    measured = measure(problem)
    text = table(measured)
    if options.out is not None:
        document = f"{markdown_head(measured, before)}\n\n{text}\n"
        write_whole(options.out.parent / "verification.md", lambda path: path.write_text(document, encoding="utf-8"))
    return finish(NAME, options, before, measured, [], text)


def posed(options: Options) -> Problem:
    """Load the networks and draw the pairs."""
    _, kept_back = split_faces()
    assert kept_back.identities is not None  # the development faces have them
    if options.quick:
        people = np.unique(kept_back.identities)[:40]
        kept_back = kept_back.take(np.isin(kept_back.identities, people))
    assert kept_back.identities is not None
    genuine = genuine_pairs(kept_back.identities, 8 if options.quick else GENUINE, SEED)
    impostors = impostor_pairs(kept_back.identities, 1000 if options.quick else IMPOSTORS, SEED)
    used, places = np.unique(np.concatenate([genuine, impostors]), return_inverse=True)
    places = places.reshape(-1, 2)
    network, spec = load_recogniser(data() / RECOGNISER, ARCHITECTURE)
    basis = fitted_basis()
    bare = TorchTwin(network, spec, truncate(basis, 1), top_k=1)
    pipelines: dict[str, Pipeline] = {UNDEFENDED: bare.embed}
    for top_k in (1000,) if options.quick else TOP_KS:
        pipelines[f"top-{top_k}"] = TorchTwin(network, spec, truncate(basis, top_k), top_k=top_k)
    faces = torch.from_numpy(faces_from_pixels(kept_back.images[used]))
    steps = QUICK_STEPS if options.quick else STEPS
    return Problem(faces, places[: len(genuine)], places[len(genuine) :], pipelines, steps)


def measure(problem: Problem) -> dict[str, Any]:
    """Thresholds, then true accept rates of every row and pipeline."""
    clean = {}
    for name, pipeline in problem.pipelines.items():
        say(f"clean faces, {name}")
        clean[name] = embedded(pipeline, problem.faces)
    impostors = {name: cosines(found, problem.impostors) for name, found in clean.items()}
    own = {name: empirical_threshold(scores, FMR) for name, scores in impostors.items()}
    scores = {"clean": {name: cosines(found, problem.genuine) for name, found in clean.items()}}
    for name, attack in attacks(problem.steps).items():
        say(name)
        scores[name] = after(attack, problem, clean)
    sets = {SHARED: dict.fromkeys(own, own[UNDEFENDED]), OWN: own}
    return {
        "setting": setting(problem),
        "impostor_pairs_matching": {
            words: {name: rate(impostors[name] >= limit) for name, limit in limits.items()}
            for words, limits in sets.items()
        },
        "thresholds": {words: {n: round(limit, 5) for n, limit in limits.items()} for words, limits in sets.items()},
        "tar": {
            words: {
                row: {name: rate(found[name] >= limit) for name, limit in limits.items()}
                for row, found in scores.items()
            }
            for words, limits in sets.items()
        },
    }


Attack = Callable[[Pipeline, Tensor, Tensor, Tensor], Tensor]
"""Of the bare recogniser, faces, their own (displaced) embeddings, those of the other pictures: attacked faces."""


def attacks(steps: int) -> dict[str, Attack]:
    """By the words of their row."""

    def descend(eps: float) -> Attack:
        return lambda bare, faces, own, other: pgd(bare, faces, own, eps, steps, 0.25 * eps, random_start=False)

    return {
        f"FGSM, {EPS} of [-1,1]": lambda bare, faces, own, other: fgsm(bare, faces, own, EPS),
        f"PGD-{steps}, {EPS}": descend(EPS),
        f"PGD-{steps}, 8/255": descend(from_levels(8)),
        f"PGD-{steps}, {EPS}, away from the other picture": lambda bare, faces, own, other: pgd(
            bare, faces, other, EPS, steps, 0.25 * EPS, random_start=False
        ),
    }


def after(attack: Attack, problem: Problem, clean: dict[str, Floats]) -> dict[str, Floats]:
    """(P,) cosines of the genuine pairs in each pipeline once the first face of each is attacked."""
    bare = problem.pipelines[UNDEFENDED]
    first, second = problem.genuine.T
    noise = torch.rand(len(first), problem.faces.shape[1], generator=torch.Generator().manual_seed(SEED))
    parts = []
    for start in range(0, len(first), BATCH):
        part = slice(start, start + BATCH)
        faces = problem.faces[first[part]]
        with torch.no_grad():
            own = bare((faces + NOISE * (2 * noise[part] - 1)).clamp(-1, 1))
        parts.append(attack(bare, faces, own, torch.from_numpy(clean[UNDEFENDED][second[part]])))
    attacked = torch.cat(parts)
    return {
        name: np.einsum("ij,ij->i", embedded(pipeline, attacked), clean[name][second])
        for name, pipeline in problem.pipelines.items()
    }


def embedded(pipeline: Pipeline, faces: Tensor) -> Floats:
    """(N, E) embeddings, in batches."""
    with torch.no_grad():
        found: Floats = torch.cat([pipeline(part) for part in torch.split(faces, BATCH)]).numpy()
    return found


def rate(hits: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """A share with its 95 % Wilson interval."""
    count, total = int(np.count_nonzero(hits)), len(hits)
    low, high = wilson(count, total)
    return {"rate": round(count / total, 5), "low": round(low, 5), "high": round(high, 5), "hits": count, "of": total}


def setting(problem: Problem) -> dict[str, Any]:
    """What was asked of what."""
    return {
        "data": f"{ALIGNED}, sha256 {sha256_of_file(data() / ALIGNED)}",
        "recogniser": f"{ARCHITECTURE}, {RECOGNISER}, sha256 {sha256_of_file(data() / RECOGNISER)}",
        "split": f"identity_split(seed {SPLIT_SEED}, fraction {TEST_SHARE}), {COMPONENTS} eigenfaces of the fit side",
        "genuine_pairs": len(problem.genuine),
        "impostor_pairs": len(problem.impostors),
        "pairs": f"seed {SEED}; genuine: people take turns; impostor: two people drawn, then a face of each",
        "faces": len(problem.faces),
        "fmr": FMR,
        "attack": f"on the bare recogniser; PGD: {problem.steps} steps of eps / 4 from the face, the best of them; "
        f"away from the face's own embedding under a noise of {NOISE:g}, or from that of the other picture",
    }


def markdown_head(measured: dict[str, Any], before: dict[str, Any]) -> str:
    """What the tables show."""
    asked = measured["setting"]
    return (
        f"# Verification with fixed projections\n\n"
        f"Made by `python benchmarks/verification.py` on {before['date'][:10]} (torch {before['packages']['torch']}, "
        f"{before['cpu']}).\nTAR at FMR {FMR:g} of {asked['genuine_pairs']} genuine pairs with 95 % Wilson intervals; "
        f"threshold from {asked['impostor_pairs']:,} clean impostor pairs.\nPairs: {asked['pairs']}. "
        f"Split: {asked['split']}.\nAttacks: {asked['attack']}.\nThe attacker does not know the purifier: these rates "
        "are no measure of robustness against one who does."
    )


def table(measured: dict[str, Any]) -> str:
    """Two Markdown tables."""
    return "\n\n".join(_one_table(measured, words) for words in (SHARED, OWN))


def _one_table(measured: dict[str, Any], words: str) -> str:
    rows, matching = measured["tar"][words], measured["impostor_pairs_matching"][words]
    names = list(matching)
    lines = [f"## TAR, {words}", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row, found in rows.items():
        cells = (f"{found[n]['rate']:.3f} ({found[n]['low']:.3f}..{found[n]['high']:.3f})" for n in names)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    limits = measured["thresholds"][words]
    lines.append(f"| *threshold* | {' | '.join(f'{limits[n]:.4f}' for n in names)} |")
    lines.append(f"| *FMR of clean pairs* | {' | '.join(format(matching[n]['rate'], '.5f') for n in names)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
