"""One input shape of an engine, ready to run: its execution context, its places in fixed memory, its graph."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from immunogate.engines.record import EngineError
from immunogate.kernels.device.buffers import Buffer, View
from immunogate.kernels.device.calls import Kind
from immunogate.kernels.device.objects import Device, Graph, Stream
from immunogate.runtime.runners.base import Array

ALIGNMENT = 256
"""Bytes; TensorRT wants tensors to begin at a multiple of it."""

FLOAT_BYTES = 4


class Memory:
    """Fixed memory for one input and all outputs of an engine.

    Where host and device share their memory, as on a Jetson, both are mapped and nothing is ever copied between them;
    else the input has a pinned twin on the host.

    Args:
        device: that sees it.
        input_bytes: of the largest input.
        output_bytes: of the outputs of the shape that has the most.
    """

    def __init__(self, device: Device, input_bytes: int, output_bytes: int) -> None:
        shared = device.calls.integrated
        kind: Kind = "mapped" if shared else "device"
        with ExitStack() as undone:  # memory may not be enough for all of them
            self.input: Buffer = device.empty((input_bytes,), np.uint8, kind)
            undone.callback(self.input.close)
            self.outputs: Buffer = device.empty((output_bytes,), np.uint8, kind)
            undone.callback(self.outputs.close)
            self.staging: Buffer = self.input if shared else device.empty((input_bytes,), np.uint8, "pinned")
            undone.pop_all()
        self.buffers = (self.input, self.outputs)

    def close(self) -> None:
        """Give it back."""
        for buffer in dict.fromkeys((self.input, self.outputs, self.staging)):
            buffer.close()


class Slot:
    """One shape of an engine's input. It has to be bound to memory before it runs.

    Args:
        engine: TensorRT's.
        name: of the network, for errors.
        profile: number of the optimisation profile.
        stream: that switching to the profile is queued on.
        input_name: of the only input.
        output_names: of all outputs.
        shape: of the input.

    Attributes:
        context: TensorRT's execution context.
        input_bytes: of the input.
        output_bytes: of all outputs, each at an aligned place.
        input: place of the input, once it is bound.
        outputs: place of each output.
        graph: one run, captured, or None.
        runs: plain runs so far.

    Raises:
        EngineError: TensorRT does not take the shape, or leaves the length of an output open.
    """

    input: View

    def __init__(
        self,
        engine: Any,
        name: str,
        profile: int,
        stream: Stream,
        input_name: str,
        output_names: list[str],
        shape: tuple[int, ...],
    ) -> None:
        self.context = engine.create_execution_context()
        if self.context is None:
            raise EngineError(f"TensorRT made no execution context for {name}", "Its device may be out of memory")
        taken = self.context.set_optimization_profile_async(profile, stream.address)
        stream.synchronize()
        if not taken or not self.context.set_input_shape(input_name, shape):
            raise EngineError(f"TensorRT does not take {list(shape)} for {name} in profile {profile}")
        self._input_name, self.shape = input_name, shape
        self._shapes = {output: tuple(self.context.get_tensor_shape(output)) for output in output_names}
        if any(length < 0 for found in self._shapes.values() for length in found):
            raise EngineError(f"TensorRT does not know the shapes of all outputs of {name} for {list(shape)}")
        self.input_bytes = _bytes(shape)
        self.output_bytes = sum(_aligned(_bytes(found)) for found in self._shapes.values())
        self.outputs: dict[str, View] = {}
        self.graph: Graph | None = None
        self.runs = 0

    def bind(self, memory: Memory) -> None:
        """Give every tensor its place, which stays.

        Raises:
            EngineError: TensorRT does not take one.
        """
        self.input = memory.input.view(self.shape, np.float32)
        self._staged = memory.staging.view(self.shape, np.float32)
        self._all = memory.outputs.view((self.output_bytes,), np.uint8)
        offset, addresses = 0, {self._input_name: self.input.address}
        for name, shape in self._shapes.items():
            self.outputs[name] = memory.outputs.view(shape, np.float32, offset)
            addresses[name] = self.outputs[name].address
            offset += _aligned(_bytes(shape))
        for name, address in addresses.items():
            if not self.context.set_tensor_address(name, address):
                raise EngineError(f"TensorRT does not take the address of {name}")

    def put(self, rows: Array, stream: Stream) -> None:
        """Copy up to as many rows as the shape has into the input; the rest becomes 0."""
        stream.synchronize()  # whoever still reads what stood here
        staged = self._staged.host
        assert staged is not None  # it is pinned or mapped
        staged[: len(rows)] = rows
        staged[len(rows) :] = 0
        if self._staged.buffer is not self.input.buffer:
            self.input.put(staged, stream)

    def get(self, stream: Stream) -> dict[str, Array]:
        """Wait, and give a copy of every output, in one transfer."""
        octets = self._all.get(stream)
        found: dict[str, Array] = {}
        offset = 0
        for name, shape in self._shapes.items():
            size = _bytes(shape)
            found[name] = octets[offset : offset + size].view(np.float32).reshape(shape)
            offset += _aligned(size)
        return found

    def close(self) -> None:
        """Give back the graph and the context."""
        if self.graph is not None:
            self.graph.close()
            self.graph = None
        self.context = None


def _bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * FLOAT_BYTES


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
