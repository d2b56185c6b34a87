"""ONNX Runtime's own execution providers for NVIDIA GPUs: what they need, their options, their caches."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import platform
import stat
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime as ort

from immunogate.kernels.device.driver import DeviceError, require_device
from immunogate.runtime.runners.base import Network
from immunogate.runtime.runners.onnx import OnnxRunner, Provider

log = logging.getLogger(__name__)

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
SMALLEST_SIDE = 32
"""Of the pictures that the detector takes."""
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
"""What brings the module onnxruntime; the first can be there without a GPU."""


def require_provider(name: str) -> None:
    """See that an execution provider can be tried here; nothing is loaded.

    Raises:
        DeviceError: there is no GPU, or the ONNX Runtime that is installed was built without it.
    """
    require_device()
    if name in ort.get_available_providers():
        return
    if platform.machine() == "aarch64":
        mend = "PyPI has no ONNX Runtime with CUDA for this processor: see docs/jetson.md"
    else:
        mend = "Run: pip uninstall onnxruntime && pip install onnxruntime-gpu"
    raise DeviceError(f"the installed ONNX Runtime {ort.__version__} was built without {name}", mend)


def installed() -> dict[str, str | None]:
    """The version of each distribution that brings the module onnxruntime, None where it is not installed."""
    return {name: _version(name) for name in DISTRIBUTIONS}


def release() -> str:
    """The version of the module onnxruntime, whichever distribution brought it."""
    return str(ort.__version__)


def providers() -> list[str]:
    """The execution providers that the installed ONNX Runtime was built with, by its own names; none is started."""
    return list(ort.get_available_providers())


def open_cuda(network: Network) -> OnnxRunner:
    """On CUDA and cuDNN, in the precision that the ONNX holds: TF32, which is less, stays off.

    Raises:
        BundleError, DeviceError: as `OnnxRunner`.
    """
    options = {
        "device_id": str(network.device),
        "use_tf32": "0",
        # The usual search tries every algorithm anew for every batch size, and a decision waits for it.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Memory that a Jetson's GPU takes is the CPU's too: no more than asked for, not the next power of two.
        "arena_extend_strategy": "kSameAsRequested",
    }
    preload_libraries()
    provider = Provider("cuda", CUDA, options, f"It needs {_cuda_wanted()}")
    return OnnxRunner(network.model, network.name, network.threads, provider)


def open_tensorrt(network: Network) -> OnnxRunner:
    """On ONNX Runtime's TensorRT provider, which compiles at the first opening (minutes) and keeps the result.

    Raises:
        BundleError, DeviceError: as `OnnxRunner`; DeviceError too where others can write to the cache.
    """
    cpu = OnnxRunner(network.model, network.name, 1)  # a network that ONNX Runtime does not accept is named first
    folder = str(private_cache("ort-tensorrt", network.model))
    least, most = ranges(cpu.input_name, cpu.input_shape, network.largest)
    options = {
        "device_id": str(network.device),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }
    if least:
        # Without a range every larger batch would be compiled for anew, in the middle of a run.
        options |= {"trt_profile_min_shapes": least, "trt_profile_opt_shapes": most, "trt_profile_max_shapes": most}
    preload_libraries()
    needs = f"It needs TensorRT 10, and {_cuda_wanted()}"
    return OnnxRunner(network.model, network.name, network.threads, Provider("ort-tensorrt", TENSORRT, options, needs))


def ranges(name: str, shape: list[int | str], largest: tuple[int, ...]) -> tuple[str, str]:
    """The smallest and the largest input of a network as providers write them, ``face:1x3x112x96``; empty if fixed."""
    if all(isinstance(length, int) for length in shape):
        return "", ""
    least = [length if isinstance(length, int) else SMALLEST_SIDE for length in shape]
    if not isinstance(shape[0], int):
        least[0] = 1
    return tuple(f"{name}:{'x'.join(map(str, sides))}" for sides in (least, largest))  # type: ignore[return-value]


def private_cache(runner: str, model: bytes) -> Path:
    """A folder of the user's cache for what a provider makes of one network; made where it is not there.

    What lies there is machine code that the provider loads again: nobody else may write to it.

    Raises:
        DeviceError: it can not be made, or others own it or can write to it.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = named if named.is_absolute() else Path.home() / ".cache"
        folder = base / "immunogate" / runner / hashlib.sha256(model).hexdigest()[:32]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError) as error:
        raise DeviceError(f"{runner} has no folder for its cache: {error}", "Set XDG_CACHE_HOME") from error
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise DeviceError(
            f"{folder} holds machine code and is another user's, or others can write to it", "Delete it, or chmod 700"
        )
    return folder


def preload_libraries() -> None:
    """Load the CUDA and cuDNN that pip installed, where it did: the linker does not look in Python's folders."""
    if not hasattr(ort, "preload_dlls"):
        return
    with contextlib.redirect_stdout(io.StringIO()) as said:  # stdout is for results
        ort.preload_dlls(directory="")
    log.debug("%s", said.getvalue())


def _cuda_wanted() -> str:
    built_for = str(getattr(ort, "cuda_version", "") or "").partition(".")[0]
    if built_for:
        return f"CUDA {built_for} and cuDNN 9; pip install 'onnxruntime-gpu[cuda,cudnn]' brings them on a PC"
    return "the CUDA and cuDNN that this ONNX Runtime was built for"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
