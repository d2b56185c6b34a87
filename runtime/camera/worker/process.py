"""One life of a worker as the gate sees it: started, listened to, ended."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from immunogate.runtime.camera.patience import Patience
from immunogate.runtime.camera.worker.memory import FrameMemory, new_descriptor
from immunogate.runtime.camera.worker.messages import LONGEST_MESSAGE

_log = logging.getLogger(__name__)

_START = (
    "import sys; sys.path[:] = sys.argv[3:]; from immunogate.runtime.camera.worker.main import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]))"
)
"""The worker imports what this process would: the same paths in the same order, whatever folder it is started in."""

_undead: list[subprocess.Popen[bytes]] = []
"""Killed and not gone: kept to be taken off the system's list once the kernel lets go of them."""


class WorkerProcess:
    """A worker that was started and given its order.

    It ends with this process, however that ends: the socket's other end sees it, and the kernel is asked to kill it.

    Args:
        command: what to start; the two descriptors follow as words, then the import path.
        order: the first message to it.

    Raises:
        OSError: no process, memory or descriptor is left.
    """

    def __init__(self, command: Sequence[str], order: bytes) -> None:
        _bury()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                descriptor = new_descriptor()
                try:
                    self.memory = FrameMemory(descriptor)
                    self._process = _start(command, theirs.fileno(), descriptor)
                finally:
                    os.close(descriptor)
        except BaseException:
            self._socket.close()
            raise
        self._open = True
        self._lock = threading.Lock()  # a descriptor that was closed may be another one's by now
        self.pid = self._process.pid
        with contextlib.suppress(OSError):  # one that is gone already is found out by receive
            self._socket.send(order)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message; empty once the worker has gone, None where none came in time."""
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        if not waiting.poll(max(0.0, timeout_s) * 1e3):
            return None
        for _ in range(2):
            try:
                return self._socket.recv(LONGEST_MESSAGE)
            except ConnectionResetError:  # it went with slots unread; its last words come after this error
                continue
            except OSError:
                break
        return b""

    def give_back(self, slot: int) -> None:
        """Let the worker write to a slot again; any thread may say so, also after the worker has gone."""
        with self._lock, contextlib.suppress(OSError):
            if self._open:
                self._socket.send(bytes([slot]), socket.MSG_DONTWAIT)

    def ask_to_end(self) -> None:
        """Say that no more frames are wanted; ends a `receive` under way. Any thread may say so."""
        with self._lock, contextlib.suppress(OSError):
            if self._open:
                self._socket.shutdown(socket.SHUT_RDWR)

    def end(self, patience: Patience, *, at_once: bool) -> bool:
        """End the worker and let go of it.

        Args:
            patience: how long to wait.
            at_once: kill it; else it may close its source first.

        Returns:
            False where it was killed and is still there; it is left behind.
        """
        self.ask_to_end()
        gone = (not at_once and self._gone_within(patience.grace_s)) or self._kill(patience.kill_s)
        with self._lock:
            self._open = False
            self._socket.close()
        if not gone:
            _undead.append(self._process)
        return gone

    def _kill(self, seconds: float) -> bool:
        self._process.kill()
        return self._gone_within(seconds)

    def _gone_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def worker_command() -> list[str]:
    """What starts a worker, but for its descriptors."""
    return [sys.executable, "-c", _START]


def _start(command: Sequence[str], link: int, memory: int) -> subprocess.Popen[bytes]:
    # Libraries write addresses, passwords and all, to stderr; whoever asks OpenCV to be loud wants to see it.
    loud = {"OPENCV_LOG_LEVEL", "OPENCV_FFMPEG_LOGLEVEL", "GST_DEBUG"} & set(os.environ)
    return subprocess.Popen(  # noqa: S603 (this interpreter, and words of our own)
        [*command, str(link), str(memory), *sys.path],
        pass_fds=(link, memory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None if loud else subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C at a terminal is for the gate, which ends its workers in order
    )


def _bury() -> None:
    _undead[:] = [process for process in _undead if process.poll() is None]
