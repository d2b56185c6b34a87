"""Whether this project's attacks are as strong as a public library's, with the same bound and as many gradients.

The real MobileFaceNet behind a fixed projection (mode fixed) is dodged by projected gradient descent and Auto-PGD, here
and in the Adversarial Robustness Toolbox (extra ``evaluate``). The library attacks classifiers: it is given one pair at
a time, as a classifier of two classes whose logits are the similarity plus 1, and zero, so that it never takes a pair
for won and gives up; the lowest similarity of its forward passes within the bound counts, whatever it returns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from assets import ARCHITECTURE, RECOGNISER, data, fitted_basis_file, split_faces
from common import RESULTS, Options, Target, finish, guarded, say
from environment import environment
from pairs import cosines, empirical_threshold, genuine_pairs, impostor_pairs
from torch import Tensor, nn
from verification import embedded

from immunogate.basis import load_basis, truncate
from immunogate.errors import MissingExtraError
from immunogate.faces_file import faces_from_pixels
from immunogate.networks.attacks import Apgd, LinfBall, Pgd, deterministic, dodging, from_levels, search
from immunogate.networks.attacks import Target as Gate
from immunogate.networks.frozen import frozen
from immunogate.networks.recognisers import load_recogniser
from immunogate.networks.twin import TorchTwin

NAME = "attack_strength"
KEPT, LEVELS, FMR, SEED = 1000, 1, 1e-3, 0
IMPOSTORS, CLEAN = 2_000, 400
LEAST_GAIN = 0.01
"""How much higher the mean similarity may be than the library's: random starts differ."""

ROUNDING = 1e-3
"""Share of the bound by which float32 may exceed it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog=NAME, description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument(
        "--quick", action="store_true", help="few pairs and steps; writes nothing unless --out is given"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    if given.quick:
        given.pairs, given.steps = 3, 12
    before = environment()
    measured = measure(given.pairs, given.steps)
    options = Options(given.quick, given.json, given.out or (None if given.quick else RESULTS / f"{NAME}.json"))
    return finish(NAME, options, before, measured, targets(measured), table(measured))


def measure(pairs: int, steps: int) -> dict[str, Any]:
    """All attacks on the same pairs."""
    twin, faces, templates, limit, clean = posed(pairs)
    gate, eps = Gate(deterministic(twin)), from_levels(LEVELS)
    goal = dodging(templates)  # no limit: all are pushed to the end, here and there
    library = toolbox()
    found: dict[str, Any] = {}
    reach: dict[str, float] = {}
    ours = {
        "PGD": Pgd(steps, seed=SEED),
        "PGD, momentum 0.75": Pgd(steps, momentum=0.75, seed=SEED),
        "APGD": Apgd(steps),
    }
    for name, method in ours.items():
        say(name)
        found[f"{name}, here"] = search(gate, faces, goal, LinfBall(eps), method).scores.numpy()
    for name, attack in library.items():
        say(f"{name}, library")
        found[f"{name}, library"], reach[name] = attacked_by(attack, twin, faces, templates, eps, steps)
    return {
        "pairs": pairs,
        "steps": steps,
        "levels": LEVELS,
        "threshold": round(limit, 5),
        "fmr": FMR,
        "library_searched_to_bounds": {name: round(bounds, 3) for name, bounds in reach.items()},
        "clean": {"mean": round(float(clean.mean()), 4), "lost": round(float((clean < limit).mean()), 4)},
        "attacks": {
            name: {"mean": round(float(scores.mean()), 4), "lost": round(float((scores < limit).mean()), 4),
                   "scores": [round(float(score), 4) for score in scores]}
            for name, scores in found.items()
        },
    }  # fmt: skip


def posed(pairs: int) -> tuple[TorchTwin, Tensor, Tensor, float, Any]:
    """The defence, faces (P, D), templates (P, E), the threshold and the clean similarities (P,)."""
    network, spec = load_recogniser(data() / RECOGNISER, ARCHITECTURE)
    twin = TorchTwin(frozen(network), spec, truncate(load_basis(fitted_basis_file()), KEPT), top_k=KEPT)
    _, kept_back = split_faces()
    assert kept_back.identities is not None  # the development faces have them
    chosen = genuine_pairs(kept_back.identities, pairs, SEED)
    others = kept_back.take(np.random.default_rng(SEED).permutation(len(kept_back.images))[:CLEAN])
    assert others.identities is not None
    impostors = impostor_pairs(others.identities, IMPOSTORS, SEED)
    limit = empirical_threshold(
        cosines(embedded(twin, torch.from_numpy(faces_from_pixels(others.images))), impostors), FMR
    )
    faces = torch.from_numpy(faces_from_pixels(kept_back.images[chosen.ravel()])).reshape(pairs, 2, -1)
    templates = torch.from_numpy(embedded(twin, faces[:, 1].contiguous()))
    clean = np.einsum("ij,ij->i", embedded(twin, faces[:, 0].contiguous()), templates.numpy())
    return twin, faces[:, 0].contiguous(), templates, limit, clean


class Verifier(nn.Module):
    """One pair as a classifier: class 0 accepts. It remembers the lowest similarity that it gave within the bound.

    Args:
        twin: the defence.
        face: (D,) as it was.
        template: (E,) of unit length.
        eps: the bound; points farther from the face do not count, since a library's search may leave it.
        limit: below it the library takes the pair for won.
    """

    def __init__(self, twin: TorchTwin, face: Tensor, template: Tensor, eps: float, limit: float) -> None:
        super().__init__()
        self.twin, self.face, self.template, self.limit = twin, face, template, limit
        self.most = eps * (1 + ROUNDING)
        self.lowest = float("inf")
        self.farthest = 0.0

    def forward(self, faces: Tensor) -> Tensor:
        """(B, D) to (B, 2)."""
        similarity = (self.twin(faces) * self.template).sum(dim=1)
        far = (faces.detach() - self.face).abs().amax(dim=1)
        self.farthest = max(self.farthest, float(far.max()))
        within = similarity.detach()[far <= self.most]
        self.lowest = min(self.lowest, float(within.min())) if len(within) else self.lowest
        return torch.stack([similarity - self.limit, torch.zeros_like(similarity)], dim=1)


Make = Callable[[Any, float, int], Any]


def toolbox() -> dict[str, Make]:
    """The library's attacks by name: each takes a classifier, eps and steps.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescentPyTorch
    except ImportError as error:
        raise MissingExtraError("adversarial-robustness-toolbox", "evaluate") from error

    def pgd(classifier: Any, eps: float, steps: int) -> Any:
        return ProjectedGradientDescentPyTorch(
            classifier, np.inf, eps, eps_step=2.5 * eps / steps, max_iter=steps, num_random_init=1, verbose=False
        )

    def apgd(classifier: Any, eps: float, steps: int) -> Any:
        return AutoProjectedGradientDescent(
            classifier, np.inf, eps, eps_step=2 * eps, max_iter=steps, nb_random_init=1, loss_type="cross_entropy",
            verbose=False,
        )  # fmt: skip

    return {"PGD": pgd, "APGD": apgd}


