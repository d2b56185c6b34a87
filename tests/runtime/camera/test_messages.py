"""What a worker says is believed within its ranges and refused beyond; frames pass through its memory unchanged."""

from __future__ import annotations

import fcntl
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.runtime.camera.patience import Backoff, Patience, usual_seed
from immunogate.runtime.camera.worker.memory import SLOT_BYTES, FrameMemory, new_descriptor
from immunogate.runtime.camera.worker.messages import LONGEST_MESSAGE, SLOTS, Kind, Message, Order, message_of, order_of

sides = st.integers(1, 8_000)
messages = st.builds(
    Message,
    st.sampled_from(Kind),
    st.integers(0, SLOTS - 1),
    sides,
    sides,
    st.integers(0, 1 << 39),
    st.integers(0, 1 << 62),
    st.floats(0, 4e9),
    st.text(max_size=80).filter(str.isprintable),
)


@given(messages)
def test_a_message_comes_as_it_was_sent(message: Message) -> None:
    data = message.to_bytes()
    assert message_of(data) == message
    assert len(data) <= LONGEST_MESSAGE


@given(st.binary(max_size=80))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        message_of(data)


@given(messages, st.integers(0, 39), st.integers(1, 255))
def test_a_message_with_a_changed_byte_stays_in_range(message: Message, place: int, change: int) -> None:
    data = bytearray(message.to_bytes())
    data[place] ^= change
    try:
        read = message_of(bytes(data))
    except ValueError:
        return
    assert read.slot < SLOTS
    assert read.kind != Kind.FRAME or 1 <= read.height * read.width * 3 <= SLOT_BYTES
    assert 0 <= read.captured_wall <= 253_402_300_799


def test_a_text_is_cut_and_shows_no_control_characters() -> None:
    assert message_of(Message(Kind.FAILED, text="a\x1b[31mb\nc").to_bytes()).text == "a?[31mb\nc"
    assert len(Message(Kind.FAILED, text="x" * 9_999).to_bytes()) <= LONGEST_MESSAGE


def test_the_layout_is_what_other_programs_may_rely_on() -> None:
    head = struct.pack("<4sBBHIIQQd", b"IGC1", 2, 3, 0, 480, 640, 7, 8, 9.5)
    assert Message(Kind.FRAME, 3, 480, 640, 7, 8, 9.5).to_bytes() == head


def test_an_order_comes_as_it_was_sent_and_shows_no_address() -> None:
    order = Order("rtsp://joe:hunter2@door/", None, 5.0, "udp", 1, 2)
    assert order_of(order.to_bytes()) == order
    assert "hunter2" not in repr(order)
    with pytest.raises(ValueError, match="40000 characters"):
        Order("x" * 40_000).to_bytes()


def test_frames_of_any_size_pass_and_slots_are_apart() -> None:
    descriptor = new_descriptor()
    memory = FrameMemory(descriptor)
    draw = np.random.default_rng(1)
    shapes = [(1, 1), (720, 1280), (1, 3000), (33, 47)]
    frames = [draw.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    for slot, frame in enumerate(frames):
        memory.write(slot, frame)
    for slot, frame in enumerate(frames):
        read = memory.read(slot, *frame.shape[:2])
        assert (read == frame).all()
        assert read.flags.owndata
    assert os.fstat(descriptor).st_blocks * 512 < 16 << 20, "pages that were not written take memory"
    os.close(descriptor)


def test_the_memory_can_not_be_cut_off_below_the_gate() -> None:
    descriptor = new_descriptor()
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    os.close(descriptor)


@given(st.integers(0, 2**32), st.floats(0, 0.99))
def test_delays_double_up_to_the_longest_and_repeat_with_their_seed(seed: int, jitter: float) -> None:
    patience = Patience(jitter=jitter)
    first, again = (Backoff(patience, seed) for _ in range(2))
    most = [0.5, 1, 2, 4, 8, 16, 30, 30]
    delays = [first.next_s() for _ in most]
    assert all(limit * (1 - jitter) <= delay <= limit for delay, limit in zip(delays, most, strict=True))
    assert delays == [again.next_s() for _ in most]
    first.reset()
    assert first.next_s() <= 0.5


def test_two_cameras_of_a_machine_draw_other_delays() -> None:
    assert usual_seed("front") == usual_seed("front") != usual_seed("back")
