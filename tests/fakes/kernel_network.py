"""Fake networks that are made of this project's own kernels, so that they run, and are captured, wherever those do.

They know nobody: one is a random linear map, the other says the same of everybody.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from immunogate.kernels.device import Device, Stream, View
from immunogate.kernels.launch import stored_rows
from immunogate.kernels.queued import SLICE, DeviceBasis, Queued
from immunogate.runtime.gpu.memory import Memory
from immunogate.runtime.gpu.network import reshaped


class FakeLinearRecogniser:
    """Embeddings are a random linear map of the planes, at unit length."""

    name, input_name, largest, capturable = "linear", "face", 4, True

    def __init__(self, device: Device, height: int, width: int, length: int) -> None:
        self.input_shape: list[int | str] = ["batch", 3, height, width]
        self.output_names, self.output_shapes = ["embedding"], [["batch", length]]
        self._queued, self._stream = Queued(device), device.stream()
        self._memory = Memory(device, self._stream)
        draw = np.random.default_rng(3)
        self.rows = draw.normal(0, 0.01, (length, 3 * height * width)).astype(np.float32)
        stored = self._memory.upload(stored_rows(self.rows, "fp32")[0])
        self._basis = DeviceBasis(stored, None, self._memory.zeros((self.rows.shape[1],), np.float32), "f32")
        self._status = self._memory.zeros((self.largest,), np.uint32)
        self._held: dict[int, tuple[View, View]] = {}
        self._stream.synchronize()

    def prepare(self, shape: tuple[int, ...]) -> None:
        if shape[0] not in self._held:
            partial = (-(-self.rows.shape[1] // SLICE), shape[0], len(self.rows))
            sums = self._memory.empty((shape[0], len(self.rows)), np.float32)
            self._held[shape[0]] = self._memory.empty(partial, np.float32), sums

    def enqueue(self, batch: View, outputs: dict[str, View], stream: Stream) -> None:
        count, length = batch.shape[0], len(self.rows)
        faces, (partial, sums) = reshaped(batch, (count, self.rows.shape[1])), self._held[count]
        self._queued.project(stream, self._basis, faces, partial)
        self._queued.spectrum(stream, self._basis, partial, faces, sums, None, 0)
        self._queued.mean_embedding(stream, reshaped(sums, (count, 1, length)), outputs["embedding"], self._status)

    def run(self, batch: Any) -> Any:
        """The same on the host."""
        found = batch.reshape(len(batch), -1).astype(np.float64) @ self.rows.T.astype(np.float64)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    def close(self) -> None:
        self._queued.close()
        self._memory.close()
        self._stream.close()


class FakeConstantAnalyzer:
    """Says the same of the first face of every batch, and the same of the second, and so on."""

    name, input_name, largest, capturable = "constant", "face", 8, True

    def __init__(self, device: Device, probabilities: Any) -> None:
        genes = probabilities.shape[1]
        self.input_shape: list[int | str] = ["batch", 1, 112, 112]
        self.output_names, self.output_shapes = ["probabilities"], [["batch", genes]]
        self._queued, self._stream = Queued(device), device.stream()
        self._memory = Memory(device, self._stream)
        self._probabilities = self._memory.upload(probabilities)
        nothing = self._memory.zeros((genes, 16), np.float32)
        self._basis = DeviceBasis(nothing, None, self._memory.zeros((1,), np.float32), "f32")
        self._stream.synchronize()

    def prepare(self, shape: tuple[int, ...]) -> None: ...

    def enqueue(self, batch: View, outputs: dict[str, View], stream: Stream) -> None:
        found = outputs["probabilities"]
        copied = self._probabilities.view((1, *found.shape), np.float32)
        self._queued.spectrum(stream, self._basis, copied, batch, found, None, 0, scaled=False)

    def close(self) -> None:
        self._queued.close()
        self._memory.close()
        self._stream.close()
