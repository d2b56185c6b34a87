"""``immunogate train recogniser``: distil a recogniser of this project's own from another one."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli import train_robust
from immunogate.cli.common import (
    FACES_HELP,
    add_json,
    add_settings,
    assigned,
    identified_faces,
    print_json,
    progress,
    step,
)
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.faces_file import AlignedFaces
    from immunogate.training.recogniser.settings import DistilSettings
    from immunogate.training.recogniser.trainer import Trainer
    from immunogate.training.recogniser.validation import Examination, Marks

SPLIT_SEED, TEST_SHARE = 1, 0.3
CHOICE_SEED, CHOICE_SHARE = 2, 0.1
COMPONENTS = 512


def add_parser(parts: Any) -> None:
    """Add the part."""
    parser = parts.add_parser(
        "recogniser",
        help="a small recogniser that another one teaches, or one that holds under attack",
        description="Distil a recogniser into GateFace, which begins with random weights and learns to give the "
        "teacher's embeddings of real, mixed and varied faces. Goes on from where it was stopped. --robust: see below.",
    )
    parser.add_argument("faces", type=Path, help=FACES_HELP)
    parser.add_argument("--teacher", type=Path, help="checkpoint of the recogniser that teaches")
    parser.add_argument("--teacher-arch", default="mobilefacenet", help="its architecture (default mobilefacenet)")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="where to write the weights; state and log go beside. With --robust a folder",
    )
    parser.add_argument("--steps", type=int, help="optimiser steps in all (default 5000; with --robust 1500)")
    parser.add_argument("--batch", type=int, help="faces a step (default 64; with --robust 48)")
    parser.add_argument("--seed", type=int, help="of everything drawn (default 0)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="of convolutions (default float32)")
    add_settings(parser)
    parser.add_argument("--begin", type=Path, help="weights of an earlier run to begin with (default random ones)")
    parser.add_argument("--until", type=int, help="stop at this step; the same command without it goes on")
    parser.add_argument(
        "--components", type=int, help="eigenfaces that mix faces (default 512); with --robust all of the basis"
    )
    parser.add_argument("--threads", type=int, help="threads of the processor (default: torch's own choice)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    add_json(parser)
    train_robust.add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Learn, saving at each validation, and report."""
    if arguments.robust:
        distilling = ("precision", "begin", "until")
        strange = [f"--{name}" for name in distilling if getattr(arguments, name) is not None]
    else:
        strange = train_robust.given_without(arguments)
    if strange:
        raise UsageError(
            f"{strange[0]} is for {'distilling' if arguments.robust else '--robust'}",
            "Leave it out, or --robust" if arguments.robust else "Leave it out, or add --robust",
        )
    return train_robust.run(arguments) if arguments.robust else _distil(arguments)


def _distil(arguments: argparse.Namespace) -> int:
    if arguments.teacher is None:
        raise UsageError("there is no recogniser without a teacher", "Give --teacher, or --robust for another training")
    if arguments.out.suffix != ".pt":
        raise UsageError(f"--out must end in .pt, got {arguments.out.name!r}")
    settings = _settings(arguments)
    faces = identified_faces(arguments.faces)
    trainer, examination = _begun(arguments, settings, faces)
    state = arguments.out.with_suffix(".state.pt")
    if state.is_file():
        trainer.restore(state)
        print(f"going on at step {trainer.step} of {settings.steps}", file=sys.stderr)
    elif arguments.begin is not None:
        trainer.begin_with(arguments.begin)
    spent = _train(arguments.out, trainer, examination, arguments.until or settings.steps)
    trainer.save_best(arguments.out)
    report = {
        "out": str(arguments.out),
        "best_step": trainer.best["step"],
        "cosine": trainer.best["cosine"],
        "teacher": asdict(examination.teacher_marks()),
        "seconds": round(spent),
        "settings": asdict(settings),
    }
    if arguments.json:
        print_json(report)
    else:
        print(f"{arguments.out}: step {report['best_step']}, mean cosine with the teacher {report['cosine']:.4f} "
              "on people kept for choosing")  # fmt: skip
    return 0


def _settings(arguments: argparse.Namespace) -> DistilSettings:
    from immunogate.training.recogniser.settings import DistilSettings

    values = assigned(arguments.set, DistilSettings())
    for name in ("steps", "batch", "seed", "precision"):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    return DistilSettings(**values)


def _begun(arguments: argparse.Namespace, settings: DistilSettings, faces: AlignedFaces) -> tuple[Trainer, Examination]:
    """A run at its beginning."""
    import cv2
    import torch

    from immunogate.faces_file import identity_split
    from immunogate.files import sha256_of_bytes, sha256_of_file
    from immunogate.networks.recognisers import load_recogniser
    from immunogate.training.eigenbasis import fit_eigenbasis
    from immunogate.training.memory import keep_freed_memory
    from immunogate.training.recogniser.crowd import Crowd
    from immunogate.training.recogniser.teacher import Teacher
    from immunogate.training.recogniser.trainer import Trainer
    from immunogate.training.recogniser.validation import Examination

    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
        cv2.setNumThreads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network, spec = load_recogniser(arguments.teacher, arguments.teacher_arch)
    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    teacher = Teacher(network, spec, device, dtype)
    assert faces.identities is not None  # `identified_faces` checks
    ours = faces.take(identity_split(faces.identities, SPLIT_SEED, TEST_SHARE)[0])
    assert ours.identities is not None
    learn, choose = (ours.take(mask) for mask in identity_split(ours.identities, CHOICE_SEED, CHOICE_SHARE))
    components = COMPONENTS if arguments.components is None else arguments.components
    with step(f"fitting {components} eigenfaces of {len(learn)} faces"):
        basis = fit_eigenbasis(learn.images, components)
    made_of = [arguments.teacher] + ([arguments.begin] if arguments.begin else [])
    hashes = [sha256_of_bytes(learn.images.tobytes()), *(sha256_of_file(path) for path in made_of)]
    source = " ".join(each[:16] for each in hashes)
    trainer = Trainer(Crowd(learn.images, basis, settings), teacher, settings, source, device)
    exact = Teacher(network, spec, device, torch.float32)  # the examination is not rounded
    return trainer, Examination(choose, exact)


def _train(out: Path, trainer: Trainer, examination: Examination, until: int) -> float:
    """The steps that are left, with a bar and a log; gives the seconds they took."""
    from immunogate.training.recogniser.trainer import train

    begin = time.perf_counter()
    log = out.with_suffix(".log.jsonl")
    losses: list[dict[str, float]] = []
    left = max(0, min(until, trainer.settings.steps) - trainer.step)
    bar = progress(range(left), "learning", left)

    def report(found: dict[str, float]) -> None:
        losses.append(found)
        next(bar)

    def keep(marks: Marks) -> None:
        trainer.save(out.with_suffix(".state.pt"))
        means = {name: round(sum(each[name] for each in losses) / len(losses), 5) for name in losses[0]}
        losses.clear()
        line = {"step": trainer.step, **asdict(marks), **means, "seconds": round(time.perf_counter() - begin, 1)}
        with log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    train(trainer, examination, until, keep, report)
    return time.perf_counter() - begin
