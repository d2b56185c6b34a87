"""Each kernel on arrays that lie on the device: its arguments, grid and block, and nothing else.

Nothing here allocates, copies or waits, so all of it may be captured into a graph. Shapes and meanings stand with the
kernels, in ``cuda/*.cu``; what they compute stands in `immunogate.kernels.reference`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from immunogate.kernels import compile as compiling
from immunogate.kernels.device import Device, Function, Module, Stream, View

SLICE = 1792
"""Pixels of one partial sum of project."""

SHARED_READS = (1, 4, 8)
"""Faces that may share one reading of the eigenfaces in project."""

MOST_KEPT = 16
"""Clones a face that selection can keep in one launch."""

MOST_CLONES = 4096
MOST_GENES = 4096

BAD_PROBABILITY, BAD_WEIGHT, BAD_EMBEDDING = 1, 2, 4
"""Bits of a face's status word: what was not a number, or not in its range. A face with any of them is denied."""


@dataclass(frozen=True, eq=False)
class DeviceBasis:
    """Mean face and eigenfaces on the device.

    Attributes:
        rows: (n, stride) float32, float16 or int8; zeros behind the last pixel.
        scales: (n,) float32 for int8, by which a row is multiplied; else None.
        mean: (pixels,) float32.
        element: f32, f16 or i8, as kernels are named.
    """

    rows: View
    scales: View | None
    mean: View
    element: str

    @property
    def count(self) -> int:
        """How many eigenfaces: n."""
        return self.rows.shape[0]

    @property
    def stride(self) -> int:
        """Elements from row to row."""
        return self.rows.shape[1]

    @property
    def pixels(self) -> int:
        """D."""
        return self.mean.shape[0]


@dataclass(frozen=True, eq=False)
class Clones:
    """Where the clones' draws come from and where the chosen ones go, for B faces, K clones, m kept.

    Attributes:
        limits: (B, padded) uint32.
        weights: (B, padded) int32.
        frames, faces: (B,) uint32.
        scores: (B, K) int64.
        arrived: (B,) uint32, zero; left zero.
        winners: (B, m) int32.
        masks: (B, m, W) uint32.
        lists: (B, m, rows) uint16.
        counts: (B, m) int32.
        gates: (B, m) float32.
    """

    limits: View
    weights: View
    frames: View
    faces: View
    scores: View
    arrived: View
    winners: View
    masks: View
    lists: View
    counts: View
    gates: View


@dataclass(frozen=True, eq=False)
class Pictures:
    """Where purified pixels go.

    Attributes:
        purified: (P, D) float32, or None.
        planes: (P V, 3, height, width) float32, the recogniser's input, or None.
        views: (V, 3) int32: mirrored, right, down; None without planes.
        side: of a square face; 0 without planes, as all that follows.
        crop_left, height, width: of the recogniser's input.
        gain, bias: 127.5 / std and (127.5 - mean) / std.
    """

    purified: View | None
    planes: View | None = None
    views: View | None = None
    side: int = 0
    crop_left: int = 0
    height: int = 0
    width: int = 0
    gain: float = 1.0
    bias: float = 0.0

    def arguments(self) -> list[object]:
        """As kernels take them."""
        return [self.purified, *self.plane_arguments()]

    def plane_arguments(self) -> list[object]:
        """The same without the purified faces."""
        count = 0 if self.views is None else self.views.shape[0]
        sizes = (count, self.side, self.crop_left, self.height, self.width)
        return [self.planes, self.views, *map(np.int32, sizes), np.float32(self.gain), np.float32(self.bias)]


