"""Live sources: a worker process reads each one, and is killed and started anew when it stalls or breaks off."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from immunogate.errors import CameraError, ImmunogateError, UsageError
from immunogate.runtime.camera.patience import Backoff, Patience, usual_seed
from immunogate.runtime.camera.source import Camera
from immunogate.runtime.camera.worker.messages import Kind, Message, Order, message_of
from immunogate.runtime.camera.worker.process import WorkerProcess, worker_command
from immunogate.runtime.profile.spans import mark_frame, span
from immunogate.structs import Frame

_log = logging.getLogger(__name__)

FAILED, HUNG, DIED, GARBAGE = OUTAGES = ("failed", "hung", "died", "garbage")
"""Why a worker's life ended: it said that the source failed; nothing came in time; it went without a word; what it sent
was none of what it may send."""


@dataclass(frozen=True)
class Outage:
    """How one life of a worker ended.

    Attributes:
        kind: one of `OUTAGES`.
        what: went wrong, in words.
        mend: what can be done about it.
        is_wrong_use: the address or an option is wrong, or the device is not there. Only whoever just asked for it can
            be told so: a camera that is unplugged is not there either, and comes back.
    """

    kind: str
    what: str
    mend: str = ""
    is_wrong_use: bool = False

    def error(self) -> ImmunogateError:
        """The outage as an error for the user."""
        return (UsageError if self.is_wrong_use else CameraError)(self.what, self.mend)


class LiveCamera(Camera):
    """A source that goes on whether or not anybody looks.

    A process of its own opens the source and decodes; a thread here listens to it and keeps the newest frame. The
    consumer gets that one, once, and the number of those it missed. Where the source ends, breaks off or stalls, the
    process is ended, by force if need be, and another one is started: after half a second, then twice as long each time
    up to 30 s, from half a second again once a frame has come. The consumer just waits meanwhile. `Frame.media_time`
    counts on this machine's monotonic clock from the first frame.

    Args:
        name: the source's name without credentials.
        order: what the worker is asked for.
        patience: how long is waited for what.
        changed: notified whenever there is something to take; several cameras may share one.
        seed: of the drawn part of delays; None for one that depends on machine and name.
        command: what starts a worker, see `worker_command`.

    Attributes:
        reopened: times that the source had to be opened again, and was.
        outages: how many there were of each kind of `OUTAGES`.
        abandoned: workers that were killed and did not go.
        is_over: True once no frame will come any more.
    """

    is_live = True

    def __init__(
        self,
        name: str,
        order: Order,
        patience: Patience | None = None,
        *,
        changed: threading.Condition | None = None,
        seed: int | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name)
        self.reopened = self.abandoned = 0
        self.outages: Counter[str] = Counter()
        self.is_over = False
        self._order = order.to_bytes()
        self._patience = patience or Patience()
        self._backoff = Backoff(self._patience, usual_seed(name) if seed is None else seed)
        self._command = command or worker_command()
        self._changed = changed or threading.Condition()
        self._closed = threading.Event()
        self._worker: WorkerProcess | None = None
        self._newest: tuple[WorkerProcess, Message, int] | None = None
        self._outage: Outage | None = None
        self._opened = False
        self._base = 0  # index of the worker's first frame
        self._next_index = 0
        self._handed = 0  # index after the last one handed out
        self._first_ns = 0
        self._thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)
        self._thread.start()

    def __next__(self) -> Frame:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.is_over or self._newest is not None)
            if (frame := self.take()) is not None:
                return frame
            if self.is_over:
                raise StopIteration

    def take(self) -> Frame | None:
        """The newest frame if there is one that was not handed out; waits for nothing."""
        with self._changed:
            newest, self._newest = self._newest, None
            if newest is None or self._closed.is_set():
                return None
            worker, message, index = newest
            skipped, self._handed = index - self._handed, index + 1
            self.skipped += skipped
            self._first_ns = self._first_ns or message.captured_ns
        mark_frame(index)
        with span("hand over"):
            pixels = worker.memory.read(message.slot, message.height, message.width)
        worker.give_back(message.slot)
        return Frame(
            pixels=pixels,
            index=index,
            captured_ns=message.captured_ns,
            captured_wall=message.captured_wall,
            media_time=(message.captured_ns - self._first_ns) / 1e9,
            camera=self.name,
            skipped=skipped,
        )

    @property
    def has_frame(self) -> bool:
        """Whether `take` has something to give."""
        return self._newest is not None

    def wait_until_open(self) -> Outage | None:
        """Wait for the first attempt to open the source.

        Returns:
            None where it is open; else what went wrong. The camera goes on trying.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._outage or self.is_over)
            return None if self._opened else self._outage

    def ask_to_close(self) -> None:
        """Begin to close, without waiting: several cameras then close in the time of one."""
        self._closed.set()
        with self._changed:
            self.is_over = True
            self._newest = None
            if self._worker is not None:
                self._worker.ask_to_end()
            self._changed.notify_all()

    def close(self) -> None:
        """End the worker, by force where it does not go by itself, and everything that waits for a frame."""
        self.ask_to_close()
        longest = self._patience.grace_s + self._patience.kill_s
        self._thread.join(longest + 1)

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                try:
                    outage = self._live()
                except Exception as error:  # a camera that goes on trying is worth more than one that is gone
                    _log.exception("%s: listening to its worker failed", self.name)
                    outage = Outage(FAILED, f"listening to its worker failed ({type(error).__name__})")
                if outage is None:
                    break
                self._note(outage)
                delay_s = self._backoff.next_s()
                _log.warning("%s: %s; opening it again in %.1f s", self.name, outage.what, delay_s)
                self._closed.wait(delay_s)
        finally:
            with self._changed:
                self.is_over = True
                self._changed.notify_all()

    def _note(self, outage: Outage) -> None:
        with self._changed:
            self.outages[outage.kind] += 1
            self._outage = outage
            self._newest = None  # of a worker that is not trusted any more
            self._base = self._next_index
            self._changed.notify_all()

    def _live(self) -> Outage | None:
        """One worker from start to end; None where nothing is left to do."""
        try:
            worker = WorkerProcess(self._command, self._order)
        except OSError as error:
            return Outage(FAILED, f"no process can be started ({error.strerror})", "Free some memory")
        with self._changed:
            self._worker = worker
        outage = None
        try:
            if not self._closed.is_set():
                outage = self._listen(worker)
        finally:
            with self._changed:
                self._worker = None
            is_gone = worker.end(self._patience, at_once=outage is not None and outage.kind != FAILED)
        if not is_gone:
            self.abandoned += 1
            _log.warning(
                "%s: process %d was killed and hangs on in the kernel; a new one is started beside it",
                self.name,
                worker.pid,
            )
        return None if self._closed.is_set() else outage

    def _listen(self, worker: WorkerProcess) -> Outage | None:
        patience = self._patience
        started_ns = newest_ns = time.monotonic_ns()
        is_open = False
        while True:
            limit_s = patience.slack_s + (patience.read_s if is_open else patience.start_s + patience.open_s)
            data = worker.receive(limit_s)
            if self._closed.is_set():
                return None
            if data is None:
                return Outage(HUNG, f"nothing came for {limit_s:.0f} s, its worker was killed")
            if not data:
                return Outage(DIED, "its worker died")
            try:
                message = message_of(data)
                if message.kind == Kind.FRAME:
                    newest_ns = self._put(worker, message, max(started_ns, newest_ns))
            except ValueError as error:
                return Outage(GARBAGE, f"its worker sent {error}")
            if message.kind == Kind.OPENED and not is_open:
                is_open = True
                self._note_open()
            elif message.kind == Kind.ENDED:
                return None
            elif message.kind in (Kind.FAILED, Kind.WRONG_USE):
                what, _, mend = message.text.partition("\n")
                return Outage(FAILED, what, mend, message.kind == Kind.WRONG_USE)

    def _put(self, worker: WorkerProcess, message: Message, earliest_ns: int) -> int:
        index = self._base + message.index
        if not earliest_ns <= message.captured_ns <= time.monotonic_ns():
            raise ValueError("a frame of the future or the past")
        if index < self._next_index:
            raise ValueError("a frame twice")
        with self._changed:
            before, self._newest = self._newest, (worker, message, index)
            self._next_index = index + 1
            self._changed.notify_all()
        if before is not None:
            worker.give_back(before[1].slot)
        self._backoff.reset()
        return message.captured_ns

    def _note_open(self) -> None:
        with self._changed:
            if self._opened:
                self.reopened += 1
                _log.warning("%s is open again", self.name)
            self._opened = True
            self._changed.notify_all()


def expect_open(camera: LiveCamera) -> None:
    """Wait for a camera and raise where its first attempt fails; it is closed then.

    Raises:
        CameraError: the source can not be opened.
        ImmunogateError: the address or an option is wrong.
    """
    try:
        outage = camera.wait_until_open()
        if outage is not None:
            raise outage.error()
    except (ImmunogateError, KeyboardInterrupt):
        camera.close()
        raise
