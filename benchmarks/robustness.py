"""How much a trained purifier holds: clean, under attacks that do not know it, and under attacks through all of it.

    python benchmarks/robustness.py --basis basis.npz --purifier spectral=run/purifier.pt --steps 80 --restarts 2

People whom neither eigenbasis nor purifier has seen (`assets.split_faces`, kept back), cut once more by identity:
thresholds are frozen on clean impostor pairs of one half, rates are of genuine pairs of the other. Everything runs in
float32 on the torch twin of the deployed chain, mode expected, which draws nothing, so that no averaging over draws is
needed to attack it.

An attacker who only has the face at hand pushes it away from its own embedding; one who also has the enrolled picture
pushes it away from that, which is stronger. Both are shown. Attacks end at their best point for the attacker. Adaptive
attacks follow the gradient through analyzer, memory, mask, gate, views and recogniser together; they begin anew
`restarts` times, and leave a face alone that is below both thresholds (`converged.py`). Whether they have converged is
shown by doubling their steps, and whether they work at all by a bound so large that nothing can hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from assets import ALIGNED, ARCHITECTURE, RECOGNISER, data, split_faces
from common import RESULTS, Options, finish, guarded, say
from converged import pushed
from environment import environment
from pairs import Pairs, cosines, empirical_threshold, genuine_pairs, impostor_pairs
from robustness_report import head, table, targets
from torch import Tensor
from verification import BATCH, OWN, SHARED, embedded, rate

from immunogate.basis import Eigenbasis, load_basis, truncate
from immunogate.faces_file import faces_from_pixels, identity_split
from immunogate.files import sha256_of_file, write_whole
from immunogate.networks.attacks import fgsm, from_levels, pgd
from immunogate.networks.frozen import frozen
from immunogate.networks.purifier import load_purifier
from immunogate.networks.recognisers import load_recogniser
from immunogate.networks.twin import TorchTwin

NAME = "robustness"
FMR, SEED, HALVES_SEED = 1e-3, 0, 3
IMPOSTORS = 60_000
NOISE = 1e-3
UNDEFENDED, FIXED = "undefended", "fixed top-1000"
KEPT = 1000
LEVELS = (2, 4, 8)
OBLIVIOUS_STEPS = 40
HOPELESS = 64
Pipeline = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Asked:
    """How the benchmark was called."""

    basis: Path
    purifiers: dict[str, Path]
    recogniser: Path
    architecture: str
    pairs: int
    steps: int
    restarts: int
    sanity: bool
    name: str
    views: int
    fixed_views: bool
    levels: tuple[int, ...] = LEVELS
    templates: bool = True


@dataclass(frozen=True, eq=False)
class Problem:
    """What is asked.

    Attributes:
        faces: (N, D) in [-1, 1].
        genuine: (P, 2); the first face of each is attacked.
        impostors: (Q, 2), of other people than the genuine pairs.
        others: (R, 2) impostor pairs of the people of the genuine pairs, to see whether the threshold carries over.
        pipelines: by name.
    """

    faces: Tensor
    genuine: Pairs
    impostors: Pairs
    others: Pairs
    pipelines: dict[str, TorchTwin]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    asked, options = _parse(argv)
    before = environment()
    problem = posed(asked)
    measured = measure(problem, asked)
    text = table(measured)
    if options.out is not None:
        document = f"{head(measured, before)}\n\n{text}\n"
        write_whole(options.out.with_suffix(".md"), lambda path: path.write_text(document, encoding="utf-8"))
    return finish(
        asked.name,
        options,
        before,
        measured,
        [target for name in asked.purifiers for target in targets(measured, name)],
        text,
    )


def posed(asked: Asked) -> Problem:
    """Load the networks and draw the pairs."""
    _, kept_back = split_faces()
    assert kept_back.identities is not None  # the development faces have them
    calibrating, tested = identity_split(kept_back.identities, HALVES_SEED, 0.5)
    genuine = _within(kept_back.identities, tested, genuine_pairs, asked.pairs)
    impostors = _within(kept_back.identities, calibrating, impostor_pairs, IMPOSTORS)
    others = _within(kept_back.identities, tested, impostor_pairs, IMPOSTORS)
    network, spec = load_recogniser(asked.recogniser, asked.architecture)
    recogniser, basis = frozen(network), load_basis(asked.basis)
    pipelines = {
        UNDEFENDED: TorchTwin(recogniser, spec, truncate(basis, 1), top_k=1),
        FIXED: TorchTwin(recogniser, spec, _leading(basis, KEPT), top_k=KEPT),
    }
    if asked.fixed_views:
        name = f"{FIXED}, {asked.views} views"
        pipelines[name] = TorchTwin(recogniser, spec, _leading(basis, KEPT), top_k=KEPT, views=asked.views)
    for name, path in asked.purifiers.items():
        purifier = load_purifier(path)
        leading = _leading(basis, purifier.components)
        pipelines[name] = TorchTwin(recogniser, spec, leading, "expected", 0, purifier, asked.views)
    return Problem(torch.from_numpy(faces_from_pixels(kept_back.images)), genuine, impostors, others, pipelines)


def measure(problem: Problem, asked: Asked) -> dict[str, Any]:
    """Thresholds, then true accept rates of every row and pipeline."""
    clean, scores, own = {}, {"clean": {}}, {}
    others: dict[str, Any] = {}
    for name, twin in problem.pipelines.items():
        say(f"clean faces, {name}")
        clean[name] = embedded(_embedding(name, twin), problem.faces)
        own[name] = empirical_threshold(cosines(clean[name], problem.impostors), FMR)
        scores["clean"][name] = cosines(clean[name], problem.genuine)
        others[name] = cosines(clean[name], problem.others)
    _controls(problem, clean, scores)
    _oblivious(problem, clean, scores)
    for name, twin in problem.pipelines.items():
        if name != UNDEFENDED:
            lost = min(own[name], own[UNDEFENDED])
            _adaptive(problem, name, twin, clean, scores, asked, lost)
    sets = {SHARED: dict.fromkeys(own, own[UNDEFENDED]), OWN: own}
    return {
        "setting": _setting(problem, asked),
        "thresholds": {words: {n: round(limit, 5) for n, limit in limits.items()} for words, limits in sets.items()},
        "fmr_of_the_tested_people": {
            words: {name: rate(others[name] >= limit) for name, limit in limits.items()}
            for words, limits in sets.items()
        },
        "tar": {
            words: {row: {name: rate(found[name] >= limits[name]) for name in found} for row, found in scores.items()}
            for words, limits in sets.items()
        },
        "antibodies": antibodies(problem),
    }


Scores = dict[str, dict[str, Any]]


def _controls(problem: Problem, clean: dict[str, Any], scores: Scores) -> None:
    """Noise of the size of an attack that is none."""
    first, second = problem.genuine.T
    faces = problem.faces[first]
    noise = torch.rand(faces.shape, generator=torch.Generator().manual_seed(SEED))
    noisy = (faces + from_levels(8) * (2 * noise - 1)).clamp(-1, 1)
    scores["uniform noise 8/255"] = {
        name: _cosine(embedded(_embedding(name, twin), noisy), clean[name][second])
        for name, twin in problem.pipelines.items()
    }


def _oblivious(problem: Problem, clean: dict[str, Any], scores: Scores) -> None:
    """Attacks made on the bare recogniser, given to every pipeline."""
    bare = problem.pipelines[UNDEFENDED].embed
    first, second = problem.genuine.T
    faces = problem.faces[first]
    template = torch.from_numpy(clean[UNDEFENDED][second])
    own = _displaced(bare, faces)
    size = from_levels(8)
    rows = {
        "FGSM 0.04, bare": lambda x, o, t: fgsm(bare, x, o, 0.04),
        f"PGD-{OBLIVIOUS_STEPS} 8/255, bare": lambda x, o, t: pgd(bare, x, o, size, OBLIVIOUS_STEPS),
        f"PGD-{OBLIVIOUS_STEPS} 8/255, bare, from the template": lambda x, o, t: pgd(bare, x, t, size, OBLIVIOUS_STEPS),
    }
    for row, attack in rows.items():
        say(row)
        attacked = _in_batches(attack, faces, own, template)
        scores[row] = {
            name: _cosine(embedded(_embedding(name, twin), attacked), clean[name][second])
            for name, twin in problem.pipelines.items()
        }


def _adaptive(
    problem: Problem, name: str, twin: TorchTwin, clean: dict[str, Any], scores: Scores, asked: Asked, lost: float
) -> None:
    """Attacks through the whole pipeline, each on its own."""
    first, second = problem.genuine.T
    faces, template = problem.faces[first], torch.from_numpy(clean[name][second])
    own = torch.from_numpy(clean[name][first])
    plan = [
        (f"PGD-{asked.steps} x {asked.restarts} {level}/255, adaptive", level, own, asked.steps)
        for level in asked.levels
    ]
    plan += [
        (f"PGD-{asked.steps} x {asked.restarts} {level}/255, adaptive, from the template", level, template, asked.steps)
        for level in asked.levels[:2]
        if asked.templates
    ]
    if asked.sanity and not name.startswith(FIXED):
        plan.append((f"PGD-{2 * asked.steps} x {asked.restarts} 4/255, adaptive (doubled)", 4, own, 2 * asked.steps))
        plan.append((f"PGD-20 {HOPELESS}/255, adaptive (hopeless)", HOPELESS, own, 20))
    for row, level, away, steps in plan:
        say(f"{row}, {name}")
        restarts = 1 if level == HOPELESS else asked.restarts
        target = torch.from_numpy(clean[name][second])
        scores.setdefault(row, {})[name] = pushed(twin, faces, away, target, lost, from_levels(level), steps, restarts)


def antibodies(problem: Problem) -> dict[str, Any]:
    """Specificity: how far antibodies of different faces differ, against those of two attacks on one face.

    In eigenfaces: mean Hamming distance of (p > 0.5) between the clean first faces of different pairs, and between two
    attacked versions (FGSM and PGD at 0.04 on the bare recogniser) of one face. Beside it the cosine of a face purified
    with and without the memory's read, where the network can leave it out.
    """
    first = problem.genuine[:, 0]
    faces = problem.faces[first]
    bare = problem.pipelines[UNDEFENDED].embed
    own = _displaced(bare, faces)
    single = _in_batches(lambda x, o: fgsm(bare, x, o, 0.04), faces, own)
    many = _in_batches(lambda x, o: pgd(bare, x, o, 0.04, 10), faces, own)
    found = {}
    for name, twin in problem.pipelines.items():
        if twin.purifier is None:
            continue
        with torch.no_grad():
            clean, one, two = (twin.probabilities(part) > 0.5 for part in (faces, single, many))
        people = len(clean)
        apart = (clean[:, None] != clean[None]).sum(dim=2).float().sum() / (people * (people - 1))
        found[name] = {
            "different_faces": round(float(apart), 2),
            "two_attacks_on_one_face": round(float((one != two).sum(dim=1).float().mean()), 2),
            "clean_and_attacked": round(float((clean != two).sum(dim=1).float().mean()), 2),
            "chosen": round(float(clean.sum(dim=1).float().mean()), 1),
            "memory_left_out": _without_memory(twin, faces, many),
        }
    return found


def _without_memory(twin: TorchTwin, clean: Tensor, attacked: Tensor) -> dict[str, float]:
    """Largest and mean change of a probability, and the least cosine, when the memory's read is left out."""
    import copy

    assert twin.purifier is not None  # the caller has asked
    forgetful = copy.deepcopy(twin)
    memory = forgetful.purifier.memory if hasattr(forgetful.purifier, "memory") else forgetful.purifier.pca_layer.memory
    if hasattr(memory, "values"):
        with torch.no_grad():
            memory.values.zero_()
    else:
        memory.forward = lambda features: torch.zeros_like(features)
    faces = torch.cat([clean, attacked])
    with torch.no_grad():
        change = (twin.probabilities(faces) - forgetful.probabilities(faces)).abs()
    cosine = _cosine(embedded(twin, faces), embedded(forgetful, faces))
    return {
        "mean_change_of_p": round(float(change.mean()), 5),
        "max_change_of_p": round(float(change.max()), 5),
        "mean_cosine": round(float(cosine.mean()), 5),
        "min_cosine": round(float(cosine.min()), 5),
    }


