"""A FAKE TensorRT, on the fake device of `fake_device`.

It has exactly the names that `tools/tensorrt_names.json` found in the real bindings of a version, with that version's
numbers; whatever else is asked of it fails. It keeps TensorRT's rules as far as they are documented (profiles,
cancelling, strong typing, a refused timing cache, a context that outlives its work). Its engines hold the ONNX and run
it with ONNX Runtime on the memory behind the device's addresses, in the stream's order, so numbers are real. What
TensorRT itself does is not shown by it: building is, with TensorRT-RTX, in tests/fetch, and running only on a GPU.
"""

from __future__ import annotations

import ctypes
import enum
import json
import types
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from fake_device import STREAMS, queue_at

NAMES = json.loads((Path(__file__).parents[2] / "tools" / "tensorrt_names.json").read_text(encoding="utf-8"))
VERSIONS = ("10.3", "10.13", "10.16", "11.4")
CACHE_HEADER = b"fake timing cache of "


def _enumeration(version: str, name: str, without: tuple[str, ...], extra: dict[str, int] | None = None) -> Any:
    found = {
        full.partition(".")[2]: numbers[version]
        for full, numbers in NAMES["names"].items()
        if full.startswith(f"{name}.") and version in numbers and full not in without
    }
    return enum.IntEnum(name, {**found, **(extra or {})})


