"""What has to be given back, and is counted until it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from immunogate.kernels.device.driver import DeviceError

if TYPE_CHECKING:
    from immunogate.kernels.device.objects import Device


class Owned:
    """Something of a device that has to be given back.

    Args:
        device: whose it is.
        label: how a leak of it is named.
        handle: the binding's own; let go when it is closed, which is how some bindings give things back.
    """

    def __init__(self, device: Device, label: str, handle: Any) -> None:
        self.device = device
        self.label = label
        self.handle = handle
        self.is_open = True
        device._owned[id(self)] = self
        device.made[label] += 1

    def check(self) -> None:
        """Raise `DeviceError` where it is closed or of another thread."""
        self.device.check_thread()
        if not self.is_open:
            raise DeviceError(f"this {self.label} was closed", "Do not use it after close")

    def close(self) -> None:
        """Give it back; a second time does nothing."""
        self.device.check_thread()
        if self.is_open:
            self._release()
            self.is_open, self.handle = False, None
            del self.device._owned[id(self)]

    def _release(self) -> None:
        raise NotImplementedError
