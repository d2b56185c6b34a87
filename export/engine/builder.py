"""Builds one engine with TensorRT 10.3 or newer, 11 included. The only file of this room that imports tensorrt.

One way for all versions: everything is asked for by name, what a version lacks is left out, and no number of an
enumeration is ever kept, since 11 renumbered them. Networks are strongly typed: the precision is that of the ONNX.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from immunogate.engines.messages import Messages, make_logger
from immunogate.engines.record import ANY_AMPERE, THIS_GPU, EngineError, Flags, Profile
from immunogate.errors import UsageError
from immunogate.export.engine.plan import NetworkPlan
from immunogate.export.engine.progress import Progress, Show, make_monitor
from immunogate.kernels.device.driver import DeviceError, DriverState, current_device, require_device

log = logging.getLogger(__name__)

OLDEST = (10, 3)
"""TensorRT of JetPack 6.1; older ones have other calls."""

INSTALL = (
    "On a Jetson: apt install python3-libnvinfer, and a virtual environment with --system-site-packages; elsewhere: "
    "pip install tensorrt-cu13 (or tensorrt-cu12), which NVIDIA's own index serves"
)


@dataclass(frozen=True)
class Built:
    """An engine that was just built.

    Attributes:
        plan: its bytes.
        seconds: TensorRT took.
        timing_cache: what was measured for it and before, for the next build; None where nothing was.
        foreign_cache: the timing cache that was given is of another machine or version, and was not used.
        warnings: of TensorRT.
    """

    plan: bytes
    seconds: float
    timing_cache: bytes | None
    foreign_cache: bool
    warnings: tuple[str, ...]


def load_tensorrt(index: int = 0) -> tuple[Any, DriverState]:
    """The library and the driver's state; the driver first, since parts of TensorRT crash without one.

    Raises:
        DeviceError: there is no driver or no such device.
        UsageError: TensorRT is missing, too old, or can not be loaded.
    """
    try:
        state = require_device(index)
    except DeviceError as error:
        raise DeviceError(
            f"an engine is built on the machine that runs it: {error.what}",
            f"{error.mend}; --dry-run shows what would be built",
        ) from error
    try:
        import tensorrt
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "tensorrt"
        what = "TensorRT is not installed" if missing else f"TensorRT can not be loaded: {error}"
        raise UsageError(what, INSTALL) from error
    version = str(tensorrt.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise UsageError(f"TensorRT {version} is too old, 10.3 is the oldest that will do", INSTALL)
    return tensorrt, state


class EngineBuilder:
    """TensorRT's builder on one device.

    Args:
        trt: the library, see `load_tensorrt`.
        index: number of the device.
        needs_device: a library that builds without one, as TensorRT-RTX does, is not given one.
    """

    def __init__(self, trt: Any, index: int = 0, *, needs_device: bool = True) -> None:
        self._trt = trt
        self._index = index if needs_device else None
        self._messages = Messages()
        self._logger = make_logger(trt, self._messages)

    def build(
        self,
        plan: NetworkPlan,
        flags: Flags,
        timing_cache: bytes | None = None,
        show: Show | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Built:
        """Build one network, in a thread of its own, so that this one hears Ctrl-C at once.

        Args:
            plan: what to build.
            flags: settings that change the engine.
            timing_cache: what builds before this one measured; empty to begin one, None for none.
            show: is told how far it is.
            stop: asked often whether to give up.

        Raises:
            EngineError: TensorRT does not take the network or can not build it; its words are passed on.
            KeyboardInterrupt: ``stop`` said so, or an interrupt came.
        """
        progress = Progress(show)
        found: list[Built] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                with current_device(self._index):
                    found.append(self._build(plan, flags, timing_cache, progress))
            except BaseException as error:  # handed over to the thread that waits
                failed.append(error)

        thread = threading.Thread(target=work, name=f"build {plan.network}", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.05)
                progress.cancelled = progress.cancelled or stop()
        except BaseException:
            progress.cancelled = True
            thread.join()
            raise
        if progress.cancelled:
            raise KeyboardInterrupt
        if failed:
            raise failed[0]
        return found[0]

    def _build(self, plan: NetworkPlan, flags: Flags, timing_cache: bytes | None, progress: Progress) -> Built:
        self._messages.take()
        builder = self._trt.Builder(self._logger)
        network = self._parsed(builder, plan)
        config = builder.create_builder_config()
        self._set_flags(config, flags)
        self._add_profiles(builder, config, plan)
        foreign = timing_cache is not None and not self._attach(config, timing_cache)
        monitor = make_monitor(self._trt, progress)
        config.progress_monitor = monitor
        start = time.perf_counter()
        memory = builder.build_serialized_network(network, config)
        seconds = time.perf_counter() - start
        if memory is None:
            raise EngineError(
                f"TensorRT could not build {plan.file}: {self._messages.take_errors()}",
                "If memory ran out: close what else uses the GPU, lower --max-batch, or limit --workspace",
            )
        measured = None if timing_cache is None or foreign else self._measured(config)
        warnings = tuple(dict.fromkeys(text for severity, text in self._messages.take() if severity == "WARNING"))
        return Built(bytes(memory), seconds, measured, foreign, warnings)

    def _parsed(self, builder: Any, plan: NetworkPlan) -> Any:
        kinds = self._trt.NetworkDefinitionCreationFlag
        flags = 1 << int(kinds.STRONGLY_TYPED) if hasattr(kinds, "STRONGLY_TYPED") else 0
        network = builder.create_network(flags)
        parser = self._trt.OnnxParser(network, self._logger)
        if not parser.parse(plan.model):
            errors = [_described(parser.get_error(number)) for number in range(parser.num_errors)]
            self._messages.take()
            raise EngineError(
                f"TensorRT does not accept {plan.file}: {'; '.join(errors) or 'it gives no reason'}",
                "Export the bundle again, or run this network with ONNX Runtime",
            )
        names = [tensor.name for tensor in map(network.get_input, range(network.num_inputs))]
        if names != [plan.input_name]:
            raise EngineError(
                f"TensorRT sees other inputs in {plan.file}: {', '.join(names)}; expected {plan.input_name}"
            )
        return network

    def _set_flags(self, config: Any, flags: Flags) -> None:
        kinds = self._trt.BuilderFlag
        if hasattr(kinds, "TF32"):
            (config.set_flag if flags.tf32 else config.clear_flag)(kinds.TF32)
        if flags.version_compatible:
            config.set_flag(kinds.VERSION_COMPATIBLE)
        if flags.hardware_compatible != THIS_GPU:
            config.hardware_compatibility_level = self._level(flags.hardware_compatible)
        if flags.workspace_mib is not None:
            config.set_memory_pool_limit(self._trt.MemoryPoolType.WORKSPACE, flags.workspace_mib << 20)
        config.builder_optimization_level = flags.optimization_level

    def _level(self, wanted: str) -> Any:
        levels = self._trt.HardwareCompatibilityLevel
        if wanted == ANY_AMPERE:
            return levels.AMPERE_PLUS
        if not hasattr(levels, "SAME_COMPUTE_CAPABILITY"):
            raise UsageError(
                f"TensorRT {self._trt.__version__} does not know --hardware-compatible {wanted}",
                f"Use {ANY_AMPERE}, or leave it out",
            )
        return levels.SAME_COMPUTE_CAPABILITY

    def _add_profiles(self, builder: Any, config: Any, plan: NetworkPlan) -> None:
        for shapes in plan.profiles:
            profile = builder.create_optimization_profile()
            profile.set_shape(plan.input_name, shapes.min, shapes.opt, shapes.max)
            if config.add_optimization_profile(profile) < 0:
                raise EngineError(
                    f"TensorRT refuses {_in_words(shapes)} for {plan.file}: {self._messages.take_errors()}"
                )

    def _attach(self, config: Any, timing_cache: bytes) -> bool:
        """Whether the timing cache is of this machine and version, and is used; an empty one always is."""
        before = self._messages.take()
        cache = config.create_timing_cache(timing_cache)
        taken = cache is not None and config.set_timing_cache(cache, False)
        said = self._messages.take()
        for severity, text in before:
            self._messages.add(severity, text)
        if taken and not (timing_cache and said):  # it warns of one that it can not read, and begins an empty one
            return True
        empty = config.create_timing_cache(b"")
        if empty is not None:
            config.set_timing_cache(empty, False)
        return not timing_cache

    def _measured(self, config: Any) -> bytes | None:
        cache = config.get_timing_cache()
        memory = cache.serialize() if cache is not None else None
        return bytes(memory) if memory is not None else None


def _described(parser_error: Any) -> str:
    """What the parser does not like, and at which node, by its operator and name."""
    node = f"{parser_error.node_operator()} {parser_error.node_name()}".strip()
    where = f" (node {parser_error.node()}: {node})" if parser_error.node() >= 0 else ""
    return " ".join(str(parser_error.desc()).split()) + where


def _in_words(shapes: Profile) -> str:
    return f"the shapes {shapes.min} to {shapes.max}"
