"""One bucket of the face path: fixed memory for up to B faces, and the graph of everything that happens to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from immunogate.kernels.antibody import AntibodySettings
from immunogate.kernels.device import Stream, View
from immunogate.kernels.queued import SLICE, DeviceBasis, Pictures, Queued
from immunogate.manifest import RecogniserEntry
from immunogate.runtime.gpu.antibody import Genes, antibody_fields, antibody_for, kept_of
from immunogate.runtime.gpu.known import Known
from immunogate.runtime.gpu.memory import Field, Memory
from immunogate.runtime.gpu.network import DeviceNetwork, enqueue_rows, prepare_rows, reshaped, rows_of
from immunogate.runtime.gpu.replayed import Replayed
from immunogate.structs import CROP_SIZE, PIXELS


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame on the device.

    Attributes:
        pixels: (H, W, 3) uint8 BGR, or (3 H / 2, W) uint8 NV12, the luma's H rows before the chroma's.
        kind: bgr or nv12.
    """

    pixels: View
    kind: str


@dataclass(frozen=True, eq=False)
class Parts:
    """What all buckets of a path share.

    Attributes:
        queued: the kernels.
        basis: mean face and eigenfaces.
        settings: how antibodies are made.
        analyzer: None in mode fixed.
        recogniser: the network.
        entry: its crop, normalisation, views and length.
        views, plain: (V, 3) and (1, 3) int32 on the device: the views that are averaged, and a face as it is.
        details: whether purified pictures and probabilities come back too.
    """

    queued: Queued
    basis: DeviceBasis
    settings: AntibodySettings
    analyzer: DeviceNetwork | None
    recogniser: DeviceNetwork
    entry: RecogniserEntry
    views: View
    plain: View
    details: bool

    @property
    def genes(self) -> int:
        """Of an antibody: n, or n + 1 where the last one is the remainder's."""
        if self.analyzer is None:
            return self.basis.count
        genes = self.analyzer.output_shapes[self.analyzer.output_names.index("probabilities")][1]
        return int(genes)

    @property
    def gated(self) -> bool:
        """Whether the last gene is the remainder's."""
        return self.genes > self.basis.count

    @property
    def capturable(self) -> bool:
        """Whether all networks may be captured."""
        return self.recogniser.capturable and (self.analyzer is None or self.analyzer.capturable)