def _parse(argv: Sequence[str] | None) -> tuple[Asked, Options]:
    parser = argparse.ArgumentParser(prog=NAME, description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--basis", type=Path, required=True, help="eigenbasis of the people to fit on")
    parser.add_argument("--purifier", action="append", default=[], metavar="NAME=PATH", help="checkpoint, any number")
    parser.add_argument("--recogniser", type=Path, help="checkpoint (default the real MobileFaceNet)")
    parser.add_argument("--recogniser-arch", default=ARCHITECTURE)
    parser.add_argument("--pairs", type=int, default=128, help="genuine pairs (default 128)")
    parser.add_argument("--steps", type=int, default=80, help="of adaptive PGD (default 80)")
    parser.add_argument("--restarts", type=int, default=2, help="of adaptive PGD (default 2)")
    parser.add_argument("--views", type=int, default=1, help="of each purified face (default 1)")
    parser.add_argument("--fixed-views", action="store_true", help="also the fixed projection, with as many views")
    parser.add_argument("--no-sanity", action="store_true", help="leave the sanity rows out")
    parser.add_argument("--name", default=NAME, help="of the document (default robustness)")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--quick", action="store_true", help="few pairs and steps; writes nothing unless --out is given"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.quick:
        given.pairs, given.steps, given.restarts = 8, 2, 1
    out = given.out or (None if given.quick else RESULTS / f"{given.name}.json")
    purifiers = {name: Path(path) for name, _, path in (word.partition("=") for word in given.purifier)}
    recogniser = given.recogniser or data() / RECOGNISER
    return (
        Asked(given.basis, purifiers, recogniser, given.recogniser_arch, given.pairs, given.steps, given.restarts,
              not given.no_sanity, given.name, given.views, given.fixed_views),
        Options(given.quick, given.json, out),
    )  # fmt: skip


def _within(identities: Any, mask: Any, draw: Callable[..., Pairs], count: int) -> Pairs:
    """Pairs among the rows of a mask, as rows of all faces."""
    rows = np.flatnonzero(mask)
    found = draw(identities[rows], count, SEED)
    pairs: Pairs = rows[found]
    return pairs


def _leading(basis: Eigenbasis, count: int) -> Eigenbasis:
    return truncate(basis, min(count, basis.components))


def _embedding(name: str, twin: TorchTwin) -> Pipeline:
    return twin.embed if name == UNDEFENDED else twin


@torch.no_grad()
def _displaced(bare: Pipeline, faces: Tensor) -> Tensor:
    """(P, E) embeddings of the faces under a little noise: at its own embedding a face has no gradient."""
    noise = torch.rand(faces.shape, generator=torch.Generator().manual_seed(SEED))
    return torch.cat([bare(part) for part in (faces + NOISE * (2 * noise - 1)).clamp(-1, 1).split(BATCH)])


def _in_batches(attack: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    return torch.cat([attack(*batch) for batch in zip(*(part.split(BATCH) for part in parts), strict=True)])


def _cosine(first: Any, second: Any) -> Any:
    return np.einsum("ij,ij->i", first, second)


def _setting(problem: Problem, asked: Asked) -> dict[str, Any]:
    return {
        "data": f"{ALIGNED}, sha256 {sha256_of_file(data() / ALIGNED)}",
        "recogniser": f"{asked.architecture}, {asked.recogniser.name}, sha256 {sha256_of_file(asked.recogniser)}",
        "basis": f"sha256 {sha256_of_file(asked.basis)}",
        "purifiers": {
            name: {
                "sha256": sha256_of_file(path),
                "architecture": twin.purifier.architecture,
                "parameters": sum(weight.numel() for weight in twin.purifier.parameters()),
                "eigenfaces": twin.purifier.components,
                "gated": twin.purifier.gated,
                "views": len(twin.views),
            }
            for name, path in asked.purifiers.items()
            if (twin := problem.pipelines[name]).purifier is not None
        },
        "genuine_pairs": len(problem.genuine),
        "impostor_pairs": len(problem.impostors),
        "people": "thresholds and rates are of different people; neither trained anything",
        "fmr": FMR,
        "adaptive": f"{asked.steps} steps of 2.5 eps / steps, {asked.restarts} restarts, best point of the trajectory",
    }


if __name__ == "__main__":
    sys.exit(guarded(main))
