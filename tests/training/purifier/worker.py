"""One of the processes that share a batch, as torchrun starts it: python worker.py FOLDER.

FOLDER holds ``parts.pt``, made by the test itself; this process leaves ``result-RANK.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from immunogate.networks.recognisers import RecogniserSpec
from immunogate.training.processes import Processes
from immunogate.training.purifier import run
from immunogate.training.purifier.settings import TrainingSettings
from immunogate.training.purifier.trainer import Trainer


def main(folder: Path) -> None:
    """Take the steps of every job, and run, stop and resume the last one."""
    parts = torch.load(folder / "parts.pt", weights_only=False)
    spec = RecogniserSpec(build=lambda: parts["network"], **parts["spec"])
    processes = Processes.from_environment()
    device = processes.device("cpu")

    def begin(settings: dict[str, Any]) -> Trainer:
        own = TrainingSettings(**settings)
        return Trainer(parts["basis"], parts["network"], spec, parts["faces"], own, processes, device)

    results: dict[str, Any] = {}
    for name, settings in parts["jobs"].items():
        trainer = begin(settings)
        for _ in range(parts["steps"]):
            trainer.take_step()
        results[name] = {"own": trainer.purifier.state_dict(), "average": trainer.averaged.state_dict()}
    results["loop"] = _loop(begin, next(iter(parts["jobs"].values())), parts["pairs"], folder, processes.rank)
    torch.save(results, folder / f"result-{processes.rank}.pt")
    torch.distributed.destroy_process_group()


def _loop(begin: Any, settings: dict[str, Any], pairs: Any, folder: Path, rank: int) -> dict[str, Any]:
    """A whole run, and one that the last process alone asks to stop at step 4; told steps of each."""
    run.NOTE_EVERY = 2
    told: dict[str, list[int]] = {"whole": [], "stopped": [], "resumed": []}
    whole = begin(settings)
    assert run.train(whole, pairs, folder / "whole", lambda step, values: told["whole"].append(step))
    first = begin(settings)
    asks = (lambda: len(told["stopped"]) >= 4) if rank else (lambda: False)
    assert not run.train(first, pairs, folder / "stopped", lambda step, values: told["stopped"].append(step), asks)
    second = begin(settings)
    second.restore(run.checkpoint_of_run(folder / "stopped", rank))
    assert run.train(second, pairs, folder / "stopped", lambda step, values: told["resumed"].append(step))
    return {
        "told": told,
        "best": [whole.best, second.best],
        "states": [whole.checkpoint(), second.checkpoint()],
        "files": sorted(path.name for path in (folder / "stopped").iterdir() if path.suffix == ".pt"),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