class Bucket:
    """Up to ``size`` faces at fixed addresses.

    Args:
        parts: what all buckets share.
        known: whom faces are matched with.
        size: B.
        stream: where its work is queued.

    Attributes:
        crops: "crops" (B, 112, 112) uint8, for faces that come from the host.
        places: "crop_to_frame" (B, 6) float32 and "shrinks" (B,) int32, for faces of a frame on the device.
        faces: (B, D) float32 in [-1, 1], where a face begins its way.
        keys: "frames" and "numbers", (B,) uint32, of the clone key.
        result: the answer, see `immunogate.runtime.gpu.answers.read_answers`.
        details: "pictures" and "probabilities"; None where they are not asked for.
    """

    def __init__(self, parts: Parts, known: Known, size: int, stream: Stream) -> None:
        self.size = size
        self._parts, self._known = parts, known
        self._all = Replayed(self._work, capturable=parts.capturable)
        self._memory = Memory(parts.queued.device, stream)
        try:
            self._allocate()
            self._prepare()
        except BaseException:
            self._memory.close()
            raise

    def _allocate(self) -> None:
        parts, memory, size, entry = self._parts, self._memory, self.size, self._parts.entry
        kept, rows, length = kept_of(parts.settings), parts.basis.count, entry.embedding_dimension
        numbers: Field = ((size,), np.uint32)
        self.crops = memory.shared({"crops": ((size, CROP_SIZE, CROP_SIZE), np.uint8)})
        self.keys = memory.shared({"frames": numbers, "numbers": numbers})
        self.places = memory.shared({"crop_to_frame": ((size, 6), np.float32), "shrinks": ((size,), np.int32)})
        self.faces: View = memory.zeros((size, PIXELS), np.float32)
        answer: dict[str, Field] = {"raw": ((size, length), np.float32), "purified": ((size, length), np.float32)}
        answer |= {"status": numbers, "best": ((size,), np.int32)}
        answer |= {"similarity": ((size,), np.float32), "margin": ((size,), np.float32)}
        seen = kept * parts.views.shape[0]
        # Comes back too: how much the looks at a face disagree is said by the host.
        answer["embeddings"] = ((size * (1 + seen), length), np.float32)
        self.result = memory.shared(answer | antibody_fields(size, kept, parts.genes))
        self._embeddings = self.result.views["embeddings"]
        pictures: dict[str, Field] = {"pictures": ((size, kept, PIXELS), np.float32)}
        probabilities: dict[str, Field] = {"probabilities": ((size, parts.genes), np.float32)}
        wanted = pictures | (probabilities if parts.analyzer else {})
        self.details = memory.shared(wanted) if parts.details else None
        self._probabilities: View | None = None
        if parts.analyzer:
            held = self.details.views if self.details else {}
            self._probabilities = held.get("probabilities") or memory.empty(*probabilities["probabilities"])
        self._partial = memory.empty((-(-PIXELS // SLICE), size, rows), np.float32)
        self._coefficients = memory.empty((size, rows), np.float32)
        self._spectrum = memory.empty((size, rows + 2), np.float32) if parts.analyzer else None
        self._planes = memory.empty((size * (1 + seen), 3, entry.height, entry.width), np.float32)
        self._scratch = memory.empty((size, self._known.groups, 6), np.uint32)
        self._arrived = memory.zeros((size,), np.uint32)

    def _prepare(self) -> None:
        parts, views, size = self._parts, self.result.views, self.size
        genes = Genes(
            self._probabilities, self._spectrum or self._coefficients, self._coefficients, self.faces, parts.gated,
            self.keys.views["frames"], self.keys.views["numbers"], views["status"], views["masks"], views["winners"],
        )  # fmt: skip
        self._antibody = antibody_for(parts.settings, parts.queued, parts.basis, genes, self._memory)
        prepare_rows(parts.recogniser, self._planes.shape)
        if parts.analyzer is not None:
            reads_face = parts.analyzer.input_name == "face"
            square = reshaped(self.faces, (size, 1, CROP_SIZE, CROP_SIZE))
            self._analyzed = square if reads_face or self._spectrum is None else self._spectrum
            prepare_rows(parts.analyzer, self._analyzed.shape)

    def put_crops(self, count: int, stream: Stream) -> None:
        """Queue the way of crops from the host's memory to `faces`; those behind ``count`` are of an earlier batch."""
        self.crops.send(stream)
        crops = rows_of(self.crops.views["crops"], 0, count)
        self._parts.queued.crop_faces(stream, crops, rows_of(self.faces, 0, count))

    def put_warped(self, count: int, frame: Picture, stream: Stream) -> None:
        """Queue the aligning of ``count`` faces of a frame by what the host has put into `places`, in one launch."""
        self.places.send(stream)
        names = self.places.views["crop_to_frame"], self.places.views["shrinks"], self.crops.views["crops"], self.faces
        warp = self._parts.queued.warp_bgr if frame.kind == "bgr" else self._parts.queued.warp_nv12
        warp(stream, frame.pixels, *(rows_of(view, 0, count) for view in names))

    def queue(self, stream: Stream) -> None:
        """Queue everything from `faces` to the host's side of `result`, as one graph where that can be."""
        self._all.queue(stream)

    @property
    def is_captured(self) -> bool:
        """Whether a graph is replayed."""
        return self._all.is_captured

    def _work(self, stream: Stream) -> None:
        self.keys.send(stream)
        self.result.views["status"].zero(stream)
        self._analyze(stream)
        self._antibody.make(stream)
        self._recognise(stream)
        self._match(stream)
        self.result.fetch(stream)
        if self.details is not None:
            self.details.fetch(stream)

    def _analyze(self, stream: Stream) -> None:
        parts = self._parts
        parts.queued.project(stream, parts.basis, self.faces, self._partial)
        parts.queued.spectrum(
            stream, parts.basis, self._partial, self.faces, self._coefficients, self._spectrum, CROP_SIZE
        )
        if parts.analyzer is not None and self._probabilities is not None:
            enqueue_rows(parts.analyzer, self._analyzed, "probabilities", self._probabilities, stream)

    def _recognise(self, stream: Stream) -> None:
        """Faces as they came and purified ones go through the network together."""
        parts, size = self._parts, self.size
        raw, purified = rows_of(self._planes, 0, size), rows_of(self._planes, size, self._planes.shape[0] - size)
        parts.queued.recogniser_planes(stream, self.faces, self._pictures(None, raw, parts.plain))
        pictures = self.details.views["pictures"] if self.details else None
        self._antibody.act(stream, self._pictures(pictures, purified, parts.views))
        enqueue_rows(parts.recogniser, self._planes, "embedding", self._embeddings, stream)

    def _pictures(self, purified: View | None, planes: View, views: View) -> Pictures:
        entry = self._parts.entry
        gain, bias = 127.5 / entry.std, (127.5 - entry.mean) / entry.std
        return Pictures(purified, planes, views, CROP_SIZE, entry.crop_left, entry.height, entry.width, gain, bias)

    def _match(self, stream: Stream) -> None:
        queued, size, views = self._parts.queued, self.size, self.result.views
        length = self._embeddings.shape[1]
        for name, first, count in (("raw", 0, 1), ("purified", size, self._embeddings.shape[0] // size - 1)):
            rows = reshaped(rows_of(self._embeddings, first, size * count), (size, count, length))
            queued.mean_embedding(stream, rows, views[name], views["status"])
        queued.match(
            stream, self._known.templates, self._known.persons, views["purified"], self._scratch, self._arrived,
            views["best"], views["similarity"], views["margin"],
        )  # fmt: skip

    def close(self) -> None:
        """Give back the graph and the memory."""
        self._all.close()
        self._memory.close()