def attacked_by(
    make: Make, twin: TorchTwin, faces: Tensor, templates: Tensor, eps: float, steps: int
) -> tuple[Any, float]:
    """(P,) the lowest similarity that a library's attack came by for each pair, and how many bounds far it searched."""
    from art.estimators.classification import PyTorchClassifier

    lowest, farthest = [], 0.0
    for face, template in zip(faces, templates, strict=True):
        # It gives up on a pair that is refused: for its search the threshold lies where no similarity does.
        verifier = Verifier(twin, face, template, eps, -1.0).eval()
        classifier = PyTorchClassifier(
            verifier, nn.CrossEntropyLoss(), (face.numel(),), 2, clip_values=(-1.0, 1.0), device_type="cpu"
        )
        with _seeded():
            make(classifier, eps, steps).generate(face[None].numpy(), np.array([[1.0, 0.0]], np.float32))
        lowest.append(verifier.lowest)
        farthest = max(farthest, verifier.farthest)
    return np.array(lowest, np.float32), farthest / eps


@contextmanager
def _seeded() -> Any:
    """The library draws from NumPy's and torch's global generators."""
    before, state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - it knows no other
    np.random.seed(SEED)  # noqa: NPY002
    torch.manual_seed(SEED)
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
        torch.set_rng_state(state)


def targets(measured: dict[str, Any]) -> list[Target]:
    """At least as strong as the library's attack of the same name."""
    found = []
    for name in ("PGD", "APGD"):
        ours, theirs = (measured["attacks"][f"{name}, {where}"] for where in ("here", "library"))
        what = f"{name}-{measured['steps']}, {measured['levels']}/255"
        found.append(Target(f"{what}: mean similarity", "<=", round(theirs["mean"] + LEAST_GAIN, 4), ours["mean"], ""))
        found.append(Target(f"{what}: pairs lost", ">=", theirs["lost"], ours["lost"], ""))
    return found


def table(measured: dict[str, Any]) -> str:
    """For people."""
    rows = [("no attack", measured["clean"]), *measured["attacks"].items()]
    lines = [f"| {name} | {entry['mean']:.4f} | {entry['lost']:.3f} |" for name, entry in rows]
    reach = ", ".join(f"{name} to {bounds:g}" for name, bounds in measured["library_searched_to_bounds"].items())
    note = f"Points within the bound count. The library looked at points as far as: {reach} times the bound."
    return "\n".join(["| attack | mean similarity | pairs lost |", "|---|---|---|", *lines, "", note])


if __name__ == "__main__":
    sys.exit(guarded(main))
