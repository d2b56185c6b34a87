"""What a training step costs, against the published loop written as published, in one run.

The published loop goes through the batch face by face and, for each, makes a copy of the eigenfaces for every clone,
with the rows of what the clone leaves out set to zero, to multiply with it twice. `published_step` is this project's
own rendition of that, in front of the same recogniser; the product's step does the same work (paper-exact: analyzer of
the paper, FGSM on the current defence, REINFORCE over S clones) with one product for all clones. The default training
(spectral, live rehearsal) stands beside them. Each runs in a process of its own, whose peak memory is read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from assets import ARCHITECTURE, RECOGNISER, data, fitted_basis_file, split_faces
from child import python
from common import Target, finish, guarded, parse, say
from environment import environment
from torch import Tensor

from immunogate.basis import Eigenbasis, load_basis, truncate
from immunogate.faces_file import faces_from_pixels
from immunogate.networks.recognisers import load_recogniser
from immunogate.training.purifier.settings import PAPER, TrainingSettings
from immunogate.training.purifier.trainer import Trainer

NAME = "bench_training"
BATCH, CLONES, COMPONENTS = 4, 25, 1500
STEPS, QUICK_STEPS, WARM_UP = 5, 1, 1
FACES = 64
MEMORY_LIMIT_MB = 2000.0
KINDS = ("load", "published", "paper_exact", "spectral_live")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each in a child, then report; with the word ``child`` and a kind, be that child."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["child"]:
        return child(words[1], int(words[2]), int(words[3]))
    options = parse(NAME, __doc__, argv)
    before = environment()
    components, steps = (100, QUICK_STEPS) if options.quick else (COMPONENTS, STEPS)
    fitted_basis_file()
    measured: dict[str, Any] = {"batch": BATCH, "clones": CLONES, "components": components, "steps": steps}
    for kind in KINDS:
        say(kind)
        ran = python(__file__, "child", kind, components, steps)
        measured[kind] = {**json.loads(ran.stdout), "peak_mb": ran.peak_mb}
    base = measured["load"]["peak_mb"]
    for kind in KINDS[1:]:
        measured[kind]["above_load_mb"] = round(measured[kind]["peak_mb"] - base, 1)
    ratio = measured["published"]["seconds_a_step"] / measured["paper_exact"]["seconds_a_step"]
    memory = measured["published"]["above_load_mb"] / measured["paper_exact"]["above_load_mb"]
    measured["ratios"] = {"seconds": round(ratio, 2), "memory": round(memory, 2)}
    targets = [
        Target(
            f"memory of a step of S = {CLONES} clones at batch {BATCH}, above what is loaded",
            "<=",
            MEMORY_LIMIT_MB,
            measured["paper_exact"]["above_load_mb"],
            "MB",
        )
    ]
    return finish(NAME, options, before, measured, targets, table(measured))


def child(kind: str, components: int, steps: int) -> int:
    """Take some steps and print what one costs."""
    basis = truncate(load_basis(fitted_basis_file()), components)
    fit, _ = split_faces()
    faces = torch.from_numpy(faces_from_pixels(fit.images[:FACES]))
    network, spec = load_recogniser(data() / RECOGNISER, ARCHITECTURE)
    if kind == "load":
        print(json.dumps({}))
        return 0
    if kind == "spectral_live":
        settings = TrainingSettings(steps=1000)
    else:
        settings = TrainingSettings(**{**PAPER, "batch": BATCH, "clones": CLONES, "steps": 1000})  # type: ignore[arg-type]
    trainer = Trainer(basis, network, spec, faces, settings)
    take: Callable[[], object] = trainer.take_step
    if kind == "published":
        step = Published(trainer, basis)
        take = step.take
    for _ in range(WARM_UP):
        take()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        take()
        times.append(time.perf_counter() - start)
    found = {
        "seconds_a_step": round(sorted(times)[len(times) // 2], 4),
        "seconds": [round(value, 4) for value in times],
        "batch": settings.batch,
    }
    print(json.dumps(found))
    return 0


class Published:
    """The published step: what `Trainer` holds, walked through face by face with a copy of E for every clone.

    Args:
        trainer: paper-exact; its networks, faces and attacks are used.
        basis: eigenfaces.
    """

    def __init__(self, trainer: Trainer, basis: Eigenbasis) -> None:
        self._trainer = trainer
        self._columns = torch.from_numpy(basis.basis).T.contiguous()  # (D, n), as published
        self._mean = torch.from_numpy(basis.mean)[:, None]

    def take(self) -> None:
        """One step: attack, clones of each face, policy gradient, optimiser."""
        trainer = self._trainer
        batch = trainer.rehearsal.batch(trainer.step)
        trainer.purifier.train()
        probabilities = trainer.twin.probabilities(batch.attacked)
        objective = torch.zeros(())
        for face in range(len(batch.clean)):
            masks, losses = self._clones(probabilities[face].detach(), batch.clean[face], batch.attacked[face])
            p = probabilities[face].clamp(1e-6, 1 - 1e-6)
            likelihood = (masks * p.log() + (1 - masks) * (1 - p).log()).sum(dim=1)
            objective = objective + ((losses - losses.mean()) * likelihood).sum()
        trainer.optimiser.zero_grad()
        (objective / len(batch.clean)).backward()
        trainer.optimiser.step()
        trainer.step += 1

    @torch.no_grad()
    def _clones(self, p: Tensor, clean: Tensor, attacked: Tensor) -> tuple[Tensor, Tensor]:
        """(S, n) masks and (S,) losses of one face."""
        twin, settings = self._trainer.twin, self._trainer.settings
        masks = (torch.rand(settings.clones, len(p)) < p).float()
        copies = masks[:, None, :] * self._columns[None]  # (S, D, n): the published way
        centred = attacked[:, None] - self._mean
        pictures = (copies @ (copies.transpose(1, 2) @ centred) + self._mean).squeeze(2)
        pixels = (pictures - clean).square().mean(dim=1)
        identity = 1 - twin.embed(pictures) @ twin.embed(clean[None])[0]
        return masks, pixels + settings.size * masks.sum(dim=1) + settings.identity * identity


def table(measured: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| step | faces | s a step (median) | ms a face | peak above what is loaded, MB |",
        "|---|---|---|---|---|",
    ]
    names = {
        "published": f"published loop, own rendition, S = {CLONES}",
        "paper_exact": f"--paper-exact, S = {CLONES}",
        "spectral_live": "default: spectral, live rehearsal",
    }
    for kind, words in names.items():
        found = measured[kind]
        seconds = found["seconds_a_step"]
        each = 1000 * seconds / found["batch"]
        lines.append(f"| {words} | {found['batch']} | {seconds:.3f} | {each:.0f} | {found['above_load_mb']:.0f} |")
    ratios = measured["ratios"]
    lines.append(
        f"\npublished / --paper-exact: {ratios['seconds']:.1f} x the time, {ratios['memory']:.1f} x the memory"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
