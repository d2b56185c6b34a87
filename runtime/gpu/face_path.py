"""From aligned faces to answers without leaving the GPU.

    faces -> project -> analyzer -> antibodies -> act, views -> recogniser -> mean -> match -> one answer

Faces are padded to a bucket of 1, 2, 4 or 8. Each bucket has its own memory at fixed addresses and one graph of all its
work, so that a batch costs the host one launch, and nothing is allocated once a bucket has been used. What a padded row
holds has no influence on the others: every step works on each face for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np
import numpy.typing as npt

from immunogate.errors import UsageError
from immunogate.kernels.antibody import AntibodySettings
from immunogate.kernels.device import Stream
from immunogate.kernels.launch import CudaKernels
from immunogate.kernels.queued import MOST_KEPT
from immunogate.manifest import RecogniserEntry
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu.answers import Answers, joined, read_answers
from immunogate.runtime.gpu.antibody import kept_of
from immunogate.runtime.gpu.bucket import Bucket, Parts
from immunogate.runtime.gpu.known import Known, room_for
from immunogate.runtime.gpu.memory import Memory
from immunogate.runtime.gpu.network import DeviceNetwork
from immunogate.structs import CROP_SIZE, PIXELS, expect_dtype, expect_shape
from immunogate.views import VIEWS, View

BUCKETS = (1, 2, 4, 8)


class FacePath:
    """Purifies, recognises and matches faces on a GPU. It belongs to the thread that opened the device.

    Args:
        kernels: the device with mean face and eigenfaces; stays the caller's, and open for longer.
        settings: how antibodies are made; in mode fixed the kernels hold ``top_k`` eigenfaces.
        analyzer: output "probabilities"; needed by every mode but fixed. Stays the caller's.
        recogniser: output "embedding". Stays the caller's.
        entry: the recogniser's crop, normalisation, views and length.
        buckets: batch sizes, ascending.
        details: whether purified pictures and probabilities come back too.
        stream: where all work is queued; by default the kernels' own.

    Raises:
        UsageError: the mode keeps more clones than a launch can.
        ValueError: the mode needs an analyzer and there is none, or the faces are not of 112x112 pixels.
    """

    def __init__(
        self,
        kernels: CudaKernels,
        settings: AntibodySettings,
        analyzer: DeviceNetwork | None,
        recogniser: DeviceNetwork,
        entry: RecogniserEntry,
        *,
        buckets: Sequence[int] = BUCKETS,
        details: bool = False,
        stream: Stream | None = None,
    ) -> None:
        if settings.needs_probabilities and analyzer is None:
            raise ValueError(f"mode {settings.mode} needs an analyzer, got none")
        if kept_of(settings) > MOST_KEPT:
            raise UsageError(f"the GPU's path keeps at most {MOST_KEPT} clones, got {settings.keep}")
        if kernels.basis.pixels != PIXELS:
            raise ValueError(f"basis: expected faces of {PIXELS} pixels, got {kernels.basis.pixels}")
        self.settings, self.buckets = settings, tuple(buckets)
        self.stream = stream or kernels.stream
        self._closing = ExitStack()
        try:
            kernels.queued.load("warp", "match")  # what is missing is said now and not at the first face
            memory = Memory(kernels.device, self.stream)
            self._closing.callback(memory.close)
            self._parts = Parts(
                kernels.queued, kernels.basis, settings, analyzer if settings.needs_probabilities else None, recogniser,
                entry, memory.upload(as_numbers(VIEWS[entry.views])), memory.upload(as_numbers((View(),))), details,
            )  # fmt: skip
            self._done = kernels.device.event()
            self._closing.callback(self._done.close)
            self._held: dict[int, Bucket] = {}
            self._known = self._new_known(0)
            self._closing.callback(self._forget)
        except BaseException:
            self._closing.close()
            raise

    def know(self, templates: Templates) -> None:
        """Match with these people from now on; where there is no room for them, graphs are made anew.

        Raises:
            ValueError: templates of another length than the recogniser's.
        """
        if len(templates.names) > self._known.room:
            held = list(self._held)
            self._forget()
            self._known = self._new_known(len(templates.names))
            self.prepare(held)
        self._known.exchange(templates)

    def prepare(self, sizes: Sequence[int] | None = None) -> None:
        """Use each bucket once, so that later calls allocate nothing; by default all of them."""
        for size in self.buckets if sizes is None else sizes:
            self.recognise(np.zeros((size, CROP_SIZE, CROP_SIZE), np.uint8), [0] * size, [0] * size)

    def recognise(self, crops: npt.NDArray[np.uint8], frames: Sequence[int], numbers: Sequence[int]) -> Answers:
        """Answers for B faces that lie in the host's memory; there is at least one.

        Args:
            crops: (B, 112, 112) uint8 grey, B of 1 or more.
            frames: frame number of each face, part of its clone key.
            numbers: track (or other lasting) number of each face, part of its clone key.

        Raises:
            ValueError: an array of another shape or dtype, or none at all.
        """
        expect_shape("crops", crops, (None, CROP_SIZE, CROP_SIZE))
        expect_dtype("crops", crops, np.uint8)
        largest, found = self.buckets[-1], []
        for first in range(0, len(crops), largest):
            part = slice(first, first + largest)
            bucket, count = self.bucket(len(crops[part])), len(crops[part])
            bucket.crops.host["crops"][:count] = crops[part]
            bucket.put_crops(count, self.stream)
            found.append(self.run(bucket, count, frames[part], numbers[part]))
        if not found:
            raise ValueError("crops: expected at least one, got none")
        return joined(found)

    def bucket(self, count: int) -> Bucket:
        """The smallest bucket that holds so many faces; whoever has faces on the device puts them into its `faces`.

        Raises:
            ValueError: none is so large.
        """
        size = next((size for size in self.buckets if size >= count), None)
        if size is None or count < 1:
            raise ValueError(f"faces: expected 1 .. {self.buckets[-1]} at once, got {count}")
        if size not in self._held:
            self._held[size] = Bucket(self._parts, self._known, size, self.stream)
        return self._held[size]

    def run(self, bucket: Bucket, count: int, frames: Sequence[int], numbers: Sequence[int]) -> Answers:
        """Answers for the first ``count`` of a bucket's faces; waits for them.

        Raises:
            ValueError: not as many frames and numbers as faces.
        """
        for name, words in (("frames", frames), ("numbers", numbers)):
            expect_shape(name, np.asarray(words), (count,))
            bucket.keys.host[name][:count] = np.asarray(words, np.uint64).astype(np.uint32)
        bucket.queue(self.stream)
        self._done.record(self.stream)
        self._done.synchronize()
        details = bucket.details.host if bucket.details else {}
        return read_answers(bucket.result.host, details, count, self._known.names, self.settings, self._parts.genes)

    def _new_known(self, count: int) -> Known:
        return Known(self._parts.queued, room_for(count), self._parts.entry.embedding_dimension, self.stream)

    def _forget(self) -> None:
        for bucket in self._held.values():
            bucket.close()
        self._held.clear()
        self._known.close()

    def close(self) -> None:
        """Give everything back but what is the caller's. A second time does nothing."""
        self._closing.close()

    def __enter__(self) -> FacePath:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_numbers(views: Sequence[View]) -> npt.NDArray[np.int32]:
    """(V, 3) int32: mirrored, right, down, as kernels take them."""
    return np.array([[view.mirrored, view.right, view.down] for view in views], np.int32)
