"""What the commands that rehearse attacks share: how a run begins, is watched, stops and reports."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import FACES_HELP, add_json, add_settings, identified_faces, step
from immunogate.cli.interrupt import StopRequest
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.training.purifier.settings import TrainingSettings
    from immunogate.training.purifier.trainer import Trainer

VALIDATION_SEED = 2


def add_run(parser: argparse.ArgumentParser, flags: dict[str, tuple[type, str]]) -> None:
    """The arguments of any rehearsal; ``flags`` are the settings that have one of their own."""
    parser.add_argument("faces", type=Path, help=FACES_HELP)
    parser.add_argument("--components", type=int, help="leading eigenfaces to use (default all of the basis)")
    parser.add_argument("--config", type=Path, help="TOML file of settings; flags go before it")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    for name, (kind, words) in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, dest=name, help=words)
    add_settings(parser)
    parser.add_argument("--threads", type=int, help="threads of the processor (default: torch's own choice)")
    parser.add_argument("--device", help="cpu or cuda (default cuda where there is one)")
    add_json(parser)


def begun(
    arguments: argparse.Namespace, settings: TrainingSettings, beginning: Path | None, teacher: Any = None
) -> tuple[Trainer, Any]:
    """The trainer on people to learn from, at its checkpoint with --resume, and the faces of those kept back.

    Raises:
        UsageError: there is a run already and --resume was not given, or the checkpoint is of other settings.
    """
    from immunogate.training.purifier.run import checkpoint_of_run

    trainer, kept_back = _new(arguments, settings, beginning, teacher)
    checkpoint = checkpoint_of_run(arguments.out, trainer.processes.rank)
    if arguments.resume:
        trainer.restore(checkpoint)
    elif checkpoint.is_file():
        raise UsageError(
            f"{arguments.out} holds a training run", "Add --resume to go on with it, or give another --out"
        )
    return trainer, kept_back


def rehearse(trainer: Trainer, kept_back: Any, out: Path) -> int | None:
    """Take the steps that are left, saving all along; None when the run is over, else an exit status."""
    from immunogate.training.purifier.run import train
    from immunogate.training.purifier.validation import validation_pairs

    stop, over = StopRequest(), None
    with stop.listening(), stop.shielded(), _Bar(trainer) as bar:
        over = train(trainer, validation_pairs(kept_back), out, bar.told, lambda: stop.requested)
    if over is None:  # asked to end a second time, in the middle of a step
        raise KeyboardInterrupt
    if not trainer.processes.leads:
        return 0
    if not over:
        print(f"stopped at step {trainer.step} of {trainer.last}; go on with --resume", file=sys.stderr)
        return 130
    return None


def _new(
    arguments: argparse.Namespace, settings: TrainingSettings, beginning: Path | None, teacher: Any
) -> tuple[Trainer, Any]:
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
        first = None if beginning is None else load_purifier(beginning)
        trainer = Trainer(basis, network, spec, pixels, settings, processes, device, first, teacher)
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
