"""What ``immunogate doctor`` asks NVML, the management library of NVIDIA's driver: power limits, clocks, throttling.

Read through ctypes: no process is started that could hang, and nothing is set. Names and values from nvml.h.
"""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
GRAPHICS, MEMORY = 0, 2
"""nvmlClockType_t."""
TEMPERATURE_GPU = 0

REASONS = {
    0x04: "its power limit",
    0x08: "the hardware's slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "the power brake of the supply",
}
"""Bits of nvmlClocksEventReasons that hold clocks down; idleness and clocks that were asked for are none."""


def examine_nvml(library: str = LIBRARY) -> list[dict[str, Any]]:
    """One report a GPU: clocks in MHz, power in watts, temperature in degrees Celsius; None for what is not told.

    Args:
        library: what to load; empty list where it is not there or does not start.
    """
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return []
    except (OSError, AttributeError):
        return []
    try:
        count = ctypes.c_uint(0)
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        return [found for index in range(count.value) if (found := _device(nvml, index)) is not None]
    finally:
        nvml.nvmlShutdown()


def nvml_warnings(devices: list[dict[str, Any]]) -> list[str]:
    """What slows the GPUs down, each with what mends it."""
    said = []
    for device in devices:
        name, limit, usual = device["name"], device["power_limit_w"], device["power_default_w"]
        if limit is not None and usual is not None and limit < usual:
            said.append(f"{name} is limited to {limit:.0f} W of {usual:.0f}: sudo nvidia-smi -pl {usual:.0f}")
        said += [
            f"the clocks of {name} are held down by {reason}: see to cooling and power supply"
            for reason in device["held_down_by"]
        ]
    return said


def nvml_to_lines(devices: list[dict[str, Any]]) -> list[str]:
    """One line a GPU, for people."""
    lines = []
    for device in devices:
        parts = [
            _of("{:.0f} of {:.0f} MHz", device["now_mhz"], device["possible_mhz"]),
            _of("memory {:.0f} of {:.0f} MHz", device["memory_now_mhz"], device["memory_possible_mhz"]),
            _of("limit {:.0f} of {:.0f} W", device["power_limit_w"], device["power_default_w"]),
            _of("{:.0f} degrees", device["temperature_c"]),
        ]
        lines.append(f"{device['name']:<24}{', '.join(part for part in parts if part) or 'tells nothing'}")
    return lines


def _of(pattern: str, *values: float | None) -> str:
    return "" if None in values else pattern.format(*values)


def _device(nvml: Any, index: int) -> dict[str, Any] | None:
    handle = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
        return None

    def ask(function: str, *words: int) -> int | None:
        """One number, or None where this device or this driver does not tell it."""
        value = ctypes.c_ulonglong(0)  # wide enough for all; little endian, so that narrower ones fill its beginning
        call = getattr(nvml, function, None)
        return None if call is None or call(handle, *words, ctypes.byref(value)) != 0 else value.value

    name = ctypes.create_string_buffer(96)
    nvml.nvmlDeviceGetName(handle, name, len(name))
    held = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    return {
        "name": name.value.decode(errors="replace") or f"GPU {index}",
        "now_mhz": ask("nvmlDeviceGetClockInfo", GRAPHICS),
        "possible_mhz": ask("nvmlDeviceGetMaxClockInfo", GRAPHICS),
        "memory_now_mhz": ask("nvmlDeviceGetClockInfo", MEMORY),
        "memory_possible_mhz": ask("nvmlDeviceGetMaxClockInfo", MEMORY),
        "power_limit_w": _watts(ask("nvmlDeviceGetEnforcedPowerLimit")),
        "power_default_w": _watts(ask("nvmlDeviceGetPowerManagementDefaultLimit")),
        "temperature_c": ask("nvmlDeviceGetTemperature", TEMPERATURE_GPU),
        "held_down_by": [reason for bit, reason in REASONS.items() if held & bit],
    }


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
