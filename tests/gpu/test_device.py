"""Memory, streams, events, modules and graphs on a real device, through each binding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.kernels import compile as compiling
from immunogate.kernels.compilers import find_compilers
from immunogate.kernels.device import Device, Module, probe

TOY = """
extern "C" __global__ void added(const float *x, float *sum, const float *nothing, int count, unsigned long long big,
                                 double factor, float shift) {
    extern __shared__ float held[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    held[threadIdx.x] = i < count ? x[i] * (float)factor + shift : 0.0f;
    __syncthreads();
    const float wrong = (nothing ? 1000.0f : 0.0f) + (big == 0x123456789abcdefull ? 0.0f : 500.0f);
    if (i < count) sum[i] += held[threadIdx.x] + wrong;
}
"""


@pytest.fixture
def toy(device: Device, missing: Any) -> Any:
    compilers = find_compilers()
    if not compilers:
        missing("neither nvcc nor libnvrtc is installed")
    module = device.module(compilers[0].compile("toy", TOY, {}, device.architecture)[0])
    yield module
    module.close()


def queue(device: Device, module: Module, x: Any, total: Any, stream: Any) -> None:
    count = x.shape[0]
    arguments = [x, total, None, np.int32(count), np.uint64(0x123456789ABCDEF), np.float64(2), np.float32(0.5)]
    device.launch(module.function("added"), (-(-count // 64), 1, 1), (64, 1, 1), stream, arguments, shared=256)


def test_the_device_is_the_drivers(device: Device) -> None:
    state = probe()
    assert (device.name, device.capability) == (state.devices[0], state.capabilities[0])
    assert device.processors > 0


@pytest.mark.parametrize("kind", ["device", "pinned", "mapped"])
def test_memory(device: Device, kind: Any) -> None:
    stream = device.stream()
    values = np.random.default_rng(1).integers(0, 256, (3, 1001), np.uint8)
    buffer = device.empty(values.shape, np.uint8, kind)
    assert np.array_equal(buffer.put(values, stream).get(stream), values)
    assert np.array_equal(buffer.view((7,), np.uint8, 1001).get(stream), values[1, :7])
    assert not buffer.zero(stream).get(stream).any()
    buffer.close()
    stream.close()


def test_copies_of_pinned_memory_in_a_graph_and_streams_that_wait(device: Device) -> None:
    first, second, event = device.stream(), device.stream(), device.event()
    assert first.address != second.address
    near, back = (device.empty((1 << 20,), np.float32, "pinned") for _ in range(2))
    far = device.empty(near.shape, np.float32)

    def work() -> None:
        far.copy_from(near, first)

    graph = first.capture(work)
    for value in (3, 4):
        near.host[:] = value
        graph.launch(first)
        event.record(first)
        second.wait_for(event)
        back.copy_from(far, second)
        second.synchronize()
        assert (back.host == value).all()
    for item in (graph, near, back, far, event, first, second):
        item.close()


@pytest.mark.parametrize("kind", ["device", "mapped"])
def test_launches_and_graphs(device: Device, toy: Module, kind: Any) -> None:
    stream, x = device.stream(), np.arange(1000, dtype=np.float32)
    source = device.upload(x, stream)
    total = device.empty(x.shape, np.float32, kind)
    total.zero(stream)
    queue(device, toy, source, total, stream)
    assert np.array_equal(total.get(stream), 2 * x + 0.5)
    graph = stream.capture(lambda: [queue(device, toy, source, total, stream) for _ in range(3)] and None)
    assert np.array_equal(total.get(stream), 2 * x + 0.5)
    for _ in range(2):
        graph.launch(stream)
    assert np.array_equal(total.get(stream), 7 * (2 * x + 0.5))
    for item in (graph, source, total, stream):
        item.close()


def test_a_capture_that_fails_leaves_the_stream_usable(device: Device, toy: Module) -> None:
    stream = device.stream()
    total, other = (device.upload(np.ones(64, np.float32), stream) for _ in range(2))
    queue(device, toy, other, other, stream)  # a driver may load a kernel when it is first launched

    def work() -> None:
        queue(device, toy, total, total, stream)
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        stream.capture(work)
    assert total.get(stream).sum() == 64
    queue(device, toy, other, other, stream)
    assert other.get(stream)[0] == 3 * (3 * 1 + 0.5) + 0.5
    total.close()
    other.close()
    stream.close()


def test_a_kernel_may_be_looked_up_while_a_stream_is_captured(device: Device, toy: Module) -> None:
    """A binding that loads code when its first kernel is asked for would load it then."""
    stream, found = device.stream(), []
    graph = stream.capture(lambda: found.append(toy.function("added")))
    assert found
    graph.close()
    stream.close()


def test_events_take_time(device: Device, toy: Module) -> None:
    stream, start, end = device.stream(), device.event(), device.event()
    total = device.upload(np.ones(1 << 14, np.float32), stream)
    start.record(stream)
    for _ in range(20):
        queue(device, toy, total, total, stream)
    end.record(stream)
    end.synchronize()
    assert 0 < end.milliseconds_since(start) < 10000
    for item in (total, start, end, stream):
        item.close()


@pytest.mark.parametrize("name", compiling.kernel_names())
def test_every_kernel_file_loads(device: Device, name: str) -> None:
    device.module(compiling.cubin_for(name, device.architecture).code).close()


def test_a_device_opens_again_after_it_was_closed(device: Device) -> None:
    from immunogate.kernels.device import open_device

    with open_device(binding=device.binding, strict=True) as again:
        stream = again.stream()
        stream.synchronize()
        stream.close()
