"""What this machine is, as far as engines are tied to it."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from immunogate.engines.record import Machine
from immunogate.kernels.device.driver import DriverState

DRIVER_RELEASE = Path("/sys/module/nvidia/version")
DRIVER_TEXT = Path("/proc/driver/nvidia/version")
JETSON_RELEASE = Path("/etc/nv_tegra_release")


def this_machine(state: DriverState, index: int, tensorrt: str) -> Machine:
    """The facts of one device.

    Args:
        state: what the driver says; it has this device.
        index: number of the device.
        tensorrt: version of the library.
    """
    major, minor = state.capabilities[index]
    return Machine(
        tensorrt=tensorrt,
        cuda=state.version_text(),
        driver=driver_release(),
        compute_capability=f"{major}.{minor}",
        device_name=state.devices[index],
        os=platform.system(),
        architecture=platform.machine(),
        l4t=l4t_release(),
    )


def driver_release(release: Path = DRIVER_RELEASE, text: Path = DRIVER_TEXT) -> str:
    """The driver's release, 580.65.06 for instance; empty where no file tells it, as in some containers."""
    found = re.search(r"\d+(\.\d+)+", _content(release) or _content(text))
    return found.group() if found else ""


def l4t_release(path: Path = JETSON_RELEASE) -> str:
    """The release of Jetson Linux, 36.4.3 for instance; empty elsewhere.

    The file begins with ``# R36 (release), REVISION: 4.3, GCID: ...``.
    """
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _content(path))
    return f"{found.group(1)}.{found.group(2)}" if found else ""


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
