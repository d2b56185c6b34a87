"""What is timed on a GPU: each kernel with a gate's inputs, the bytes it has to move, and a check of its result.

A case has several sets of inputs that take turns. Checks compare the first face with the definition in NumPy before
anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gpu_timing import Bench, Work

from immunogate.kernels import clones, reference
from immunogate.kernels.launch import ELEMENTS, chosen_rows, stored_rows
from immunogate.kernels.queued import SLICE, Clones, DeviceBasis, Pictures, Queued
from immunogate.kernels.reference import CloneKey, ScoreTerms, gene_weights, thresholds
from immunogate.structs import CROP_SIZE, PIXELS

Array = npt.NDArray[Any]
SETS = 4
KEEP = 4
SEED = 2024
MULTIPLICATIONS_A_GROUP = 20
"""Wide products of one call of Philox4x32-10: two in each of ten rounds."""

TOLERANCE = 1e-3
"""Grey levels by which a pixel may differ from float64's."""

PLANE = Pictures(None, None, None, CROP_SIZE, 0, CROP_SIZE, CROP_SIZE, 1.0, 0.0)


class WrongResultError(AssertionError):
    """A kernel computed something else than its definition: its time is worth nothing."""


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        kernel: what is timed.
        sizes: in words, n = 1500, K = 1000, B = 1 for instance.
        works: one run for each set of inputs.
        nbytes: that have to be read and written at least.
        multiplications: of 32 by 32 bits that are needed.
        check: raises `WrongResultError`; called after one run of the first set.
        key: of the way by a library that does the same, if there is one.
    """

    kernel: str
    sizes: str
    works: Sequence[Work]
    nbytes: int
    multiplications: int
    check: Callable[[], None]
    key: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Which sizes are measured."""

    genes: tuple[int, ...]
    clones: tuple[int, ...]
    clone_batches: tuple[int, ...]
    components: int
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    frame: tuple[int, int]
    warped: tuple[int, ...]
    galleries: tuple[int, ...]


FULL = Plan(
    (1000, 1500), (25, 250, 1000, 4096), (1, 2, 4, 8, 64), 1500, ("fp32", "fp16", "int8"), (1, 2, 4, 8), (1080, 1920),
    (1, 8), (1000, 100_000),
)  # fmt: skip
QUICK = Plan((1500,), (1000,), (1, 8), 1500, ("fp16",), (1, 8), (1080, 1920), (1, 8), (1000,))


def cases(bench: Bench, queued: Queued, plan: Plan) -> Iterator[Case]:
    """All of a plan, made one after the other."""
    for genes in plan.genes:
        for count in plan.clones:
            for batch in plan.clone_batches:
                yield select_case(bench, queued, genes, count, batch)
    mean, rows = eigenfaces(plan.components)
    for precision in plan.precisions:
        basis = stored_basis(bench, mean, rows, precision)
        for batch in plan.batches:
            yield from product_cases(bench, queued, basis, (mean, rows, precision), batch)
    yield from picture_cases(bench, queued, plan.frame, plan.warped)
    for count in plan.galleries:
        for batch in plan.batches:
            yield match_case(bench, queued, count, batch)


