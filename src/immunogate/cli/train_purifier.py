"""``immunogate train purifier``: rehearse the artificial immune system in front of a frozen recogniser."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from immunogate.cli.common import assigned, print_json
from immunogate.cli.rehearsal import add_run, begun, rehearse
from immunogate.errors import UsageError

FLAGS: dict[str, tuple[type, str]] = {
    "architecture": (str, "paper, compact or spectral (default spectral)"),
    "estimator": (str, "expected, relaxed or reinforce (default expected)"),
    "rehearsal": (str, "live or average (default live)"),
    "attack": (str, "fgsm or pgd (default pgd)"),
    "attack_steps": (int, "gradient steps of an attack (default 10)"),
    "least_eps": (float, "smallest attack, in grey levels of 255"),
    "most_eps": (float, "largest attack through the defence, in grey levels of 255"),
    "bare_eps": (float, "largest attack on the bare recogniser, in grey levels of 255"),
    "clean": (float, "share of each batch that is not attacked"),
    "adaptive": (float, "share attacked through the whole defence"),
    "clones": (int, "clones a face, of reinforce (default 25)"),
    "steps": (int, "steps of the rehearsal (default 2400)"),
    "warmup_steps": (int, "steps on Gaussian noise before it (default 0)"),
    "batch": (int, "faces a step (default 48)"),
    "learning_rate": (float, "peak of Adam's (default 2e-3)"),
    "validate_every": (int, "steps between validations (default 300)"),
    "patience": (int, "validations without a better one before training stops (default 0: never)"),
    "precision": (str, "fp32 or bf16 (default fp32)"),
    "seed": (int, "of everything drawn (default 0)"),
}
"""The settings that have a flag of their own; ``--set`` takes the others."""


def add_parser(parts: Any) -> None:
    """Add the part."""
    parser = parts.add_parser(
        "purifier",
        help="the network that chooses antibodies",
        description="Train a purifier in front of a frozen recogniser, by attacks on the defence as it is at the "
        "moment. Starts anew, or with --resume goes on bit for bit. For several processes start it by torchrun.",
        epilog="All settings and their meaning: immunogate.training.purifier.settings.TrainingSettings.",
    )
    add_run(parser, FLAGS)
    parser.add_argument("--basis", type=Path, required=True, help="basis.npz, of the same faces or others")
    parser.add_argument("--recogniser", type=Path, required=True, help="checkpoint of the recogniser to protect")
    parser.add_argument("--recogniser-arch", required=True, metavar="NAME", help="its architecture")
    parser.add_argument("--out", type=Path, required=True, help="folder for purifier.pt, checkpoint and log")
    parser.add_argument("--begin-with", type=Path, metavar="PURIFIER", help="trained purifier to begin with")
    parser.add_argument("--paper-exact", action="store_true", default=None, help="train as published, faults included")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, saving all along, and report."""
    from immunogate.training.purifier.run import BEST
    from immunogate.training.purifier.settings import TrainingSettings, read_settings

    given = {name: getattr(arguments, name) for name in FLAGS}
    settings = read_settings(
        arguments.config, {**given, **assigned(arguments.set, TrainingSettings()), "paper_exact": arguments.paper_exact}
    )
    if settings.architecture == "none":
        raise UsageError("architecture none trains no purifier", "Use immunogate train recogniser --robust")
    trainer, kept_back = begun(arguments, settings, arguments.begin_with)
    status = rehearse(trainer, kept_back, arguments.out)
    if status is not None:
        return status
    averaged = trainer.averaged
    assert averaged is not None  # every architecture but none has one
    report = {
        "out": str(arguments.out / BEST),
        "steps": trainer.step,
        "best_score": round(trainer.best, 4),
        "parameters": sum(weight.numel() for weight in averaged.parameters()),
        "settings": dataclasses.asdict(settings),
    }
    if arguments.json:
        print_json(report)
    else:
        print(f"{report['out']}: the best of {trainer.step} steps, mean accept rate {trainer.best:.3f} in validation")
    return 0
