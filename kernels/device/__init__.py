"""The GPU behind one small interface: devices, streams, events, buffers, modules, graphs.

This folder alone imports pycuda and cuda.core. `driver` looks whether there is a device, before anything is imported;
`open_device` opens one through the binding that is installed; `objects` is what the kernels' launches use.
"""

from immunogate.kernels.device.buffers import Buffer, View
from immunogate.kernels.device.choose import BINDINGS, binding_versions, open_device
from immunogate.kernels.device.driver import DeviceError, DriverState, probe, require_device
from immunogate.kernels.device.objects import Device, Event, Function, Graph, Module, Stream

__all__ = [
    "BINDINGS",
    "Buffer",
    "Device",
    "DeviceError",
    "DriverState",
    "Event",
    "Function",
    "Graph",
    "Module",
    "Stream",
    "View",
    "binding_versions",
    "open_device",
    "probe",
    "require_device",
]
