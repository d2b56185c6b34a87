"""Opens a device through the binding that was named, or the first that is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from immunogate.kernels.device.calls import Calls
from immunogate.kernels.device.driver import DeviceError, require_device
from immunogate.kernels.device.objects import Device


def _pycuda(index: int) -> Calls:
    from immunogate.kernels.device.pycuda_calls import PyCudaCalls

    return PyCudaCalls(index)


def _cuda_core(index: int) -> Calls:
    from immunogate.kernels.device.core_calls import CoreCalls

    return CoreCalls(index)


BINDINGS: dict[str, tuple[str, Callable[[int], Calls]]] = {
    "pycuda": ("Build it from a checkout: make pycuda", _pycuda),
    "cuda-core": ("Run: pip install 'immunogate[gpu]'", _cuda_core),
}
"""Each with what brings it, in the order in which they are tried."""


def open_device(index: int = 0, binding: str | None = None, *, strict: bool = False) -> Device:
    """Open a device for the calling thread, which alone may use it from then on.

    Args:
        index: number of the device, as the driver counts.
        binding: pycuda or cuda-core; by default the first of these that is installed.
        strict: `Device.close` raises where something was not given back, as tests want it.

    Raises:
        DeviceError: there is no such binding, no driver or no device, or neither binding is installed.
    """
    if binding is not None and binding not in BINDINGS:
        raise DeviceError(f"unknown binding {binding!r}", f"Use one of: {', '.join(BINDINGS)}")
    require_device(index)
    installed = binding_versions()
    chosen = binding or next((name for name, found in installed.items() if found), None)
    if chosen is None:
        raise DeviceError("neither PyCUDA nor cuda-core is installed", "Run: pip install 'immunogate[gpu]'")
    if installed[chosen] is None:
        raise DeviceError(f"{chosen} is not installed", BINDINGS[chosen][0])
    try:
        return Device(BINDINGS[chosen][1](index), strict=strict)
    except ImportError as error:
        raise DeviceError(f"{chosen} is installed and can not be imported: {error}", BINDINGS[chosen][0]) from error


def binding_versions() -> dict[str, str | None]:
    """The version of each binding, None where it is not installed. Nothing is imported."""
    return {name: _version(name) for name in BINDINGS}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
