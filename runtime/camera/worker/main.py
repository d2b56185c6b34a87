"""The worker itself: opens one source, once, and hands over its frames until it ends, fails or is not wanted.

It never tries again: whoever started it decides that, with another worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import threading
from collections import deque
from dataclasses import dataclass

from immunogate.errors import ImmunogateError, UsageError
from immunogate.runtime.camera.pixels import as_bgr
from immunogate.runtime.camera.worker.memory import FrameMemory
from immunogate.runtime.camera.worker.messages import LONGEST_ORDER, SLOTS, Kind, Message, Order, order_of
from immunogate.runtime.camera.worker.sources import Taken, open_source

GRACE_S = 0.8
"""Longest that closing the source may take once the gate has gone."""

MOST_CORRUPT = 25
"""Frames in a row that can not be decoded before the source is given up: a second's worth."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Link:
    """The worker's side of the socket and of the memory.

    Args:
        descriptor: of the socket.
        memory: the slots, all of them the worker's at first.
    """

    def __init__(self, descriptor: int, memory: FrameMemory) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._memory = memory
        self._free = deque(range(SLOTS))
        self.wanted = True

    def order(self) -> Order:
        """The first message of the gate."""
        return order_of(self._socket.recv(LONGEST_ORDER))

    def listen(self) -> None:
        """Take slots back until the gate has gone; then end, in time or by force."""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(16):
                self._free.append(data[0])
        self.wanted = False
        timer = threading.Timer(GRACE_S, os._exit, (0,))
        timer.daemon = True
        timer.start()

    def put(self, taken: Taken) -> bool:
        """Hand over a frame; False where it can not be used. Where no slot is free it is passed over.

        Raises:
            OSError: the gate has gone.
        """
        if taken.picture is None:
            return False
        try:
            pixels = as_bgr(taken.picture)
        except ImmunogateError:
            return False
        if not self._free:
            return True
        slot = self._free.popleft()
        self._memory.write(slot, pixels)
        height, width = pixels.shape[:2]
        self._send(Message(Kind.FRAME, slot, height, width, taken.index, taken.captured_ns, taken.captured_wall))
        return True

    def say(self, kind: Kind, text: str = "") -> None:
        """Say something that is no frame."""
        with contextlib.suppress(OSError):
            self._send(Message(kind, text=text))

    def _send(self, message: Message) -> None:
        self._socket.send(message.to_bytes())


def main(link_descriptor: int, memory_descriptor: int) -> None:
    """Run until the source ends or the gate does.

    Args:
        link_descriptor: of the socket to the gate.
        memory_descriptor: of the shared memory.
    """
    end_with_the_gate()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = Link(link_descriptor, FrameMemory(memory_descriptor))
    os.close(memory_descriptor)
    order = link.order()
    threading.Thread(target=link.listen, daemon=True).start()
    try:
        end = _serve(order, link)
        link.say(end.kind, end.text)
    except UsageError as error:
        link.say(Kind.WRONG_USE, f"{error.what}\n{error.mend}")
    except ImmunogateError as error:
        link.say(Kind.FAILED, f"{error.what}\n{error.mend}")
    except OSError:  # the gate has gone
        pass
    except Exception as error:  # only its name: other people's messages may hold the address
        link.say(Kind.FAILED, f"the worker failed: {type(error).__name__}")
    os._exit(0)  # not by way of libraries' own ends, which may hang where the source does


def end_with_the_gate() -> None:
    """Have the kernel kill this process when the one that started it ends; prctl(2), Linux only."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class _End:
    kind: Kind
    text: str = ""


def _serve(order: Order, link: Link) -> _End:
    corrupt = 0
    with open_source(order) as source:
        link.say(Kind.OPENED)
        for taken in source:
            if not link.wanted:
                return _End(Kind.ENDED)
            corrupt = 0 if link.put(taken) else corrupt + 1
            if corrupt == MOST_CORRUPT:
                return _End(Kind.FAILED, f"{MOST_CORRUPT} frames in a row can not be decoded")
        return _End(Kind.ENDED) if source.is_recording else _End(Kind.FAILED, "it gives no more frames")
