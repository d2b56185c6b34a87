"""``immunogate train recogniser --robust``: a recogniser learns to hold under attacks on the whole gate."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import assigned, print_json
from immunogate.cli.rehearsal import begun, rehearse
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from immunogate.networks.recognisers import RecogniserSpec
    from immunogate.training.purifier.settings import TrainingSettings

FLAGS: dict[str, tuple[type, str]] = {
    "adapt": (float, "peak learning rate of the recogniser's weights (default 3e-4)"),
    "least_eps": (float, "smallest attack, in grey levels of 255 (default 1)"),
    "most_eps": (float, "largest attack, in grey levels of 255 (default 5)"),
    "clean": (float, "share of each batch that is not attacked (default 0.25)"),
    "views": (int, "views of a purified face in deployment, 1, 2 or 4 (default 4)"),
    "validate_every": (int, "steps between validations (default 300)"),
}
"""The settings that have a flag of their own here; ``--set`` takes the others."""

SHARED = ("steps", "batch", "seed")
"""Those whose flag serves distilling too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What only counts with ``--robust``."""
    group = parser.add_argument_group(
        "with --robust",
        "Fine-tune a recogniser behind the purifier, without labels: under attacks on the whole defence as it then is "
        "it learns to give what the frozen original gives for the clean face. Thresholds and galleries change "
        "with it: export, calibrate and enroll anew. Ctrl-C saves, --resume goes on bit for bit.",
    )
    group.add_argument("--robust", action="store_true", help="do this")
    group.add_argument("--recogniser", type=Path, help="checkpoint to begin with; teaches, without --teacher")
    group.add_argument("--recogniser-arch", metavar="NAME", help="its architecture")
    group.add_argument("--basis", type=Path, help="basis.npz of the deployed purifier")
    behind = group.add_mutually_exclusive_group()
    behind.add_argument("--purifier", type=Path, help="trained purifier before it (default: the untrained soft filter)")
    behind.add_argument("--no-purifier", action="store_true", help="none before it: the recogniser alone")
    group.add_argument("--together", action="store_true", help="the purifier learns along; without this it is held")
    group.add_argument("--config", type=Path, help="TOML file of settings; flags go before it")
    group.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, which is a folder")
    for name, (kind, words) in FLAGS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, dest=name, help=words)


def given_without(arguments: argparse.Namespace) -> list[str]:
    """The flags of this part that were given, for a command without ``--robust``."""
    names = ("recogniser", "recogniser_arch", "basis", "purifier", "no_purifier", "together", "config", "resume")
    return [f"--{name.replace('_', '-')}" for name in (*names, *FLAGS) if getattr(arguments, name) not in (None, False)]


def run(arguments: argparse.Namespace) -> int:
    """Train, saving all along, and report."""
    from immunogate.training.purifier.run import BEST, BEST_RECOGNISER

    for name in ("recogniser", "recogniser_arch", "basis"):
        if getattr(arguments, name) is None:
            raise UsageError(f"--robust needs --{name.replace('_', '-')}", "See immunogate train recogniser --help")
    settings = settings_of(arguments)
    trainer, kept_back = begun(arguments, settings, arguments.purifier, _teacher(arguments))
    status = rehearse(trainer, kept_back, arguments.out)
    if status is not None:
        return status
    report: dict[str, Any] = {
        "recogniser": str(arguments.out / BEST_RECOGNISER),
        "purifier": None if trainer.averaged is None else str(arguments.out / BEST),
        "steps": trainer.step,
        "best_score": round(trainer.best, 4),
        "settings": dataclasses.asdict(settings),
    }
    if arguments.json:
        print_json(report)
    else:
        print(f"{report['recogniser']}: the best of {trainer.step} steps, mean accept rate {trainer.best:.3f} in "
              "validation; export it with its purifier and calibrate anew")  # fmt: skip
    return 0


def _teacher(arguments: argparse.Namespace) -> tuple[nn.Module, RecogniserSpec] | None:
    """Another network that teaches.

    Raises:
        UsageError: its embeddings are of another length than those of the recogniser.
    """
    from immunogate.networks.recognisers import load_recogniser, recogniser_spec

    if arguments.teacher is None:
        return None
    network, spec = load_recogniser(arguments.teacher, arguments.teacher_arch)
    wanted = recogniser_spec(arguments.recogniser_arch).embedding_dimension
    if spec.embedding_dimension != wanted:
        raise UsageError(
            f"the recogniser gives {wanted} numbers, the teacher {spec.name} {spec.embedding_dimension}",
            "Use a teacher whose embeddings are of the same length, or leave --teacher out",
        )
    return network, spec


def settings_of(arguments: argparse.Namespace) -> TrainingSettings:
    """`ROBUST`, changed by a TOML file, flags and ``--set``.

    Raises:
        UsageError: a value is unknown or out of range, or a purifier was to learn that is not there.
    """
    from immunogate.networks.purifier import load_purifier
    from immunogate.training.purifier.settings import NO_PURIFIER, ROBUST, TrainingSettings, read_settings

    given: dict[str, Any] = {name: getattr(arguments, name) for name in (*SHARED, *FLAGS)}
    if arguments.clean is not None:
        given["adaptive"] = 1 - arguments.clean
    given |= assigned(arguments.set, TrainingSettings())
    if arguments.together and arguments.no_purifier:
        raise UsageError("--together and --no-purifier exclude each other", "Leave one of them out")
    given["hold"] = not arguments.together
    if arguments.no_purifier:
        given["architecture"] = NO_PURIFIER
    elif arguments.purifier is not None:
        network = load_purifier(arguments.purifier)
        given |= {"architecture": network.architecture, "gated": network.gated}
    return read_settings(arguments.config, given, ROBUST)
