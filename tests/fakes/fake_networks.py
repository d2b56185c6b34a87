"""FAKE networks on the fake device: ONNX Runtime on the memory behind its addresses, in the order of its streams."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.kernels.device import Device, Stream, View
from immunogate.runtime.runners.base import Runner

Array = npt.NDArray[Any]


class FakeNetwork:
    """An engine that is not there, played by ONNX Runtime; see `immunogate.runtime.gpu.network.DeviceNetwork`.

    Args:
        runner: the network.
        largest: rows of one run.
        capturable: whether it says that it may be captured.
    """

    def __init__(self, runner: Runner, largest: int = 16, *, capturable: bool = True) -> None:
        self.name, self.input_name = runner.name, runner.input_name
        self.input_shape, self.output_names = runner.input_shape, runner.output_names
        self.output_shapes = runner.output_shapes
        self.largest, self.capturable = largest, capturable
        self.prepared: list[tuple[int, ...]] = []
        self.runs = 0
        self._runner = runner

    def prepare(self, shape: tuple[int, ...]) -> None:
        self.prepared.append(shape)

    def enqueue(self, batch: View, outputs: dict[str, View], stream: Stream) -> None:
        assert batch.shape in self.prepared
        given = _at(batch)
        wanted = {name: _at(view) for name, view in outputs.items()}
        stream.note(batch.buffer, *(view.buffer for view in outputs.values()))

        def work() -> None:
            self.runs += 1
            for name, values in self._runner.run(given.copy()).items():
                if name in wanted:
                    wanted[name][...] = values

        stream.device.calls.queue(stream.handle, work)  # type: ignore[attr-defined]

    def close(self) -> None: ...


class FakeEngine(Runner):
    """A TensorRT engine that is not there; see `immunogate.runtime.gpu.engine_network.Engine`.

    As the real one it has batch sizes of its own, and one memory for all of them, full of what the last run left.

    Args:
        runner: the network.
        device: the fake one.
        buckets: batch sizes, ascending.
        shape: of one row, where the network leaves it open.
    """

    kind = "fake"

    def __init__(self, runner: Runner, device: Device, buckets: tuple[int, ...], shape: tuple[int, ...] = ()) -> None:
        self.name, self.input_name = runner.name, runner.input_name
        self.output_names, self.output_shapes = runner.output_names, runner.output_shapes
        self.buckets, self.runs = buckets, 0
        self._runner, self._row = runner, shape or tuple(int(side) for side in runner.input_shape[1:])
        self.input_shape = ["batch", *self._row]
        largest = np.zeros((buckets[-1], *self._row), np.float32)
        self._input = device.empty(largest.shape, np.float32)
        found = runner.run(largest)
        self._outputs = {name: device.empty(values.shape, np.float32) for name, values in found.items()}

    def run(self, batch: Array) -> dict[str, Array]:
        return self._runner.run(batch)

    def bucket_for(self, count: int) -> int:
        return next(bucket for bucket in self.buckets if bucket >= count)

    def hold(self, shape: tuple[int, ...]) -> None:
        raise AssertionError("an engine of batch sizes holds no shapes")

    def input_view(self, bucket: int) -> View:
        return self._input.view((bucket, *self._row), np.float32)

    def output_view(self, bucket: int, name: str) -> View:
        whole = self._outputs[name]
        return whole.view((bucket, *whole.shape[1:]), np.float32)

    def enqueue(self, bucket: int, stream: Stream) -> None:
        assert bucket in self.buckets
        stream.note(self._input, *self._outputs.values())
        given = _at(self.input_view(bucket))
        wanted = {name: _at(self.output_view(bucket, name)) for name in self.output_names}

        def work() -> None:
            self.runs += 1
            for name, values in self._runner.run(given.copy()).items():
                wanted[name][...] = values

        stream.device.calls.queue(stream.handle, work)  # type: ignore[attr-defined]

    def close(self) -> None:
        for buffer in (self._input, *self._outputs.values()):
            buffer.close()


def _at(view: View) -> Array:
    """The array behind a view's address."""
    octets = np.ctypeslib.as_array((ctypes.c_uint8 * view.nbytes).from_address(view.address))
    return octets.view(view.dtype).reshape(view.shape)
