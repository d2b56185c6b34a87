"""Runs one network as a TensorRT engine. The only file of this room that imports tensorrt.

`TensorRtRunner.run` takes and gives arrays of the host, as every runner. A pipeline that stays on the GPU writes into
`input_view`, calls `enqueue` on its own stream and reads from `output_view`: nothing is copied, nothing is waited
for, and the call can be captured into a larger graph.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from immunogate.bundle import Bundle
from immunogate.engines.compare import check
from immunogate.engines.host_code import deserialized, expect_trusted
from immunogate.engines.machine import this_machine
from immunogate.engines.messages import Messages, make_logger
from immunogate.engines.record import EngineError, EngineRecord, Machine, Profile
from immunogate.engines.store import engine_path, engines_folder, network_files, read_plan, read_record
from immunogate.errors import ImmunogateError
from immunogate.kernels.device import open_device
from immunogate.kernels.device.buffers import View
from immunogate.kernels.device.driver import DeviceError, require_device
from immunogate.kernels.device.objects import Device, Graph, Stream
from immunogate.runtime.runners.base import Array, Network, Runner
from immunogate.runtime.runners.engine_slot import Memory, Slot

log = logging.getLogger(__name__)

MOST_SLOTS = 8
"""Input shapes that are kept ready at a time; the one unused for longest makes room."""

WARM_UPS = 2
"""Plain runs of a shape before it is captured into a graph: TensorRT sets itself up in the first."""

Size = int | tuple[int, ...]
"""A batch size, or a whole input shape where frames have any size."""


def load_tensorrt(index: int = 0) -> tuple[Any, Machine]:
    """The library, and this machine as engines are tied to it; the driver is looked at first.

    Raises:
        DeviceError: there is no driver or no such device.
        EngineError: TensorRT is not installed or can not be loaded.
    """
    state = require_device(index)
    try:
        import tensorrt
    except ImportError as error:
        raise EngineError(
            f"engines need TensorRT, which can not be loaded: {error}", "Install the version that built them"
        ) from error
    return tensorrt, this_machine(state, index, str(tensorrt.__version__))


def open_engine(
    bundle: Bundle, network: str, device: Device, folder: Path | None = None, *, index: int = 0, graphs: bool = True
) -> TensorRtRunner:
    """A runner for a network's engine, checked against the bundle, this machine and its own side-car.

    Args:
        bundle: whose network it is.
        network: detector, analyzer or recogniser.
        device: that runs it, opened by the calling thread.
        folder: of the engines; by default the user's own for this bundle and GPU.
        index: number of the device, as the driver counts.
        graphs: capture runs into CUDA graphs.

    Raises:
        DeviceError: there is no driver.
        EngineError: there is no engine, it is damaged, stale or foreign, it carries code that nobody trusted signed,
            or TensorRT does not load it.
    """
    trt, machine = load_tensorrt(index)
    found = folder or engines_folder(bundle, machine.compute_capability)
    record = read_record(found, network)
    if record is None:
        raise EngineError(f"{engine_path(found, network)} was not built yet", "Build it: immunogate build")
    expect_trusted(bundle, found, record)
    onnx = bundle.manifest.files[network_files(bundle)[network]].sha256
    check(record, str(engine_path(found, network)), onnx, machine)
    return TensorRtRunner(trt, record, read_plan(found, record), device, graphs=graphs)


def open_engine_of(network: Network) -> TensorRtRunner:
    """A runner for a network's engine, on the device it shares, or on one that is opened for it and closed with it.

    Raises:
        DeviceError: there is no driver, or nothing here to use it with.
        EngineError: it belongs to no bundle, it was built for smaller frames, or see `open_engine`.
    """
    if network.bundle is None or network.role is None:
        raise EngineError(
            f"{network.name} belongs to no bundle, and engines are built of bundles", "Use another runner"
        )
    with ExitStack() as undone:
        device = network.shared
        if device is None:
            device = undone.enter_context(open_device(network.device))
        try:
            runner = open_engine(network.bundle, network.role, device, index=network.device)
            undone.callback(runner.close)
            runner.expect_room(network.largest)
        except ImmunogateError:
            raise
        except Exception as error:  # bindings raise classes of their own, where memory is short for instance
            raise EngineError(f"the engine of {network.name} can not be opened: {error}") from error
        undone.pop_all()
    runner.owned = None if device is network.shared else device
    return runner


@cache
def _runtime(trt: Any) -> tuple[Any, Any, Messages]:
    """One runtime and logger for the process: TensorRT keeps the first logger that it is given."""
    messages = Messages()
    logger = make_logger(trt, messages)
    return trt.Runtime(logger), logger, messages


class TensorRtRunner(Runner):
    """One engine on one device, used by the thread that opened the device.

    Memory of the device is fixed at the start for the largest shape. Each batch size of the engine has an execution
    context of its own, made and warmed up at the start; where frames have any size, contexts are made as sizes come,
    at most `MOST_SLOTS`. After its warm-up a shape allocates nothing on the device. Batches larger than the largest
    size are split, those in between are filled up with zeros.

    Args:
        trt: the library, see `load_tensorrt`.
        record: side-car of the engine, already checked; also by `expect_trusted`, where it is version compatible.
        plan: the engine, already hashed.
        device: that runs it.
        graphs: capture runs into CUDA graphs.

    Attributes:
        kind: tensorrt.
        record: the side-car.
        buckets: batch sizes that have a context of their own, ascending; empty where frames have any size.
        owned: a device that is closed with the runner; None where it is the caller's.

    Raises:
        EngineError: TensorRT does not load it, or it is not what its side-car says.
    """

    kind = "tensorrt"
    owned: Device | None = None

    def __init__(self, trt: Any, record: EngineRecord, plan: bytes, device: Device, *, graphs: bool = True) -> None:
        runtime, _, self._messages = _runtime(trt)
        self._messages.take()
        self.record, self.name = record, record.onnx_file
        self._device, self._graphs = device, graphs
        self._slots: OrderedDict[tuple[int, ...], Slot] = OrderedDict()
        self._held: set[tuple[int, ...]] = set()
        self._engine = deserialized(runtime, plan, record)
        if self._engine is None:
            raise EngineError(
                f"TensorRT does not load the engine of {self.name}: {self._messages.take_errors()}",
                f"Build it again on this device: immunogate build --network {record.network}",
            )
        self._describe(trt)
        fixed = all(profile.min == profile.max for profile in self._profiles)
        self.buckets = tuple(sorted({profile.max[0] for profile in self._profiles})) if fixed else ()
        with ExitStack() as undone:
            self._stream = device.stream()
            undone.callback(self._stream.close)
            self._memory = self._fixed_memory()
            undone.callback(self._memory.close)
            undone.callback(self._drop_slots)
            for bucket in self.buckets:
                self._warmed(self._shape_of(bucket))
            undone.pop_all()

    def run(self, batch: Array) -> dict[str, Array]:
        """All outputs by name.

        Args:
            batch: float32 of the network's input shape; with open lengths, one that a profile of the engine admits.

        Raises:
            EngineError: no profile admits its shape, or TensorRT failed.
            DeviceError: another thread than the one that opened the device calls.
        """
        if not self.buckets:
            return self._run_one(batch, tuple(batch.shape))
        largest = self.buckets[-1]
        parts = [self._run_bucket(batch[first : first + largest]) for first in range(0, max(len(batch), 1), largest)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.output_names}

    def bucket_for(self, count: int) -> int:
        """The smallest batch size that takes so many rows.

        Raises:
            EngineError: none does.
        """
        for bucket in self.buckets:
            if bucket >= count:
                return bucket
        raise EngineError(
            f"{self.name}: {count} rows are more than the engine's largest batch of {max(self.buckets, default=0)}",
            "Split them, or build with a larger --max-batch",
        )

    def expect_room(self, largest: tuple[int, ...]) -> None:
        """Check that the engine takes the largest frames that it will be given; faces are split into its batches.

        Raises:
            EngineError: it was built for smaller ones.
        """
        if not self.buckets:
            self._profile_for(largest)

    def hold(self, shape: tuple[int, ...]) -> None:
        """Make the context of a whole input shape now, and keep it: graphs outside of this runner may use it.

        Raises:
            EngineError: no profile admits the shape.
        """
        self._slot(shape)
        self._held.add(shape)

    def input_view(self, size: Size) -> View:
        """Where the rows of a batch of this size are read, float32, on the device. All sizes share this memory."""
        return self._slot(self._shape_of(size)).input

    def output_view(self, size: Size, name: str) -> View:
        """Where an output of a batch of this size is written, float32, on the device.

        It holds until the next run or `enqueue` of any size: all share this memory.
        """
        return self._slot(self._shape_of(size)).outputs[name]

    def enqueue(self, size: Size, stream: Stream) -> None:
        """Queue one batch of exactly this size: from `input_view` to `output_view`, without a copy, without waiting.

        Rows that are not needed have to hold numbers all the same. It may be called while the stream is captured; the
        buffers then belong to that graph until it is closed.

        Args:
            size: one of `buckets`, or where there are none a whole shape that `hold` keeps.
            stream: of this runner's device; runs of this engine on several streams must not overlap.

        Raises:
            EngineError: there is no such batch size, or TensorRT failed.
        """
        self._enqueue(self._slot(self._shape_of(size)), stream)

    def close(self) -> None:
        """Give back contexts, graphs and memory; a second time does nothing."""
        if self._engine is None:
            return
        self._drop_slots()
        self._memory.close()
        self._stream.close()
        self._engine = None
        if self.owned is not None:
            self.owned.close()

    def _drop_slots(self) -> None:
        for slot in self._slots.values():
            slot.close()
        self._slots.clear()

    def _describe(self, trt: Any) -> None:
        """Take names and shapes from the engine, and refuse one that is not what its side-car says."""
        engine = self._engine
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        others = [name for name in names if engine.get_tensor_dtype(name) != trt.DataType.FLOAT]
        if (
            inputs != [self.record.input_name]
            or others
            or engine.num_optimization_profiles != max(len(self.record.profiles), 1)
        ):
            raise EngineError(
                f"the engine of {self.name} is not what its side-car says: it takes {', '.join(inputs)} in "
                f"{engine.num_optimization_profiles} profiles" + (f"; {others[0]} is not float32" if others else ""),
                f"Build it again: immunogate build --network {self.record.network}",
            )
        self.input_name = inputs[0]
        self.input_shape = _named(engine.get_tensor_shape(self.input_name))
        whole = tuple(int(length) for length in engine.get_tensor_shape(self.input_name))
        self._profiles = self.record.profiles or (Profile(whole, whole, whole),)  # TensorRT's own, if none is open
        self.output_names = [name for name in names if name != self.input_name]
        self.output_shapes = [_named(engine.get_tensor_shape(name)) for name in self.output_names]

    def _fixed_memory(self) -> Memory:
        """Memory for the largest shape of any profile; contexts made to ask for their outputs are given back."""
        sizes = []
        for number, profile in enumerate(self._profiles):
            slot = self._new_slot(number, profile.max)
            sizes.append((slot.input_bytes, slot.output_bytes))
            slot.close()
        return Memory(self._device, max(size for size, _ in sizes), max(size for _, size in sizes))

    def _shape_of(self, size: Size) -> tuple[int, ...]:
        if isinstance(size, tuple):
            return size
        if size not in self.buckets:
            raise EngineError(f"{self.name} has no batch size {size}", f"It has: {', '.join(map(str, self.buckets))}")
        return (size, *self._profiles[0].max[1:])

    def _slot(self, shape: tuple[int, ...]) -> Slot:
        """The context of a shape, made where it is new."""
        if self._engine is None:
            raise DeviceError(f"the runner of {self.name} was closed", "Open it again")
        slot = self._slots.get(shape)
        if slot is None:
            number = self._profile_for(shape)
            if len(self._slots) >= max(MOST_SLOTS, len(self.buckets)):
                self._make_room()
            slot = self._new_slot(number, shape)
            slot.bind(self._memory)
            self._slots[shape] = slot
        self._slots.move_to_end(shape)
        return slot

    def _make_room(self) -> None:
        """Give back the context unused for longest that nobody holds, if there is one."""
        unused = next((shape for shape in self._slots if shape not in self._held), None)
        if unused is not None:
            self._stream.synchronize()
            self._slots.pop(unused).close()

    def _new_slot(self, number: int, shape: tuple[int, ...]) -> Slot:
        return Slot(self._engine, self.name, number, self._stream, self.input_name, self.output_names, shape)

    def _profile_for(self, shape: tuple[int, ...]) -> int:
        """The profile that admits a shape, the narrowest first: it is tuned for the least else."""
        fitting = [
            (int(np.prod(profile.max)) - int(np.prod(profile.min)), number)
            for number, profile in enumerate(self._profiles)
            if profile.admits(shape)
        ]
        if not fitting:
            most = ", ".join(f"{list(profile.min)} to {list(profile.max)}" for profile in self._profiles)
            flag = "--detector-size" if self.record.network == "detector" else "--max-batch"
            raise EngineError(
                f"the engine of {self.name} does not take {list(shape)}, it takes {most}", f"Build with another {flag}"
            )
        return min(fitting)[1]

    def _run_bucket(self, rows: Array) -> dict[str, Array]:
        found = self._run_one(rows, self._shape_of(self.bucket_for(len(rows))))
        return {name: values[: len(rows)] for name, values in found.items()}

    def _run_one(self, rows: Array, shape: tuple[int, ...]) -> dict[str, Array]:
        slot = self._slot(shape)
        if rows.shape[1:] != shape[1:]:
            raise EngineError(f"{self.name} takes {list(shape[1:])} in each row, it was given {list(rows.shape[1:])}")
        slot.put(rows, self._stream)
        graph = self._graph(slot)
        if graph is None:
            self._enqueue(slot, self._stream)
            slot.runs += 1
        else:
            graph.launch(self._stream)
        return slot.get(self._stream)

    def _warmed(self, shape: tuple[int, ...]) -> None:
        """Run a shape until TensorRT has set itself up, and capture it."""
        slot = self._slot(shape)
        slot.put(np.zeros((0, *shape[1:]), np.float32), self._stream)
        for _ in range(WARM_UPS):
            self._enqueue(slot, self._stream)
        self._stream.synchronize()
        slot.runs = WARM_UPS
        self._graph(slot)

    def _graph(self, slot: Slot) -> Graph | None:
        """The captured run of a shape that is warm; None before, and where it can not be captured."""
        if slot.graph is None and self._graphs and slot.runs >= WARM_UPS:
            try:
                slot.graph = self._stream.capture(lambda: self._enqueue(slot, self._stream))
            except Exception as error:  # the bindings raise classes of their own
                log.warning("%s runs without a CUDA graph: %s", self.name, error)
                self._graphs = False
        return slot.graph

    def _enqueue(self, slot: Slot, stream: Stream) -> None:
        if self._engine is None:
            raise DeviceError(f"the runner of {self.name} was closed", "Open it again")
        stream.note(*self._memory.buffers)
        if not slot.context.execute_async_v3(stream.address):
            raise EngineError(f"TensorRT failed in {self.name}: {self._messages.take_errors()}")


def _named(shape: Any) -> list[int | str]:
    """A shape with a name for each open length, which TensorRT writes as -1."""
    return [f"d{place}" if length < 0 else int(length) for place, length in enumerate(shape)]
