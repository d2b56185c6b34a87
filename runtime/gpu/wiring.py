"""Whether a chain's faces can stay on the GPU: where kernels are, and every network can run on its memory."""

from __future__ import annotations

import logging

from immunogate.kernels.launch import CudaKernels
from immunogate.manifest import RecogniserEntry
from immunogate.runtime.detect import Detector
from immunogate.runtime.gpu.check import check_detector, check_path
from immunogate.runtime.gpu.device_detector import DeviceDetector
from immunogate.runtime.gpu.engine_network import Engine, EngineNetwork
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.gpu.network import DeviceNetwork
from immunogate.runtime.purify import Purifier
from immunogate.runtime.recognise import Recogniser
from immunogate.runtime.runners.base import Runner

log = logging.getLogger(__name__)


def network_of(runner: Runner) -> DeviceNetwork | None:
    """A runner's network on the device's memory; None where it runs elsewhere."""
    return EngineNetwork(runner) if isinstance(runner, Engine) else None


def detector_for(purifier: Purifier, runner: Runner, longest_side: int) -> Detector:
    """The detector of a chain: on the purifier's GPU where its network can run there, checked, else by the host.

    Where it can not be opened there, or says something else, a warning says so.

    Args:
        purifier: opened on some backend; stays the caller's, and open for longer.
        runner: the network.
        longest_side: larger frames are shrunk to this many pixels.
    """
    kernels = purifier.kernels
    network = network_of(runner)
    if not isinstance(kernels, CudaKernels) or network is None:
        return Detector(runner, longest_side)
    try:
        kernels.queued.load("letterbox")
        check_detector(network, runner, kernels.queued, kernels.stream)
    except Exception as error:  # bindings and engines raise classes of their own; the way by the host is still there
        log.warning("frames are searched by way of the host: %s", error)
        return Detector(runner, longest_side)
    return DeviceDetector(runner, longest_side, network, kernels.queued, kernels.stream)


def face_path_for(
    purifier: Purifier, analyzer: Runner | None, recogniser: Runner, entry: RecogniserEntry
) -> FacePath | None:
    """The face path of a chain, used once and checked for each bucket; None where not everything of it is on one GPU.

    Where it can not be opened, or gives other numbers than the way by the host, a warning says so: the chain then goes
    that way.

    Args:
        purifier: opened on some backend; stays the caller's, and open for longer.
        analyzer: None in mode fixed.
        recogniser: the network.
        entry: its crop, normalisation, views and length.
    """
    kernels = purifier.kernels
    seer, judge = network_of(recogniser), None if analyzer is None else network_of(analyzer)
    if not isinstance(kernels, CudaKernels) or seer is None or (judge is None) != (analyzer is None):
        return None
    try:
        path = FacePath(kernels, purifier.settings, judge, seer, entry, details=True)
        try:
            path.prepare()
            check_path(path, purifier, Recogniser(recogniser, entry))
        except BaseException:
            path.close()
            raise
    except Exception as error:  # bindings and engines raise classes of their own; the way by the host is still there
        log.warning("faces leave the GPU between the stages: %s", error)
        return None
    log.info("faces stay on %s", kernels.device.name)
    return path
