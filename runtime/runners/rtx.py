"""Runs one network on TensorRT-RTX, NVIDIA's compiler for desktop cards, as a plug-in of ONNX Runtime."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import onnxruntime as ort

from immunogate.kernels.device.driver import DeviceError, require_device
from immunogate.runtime.runners.base import Network
from immunogate.runtime.runners.onnx import OnnxRunner, Provider
from immunogate.runtime.runners.providers import private_cache, ranges

PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
WHEEL = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
NAME = "NvTensorRTRTXExecutionProvider"
OLDEST_ONNX_RUNTIME = (1, 24)
"""What the plug-in's own documentation asks for."""
INSTALL = f"Run: pip install 'onnxruntime>=1.24' {WHEEL} (NVIDIA's licence; -cu12 in place of -cu13 for CUDA 12)"
SUPPORTED = "It supports RTX cards from Ampere on (RTX 30xx) with a driver for CUDA 13"


def require_rtx() -> None:
    """See that the plug-in can be tried here; it is not loaded.

    Raises:
        DeviceError: there is no GPU, no plug-in, or an ONNX Runtime that is too old for it.
    """
    require_device()
    if find_spec(PLUGIN) is None:
        raise DeviceError("TensorRT-RTX is not installed", INSTALL)
    release = tuple(int(number) for number in ort.__version__.split(".")[:2])
    if release < OLDEST_ONNX_RUNTIME:
        raise DeviceError(f"ONNX Runtime {ort.__version__} is too old for the plug-in of TensorRT-RTX", INSTALL)


class RtxRunner(OnnxRunner):
    """One ONNX network on TensorRT-RTX, in the precision that the ONNX holds.

    It compiles when it is opened, in seconds, and keeps what it made for this card in the user's cache.

    Args:
        network: what to run.

    Raises:
        BundleError: ONNX Runtime does not accept the network.
        DeviceError: the plug-in is not there, does not load, knows no device here, or takes no part of the network.
    """

    def __init__(self, network: Network) -> None:
        cpu = OnnxRunner(network.model, network.name, 1)  # tells its input, or that it is no network
        devices = plugin_devices()
        if network.device >= len(devices):
            raise DeviceError(f"TensorRT-RTX finds {len(devices)} devices that it can use here", SUPPORTED)
        least, most = ranges(cpu.input_name, cpu.input_shape, network.largest)
        options = {"nv_runtime_cache_path": str(private_cache("rtx", network.model))}
        if least:
            options |= {"nv_profile_min_shapes": least, "nv_profile_opt_shapes": most, "nv_profile_max_shapes": most}
        provider = Provider("rtx", NAME, options, SUPPORTED, built_in=False)
        super().__init__(
            network.model, network.name, network.threads, provider, devices[network.device : network.device + 1]
        )


def plugin_devices() -> list[Any]:
    """The devices that the plug-in knows, in its order; it is loaded at the first call and stays.

    Raises:
        DeviceError: it can not be imported, or ONNX Runtime can not load it.
    """
    _register()
    return [device for device in ort.get_ep_devices() if device.ep_name == NAME]


@lru_cache(maxsize=1)
def _register() -> None:
    """Load the plug-in into ONNX Runtime, which takes it once in a process."""
    try:
        import onnxruntime_ep_nv_tensorrt_rtx as plugin

        ort.register_execution_provider_library(NAME, plugin.get_library_path())
    except Exception as error:  # ONNX Runtime raises classes of its own that share no public base
        said = " ".join(str(error).split())
        raise DeviceError(f"ONNX Runtime can not load the plug-in of TensorRT-RTX: {said}", INSTALL) from error
