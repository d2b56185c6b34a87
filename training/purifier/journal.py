"""What a training run leaves to read: a line of JSON for every so many steps, TensorBoard scalars and pictures."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from immunogate.files import write_whole
from immunogate.structs import CROP_SIZE

logger = logging.getLogger(__name__)

PICTURED = 8
"""Faces in the before-and-after picture."""


class Journal:
    """Writes ``log.jsonl`` and, where the package tensorboard is installed, TensorBoard events beside it.

    Args:
        folder: of the run; made if need be.
        resumed_at: step at which the run goes on. Lines from there on are of a run that was killed, and go.
    """

    def __init__(self, folder: Path, resumed_at: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.jsonl"
        self._keep_until(resumed_at)
        self._stream = self._path.open("a", encoding="utf-8")
        self._board = _board(folder, resumed_at)

    def note(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Note some numbers of a step.

        Args:
            step: number of steps done.
            kind: train or validation.
            values: by name.
        """
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._stream.write(json.dumps({"step": step, "kind": kind, **rounded}) + "\n")
        self._stream.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    @property
    def pictures(self) -> bool:
        """Whether pictures are written; making them for nothing costs a purifier's attack each time."""
        return self._board is not None

    def picture(self, step: int, clean: Tensor, attacked: Tensor, purified: Tensor) -> None:
        """Show faces before and after, one column a face: clean, attacked, the attack tenfold, purified.

        Args:
            step: number of steps done.
            clean: (B, D) in [-1, 1]; so are the others.
            attacked: what the purifier was given.
            purified: what it made of it.
        """
        if self._board is None:
            return
        rows = (clean, attacked, 10 * (attacked - clean), purified)
        planes = [row[:PICTURED].detach().cpu().reshape(-1, CROP_SIZE, CROP_SIZE) for row in rows]
        sheet = [plane.permute(1, 0, 2).reshape(CROP_SIZE, -1) for plane in planes]
        picture = (torch.cat(sheet) + 1).clamp(0, 2) / 2
        self._board.add_image("faces/clean, attacked, attack x 10, purified", picture[None], step)

    def close(self) -> None:
        """Finish both."""
        self._stream.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep_until(self, step: int) -> None:
        if not self._path.is_file():
            return
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines() if step else []
        text = "".join(line + "\n" for line in lines if _step_of(line) <= step)
        write_whole(self._path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _step_of(line: str) -> float:
    """The step of a line; beyond all steps where a kill or a full disk has cut the line off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _board(folder: Path, resumed_at: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        logger.info("no TensorBoard events: the package tensorboard is not installed")
        return None
    return SummaryWriter(str(folder), purge_step=resumed_at or None)
