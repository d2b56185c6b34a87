"""``immunogate train purifier``: rehearse the artificial immune system in front of a frozen recogniser."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import FACES_HELP, add_json, add_settings, assigned, identified_faces, print_json, step
from immunogate.cli.interrupt import StopRequest
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.training.purifier.settings import TrainingSettings
    from immunogate.training.purifier.trainer import Trainer

VALIDATION_SEED = 2
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
    parser.add_argument("faces", type=Path, help=FACES_HELP)
    parser.add_argument("--basis", type=Path, required=True, help="basis.npz, of the same faces or others")
    parser.add_argument("--recogniser", type=Path, required=True, help="checkpoint of the recogniser to protect")
    parser.add_argument("--recogniser-arch", required=True, metavar="NAME", help="its architecture")
    parser.add_argument("--components", type=int, help="leading eigenfaces to use (default all of the basis)")
    parser.add_argument("--out", type=Path, required=True, help="folder for purifier.pt, checkpoint and log")
    parser.add_argument("--config", type=Path, help="TOML file of settings; flags go before it")
    parser.add_argument("--begin-with", type=Path, metavar="PURIFIER", help="trained purifier to begin with")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--paper-exact", action="store_true", default=None, help="train as published, faults included")
    for name, (kind, words) in FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, dest=name, help=words)
    add_settings(parser)
    parser.add_argument("--threads", type=int, help="threads of the processor (default: torch's own choice)")
    parser.add_argument("--device", help="cpu or cuda (default cuda where there is one)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, saving all along, and report."""
    from immunogate.training.purifier.run import BEST, checkpoint_of_run, train
    from immunogate.training.purifier.settings import TrainingSettings, read_settings
    from immunogate.training.purifier.validation import validation_pairs

    given = {name: getattr(arguments, name) for name in FLAGS}
    settings = read_settings(
        arguments.config, {**given, **assigned(arguments.set, TrainingSettings()), "paper_exact": arguments.paper_exact}
    )
    trainer, kept_back = _begun(arguments, settings)
    checkpoint = checkpoint_of_run(arguments.out, trainer.processes.rank)
    if arguments.resume:
        trainer.restore(checkpoint)
    elif checkpoint.is_file():
        raise UsageError(
            f"{arguments.out} holds a training run", "Add --resume to go on with it, or give another --out"
        )
    stop, over = StopRequest(), None
    with stop.listening(), stop.shielded(), _Bar(trainer) as bar:
        over = train(trainer, validation_pairs(kept_back), arguments.out, bar.told, lambda: stop.requested)
    if over is None:  # asked to end a second time, in the middle of a step
        raise KeyboardInterrupt
    if not trainer.processes.leads:
        return 0
    if not over:
        print(f"stopped at step {trainer.step} of {trainer.last}; go on with --resume", file=sys.stderr)
        return 130
    report = {
        "out": str(arguments.out / BEST),
        "steps": trainer.step,
        "best_score": round(trainer.best, 4),
        "parameters": sum(weight.numel() for weight in trainer.averaged.parameters()),
        "settings": dataclasses.asdict(settings),
    }
    if arguments.json:
        print_json(report)
    else:
        print(f"{report['out']}: the best of {trainer.step} steps, mean accept rate {trainer.best:.3f} in validation")
    return 0


def _begun(arguments: argparse.Namespace, settings: TrainingSettings) -> tuple[Trainer, Any]:
    """The trainer on people to learn from, and the faces of those kept back."""
    import torch

    from immunogate.basis import load_basis, truncate
    from immunogate.faces_file import faces_from_pixels, identity_split
    from immunogate.networks.purifier import load_purifier
    from immunogate.networks.recognisers import load_recogniser
    from immunogate.training.memory import keep_freed_memory
    from immunogate.training.processes import Processes
    from immunogate.training.purifier.trainer import Trainer

    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads must be 1 or more, got {arguments.threads}")
    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    faces = identified_faces(arguments.faces)
    assert faces.identities is not None  # `identified_faces` asks
    learn, keep = identity_split(faces.identities, VALIDATION_SEED, settings.validation_share)
    basis = load_basis(arguments.basis)
    if arguments.components is not None:
        basis = truncate(basis, arguments.components)
    network, spec = load_recogniser(arguments.recogniser, arguments.recogniser_arch)
    processes = Processes.from_environment()
    device = processes.device(arguments.device)
    with step(f"reading {int(learn.sum())} faces to learn from and {int(keep.sum())} to validate on"):
        pixels = torch.from_numpy(faces_from_pixels(faces.images[learn]))
        beginning = None if arguments.begin_with is None else load_purifier(arguments.begin_with)
        trainer = Trainer(basis, network, spec, pixels, settings, processes, device, beginning)
    return trainer, faces.take(keep)


class _Bar:
    """A progress bar with time left, and a line for each validation."""

    def __init__(self, trainer: Trainer) -> None:
        from tqdm import tqdm

        shown = None if trainer.processes.leads else True  # None: where stderr is a terminal
        self._bar = tqdm(total=trainer.last, initial=trainer.step, desc="rehearsing", disable=shown, file=sys.stderr)
        self._leads = trainer.processes.leads

    def told(self, number: int, values: dict[str, float]) -> None:
        """Show a step."""
        self._bar.update(1)
        shown = {name: f"{value:.3f}" for name, value in values.items() if name.startswith("cosine")}
        self._bar.set_postfix(shown, refresh=False)
        rates = {name[11:]: value for name, value in values.items() if name.startswith("validation_")}
        if rates and self._leads:
            words = ", ".join(f"{name} {value:.3f}" for name, value in rates.items())
            self._bar.write(f"step {number}: {words}", file=sys.stderr)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
