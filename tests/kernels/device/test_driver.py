"""What is said where there is no driver, no device or no binding; on a machine with a driver, some of it skips."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from immunogate.kernels.device import (
    DeviceError,
    DriverState,
    binding_versions,
    choose,
    open_device,
    probe,
    require_device,
)
from immunogate.kernels.device import driver as driver_module
from immunogate.kernels.device.driver import current_device

STUB = Path(sys.prefix) / "cuda-stub"
"""Where `make pycuda` leaves the stub; a real driver always comes first."""


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "LIBRARY", "libcuda-that-is-nowhere.so")


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver() -> None:
    state = probe()
    assert (state.version, state.usable, state.version_text()) == (None, False, "none")
    with pytest.raises(DeviceError, match=r"no NVIDIA driver is installed .* Install the driver .* --backend cpu"):
        open_device()


def test_unknown_and_missing_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"unknown binding 'opencl'\. Use one of: pycuda, cuda-core"):
        open_device(binding="opencl")
    one = DriverState(13000, ("Some device",), ((9, 0),))
    monkeypatch.setattr(driver_module, "probe", lambda: one)
    with pytest.raises(DeviceError, match="there is no device 1, the driver found 1"):
        require_device(1)
    monkeypatch.setattr(choose, "_version", lambda name: None)
    with pytest.raises(DeviceError, match="neither PyCUDA nor cuda-core is installed"):
        open_device()
    with pytest.raises(DeviceError, match=r"pycuda is not installed\. Build it from a checkout: make pycuda"):
        open_device(binding="pycuda")


def test_versions_are_written_as_people_do() -> None:
    assert [DriverState(number).version_text() for number in (12060, 13000, 13020)] == ["12.6", "13.0", "13.2"]


@pytest.fixture(scope="module")
def over_a_stub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds a driver without a device: a stub of this repository's own making."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
    try:
        from cuda_stub import make_stub
    finally:
        sys.path.pop(0)
    if probe().version is not None:
        pytest.skip("a real driver is installed here: it is not hidden behind a stub")
    try:
        made = make_stub([], tmp_path_factory.mktemp("stub"))
    except FileNotFoundError:
        pytest.skip("gcc is needed to make a stub")
    return os.environ | {"LD_LIBRARY_PATH": str(made.parent)}


def run_python(code: str, environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_driver_without_a_device(over_a_stub: dict[str, str]) -> None:
    said = run_python(
        "from immunogate.kernels.device import probe, open_device, DeviceError\n"
        "print(probe().version, probe().devices)\n"
        "try: open_device()\nexcept DeviceError as error: print(error)",
        over_a_stub,
    )
    assert said.splitlines()[0] == "13000 ()"
    assert "the NVIDIA driver found no device. Check that nvidia-smi lists a GPU" in said


def test_other_failures_are_told_by_the_drivers_own_words(over_a_stub: dict[str, str], tmp_path: Path) -> None:
    folder = Path(over_a_stub["LD_LIBRARY_PATH"])
    code = (
        "import sys; sys.path.insert(0, sys.argv[1] if len(sys.argv) > 1 else '')\n"
        "import ctypes\n"
        "from immunogate.kernels.device.driver import _describe, REMEDIES\n"
        f"print(_describe(ctypes.CDLL({str(folder / 'libcuda.so.1')!r}), 3), sorted(REMEDIES))"
    )
    said = run_python(code, over_a_stub)
    assert "CUDA_ERROR_NOT_INITIALIZED, initialization error" in said
    assert "[100, 803, 999]" in said


needs_pycuda = pytest.mark.skipif(find_spec("pycuda") is None, reason="PyCUDA is not installed: make pycuda")


@needs_pycuda
def test_pycuda_meets_a_clean_error_where_there_is_no_device() -> None:
    if probe().version is not None:
        pytest.skip("a real driver is installed here: it is not hidden behind a stub")
    if not (STUB / "libcuda.so.1").is_file():
        pytest.skip(f"there is no stub in {STUB}: make pycuda")
    said = run_python(
        "import pycuda.driver as driver\n"
        "try: driver.init()\nexcept driver.Error as error: print(error)\n"
        "from immunogate.kernels.device.pycuda_calls import PyCudaCalls\n"
        "try: PyCudaCalls(0)\nexcept driver.Error as error: print(error)\n"
        "print(driver.get_version(), all(hasattr(driver, name) for name in ('Stream', 'Event', 'pagelocked_empty',\n"
        "  'module_from_buffer', 'memcpy_htod_async', 'memcpy_dtoh_async', 'memcpy_dtod_async', 'memset_d8_async',\n"
        "  'mem_alloc', 'mem_get_info')))\n"
        "print(all(hasattr(driver.Device, name) for name in ('retain_primary_context', 'compute_capability')),\n"
        "  all(hasattr(driver.Function, name) for name in ('prepare', 'prepared_async_call')),\n"
        "  driver.host_alloc_flags.DEVICEMAP, hasattr(driver.Context, 'push'), hasattr(driver.Stream, 'handle'))",
        os.environ | {"LD_LIBRARY_PATH": str(STUB)},
    )
    assert said.count("cuInit failed: no CUDA-capable device is detected") == 2
    assert said.splitlines()[-2].endswith("True")
    assert said.splitlines()[-1] == "True True 2 True True"


@pytest.mark.skipif(
    not binding_versions()["cuda-core"], reason="cuda-core is not installed: pip install 'immunogate[gpu]'"
)
def test_cuda_core_has_every_name_that_is_used() -> None:
    said = run_python(
        "import cuda.core as core\n"
        "from cuda.bindings import driver\n"
        "print(all(hasattr(core, name) for name in ('Device', 'LaunchConfig', 'ObjectCode', 'launch')))\n"
        "core.StreamOptions(nonblocking=True)\n"
        "print(any(hasattr(core.EventOptions(), name) for name in ('timing_enabled', 'enable_timing')))\n"
        "core.LaunchConfig(grid=(1, 2, 3), block=(32, 8, 1), shmem_size=64)\n"
        "print(all(hasattr(driver, name) for name in ('cuMemAlloc', 'cuMemFree', 'cuMemHostAlloc', 'cuMemFreeHost',\n"
        "  'cuMemHostGetDevicePointer', 'cuMemcpyHtoDAsync', 'cuMemcpyDtoHAsync', 'cuMemsetD8Async')),\n"
        "  driver.CU_MEMHOSTALLOC_DEVICEMAP, hasattr(driver, 'cuMemcpyDtoDAsync'), hasattr(driver, 'cuMemGetInfo'),\n"
        "  hasattr(core.ObjectCode, 'from_cubin'), hasattr(core.ObjectCode, 'get_kernel'))\n",
        dict(os.environ),
    )
    assert said.split() == ["True", "True", "True", "2", "True", "True", "True", "True"]


class FakeDriver:
    """A FAKE driver library: every call is noted and gives 0, or the status that is set for it."""

    def __init__(self, **statuses: int) -> None:
        self.called: list[str] = []
        self._statuses = statuses

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: object) -> int:
            self.called.append(name)
            return self._statuses.get(name, 0)

        return call


@pytest.mark.parametrize("fails", [False, True])
def test_a_device_is_current_for_a_while_and_is_given_back(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    fake = FakeDriver()
    monkeypatch.setattr(driver_module.ctypes, "CDLL", lambda name: fake)
    with suppress(RuntimeError), current_device(1):
        assert fake.called == ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2"]
        if fails:
            raise RuntimeError
    assert fake.called[3:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]


@pytest.mark.parametrize("name", ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2"])
def test_a_device_that_can_not_be_made_current(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fake = FakeDriver(**{name: 2})
    monkeypatch.setattr(driver_module.ctypes, "CDLL", lambda name: fake)
    with pytest.raises(DeviceError, match="device 0 can not be used: error 2"), current_device(0):
        raise AssertionError("the block must not run")
    assert "cuCtxPopCurrent_v2" not in fake.called
    assert fake.called.count("cuDevicePrimaryCtxRelease_v2") == (name == "cuCtxPushCurrent_v2")


def test_no_device_asks_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDriver()
    monkeypatch.setattr(driver_module.ctypes, "CDLL", lambda name: fake)
    with current_device(None):
        assert fake.called == []
