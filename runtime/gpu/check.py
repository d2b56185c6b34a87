"""Before a gate trusts what stays on a device: made-up faces and frames through it, and by way of the host."""

from __future__ import annotations

import numpy as np

from immunogate.faces_file import faces_from_pixels
from immunogate.kernels.antibody import make_antibodies
from immunogate.kernels.device import DeviceError, Stream
from immunogate.kernels.queued import Queued
from immunogate.manifest import DETECTOR_OUTPUTS
from immunogate.runtime.detect import Detector, letterbox
from immunogate.runtime.gpu.answers import Answers
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.gpu.frame_slot import FrameSlot
from immunogate.runtime.gpu.network import DeviceNetwork
from immunogate.runtime.purify import Purifier
from immunogate.runtime.recognise import Recogniser, mean_embedding
from immunogate.runtime.runners.base import Runner
from immunogate.runtime.runners.check import largest_error
from immunogate.runtime.upright import VIEW
from immunogate.structs import CROP_SIZE, PIXELS, Floats

LEAST_COSINE = 0.999
"""Of an embedding with the same one by way of the host; batches of other sizes may round otherwise."""

LARGEST_ERROR = 1e-3
"""Of a pixel on a scale of [-1, 1]."""

LARGEST_SAID_ERROR = 5e-2
"""Of what a detector says of a frame: length of the difference to the length of what it says by way of the host. Pixels
of a frame that is shrunk are rounded to whole levels on one side only."""


def check_detector(network: DeviceNetwork, runner: Runner, queued: Queued, stream: Stream) -> None:
    """Compare what a detector says of a frame that is shrunk on the device with what it says by way of the host.

    The frame is shrunk to the network's own size, or where it takes any to that of the close look at a face, which is
    needed anyway.

    Args:
        network: the detector on the device.
        runner: the same network on the host.
        queued: the kernels, the letterbox's among them.
        stream: where the work is queued.

    Raises:
        DeviceError: it says something else, or can not be run.
    """
    height, width = (side if isinstance(side, int) else VIEW for side in network.input_shape[2:])
    detector = Detector(runner, max(height, width))
    pixels = np.random.default_rng(1).integers(0, 256, (3 * height // 2, 3 * width // 2, 3), np.uint8)
    slot = FrameSlot(queued, network, detector, (pixels.shape[0], pixels.shape[1]), "bgr", stream, stream)
    try:
        for _ in range(2):  # the second time a graph is replayed
            slot.upload(pixels)
            slot.queue_detection()
        found = slot.outputs()
        wanted = runner.run(letterbox(pixels, max(height, width) / max(pixels.shape[:2])))
        worst = max(largest_error(found[name], wanted[name]) for name in DETECTOR_OUTPUTS)
    finally:
        slot.close()
    if not worst <= LARGEST_SAID_ERROR:  # so that NaN is no agreement
        raise DeviceError(f"the detector says other things of a frame on the GPU, by {worst:.2g}", "Report the device")


def check_path(path: FacePath, purifier: Purifier, recogniser: Recogniser) -> None:
    """Compare the answers of every bucket's graph with those of purifier and recogniser, by way of the host.

    Args:
        path: with details; every bucket was used before, so that graphs are replayed.
        purifier: of the same settings, on the same kernels.
        recogniser: the same network.

    Raises:
        DeviceError: other clones than the definition's for the same probabilities, or other pixels or embeddings.
    """
    draw = np.random.default_rng(1)
    for size in path.buckets:
        count = size // 2 + 1  # some rows of each bucket but the first are padding
        crops = draw.integers(0, 256, (count, CROP_SIZE, CROP_SIZE), np.uint8)
        frames, numbers = [7 + row for row in range(count)], [9 - row for row in range(count)]
        found = path.recognise(crops, frames, numbers)
        problem = _problem(found, faces_from_pixels(crops), frames, numbers, purifier, recogniser)
        if problem:
            raise DeviceError(f"the path of {count} faces on the GPU gives {problem}", "Report the device")


def _problem(
    found: Answers, faces: Floats, frames: list[int], numbers: list[int], purifier: Purifier, recogniser: Recogniser
) -> str | None:
    fault = next(filter(None, found.faults), None)
    if fault is not None:
        return f"a fault: {fault}"
    c = genes = purifier.kernels.project(faces)
    p, settings = found.probabilities, purifier.settings
    if p is not None and p.shape[1] > c.shape[1]:  # gated
        genes = purifier.kernels.spectrum(faces, c)
    expected = make_antibodies(settings, genes, p, purifier.key(frames, numbers), PIXELS)
    antibodies = found.antibodies(settings)
    if not np.array_equal(antibodies.weights, expected.weights):
        return "other antibodies than the definition"
    pictures = purifier.kernels.act(c, expected.weights, faces)
    if found.pictures is None or not np.abs(found.pictures - pictures).max() <= LARGEST_ERROR:  # NaN is no agreement
        return "other pixels than the host"
    views = recogniser.views(pictures.reshape(-1, PIXELS))
    embedded = recogniser.embed(views.reshape(-1, PIXELS)).reshape(len(faces), -1, found.raw.shape[1])
    pairs = (found.raw, recogniser.embed(faces)), (found.purified, mean_embedding(embedded))
    near = all(np.all((one * other).sum(axis=1) >= LEAST_COSINE) for one, other in pairs)
    return None if near else "other embeddings than the host"
