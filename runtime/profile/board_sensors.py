"""What a board tells of power, temperature and load: NVML on desktops and servers, sysfs on a Jetson. Nothing is set.

Sources: nvml.h of NVIDIA's driver; the Linux kernel's thermal and hwmon interfaces (Documentation/driver-api/thermal,
Documentation/hwmon/sysfs-interface.rst); the INA3221 rails in NVIDIA's Jetson Linux Developer Guide.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

from immunogate.runtime.profile.sampler import Sensor

ROOT = Path("/")
NVML = "libnvidia-ml.so.1"
TEMPERATURE_GPU, CLOCK_GRAPHICS = 0, 0
"""nvmlTemperatureSensors_t, nvmlClockType_t."""

GPU_LOADS = (
    "devices/gpu.0/load",
    "devices/platform/*gpu*/load",
    "devices/platform/bus@0/*gpu*/load",
    "class/devfreq/*gpu*/device/load",
)
"""Where releases of Jetson Linux tell the load of the GPU, in tenths of a percent."""

TOTAL_RAILS = ("VDD_IN", "VIN_SYS_5V0", "SYS_VIN_HV", "POM_5V_IN")
"""Names of the rail that feeds the whole board, one a family of boards."""


class _Memory(ctypes.Structure):
    """nvmlMemory_t: bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilisation(ctypes.Structure):
    """nvmlUtilization_t: percent."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class NvmlSensor:
    """One GPU through NVML: ``gpu_memory_mb gpu_percent gpu_w gpu_c gpu_mhz``, None for what it does not tell.

    Args:
        library: of NVML, loaded.
        index: of the GPU.

    Raises:
        OSError: it does not start, or has no such GPU.
    """

    def __init__(self, library: Any, index: int = 0) -> None:
        self._nvml, self._handle = library, ctypes.c_void_p()
        if library.nvmlInit_v2() != 0 or library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(self._handle)) != 0:
            raise OSError("NVML has no such GPU")

    def __call__(self) -> dict[str, float | None]:
        """What it tells now."""
        memory, load = _Memory(), _Utilisation()
        has_memory = self._ask("nvmlDeviceGetMemoryInfo", memory)
        has_load = self._ask("nvmlDeviceGetUtilizationRates", load)
        milliwatts = self._number("nvmlDeviceGetPowerUsage")
        return {
            "gpu_memory_mb": round(memory.used / 1e6, 1) if has_memory else None,
            "gpu_percent": float(load.gpu) if has_load else None,
            "gpu_w": None if milliwatts is None else milliwatts / 1e3,
            "gpu_c": self._number("nvmlDeviceGetTemperature", TEMPERATURE_GPU),
            "gpu_mhz": self._number("nvmlDeviceGetClockInfo", CLOCK_GRAPHICS),
        }

    def _number(self, function: str, *words: int) -> float | None:
        value = ctypes.c_uint(0)
        return float(value.value) if self._ask(function, value, *words) else None

    def _ask(self, function: str, out: Any, *words: int) -> bool:
        call = getattr(self._nvml, function, None)
        return call is not None and call(self._handle, *words, ctypes.byref(out)) == 0


class JetsonSensor:
    """A Jetson's own files: ``gpu_percent board_w cpu_c gpu_c``, and ``rail_<name>_w`` of each rail.

    Its GPU has no memory of its own: what it uses is part of the process's.

    Args:
        root: where /sys lies.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._loads = [path for place in GPU_LOADS for path in sorted((root / "sys").glob(place))]
        self._zones = {
            name: path.parent / "temp"
            for path in sorted((root / "sys/class/thermal").glob("thermal_zone*/type"))
            if (name := _text(path).lower().partition("-")[0]) in ("cpu", "gpu")
        }
        self._rails = {
            name: path
            for path in sorted((root / "sys/class/hwmon").glob("hwmon*/in*_label"))
            if (name := _text(path)) and "sum" not in name.lower()
        }

    def __call__(self) -> dict[str, float | None]:
        """What the board tells now."""
        rails = {name: self._watts(path) for name, path in self._rails.items()}
        total = next((rails[name] for name in TOTAL_RAILS if name in rails), None)
        load = _number(self._loads[0]) if self._loads else None
        return {
            "gpu_percent": None if load is None else load / 10,
            "board_w": total,
            **{f"{name}_c": _scaled(self._zones.get(name), 1e3) for name in ("cpu", "gpu")},
            **{f"rail_{re.sub('[^a-z0-9]+', '_', name.lower())}_w": value for name, value in rails.items()},
        }

    @staticmethod
    def _watts(label: Path) -> float | None:
        channel = label.name.removesuffix("_label").removeprefix("in")
        volts = _scaled(label.with_name(f"in{channel}_input"), 1e3)
        amperes = _scaled(label.with_name(f"curr{channel}_input"), 1e3)
        return None if volts is None or amperes is None else round(volts * amperes, 3)


class ThermalSensor:
    """Temperature and clock of the processors where a PC tells them: ``cpu_c cpu_mhz``.

    Args:
        root: where /sys lies.
    """

    def __init__(self, root: Path = ROOT) -> None:
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*/type"))
        self._zone = next((z.parent / "temp" for z in zones if _text(z) in ("x86_pkg_temp", "cpu-thermal")), None)
        self._clocks = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq"))

    def __call__(self) -> dict[str, float | None]:
        """What the machine tells now."""
        clocks = [value for path in self._clocks if (value := _number(path)) is not None]
        return {
            "cpu_c": _scaled(self._zone, 1e3),
            "cpu_mhz": round(sum(clocks) / len(clocks) / 1e3, 1) if clocks else None,
        }


def board_sensors(root: Path = ROOT, library: str = NVML) -> list[Sensor]:
    """What there is on this machine; on a PC without a GPU the processors' alone."""
    if (root / "etc/nv_tegra_release").is_file():
        return [ThermalSensor(root), JetsonSensor(root)]
    try:
        return [ThermalSensor(root), NvmlSensor(ctypes.CDLL(library))]
    except OSError:
        return [ThermalSensor(root)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path | None) -> float | None:
    text = _text(path) if path is not None else ""
    return float(text) if re.fullmatch(r"-?\d+", text) else None


def _scaled(path: Path | None, per_unit: float) -> float | None:
    value = _number(path)
    return None if value is None else round(value / per_unit, 3)