def select_case(bench: Bench, queued: Queued, genes: int, count: int, batch: int) -> Case:
    """Mutate, score, select and compact, in one launch."""
    draw = np.random.default_rng(genes)
    padded = -(-genes // 4) * 4
    sets: list[tuple[Clones, Array, Array, CloneKey]] = []
    for number in range(SETS):
        p = draw.uniform(0, 1, (batch, genes)).astype(np.float32)
        c = (draw.standard_normal((batch, genes)) * np.geomspace(40, 0.1, genes)).astype(np.float32)
        weights = gene_weights(p, c, ScoreTerms(), PIXELS)
        key = CloneKey(SEED, np.full(batch, number, np.uint32), np.arange(batch, dtype=np.uint32))
        wide = ((0, 0), (0, padded - genes))
        held = Clones(
            bench.put(np.pad(thresholds(p), wide)), bench.put(np.pad(weights.astype(np.int32), wide)),
            bench.put(key.frames), bench.put(key.faces), bench.empty((batch, count), np.int64),
            bench.zeros((batch,), np.uint32), bench.empty((batch, KEEP), np.int32),
            bench.empty((batch, KEEP, -(-genes // 32)), np.uint32), bench.empty((batch, KEEP, genes), np.uint16),
            bench.empty((batch, KEEP), np.int32), bench.empty((batch, KEEP), np.float32),
        )  # fmt: skip
        sets.append((held, p, weights, key))

    def check() -> None:
        held, p, weights, key = sets[0]
        one = CloneKey(key.seed, key.frames[:1], key.faces[:1])
        winners, masks = clones.select_clones(p[:1], weights[:1], count, KEEP, one)
        same = np.array_equal(held.winners.get(bench.stream)[:1], winners)
        if not (same and np.array_equal(held.masks.get(bench.stream)[:1], masks)):
            raise WrongResultError("select_clones gives other clones than its definition")

    works = [_selecting(bench, queued, held, genes) for held, *_ in sets]
    moved = batch * (8 * padded + 8 * count + KEEP * (padded // 8 + 2 * genes + 12))
    products = batch * count * (padded // 4) * MULTIPLICATIONS_A_GROUP
    sizes = f"n = {genes}, K = {count}, B = {batch}"
    return Case("mutate-select", sizes, works, moved, products, check, ("select", genes, count, batch))


def _selecting(bench: Bench, queued: Queued, held: Clones, genes: int) -> Work:
    return lambda: queued.select_clones(bench.stream, held, SEED, genes, genes)


def eigenfaces(components: int, pixels: int = PIXELS) -> tuple[Array, Array]:
    """A mean face (D,) and (n, D) float32 rows of about unit length, about orthogonal: time depends on no more."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((components, pixels), np.float32) / np.float32(pixels**0.5)
    return draw.uniform(-0.2, 0.2, pixels).astype(np.float32), rows


def stored_basis(bench: Bench, mean: Array, rows: Array, precision: str) -> DeviceBasis:
    """On the device, as a gate holds it."""
    stored, scales = stored_rows(rows, precision)
    held = None if scales is None else bench.put(scales)
    return DeviceBasis(bench.put(stored), held, bench.put(mean), ELEMENTS[precision])


def product_cases(
    bench: Bench, queued: Queued, basis: DeviceBasis, given: tuple[Array, Array, str], batch: int
) -> Iterator[Case]:
    """project; act with a third and with all chosen; project and act one after the other."""
    mean, rows, precision = given
    draw = np.random.default_rng(batch)
    faces = [draw.uniform(-1, 1, (batch, basis.pixels)).astype(np.float32) for _ in range(SETS)]
    on_device = [bench.put(values) for values in faces]
    slices = -(-basis.pixels // SLICE)
    partial = bench.empty((slices, batch, basis.count), np.float32)
    c = bench.put(reference.project(faces[0], mean, rows).astype(np.float32))
    found = bench.empty((batch, basis.count), np.float32)
    stored, scales = stored_rows(rows, precision)
    exact = stored[:, : basis.pixels].astype(np.float64) * (1 if scales is None else scales[:, None].astype(np.float64))

    def projecting(faces_of: Any) -> Work:
        def work() -> None:
            queued.project(bench.stream, basis, faces_of, partial)
            queued.spectrum(bench.stream, basis, partial, faces_of, found, None, 0)

        return work

    def check_project() -> None:
        want = reference.project(faces[0][:1], mean, exact)
        _near("project", found.get(bench.stream)[:1], want)

    row_bytes = basis.rows.nbytes // basis.count
    sizes = f"n = {basis.count}, {precision}, B = {batch}"
    read = basis.rows.nbytes + batch * (basis.pixels + basis.count) * 4
    projects = [projecting(values) for values in on_device]
    yield Case("project", sizes, projects, read, 0, check_project, ("project", precision, batch))

    for name, share in (("a third chosen", 1 / 3), ("all chosen", 1.1)):
        weights = (draw.random((batch, 1, basis.count)) < share).astype(np.float32)
        out = bench.empty((batch, 3, CROP_SIZE, CROP_SIZE), np.float32)
        acting, form = _acting(bench, queued, basis, c, weights, out)
        union = int((weights > 0).any(axis=(0, 1)).sum())
        moved = union * row_bytes + out.nbytes

        def check_act(weights: Array = weights, out: Any = out) -> None:
            if basis.pixels != PIXELS:
                return
            want = reference.act(c.get(bench.stream)[:1], weights[:1], mean, exact)[0, 0]
            _near("act", out.get(bench.stream)[0, 0].reshape(-1), want)

        key = ("act", precision, batch, name)
        yield Case("act", f"{sizes}, {name} ({form})", [acting], moved, 0, check_act, key)
        if share < 1:
            own, _ = _acting(bench, queued, basis, found, weights, out)
            both = [_in_turn(project, own) for project in projects]
            key = ("project+act", precision, batch)
            yield Case("project+act", f"{sizes}, {name} ({form})", both, read + moved, 0, check_project, key)


def _in_turn(first: Work, second: Work) -> Work:
    def work() -> None:
        first()
        second()

    return work


def _acting(bench: Bench, queued: Queued, basis: DeviceBasis, c: Any, weights: Array, out: Any) -> tuple[Work, str]:
    """By the form that `launch.py` takes, with its name."""
    views = bench.put(np.zeros((1, 3), np.int32))
    pictures = Pictures(None, out, views, PLANE.side, 0, PLANE.height, PLANE.width)
    lists = chosen_rows(weights, basis.count)
    assert lists is not None  # the weights are 0 and 1
    if lists[1].sum() > -(-len(weights) // 8) * basis.count:
        held = bench.put(weights)
        return (lambda: queued.act_dense(bench.stream, basis, c, held, None, pictures)), "dense"
    places, counts = (bench.put(part) for part in lists)
    return (lambda: queued.act_chosen(bench.stream, basis, c, places, counts, None, None, pictures)), "listed"


def picture_cases(bench: Bench, queued: Queued, frame: tuple[int, int], batches: tuple[int, ...]) -> Iterator[Case]:
    """Letterbox of a frame to half its size, and warp of faces of it."""
    height, width = frame
    draw = np.random.default_rng(3)
    frames = [bench.put(draw.integers(0, 256, (1, height, width, 3), np.uint8)) for _ in range(SETS)]
    small = height // 2, width // 2
    planes = bench.empty((1, 3, *(-(-side // 32) * 32 for side in small)), np.float32)

    def boxing(pixels: Any) -> Work:
        return lambda: queued.letterbox_bgr(bench.stream, pixels, planes, small)

    def check_box() -> None:
        full = frames[0].get(bench.stream)[0, : 2 * small[0], : 2 * small[1]].astype(np.int64)
        mean = (full.reshape(small[0], 2, small[1], 2, 3).sum(axis=(1, 3)) + 2) // 4
        if not np.array_equal(planes.get(bench.stream)[0, :, : small[0], : small[1]], mean.transpose(2, 0, 1)):
            raise WrongResultError("letterbox gives other levels than its definition")

    moved = frames[0].nbytes + planes.nbytes
    exactly_half = height % 2 == 0 and width % 2 == 0
    check = check_box if exactly_half else lambda: None
    yield Case("letterbox", f"{width} x {height} to half", [boxing(one) for one in frames], moved, 0, check)
    for batch in batches:
        scale = min(height, width) / (2 * CROP_SIZE)
        matrix = np.array([scale, 0, width / 4, 0, scale, height / 4], np.float32)
        matrices, shrinks = bench.put(np.tile(matrix, (batch, 1))), bench.put(np.full(batch, 1, np.int32))
        crops = bench.empty((batch, CROP_SIZE, CROP_SIZE), np.uint8)
        faces = bench.empty((batch, PIXELS), np.float32)

        def warping(pixels: Any, rest: tuple[Any, ...] = (matrices, shrinks, crops, faces)) -> Work:
            whole = pixels.view((height, width, 3), np.uint8)
            return lambda: queued.warp_bgr(bench.stream, whole, *rest)

        def check_warp(crops: Any = crops, faces: Any = faces) -> None:
            want = crops.get(bench.stream).reshape(len(crops.get(bench.stream)), -1) / np.float32(127.5) - 1
            _near("warp", faces.get(bench.stream), want)

        moved = batch * PIXELS * (4 * 3 + 5)  # four neighbours, a byte and a float out
        yield Case("warp", f"B = {batch}", [warping(one) for one in frames], moved, 0, check_warp)


def match_case(bench: Bench, queued: Queued, count: int, batch: int, length: int = 512) -> Case:
    """The nearest of a gallery."""
    draw = np.random.default_rng(count)
    templates = draw.standard_normal((count, length), np.float32)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    places = [draw.integers(0, count, batch) for _ in range(SETS)]
    gallery, persons = bench.put(templates), bench.put(np.arange(count, dtype=np.int32))
    groups = queued.match_groups(count)
    scratch, arrived = bench.empty((batch, groups, 6), np.uint32), bench.zeros((batch,), np.uint32)
    best = bench.empty((batch,), np.int32)
    similarity, margin = bench.empty((batch,), np.float32), bench.empty((batch,), np.float32)

    def matching(embeddings: Any) -> Work:
        rest = (scratch, arrived, best, similarity, margin)
        return lambda: queued.match(bench.stream, gallery, persons, embeddings, *rest)

    def check() -> None:
        if not np.array_equal(best.get(bench.stream), places[0]):
            raise WrongResultError("match finds another template than the one that is the same")

    works = [matching(bench.put(templates[at])) for at in places]
    sizes = f"{count} of {length}, B = {batch}"
    return Case("match", sizes, works, templates.nbytes + batch * length * 4, 0, check, ("match", count, batch))


def _near(name: str, found: Array, want: Array) -> None:
    if not np.abs(found - want).max() * 127.5 <= TOLERANCE:  # so that NaN is not near
        raise WrongResultError(f"{name} differs from its definition by more than {TOLERANCE} grey levels")
