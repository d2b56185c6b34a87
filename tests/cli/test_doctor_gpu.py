"""What doctor asks NVML, over a fake one that is compiled, and what it says of the runners."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from immunogate.cli.doctor_gpu import extra_for
from immunogate.cli.doctor_nvml import examine_nvml, nvml_to_lines, nvml_warnings
from immunogate.cli.doctor_software import examine_runners, runner_warnings, runners_to_lines

NVML = """
typedef void *device;
int nvmlInit_v2(void) { return STARTS; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device *d) { *d = (device)(unsigned long)(i + 1); return 0; }
int nvmlDeviceGetName(device d, char *name, unsigned length) {
    const char *text = d == (device)1 ? "A fake card" : "";
    for (unsigned i = 0; i < length; i++) { name[i] = text[i]; if (!text[i]) break; }
    return 0;
}
int nvmlDeviceGetClockInfo(device d, int kind, unsigned *mhz) {
    if (d != (device)1) return 3;
    *mhz = kind == 0 ? 1410 : 9501;
    return 0;
}
int nvmlDeviceGetMaxClockInfo(device d, int kind, unsigned *mhz) {
    *mhz = kind == 0 ? 2520 : 10501;
    return d != (device)1;
}
int nvmlDeviceGetEnforcedPowerLimit(device d, unsigned *mw) { *mw = 300000; return d != (device)1; }
int nvmlDeviceGetPowerManagementDefaultLimit(device d, unsigned *mw) { *mw = 450000; return d != (device)1; }
int nvmlDeviceGetTemperature(device d, int sensor, unsigned *c) { *c = 83; return d != (device)1 || sensor; }
int nvmlDeviceGetCurrentClocksThrottleReasons(device d, unsigned long long *bits) {
    *bits = 0x25;
    return d != (device)1;
}
"""


def _fake_nvml(folder: Path, starts: int) -> str:
    """Compile a FAKE NVML with one card that tells everything and one that tells nothing."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    made = folder / f"libfakeml{starts}.so"
    command = ["gcc", "-shared", "-fPIC", "-w", f"-DSTARTS={starts}", "-x", "c", "-", "-o", str(made)]
    subprocess.run(command, input=NVML, text=True, check=True)
    return str(made)


def test_what_nvml_tells_of_a_card(tmp_path: Path) -> None:
    card, silent = examine_nvml(_fake_nvml(tmp_path, 0))
    assert card == {
        "name": "A fake card", "now_mhz": 1410, "possible_mhz": 2520, "memory_now_mhz": 9501,
        "memory_possible_mhz": 10501, "power_limit_w": 300.0, "power_default_w": 450.0, "temperature_c": 83,
        "held_down_by": ["its power limit", "heat (software)"],
    }  # fmt: skip
    assert silent["name"] == "GPU 1"
    assert silent["now_mhz"] is None
    warnings = "\n".join(nvml_warnings([card, silent]))
    assert "limited to 300 W of 450: sudo nvidia-smi -pl 450" in warnings
    assert "held down by heat (software)" in warnings
    assert len(nvml_warnings([silent])) == 0
    shown = nvml_to_lines([card, silent])
    assert "1410 of 2520 MHz, memory 9501 of 10501 MHz, limit 300 of 450 W, 83 degrees" in shown[0]
    assert "tells nothing" in shown[1]


def test_an_nvml_that_is_not_there_or_does_not_start(tmp_path: Path) -> None:
    assert examine_nvml(str(tmp_path / "nowhere.so")) == []
    assert examine_nvml(_fake_nvml(tmp_path, 9)) == []
    assert nvml_to_lines([]) == []


def test_the_runners_of_this_machine() -> None:
    import onnxruntime

    found = examine_runners()
    assert found["version"] == onnxruntime.__version__
    assert found["providers"] == onnxruntime.get_available_providers()
    assert found["obstacles"]["cpu"] is None
    shown = "\n".join(runners_to_lines(found))
    assert "--runner cpu" in shown
    assert f"would take {found['auto']}" in shown
    assert "give" in "\n".join(runners_to_lines(found | {"auto": "cuda"}))


def test_the_extra_fits_the_driver() -> None:
    assert extra_for("12.6") == "gpu12"
    assert extra_for("13.0") == extra_for("13.2") == extra_for(None) == "gpu"


def test_two_onnx_runtimes_are_a_warning() -> None:
    both = {"packages": {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}}
    (warning,) = runner_warnings(both)
    assert "overwrite each other's files: pip uninstall onnxruntime onnxruntime-gpu" in warning
    assert runner_warnings({"packages": {"onnxruntime": "1.32.0", "onnxruntime-gpu": None}}) == []
