"""The training loop: scenes, steps, a moving average of the weights, and a checkpoint to go on from.

A training that was stopped goes on from its last checkpoint with the very bits that it would have had: every draw
depends on the seed and the step alone, and the checkpoint holds weights, average and the optimiser's moments.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from immunogate.errors import ImmunogateError, InputError, UsageError
from immunogate.files import write_whole
from immunogate.networks.checkpoint import fit_state, read_sections, state_of
from immunogate.networks.face_detector import FaceDetector, Head
from immunogate.training.detector.draws import draw
from immunogate.training.detector.labels import LabelledPhotos
from immunogate.training.detector.loss import Batch, losses
from immunogate.training.detector.optimiser import EvenedMomentum
from immunogate.training.detector.scenes import Scene, scene
from immunogate.training.detector.settings import DetectorSettings
from immunogate.training.detector.targets import cell_corners, targets_of

CHECKS = 4
"""Batches of people whom the training does not see, on which its losses are told at every checkpoint."""

_SECTIONS = ("step", "settings", "material", "network", "average", "optimiser")


@dataclass(frozen=True)
class Report:
    """What one step came to.

    Attributes:
        step: from 1.
        total: weighted loss of the step's scenes.
        score: loss of the scores, before it is weighted.
        box: loss of the boxes.
        point: loss of the points.
        checked: at a checkpoint, the same four for scenes of other people with the averaged weights; else None.
    """

    step: int
    total: float
    score: float
    box: float
    point: float
    checked: tuple[float, float, float, float] | None = None


class Trainer:
    """One training of a detector.

    Args:
        material: photos and labels to learn from.
        check: photos of other people, for the reports alone: nothing is chosen by them here.
        settings: all that decides about the result.
        checkpoint: file to go on from where it is there, and to write.
        fingerprint: of photos and labels; a checkpoint of others is refused.
        device: to train on.

    Raises:
        UsageError: no photo has a sure face, or the checkpoint belongs to other settings or photos.
        InputError: the checkpoint is damaged.
    """

    def __init__(
        self,
        material: LabelledPhotos,
        check: LabelledPhotos,
        settings: DetectorSettings,
        checkpoint: Path,
        fingerprint: str,
        device: torch.device,
    ) -> None:
        for photos in (material, check):
            if not any(faces.sure.any() for faces in photos.faces):
                raise UsageError("the teacher is sure of no face in any photo", "Give photos of faces")
        self._material, self._check, self._settings = material, check, settings
        self._checkpoint, self._fingerprint, self._device = checkpoint, fingerprint, device
        self._grids = {size: cell_corners(size) for size in set(settings.sizes)}
        torch.manual_seed(settings.seed)
        self.network = FaceDetector().to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.average = copy.deepcopy(self.network).eval()
        last = [head.last for head in self.network.heads if isinstance(head, Head)]
        self._optimiser = EvenedMomentum(self.network, last, settings.rate, settings.boost, settings.decay)
        self.step = 0
        if checkpoint.is_file():
            self._resume()

    def run(self) -> Iterator[Report]:
        """The steps that are left, one report each; the checkpoint is written on the way and at the end.

        Raises:
            ImmunogateError: the loss is not finite any more; the last checkpoint stays.
            UsageError: the checkpoint can not be written.
        """
        while self.step < self._settings.all_steps:
            parts = self._learn(self._scenes(self._material, self.step, "scene"))
            self.step += 1
            checked = None
            if self.step % self._settings.save_every == 0 or self.step == self._settings.all_steps:
                checked = self._checked()
                self._save()
            yield Report(self.step, *parts, checked)

    def _learn(self, scenes: list[Scene]) -> tuple[float, float, float, float]:
        settings = self._settings
        for group in self._optimiser.param_groups:
            group["lr"] = settings.rate * _share_of_rate(self.step, settings)
        self.network.train()
        self._optimiser.zero_grad(set_to_none=True)
        parts = self._losses(self.network, scenes)
        if not bool(torch.isfinite(parts[0])):
            raise self._diverged()
        parts[0].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        if not bool(torch.isfinite(norm)):
            raise self._diverged()
        self._optimiser.step()
        self._follow()
        total, score, box, point = (part.item() for part in parts)
        return total, score, box, point

    def _diverged(self) -> ImmunogateError:
        return ImmunogateError(
            f"the training has diverged at step {self.step + 1}: its loss is not finite",
            f"The last good state is kept in {self._checkpoint}; lower the rate and start anew",
        )

    @torch.no_grad()
    def _follow(self) -> None:
        """The average moves towards the weights, faster in the beginning; counts of batches are copied."""
        keep = min(self._settings.average, (1 + self.step) / (10 + self.step))
        for old, new in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - keep)
            else:
                old.copy_(new)

    @torch.no_grad()
    def _checked(self) -> tuple[float, float, float, float]:
        parts = [self._losses(self.average, self._scenes(self._check, i, "check")) for i in range(CHECKS)]
        total, score, box, point = (float(np.mean([part[i].item() for part in parts])) for i in range(4))
        return total, score, box, point

    def _scenes(self, photos: LabelledPhotos, step: int, purpose: str) -> list[Scene]:
        settings, size = self._settings, self._settings.size_of(step)
        generators = draw(settings.seed, step, purpose).spawn(settings.batch_of(step))
        strength = settings.strength_of(step)
        return [scene(photos, size, settings, generator, strength) for generator in generators]

    def _losses(self, network: FaceDetector, scenes: list[Scene]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grid = self._grids[scenes[0].picture.shape[0]]
        targets = [targets_of(one, *grid) for one in scenes]
        corners, strides = (torch.from_numpy(part).to(self._device) for part in grid)
        pictures = np.stack([one.picture for one in scenes])[:, None]
        fields = (np.stack([getattr(one, key) for one in targets]) for key in
                  ("score", "counted", "shared", "boxes", "points"))  # fmt: skip
        batch = Batch(
            (torch.from_numpy(pictures).to(self._device).float() / 255).contiguous(memory_format=torch.channels_last),
            *(torch.from_numpy(field).to(self._device) for field in fields),
        )
        found = losses(torch.cat(network(batch.pictures), dim=1), batch, corners, strides, self._settings)
        return found.total, found.score, found.box, found.point

    def _save(self) -> None:
        content = {
            "step": self.step,
            "settings": asdict(self._settings),
            "material": self._fingerprint,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }
        write_whole(self._checkpoint, lambda path: torch.save(content, path))

    def _resume(self) -> None:
        path = self._checkpoint
        mend = "Delete it to start anew"
        found = read_sections(path, _SECTIONS, mend)
        if found["settings"] != asdict(self._settings) or found["material"] != self._fingerprint:
            raise UsageError(f"{path} is the checkpoint of a training with other settings, photos or labels", mend)
        for network, key in ((self.network, "network"), (self.average, "average")):
            fit_state(network, state_of(found[key], f"{path}: {key}"), f"{path}: {key}")
        try:
            self._optimiser.load_state_dict(found["optimiser"])
            self.step = int(found["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is a damaged checkpoint: {error}", mend) from error


def _share_of_rate(step: int, settings: DetectorSettings) -> float:
    """Linear warm-up, half a cosine from 1 down to ``last_rate``, and another one in the second part, down to 0."""
    if step >= settings.steps:
        done = (step - settings.steps) / (settings.all_steps - settings.steps)
        return settings.finish_rate * (1 + math.cos(math.pi * done)) / 2
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.last_rate + (1 - settings.last_rate) * (1 + math.cos(math.pi * done)) / 2
