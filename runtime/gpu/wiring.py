"""Whether a chain's faces can stay on the GPU: where kernels are, and every network can run on its memory."""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

from immunogate.kernels.device import Device
from immunogate.kernels.launch import CudaKernels
from immunogate.kernels.queued import MOST_KEPT
from immunogate.manifest import RecogniserEntry
from immunogate.runtime.gpu.antibody import kept_of
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.gpu.network import DeviceNetwork
from immunogate.runtime.purify import Purifier
from immunogate.runtime.runners.base import Runner

log = logging.getLogger(__name__)


@runtime_checkable
class OnDevice(Protocol):
    """A runner whose network can also be run on arrays of a device."""

    def device_network(self, device: Device) -> DeviceNetwork:
        """The same network on this device's memory; the runner keeps it and closes it."""


def face_path_for(
    purifier: Purifier, analyzer: Runner | None, recogniser: Runner, entry: RecogniserEntry
) -> FacePath | None:
    """The face path of a chain, used once for each bucket; None where not everything of it is on one GPU.

    Args:
        purifier: opened on some backend; stays the caller's, and open for longer.
        analyzer: None in mode fixed.
        recogniser: the network.
        entry: its crop, normalisation, views and length.

    Raises:
        DeviceError, CompileError: the GPU can not be used after all.
    """
    kernels, settings = purifier.kernels, purifier.settings
    if not isinstance(kernels, CudaKernels) or not isinstance(recogniser, OnDevice):
        return None
    if not (analyzer is None or isinstance(analyzer, OnDevice)):
        return None
    if kept_of(settings) > MOST_KEPT:
        log.info("faces leave the GPU between the stages: more than %d clones are kept", MOST_KEPT)
        return None
    judge = None if analyzer is None else analyzer.device_network(kernels.device)
    seer = recogniser.device_network(kernels.device)
    path = FacePath(kernels, settings, judge, seer, entry, details=True)
    try:
        path.prepare()
    except BaseException:
        path.close()
        raise
    log.info("faces stay on %s", kernels.device.name)
    return path