class Queued:
    """The kernels of one device; each method queues one launch on a stream.

    Args:
        device: whose code is loaded, each file when it is first used.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._modules: dict[str, Module] = {}
        self._functions: dict[str, Function] = {}

    def load(self, *names: str) -> None:
        """Load kernel files now, so that no later call has to.

        Raises:
            CompileError: there is no code for this device and no compiler.
        """
        for name in names:
            if name not in self._modules:
                self._modules[name] = self.device.module(compiling.cubin_for(name, self.device.architecture).code)

    def letterbox_bgr(self, stream: Stream, pixels: View, planes: View, shrunk: tuple[int, int]) -> None:
        """(F, H, W, 3) uint8 to (F, 3, height, width); shrunk: height and width of the picture in it."""
        frames, height, width, _ = pixels.shape
        self._letterbox("letterbox_bgr", stream, [pixels], planes, (frames, height, width, 3 * width), shrunk)

    def letterbox_nv12(self, stream: Stream, pixels: View, planes: View, shrunk: tuple[int, int]) -> None:
        """The same from (F, 3 H / 2, W) uint8, the luma's H rows before the chroma's."""
        frames, rows, width = pixels.shape
        sizes = (frames, 2 * rows // 3, width, width)
        self._letterbox("letterbox_nv12", stream, _luma_and_chroma(pixels), planes, sizes, shrunk)

    def warp_bgr(
        self, stream: Stream, pixels: View, crop_to_frame: View, shrinks: View, crops: View, faces: View
    ) -> None:
        """(H, W, 3) uint8 to (B, side, side) uint8 and (B, side^2) float32 by (B, 6) float32 and (B,) int32."""
        height, width, _ = pixels.shape
        self._warp("warp_bgr", stream, [pixels, crop_to_frame, shrinks, crops, faces], (height, width, 3 * width))

    def warp_nv12(
        self, stream: Stream, pixels: View, crop_to_frame: View, shrinks: View, crops: View, faces: View
    ) -> None:
        """The same from (3 H / 2, W) uint8, the luma's H rows before the chroma's."""
        rows, width = pixels.shape
        views = [*_luma_and_chroma(pixels), crop_to_frame, shrinks, crops, faces]
        self._warp("warp_nv12", stream, views, (2 * rows // 3, width, width))

    def crop_faces(self, stream: Stream, crops: View, faces: View) -> None:
        """(B, side, side) uint8 to (B, side^2) float32 in [-1, 1]."""
        count = crops.nbytes
        self._launch("warp", "crop_faces", stream, (_ceil(count, 256), 1, 1), 256, [crops, faces, np.int32(count)])

    def project(self, stream: Stream, basis: DeviceBasis, faces: View, partial: View) -> None:
        """(B, D) to partial sums (slices, B, n), to be added by `spectrum`."""
        batch = faces.shape[0]
        shared = next((count for count in SHARED_READS if count >= batch), SHARED_READS[-1])
        self._launch(
            "project", f"project_{basis.element}_{shared}", stream,
            (_ceil(batch, shared), _ceil(basis.count, 8), _ceil(basis.pixels, SLICE)), 128,
            [basis.rows, basis.mean, faces, partial, *map(np.int32, (batch, basis.count, basis.pixels, basis.stride))],
        )  # fmt: skip

    def spectrum(
        self,
        stream: Stream,
        basis: DeviceBasis,
        partial: View,
        faces: View,
        coefficients: View,
        inputs: View | None,
        side: int,
        *,
        scaled: bool = True,
    ) -> None:
        """Partial sums (slices, B, n) to (B, n), and (B, n + 2) with remainder and grain where it is given.

        scaled: whether the sums are of the stored rows, as those of project, or coefficients already.
        """
        slices, batch, rows = partial.shape
        scales = basis.scales if scaled else None
        numbers = map(np.int32, (rows, basis.pixels, slices, side))
        arguments = [partial, scales, faces, basis.mean, coefficients, inputs, *numbers]
        self._launch("project", "spectrum", stream, (batch, 1, 1), 256, arguments)

    def gene_weights(
        self,
        stream: Stream,
        probabilities: View,
        coefficients: View,
        limits: View,
        weights: View,
        status: View,
        pixels: int,
        terms: tuple[float, float, float],
    ) -> None:
        """(B, genes) and (B, stride) to (B, padded) each; status: (B,); terms: residual, size, likelihood."""
        batch, genes = probabilities.shape
        padded = limits.shape[1]
        numbers = map(np.int32, (genes, padded, coefficients.shape[1], pixels))
        arguments = [probabilities, coefficients, limits, weights, status, *numbers, *map(np.float64, terms)]
        self._launch("select", "gene_weights", stream, (_ceil(padded, 128), batch, 1), 128, arguments)

    def mutate(
        self, stream: Stream, limits: View, frames: View, faces: View, clones: View, masks: View, seed: int, genes: int
    ) -> None:
        """The masks (B, K, W) of the clones with the numbers (B, K)."""
        batch, count = clones.shape
        numbers = [np.uint64(seed), *map(np.int32, (count, genes, limits.shape[1]))]
        arguments = [limits, frames, faces, clones, masks, *numbers]
        self._launch("select", "mutate", stream, (_ceil(count, 8), batch, 1), 256, arguments)

    def select_clones(self, stream: Stream, clones: Clones, seed: int, genes: int, rows: int) -> None:
        """Draw, score, select and compact the clones 0 .. K - 1 of B faces."""
        batch, count = clones.scores.shape
        padded, keep = clones.limits.shape[1], clones.winners.shape[1]
        groups = min(_ceil(count, 8), 2 * self.device.processors)
        arguments: list[object] = [
            clones.limits, clones.weights, clones.frames, clones.faces, clones.scores, clones.arrived, clones.winners,
            clones.masks, clones.lists, clones.counts, clones.gates, np.uint64(seed),
            *map(np.int32, (count, keep, genes, padded, rows)),
        ]  # fmt: skip
        self._launch("select", "select_clones", stream, (groups, batch, 1), 256, arguments, shared=8 * padded)

    def take_likely(
        self,
        stream: Stream,
        probabilities: View,
        masks: View,
        lists: View,
        counts: View,
        gates: View,
        status: View,
        rows: int,
    ) -> None:
        """Mode threshold: (B, genes) to masks, lists, counts and gates of one antibody a face; status: (B,)."""
        batch, genes = probabilities.shape
        arguments = [probabilities, masks, lists, counts, gates, status, np.int32(genes), np.int32(rows)]
        self._launch("select", "take_likely", stream, (batch, 1, 1), 32, arguments)

    def act_chosen(
        self,
        stream: Stream,
        basis: DeviceBasis,
        coefficients: View,
        lists: View,
        counts: View,
        gates: View | None,
        faces: View | None,
        out: Pictures,
    ) -> None:
        """Lists (B, m, n) of rows, of which counts (B, m) hold, to P = B m pictures."""
        pictures = counts.shape[0] * counts.shape[1]
        numbers = map(np.int32, (basis.stride, counts.shape[1], basis.count, basis.pixels))
        self._launch(
            "act", f"act_chosen_{basis.element}", stream, (_ceil(basis.pixels, 128), pictures, 1), 256,
            [basis.rows, basis.scales, basis.mean, coefficients, lists, counts, gates, faces, *numbers,
             *out.arguments()],
        )  # fmt: skip

    def act_dense(
        self, stream: Stream, basis: DeviceBasis, coefficients: View, weights: View, faces: View | None, out: Pictures
    ) -> None:
        """Weights (B, m, genes) to P = B m pictures, in one read of the basis for eight of them."""
        batch, keep, genes = weights.shape
        pictures = batch * keep
        numbers = map(np.int32, (basis.stride, pictures, keep, basis.count, genes, basis.pixels))
        self._launch(
            "act", f"act_dense_{basis.element}", stream, (_ceil(pictures, 8), _ceil(basis.pixels, 128), 1), 256,
            [basis.rows, basis.scales, basis.mean, coefficients, weights, faces, *numbers, *out.arguments()],
        )  # fmt: skip

    def recogniser_planes(self, stream: Stream, faces: View, out: Pictures) -> None:
        """(P, D) faces as they are to ``out.planes``."""
        count, pixels = faces.shape
        arguments = [faces, *out.plane_arguments(), np.int32(pixels)]
        self._launch("act", "recogniser_planes", stream, (_ceil(pixels, 256), count, 1), 256, arguments)

    def mean_embedding(self, stream: Stream, rows: View, embeddings: View, status: View) -> None:
        """(B, R, E) to (B, E) of unit length; status: (B,)."""
        batch, count, length = rows.shape
        arguments = [rows, embeddings, status, np.int32(count), np.int32(length)]
        self._launch("match", "mean_embedding", stream, (batch, 1, 1), 256, arguments, shared=4 * length)

    def match(
        self,
        stream: Stream,
        templates: View,
        persons: View,
        embeddings: View,
        scratch: View,
        arrived: View,
        best: View,
        similarity: View,
        margin: View,
    ) -> None:
        """The nearest of (N, E) templates for (B, E) embeddings; scratch: (B, `match_groups`, 6) uint32."""
        count, length = templates.shape
        batch, groups, _ = scratch.shape
        views = [templates, persons, embeddings, scratch, arrived, best, similarity, margin]
        arguments = [*views, np.int32(count), np.int32(length)]
        self._launch("match", "match", stream, (groups, batch, 1), 256, arguments)

    def match_groups(self, count: int) -> int:
        """Blocks a face for so many templates."""
        return max(1, min(_ceil(count, 8), 2 * self.device.processors))

    def close(self) -> None:
        """Give the code back."""
        for module in self._modules.values():
            module.close()
        self._modules.clear()
        self._functions.clear()

    def _letterbox(
        self,
        name: str,
        stream: Stream,
        sources: list[View],
        planes: View,
        sizes: tuple[int, int, int, int],
        shrunk: tuple[int, int],
    ) -> None:
        frames, height, width, pitch = sizes
        padded_height, padded_width = planes.shape[2:]
        per_frame = np.int64(sources[0].nbytes // frames)  # of all planes: the first of them begins the array
        numbers = [*map(np.int32, (height, width, pitch)), per_frame]
        after = map(np.int32, (*shrunk, padded_height, padded_width))
        grid = (_ceil(padded_width, 32), _ceil(padded_height, 8), frames)
        self._launch("letterbox", name, stream, grid, (32, 8), [*sources, planes, *numbers, *after])

    def _warp(self, name: str, stream: Stream, views: list[View], sizes: tuple[int, int, int]) -> None:
        batch, side, _ = views[-2].shape
        grid = (_ceil(side, 32), _ceil(side, 8), batch)
        self._launch("warp", name, stream, grid, (32, 8), [*views, *map(np.int32, (*sizes, side))])

    def _launch(
        self,
        file: str,
        name: str,
        stream: Stream,
        grid: tuple[int, int, int],
        block: int | tuple[int, int],
        arguments: list[object],
        shared: int = 0,
    ) -> None:
        if name not in self._functions:
            self.load(file)
            self._functions[name] = self._modules[file].function(name)
        x, y = (block, 1) if isinstance(block, int) else block
        self.device.launch(self._functions[name], grid, (x, y, 1), stream, arguments, shared)


def _luma_and_chroma(pixels: View) -> list[View]:
    """An NV12 array twice: from its beginning, and from its first frame's chroma on."""
    rows, width = pixels.shape[-2:]
    luma = 2 * rows // 3 * width
    return [pixels, pixels.buffer.view((pixels.nbytes - luma,), np.uint8, pixels.offset + luma)]


def _ceil(count: int, step: int) -> int:
    return -(-count // step)
