from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import pytest

from immunogate.runtime.profile.board_sensors import JetsonSensor, NvmlSensor, ThermalSensor, board_sensors
from immunogate.runtime.profile.process_sensors import MachineSensor, ProcessSensor, forced_switches, peak_rss_mb
from immunogate.runtime.profile.sampler import Sampler


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


JETSON = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3",
    "sys/devices/platform/bus@0/17000000.gpu/load": "431",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "51250",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "49500",
    "sys/class/thermal/thermal_zone2/type": "tj-thermal",
    "sys/class/thermal/thermal_zone2/temp": "60000",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": "5000",
    "sys/class/hwmon/hwmon1/curr1_input": "1400",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in2_input": "5000",
    "sys/class/hwmon/hwmon1/curr2_input": "600",
    "sys/class/hwmon/hwmon1/in3_label": "sum of shunt voltages",
}


def test_a_jetsons_files_are_read(tmp_path: Path) -> None:
    told = JetsonSensor(write(tmp_path, JETSON))()
    assert told == {
        "gpu_percent": 43.1,
        "board_w": 7.0,
        "cpu_c": 51.25,
        "gpu_c": 49.5,
        "rail_vdd_in_w": 7.0,
        "rail_vdd_cpu_gpu_cv_w": 3.0,
    }
    names = [type(sensor).__name__ for sensor in board_sensors(tmp_path)]
    assert names == ["ThermalSensor", "JetsonSensor"]


def test_what_is_absent_is_none_and_never_made_up(tmp_path: Path) -> None:
    assert ThermalSensor(tmp_path)() == {"cpu_c": None, "cpu_mhz": None}
    assert set(JetsonSensor(tmp_path)().values()) == {None}
    assert len(board_sensors(tmp_path, "no-such-library.so")) == 1
    assert peak_rss_mb(tmp_path) is None
    assert forced_switches(tmp_path) is None


def test_a_pcs_clock_and_temperature(tmp_path: Path) -> None:
    files = {
        "sys/class/thermal/thermal_zone3/type": "x86_pkg_temp",
        "sys/class/thermal/thermal_zone3/temp": "64000",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "3000000",
        "sys/devices/system/cpu/cpufreq/policy1/scaling_cur_freq": "2000000",
    }
    assert ThermalSensor(write(tmp_path, files))() == {"cpu_c": 64.0, "cpu_mhz": 2500.0}


class FakeNvml:
    """Stands in for NVML, which is not here: a GPU that tells memory, power and temperature, and no clock."""

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.start

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, out: Any) -> int:  # noqa: N802
        out._obj.used = 1_500_000_000
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: Any, out: Any) -> int:  # noqa: N802
        out._obj.gpu = 37
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, out: Any) -> int:  # noqa: N802
        out._obj.value = 71_500
        return 0

    def nvmlDeviceGetTemperature(self, handle: Any, kind: int, out: Any) -> int:  # noqa: N802
        out._obj.value = 55
        return 0

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int, out: Any) -> int:  # noqa: N802
        return 3  # NVML_ERROR_NOT_SUPPORTED


def test_nvml_is_asked_and_what_it_does_not_know_is_none() -> None:
    told = NvmlSensor(FakeNvml())()
    expected = {"gpu_memory_mb": 1500.0, "gpu_percent": 37.0, "gpu_w": 71.5, "gpu_c": 55.0, "gpu_mhz": None}
    assert told == expected
    with pytest.raises(OSError, match="no such GPU"):
        NvmlSensor(FakeNvml(start=9))


def test_nvmls_structures_have_the_size_of_nvml_h() -> None:
    from immunogate.runtime.profile import board_sensors as module

    assert ctypes.sizeof(module._Memory) == 24
    assert ctypes.sizeof(module._Utilisation) == 8


def test_this_process_is_measured() -> None:
    sensor = ProcessSensor()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    told = sensor()
    assert told["rss_mb"] is not None
    assert 5 < told["rss_mb"] < 1e5
    assert told["cpu_percent"] is not None
    assert told["cpu_percent"] > 5
    peak = peak_rss_mb()
    assert peak is not None
    assert peak >= 0.8 * told["rss_mb"]
    assert forced_switches() is not None


def test_others_and_stolen_time_are_what_is_not_ours(tmp_path: Path) -> None:
    def stat(user: int, idle: int, steal: int) -> None:
        write(tmp_path, {"proc/stat": f"cpu {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0"})

    stat(1000, 5000, 10)
    sensor = MachineSensor(tmp_path)
    time.sleep(0.1)
    stat(1020, 5100, 15)  # 0.2 s of work by others and 0.05 s stolen, within a tenth of a second or a little more
    told = sensor()
    assert told["others_percent"] is not None
    assert told["steal_percent"] is not None
    assert 30 < told["others_percent"] <= 201
    assert told["steal_percent"] == pytest.approx(told["others_percent"] / 4, rel=0.5)


def test_own_work_is_not_that_of_others(tmp_path: Path) -> None:
    write(tmp_path, {"proc/stat": "cpu 1000 0 0 5000 0 0 0 0 0 0"})
    sensor, before = MachineSensor(tmp_path), time.process_time()
    while time.process_time() < before + 0.1:
        pass
    write(tmp_path, {"proc/stat": "cpu 1010 0 0 5000 0 0 0 0 0 0"})  # a tenth of a second, all of it ours
    others = sensor()["others_percent"]
    assert others is not None
    assert others < 5


def test_the_sampler_reads_until_the_end_and_outlives_a_broken_sensor() -> None:
    def broken() -> dict[str, float | None]:
        raise OSError("gone")

    with Sampler([broken, lambda: {"one": 1.0}], period=0.01) as sampler:
        time.sleep(0.1)
    count = len(sampler.readings)
    assert 3 <= count <= 13
    assert all(reading.values == {"one": 1.0} for reading in sampler.readings)
    times = [reading.at_ns for reading in sampler.readings]
    assert times == sorted(times)
    time.sleep(0.05)
    assert len(sampler.readings) == count
