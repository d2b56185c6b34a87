"""Several cameras side by side: whose frame is next, so that none starves and none blocks the others."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import Any

from immunogate.errors import UsageError
from immunogate.runtime.camera.live import LiveCamera
from immunogate.runtime.camera.patience import Patience
from immunogate.runtime.camera.worker.messages import Order
from immunogate.structs import Frame


class Cameras:
    """Cameras that are read in turn: the one served longest ago, of those that have a new frame, comes first.

    Args:
        orders: what each camera's worker is asked for, by name, and how long it is waited for.
        options: further ones of `LiveCamera`, for all.

    Raises:
        UsageError: there are none.
    """

    def __init__(self, orders: Mapping[str, tuple[Order, Patience]], **options: Any) -> None:
        if not orders:
            raise UsageError("there is no camera", "Name one with --source or --camera NAME=URI")
        self._changed = threading.Condition()
        self._cameras = {
            name: LiveCamera(name, order, patience, changed=self._changed, **options)
            for name, (order, patience) in orders.items()
        }
        self._served = dict.fromkeys(self._cameras, 0)  # by a count of all frames: no clock can mislead it
        self._frames = dict.fromkeys(self._cameras, 0)
        self._count = 0

    def expect_any(self) -> None:
        """Wait for the first attempt at each; go on where one of them is open, the others are tried again.

        Raises:
            CameraError, UsageError: none could be opened; says why the first one could not.
        """
        outages = {name: camera.wait_until_open() for name, camera in self._cameras.items()}
        failed = [outage for outage in outages.values() if outage is not None]
        if len(failed) == len(outages):
            raise failed[0].error()

    def next(self, passing_over: Collection[str] = (), *, wait: bool = True) -> Frame | None:
        """The newest frame of the camera that was served longest ago.

        Args:
            passing_over: cameras whose frames are left for later.
            wait: until one has a frame; else None where none has.

        Returns:
            None also where all cameras are over.
        """
        while True:
            with self._changed:
                waiting = [name for name, camera in self._cameras.items() if camera.has_frame]
                if wait and not waiting:
                    if all(camera.is_over for camera in self._cameras.values()):
                        return None
                    self._changed.wait()
                    continue
            ready = [name for name in waiting if name not in passing_over]
            if not ready:
                return None
            name = min(ready, key=self._served.__getitem__)
            frame = self._cameras[name].take()
            if frame is not None:  # its worker may just have failed
                self._count += 1
                self._served[name] = self._count
                self._frames[name] += 1
                return frame

    def counts(self) -> dict[str, dict[str, Any]]:
        """Of each camera: frames handed out and skipped, times reopened, outages by kind, workers left behind."""
        return {
            name: {
                "frames": self._frames[name],
                "skipped": camera.skipped,
                "reopened": camera.reopened,
                "outages": dict(camera.outages),
                "abandoned": camera.abandoned,
            }
            for name, camera in self._cameras.items()
        }

    def __iter__(self) -> Iterator[LiveCamera]:
        return iter(self._cameras.values())

    def close(self) -> None:
        """End all workers, in the time of one."""
        for camera in self._cameras.values():
            camera.ask_to_close()
        for camera in self._cameras.values():
            camera.close()

    def __enter__(self) -> Cameras:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
