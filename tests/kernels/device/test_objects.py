"""Devices and what they own, over the fake driver: ownership, counting, checks, graphs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from immunogate.kernels.device import Buffer, Device, DeviceError, Function, Graph, Stream
from immunogate.kernels.device.arguments import check_dimensions


@pytest.fixture
def stream(fake_device: Device) -> Any:
    stream = fake_device.stream()
    yield stream
    stream.close()


@pytest.fixture
def mean_embedding(fake_device: Device) -> Any:
    module = fake_device.module(b"match")
    yield module.function("mean_embedding")
    module.close()


def numbers(*values: int) -> list[np.int32]:
    return [np.int32(value) for value in values]


@pytest.mark.parametrize("kind", ["device", "pinned", "mapped"])
def test_arrays_come_back_as_they_went(fake_device: Device, stream: Stream, kind: Any) -> None:
    values = np.arange(12, dtype=np.int16).reshape(3, 4)
    buffer = fake_device.empty((3, 4), np.int16, kind)
    assert np.array_equal(buffer.put(values.T.copy().T, stream).get(stream), values)
    assert (buffer.host is None) == (kind == "device")
    assert not buffer.zero(stream).get(stream).any()
    buffer.close()


def test_a_view_is_a_part_of_its_buffer(fake_device: Device, stream: Stream) -> None:
    buffer = fake_device.upload(np.arange(8, dtype=np.uint8), stream)
    assert buffer.view((2, 2), np.uint8, 3).get(stream).tolist() == [[3, 4], [5, 6]]
    assert buffer.view((2,), np.uint16).put(np.array([0x100, 0x302], np.uint16), stream).address == buffer.address
    assert buffer.get(stream).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    for shape, offset in (((9,), 0), ((8,), 1), ((1,), -1)):
        with pytest.raises(ValueError, match="is not inside its 8 bytes"):
            buffer.view(shape, np.uint8, offset)
    with pytest.raises(ValueError, match=r"expected uint8 \(8,\), got uint8 \(7,\)"):
        buffer.put(np.zeros(7, np.uint8), stream)
    buffer.close()


def test_empty_arrays_are_arrays(fake_device: Device, stream: Stream) -> None:
    buffer = fake_device.upload(np.zeros((0, 3), np.float32), stream)
    assert buffer.get(stream).shape == (0, 3)
    buffer.close()


def test_what_is_open_is_counted_and_a_leak_is_named(fake_calls: Any) -> None:
    device = Device(fake_calls, strict=True)
    kept = [device.stream(), device.event(), device.event(), device.empty((3,), np.uint8), device.module(b"act")]
    assert device.live == {"stream": 1, "event": 2, "device buffer": 1, "module": 1}
    kept[0].close()
    kept[0].close()
    with pytest.raises(DeviceError, match="2 events, 1 device buffer, 1 module"):
        device.close()
    assert fake_calls.is_closed
    assert not fake_calls.memory
    device.close()
    with pytest.raises(DeviceError, match="was closed"):
        device.stream()


def test_a_device_that_is_not_strict_says_it_in_the_log(fake_calls: Any, caplog: pytest.LogCaptureFixture) -> None:
    with Device(fake_calls) as device:
        device.empty((3,), np.uint8, "mapped")
    assert "1 mapped buffer" in caplog.text


def test_another_thread_is_refused_by_name(fake_device: Device, stream: Stream) -> None:
    said = []

    def work() -> None:
        for call in (fake_device.stream, stream.synchronize, stream.close, fake_device.close):
            with pytest.raises(DeviceError, match="was opened by thread 'MainThread' and is used by 'other'"):
                call()
            said.append(call)

    other = threading.Thread(target=work, name="other")
    other.start()
    other.join()
    assert len(said) == 4


def test_launches_are_checked(fake_device: Device, fake_calls: Any, stream: Stream, mean_embedding: Function) -> None:
    here = fake_device.empty((4,), np.float32)
    pinned = fake_device.empty((4,), np.float32, "pinned")
    gone = fake_device.empty((4,), np.float32)
    gone.close()
    rest = numbers(1, 4)
    for wrong in (1, 1.5, "a", np.zeros(3), np.int16(3), np.bool_(True)):
        with pytest.raises(TypeError, match="mean_embedding: argument 1 must be a Buffer, None, or one of"):
            fake_device.launch(mean_embedding, (1, 1, 1), (256, 1, 1), stream, [here, wrong, here, *rest])
    with pytest.raises(DeviceError, match="this device buffer was closed"):
        fake_device.launch(mean_embedding, (1, 1, 1), (256, 1, 1), stream, [here, gone, here, *rest])
    with pytest.raises(DeviceError, match="does not see the buffer of argument 1"):
        fake_device.launch(mean_embedding, (1, 1, 1), (256, 1, 1), stream, [here, pinned, here, *rest])
    assert fake_calls.launches == []
    here.close()
    pinned.close()


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((0, 1, 1), (1, 1, 1), 0), ((1, 65536, 1), (1, 1, 1), 0), ((1, 1), (1, 1, 1), 0), ((1, 1, 1), (1025, 1, 1), 0),
     ((1, 1, 1), (32, 33, 1), 0), ((1, 1, 1), (1, 1, 65), 0), ((1, 1, 1), (1, 1, 1), -1),
     ((1, 1, 1), (1, 1, 1), 49153)],
)  # fmt: skip
def test_sizes_that_no_device_takes(grid: Any, block: Any, shared: int) -> None:
    check_dimensions("k", (2**31 - 1, 65535, 65535), (32, 32, 1), 49152)
    with pytest.raises(DeviceError, match="k: "):
        check_dimensions("k", grid, block, shared)


class Addition:
    """Work for graphs: gene 0 .. of clones, by the kernel `mutate` over two buffers."""

    def __init__(self, device: Device, stream: Stream) -> None:
        self.module = device.module(b"select")
        self.function = self.module.function("mutate")
        zero = np.zeros((1,), np.uint32)
        self.held = [device.upload(np.full((1, 4), 2**31, np.uint32), stream)]
        self.held += [device.upload(zero, stream), device.upload(zero, stream), device.upload(zero[None], stream)]
        self.masks = device.upload(np.full((1, 1, 1), 99, np.uint32), stream)
        self.held.append(self.masks)

    def queue(self, device: Device, stream: Stream) -> None:
        arguments = [*self.held, np.uint64(5), *numbers(1, 4, 4)]
        device.launch(self.function, (1, 1, 1), (256, 1, 1), stream, arguments)

    def close(self) -> None:
        for item in (*self.held, self.module):
            item.close()


def test_a_graph_does_nothing_until_it_is_launched_and_then_all(fake_device: Device, stream: Stream) -> None:
    work = Addition(fake_device, stream)
    graph = stream.capture(lambda: work.queue(fake_device, stream))
    assert work.masks.get(stream).item() == 99
    graph.launch(stream)
    once = work.masks.get(stream).item()
    assert once < 16
    work.masks.zero(stream)
    graph.launch(stream)
    assert work.masks.get(stream).item() == once
    with pytest.raises(DeviceError, match="used by a graph"):
        work.masks.close()
    graph.close()
    work.close()


def test_what_can_not_be_captured_is_refused_and_the_stream_works_on(fake_device: Device, stream: Stream) -> None:
    buffer = fake_device.upload(np.zeros(3, np.uint8), stream)
    forbidden = [
        (stream.synchronize, "can not be waited for"),
        (lambda: buffer.get(stream), "can not be copied"),
        (lambda: stream.capture(lambda: None), "captured already"),
    ]
    for work, words in forbidden:
        with pytest.raises(DeviceError, match=words):
            stream.capture(work)  # type: ignore[arg-type]
        assert buffer.get(stream).tolist() == [0, 0, 0]
    buffer.close()


def test_a_leaked_graph_is_closed_before_its_buffers(fake_calls: Any) -> None:
    device = Device(fake_calls, strict=True)
    stream = device.stream()
    work = Addition(device, stream)
    assert isinstance(stream.capture(lambda: work.queue(device, stream)), Graph)
    with pytest.raises(DeviceError, match="1 graph"):
        device.close()
    assert not fake_calls.memory


def test_events_measure_from_one_to_the_other(fake_device: Device, stream: Stream) -> None:
    start, end = fake_device.event(), fake_device.event()
    work = Addition(fake_device, stream)
    start.record(stream)
    work.queue(fake_device, stream)
    end.record(stream)
    end.synchronize()
    assert end.milliseconds_since(start) == 1
    for item in (work, start, end):
        item.close()


def test_a_buffer_of_another_device_is_refused(fake_device: Device, fake_calls: Any, stream: Stream) -> None:
    with Device(type(fake_calls)(), strict=True) as other:
        foreign = Buffer(other, (4,), np.dtype(np.float32), "device")
        work = Addition(fake_device, stream)
        with pytest.raises(DeviceError, match="does not see the buffer of argument 0"):
            fake_device.launch(work.function, (1, 1, 1), (256, 1, 1), stream, [foreign])
        foreign.close()
        work.close()


def test_a_view_is_copied_on_the_device(fake_device: Device) -> None:
    stream = fake_device.stream()
    values = np.arange(64, dtype=np.float32)
    source, target = fake_device.upload(values, stream), fake_device.empty((128,), np.float32)
    target.zero(stream)
    part = target.view((16, 4), np.float32, 256)
    assert part.copy(source, stream) is part
    assert np.array_equal(target.get(stream), np.concatenate([np.zeros(64, np.float32), values]))
    with pytest.raises(ValueError, match="expected 512 bytes, got 256"):
        target.copy(source, stream)
    pinned = fake_device.empty((64,), np.float32, "pinned")
    with pytest.raises(DeviceError, match="the device does not see a pinned buffer"):
        pinned.copy(source, stream)

    def work() -> None:
        part.copy(source, stream)

    graph = stream.capture(work)
    with pytest.raises(DeviceError, match="used by a graph"):
        source.close()
    source.put(values + 1, stream)
    graph.launch(stream)
    assert np.array_equal(part.get(stream).reshape(-1), values + 1)
    for item in (graph, source, target, pinned, stream):
        item.close()


def test_other_libraries_see_the_same_memory(fake_device: Device) -> None:
    buffer, pinned = fake_device.empty((6, 4), np.float32), fake_device.empty((4,), np.float32, "pinned")
    found = buffer.view((2, 4), np.float32, 32).__cuda_array_interface__
    address = buffer.address + 32
    assert found == {"shape": (2, 4), "typestr": "<f4", "data": (address, False), "strides": None, "version": 3}
    with pytest.raises(DeviceError, match="the device does not see a pinned buffer"):
        _ = pinned.__cuda_array_interface__
    buffer.close()
    with pytest.raises(DeviceError, match="was closed"):
        _ = buffer.__cuda_array_interface__
    pinned.close()


def test_free_memory_is_what_nobody_holds(fake_device: Device) -> None:
    before = fake_device.free_bytes()
    buffer = fake_device.empty((1000,), np.uint8)
    assert before - fake_device.free_bytes() == 1000
    buffer.close()
    assert fake_device.free_bytes() == before


def test_what_was_made_is_counted_for_good(fake_device: Device) -> None:
    fake_device.stream().close()
    for _ in range(2):
        fake_device.empty((3,), np.uint8, "pinned").close()
    assert fake_device.made == {"stream": 1, "pinned buffer": 2}
    assert fake_device.live == {}


def test_copies_between_pinned_memory_and_the_device_can_be_captured(fake_device: Device, stream: Stream) -> None:
    """What is copied is what stands there when the graph runs, not when it was made."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    near, back = (fake_device.empty((2, 3), np.float32, "pinned") for _ in range(2))
    far = fake_device.empty((2, 3), np.float32)

    def work() -> None:
        far.copy_from(near, stream)
        back.copy_from(far, stream)

    graph = stream.capture(work)
    assert near.host is not None
    assert back.host is not None
    for shift in (0, 10):
        near.host[...] = values + shift
        graph.launch(stream)
        stream.synchronize()
        assert np.array_equal(back.host, values + shift)
    with pytest.raises(DeviceError, match="used by a graph"):
        near.close()
    with pytest.raises(DeviceError, match="from pinned to pinned"):
        near.copy_from(back, stream)
    upper, lower = (far.view((1, 3), np.float32, at) for at in (0, 12))
    assert upper.copy_from(lower, stream).get(stream).tolist() == lower.get(stream).tolist() == [[13, 14, 15]]
    with pytest.raises(ValueError, match=r"expected float32 \(1, 3\), got float32 \(2, 3\)"):
        far.view((1, 3), np.float32).copy_from(near, stream)
    for item in (graph, near, back, far):
        item.close()


@pytest.mark.parametrize("waits", [True, False])
def test_a_stream_waits_for_another_where_it_was_told_to(no_code: None, make_lazy: Any, waits: bool) -> None:
    """On a device that does nothing before somebody waits for it, the second stream runs ahead of the first."""
    with Device(make_lazy(), strict=True) as device:
        first, second, event = device.stream(), device.stream(), device.event()
        near, back = (device.empty((1,), np.float32, "pinned") for _ in range(2))
        far = device.empty((1,), np.float32)
        assert near.host is not None
        assert back.host is not None
        near.host[:], back.host[:] = 5, 0
        far.copy_from(near, first)
        event.record(first)
        if waits:
            second.wait_for(event)
        back.copy_from(far, second)
        second.synchronize()
        assert (back.host[0] == 5) == waits
        assert first.address != second.address
        for item in (near, back, far, event, first, second):
            item.close()