def fake_tensorrt(version: str, without: tuple[str, ...] = ()) -> Any:  # noqa: C901 - one class for each of its own
    """The FAKE library with the surface of a version, without some members of its enumerations where asked so."""
    trt: Any = types.ModuleType("tensorrt")
    trt.__version__ = version
    trt.fake = types.SimpleNamespace(refused="", built=[], host_code=False, runs=0)
    for name in ("BuilderFlag", "MemoryPoolType", "HardwareCompatibilityLevel", "NetworkDefinitionCreationFlag"):
        setattr(trt, name, _enumeration(version, name, without))
    trt.TensorIOMode = _enumeration(version, "TensorIOMode", without, {"OUTPUT": 2})
    trt.DataType = _enumeration(version, "DataType", without, {"HALF": 1})
    severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    class ILogger:
        Severity = severity

        def log(self, severity: Any, msg: str) -> None:
            raise NotImplementedError

    class IProgressMonitor:
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
        def step_complete(self, phase_name: str, step: int) -> bool: ...
        def phase_finish(self, phase_name: str) -> None: ...

    class ITensor:
        def __init__(self, about: Any) -> None:
            self.name = about.name

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._model = b""

        @property
        def num_inputs(self) -> int:
            return len(self._session.get_inputs())

        def get_input(self, number: int) -> Any:
            return ITensor(self._session.get_inputs()[number])

    class ParserError:
        def __init__(self, words: str) -> None:
            self._words = words

        def desc(self) -> str:
            return self._words

        def node(self) -> int:
            return 3

        def node_operator(self) -> str:
            return "Conv"

        def node_name(self) -> str:
            return "/first"

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            assert isinstance(logger, ILogger)
            self._network, self._errors = network, []

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, number: int) -> Any:
            return self._errors[number]

        def parse(self, model: bytes, path: Any = None) -> bool:
            try:
                self._network._session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
            except Exception as error:
                self._errors.append(ParserError(f"In node 3:\n{type(error).__name__}"))
                return False
            self._network._model = bytes(model)
            return True

    class IOptimizationProfile:
        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            assert all(isinstance(shape, tuple) for shape in (min, opt, max))
            self._shapes = (input, min, opt, max)

    class IHostMemory:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def __bytes__(self) -> bytes:
            return self._data

    class ITimingCache:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> Any:
            return IHostMemory(self._data)

    class IBuilderConfig:
        def __init__(self, logger: Any) -> None:
            self._logger, self._cache = logger, None
            self._flags = {flag for flag in trt.BuilderFlag if flag.name == "TF32"}
            self._profiles: list[Any] = []
            self._pools: dict[Any, int] = {}
            self.hardware_compatibility_level: Any = None
            self.builder_optimization_level = 3
            self.progress_monitor: Any = None

        def set_flag(self, flag: Any) -> None:
            self._flags.add(trt.BuilderFlag(flag))

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(trt.BuilderFlag(flag))

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            self._pools[pool] = pool_size

        def add_optimization_profile(self, profile: Any) -> int:
            _, low, opt, high = profile._shapes
            if not all(a <= b <= c for a, b, c in zip(low, opt, high, strict=True)):
                self._logger.log(severity.ERROR, "Invalid optimization profiles: MIN<=OPT<=MAX")
                return -1
            self._profiles.append(profile._shapes)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
            return ITimingCache(bytes(serialized_timing_cache))

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            if cache._data and not cache._data.startswith(CACHE_HEADER):
                self._logger.log(severity.WARNING, "Failed to deserialize timing cache.")
                return True
            if cache._data and not cache._data.startswith(CACHE_HEADER + version.encode()):
                return False
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

    class Builder:
        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, ILogger)
            self._logger = logger

        def create_network(self, flags: int) -> Any:
            kinds = trt.NetworkDefinitionCreationFlag
            assert flags == (1 << kinds.STRONGLY_TYPED if hasattr(kinds, "STRONGLY_TYPED") else 0)
            return INetworkDefinition(flags)

        def create_builder_config(self) -> Any:
            return IBuilderConfig(self._logger)

        def create_optimization_profile(self) -> Any:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            trt.fake.built.append(config)
            if not _phases(config.progress_monitor):
                self._logger.log(severity.ERROR, "BuildCanceled")
                return None
            if trt.fake.refused:
                self._logger.log(severity.WARNING, "a warning that is not the reason")
                self._logger.log(severity.ERROR, trt.fake.refused)
                return None
            self._logger.log(severity.WARNING, "a warning of the build")
            if config._cache is not None:
                config._cache._data = CACHE_HEADER + version.encode() + b" with more"
            host_code = trt.BuilderFlag.VERSION_COMPATIBLE in config._flags
            header = json.dumps({"version": version, "profiles": config._profiles, "host_code": host_code})
            return IHostMemory(header.encode() + b"\n" + network._model)

    def _phases(monitor: Any) -> bool:
        monitor.phase_start("Building engine", None, 2)
        monitor.phase_start("Timing", "Building engine", 4)
        for step in range(4):
            if not monitor.step_complete("Timing", step):
                monitor.phase_finish("Timing")
                monitor.phase_finish("Building engine")
                return False
        monitor.phase_finish("Timing")
        go_on = monitor.step_complete("Building engine", 0) and monitor.step_complete("Building engine", 1)
        monitor.phase_finish("Building engine")
        return bool(go_on)

    class IExecutionContext:
        def __init__(self, engine: Any) -> None:
            self._engine, self._profile, self._shape = engine, -1, ()
            self._addresses: dict[str, int] = {}

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            assert stream_handle in STREAMS
            self._profile = profile_index
            return 0 <= profile_index < self._engine.num_optimization_profiles

        def set_input_shape(self, name: str, shape: Any) -> bool:
            _, low, _, high = self._engine._profiles[self._profile]
            self._shape = tuple(shape)
            return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

        def get_tensor_shape(self, name: str) -> Any:
            return self._engine._output_shapes(self._shape)[name]

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return memory % 256 == 0

        def execute_async_v3(self, stream_handle: int) -> bool:
            if trt.fake.refused:
                return False
            # Shapes and addresses are those of now; the context is not kept alive by its work.
            mine, engine = weakref.ref(self), self._engine
            shape, addresses = self._shape, dict(self._addresses)

            def work() -> None:
                assert mine() is not None, "the context was given back before its work was done"
                trt.fake.runs += 1
                given = np.empty(shape, np.float32)
                ctypes.memmove(given.ctypes.data, addresses[engine._input], given.nbytes)
                for name, values in engine._outputs(given).items():
                    ctypes.memmove(addresses[name], np.ascontiguousarray(values).ctypes.data, values.nbytes)

            queue_at(stream_handle, work)
            return True

    class ICudaEngine:
        def __init__(self, header: Any, model: bytes) -> None:
            self._session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
            self._input = self._session.get_inputs()[0].name
            self._names = [self._input, *(output.name for output in self._session.get_outputs())]
            self._profiles = header["profiles"] or [[self._input, *[self._session.get_inputs()[0].shape] * 3]]
            self.num_io_tensors, self.num_optimization_profiles = len(self._names), len(self._profiles)

        def _outputs(self, given: Any) -> dict[str, Any]:
            return dict(zip(self._names[1:], self._session.run(None, {self._input: given}), strict=True))

        @cache  # noqa: B019 - engines are few, and running one is how it knows
        def _output_shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
            return {name: values.shape for name, values in self._outputs(np.zeros(shape, np.float32)).items()}

        def get_tensor_name(self, number: int) -> str:
            return self._names[number]

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name == self._input else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return trt.DataType.FLOAT

        def get_tensor_shape(self, name: str) -> Any:
            both = [*self._session.get_inputs(), *self._session.get_outputs()]
            shape = next(item.shape for item in both if item.name == name)
            return tuple(length if isinstance(length, int) else -1 for length in shape)

        def create_execution_context(self) -> Any:
            return IExecutionContext(self)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, ILogger)
            self._logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            try:
                header, _, model = plan.partition(b"\n")
                about = json.loads(header)
                assert not about["host_code"] or self.engine_host_code_allowed, "host code is not allowed"
                assert about["version"] == version
                return ICudaEngine(about, model)
            except Exception:
                self._logger.log(severity.ERROR, "Serialization assertion magicTag failed")
                return None

    for made in (ILogger, IProgressMonitor, ITensor, INetworkDefinition, ParserError, OnnxParser, IOptimizationProfile,
                 ITimingCache, IBuilderConfig, Builder, IExecutionContext, ICudaEngine, Runtime):  # fmt: skip
        setattr(trt, made.__name__, made)
    return trt
