"""The kernels project, spectrum, act and recogniser_planes against their definitions."""

from __future__ import annotations

import numpy as np
from parity_place import GREY, TOLERANCE, Array, Place, near, same

from immunogate.basis import LEAST_REMAINDER, MOST_GRAIN
from immunogate.kernels import reference
from immunogate.kernels.launch import ELEMENTS, chosen_rows, stored_rows
from immunogate.kernels.queued import SLICE, DeviceBasis, Pictures


def _basis(place: Place, precision: str, pixels: int, rows: int) -> tuple[DeviceBasis, Array, Array]:
    """On the device; the mean; and the rows as they are stored, in float64. Half of a face is explained."""
    exact = (place.draw.standard_normal((rows, pixels)) * (0.5 / rows) ** 0.5).astype(np.float32)
    mean = place.draw.uniform(-0.5, 0.5, pixels).astype(np.float32)
    stored, scales = stored_rows(exact, precision)
    held = None if scales is None else place.put(scales)
    rows64 = stored[:, :pixels].astype(np.float64) * (1 if scales is None else scales[:, None].astype(np.float64))
    return DeviceBasis(place.put(stored), held, place.put(mean), ELEMENTS[precision]), mean, rows64


def _grain(faces: Array, side: int) -> Array:
    if side < 2:
        return np.zeros(len(faces))
    rows = faces.astype(np.float64).reshape(-1, side, side)
    mixed = rows[:, 1:, 1:] - rows[:, :-1, 1:] - rows[:, 1:, :-1] + rows[:, :-1, :-1]
    found: Array = np.minimum(np.abs(mixed) / 2, MOST_GRAIN).mean(axis=(1, 2))
    return found


def check_project(place: Place) -> None:
    """Project in each precision and form, spectrum with and without an analyzer's inputs."""
    for precision in ELEMENTS:
        side = max(1, int(place.size(place.limits.pixels) ** 0.5))
        rows, most = place.size(place.limits.genes), place.limits.batch
        basis, mean, exact = _basis(place, precision, side * side, rows)
        for batch in {1, min(3, most), min(8, most), place.size(most)}:
            faces = place.draw.uniform(-1, 1, (batch, side * side)).astype(np.float32)
            held, slices = place.put(faces), -(-side * side // SLICE)
            partial = place.rubbish((slices, batch, rows), np.float32)
            c, inputs = place.rubbish((batch, rows), np.float32), place.rubbish((batch, rows + 2), np.float32)
            place.queued.project(place.stream, basis, held, partial)
            place.queued.spectrum(place.stream, basis, partial, held, c, inputs, side)
            found = place.get(c)
            near(f"project {precision}", found, reference.project(faces, mean, exact), TOLERANCE / GREY * 20)
            all_found = place.get(inputs)
            same("inputs", all_found[:, :rows], found)
            lengths = reference.spectrum(faces, mean, found)[:, -1]
            near("remainder", all_found[:, rows], lengths, 1e-5 * float(lengths.max()) + LEAST_REMAINDER * 1e-6)
            near("grain", all_found[:, rows + 1], _grain(faces, side), 1e-7)
            again = place.rubbish((batch, rows), np.float32)
            place.queued.spectrum(place.stream, basis, partial, held, again, None, side)
            same("spectrum without inputs", place.get(again), found)


def _planes(purified: Array, side: int, views: Array, crop: tuple[int, int, int], gain: float, bias: float) -> Array:
    left, height, width = crop
    seen = []
    for mirrored, right, down in views:
        faces = purified.reshape(-1, side, side)[:, :, :: -1 if mirrored else 1]
        rows, columns = (np.clip(np.arange(side) - shift, 0, side - 1) for shift in (down, right))
        seen.append(faces[:, rows[:, None], columns[None]])
    grey = np.stack(seen, axis=1).reshape(-1, side, side)[:, :height, left : left + width]
    return np.repeat((grey * np.float32(gain) + np.float32(bias))[:, None], 3, axis=1)


def check_act(place: Place) -> None:
    """Act, listed and dense, gated or not, hard and soft, with the recogniser's planes; and planes of faces."""
    for precision in ELEMENTS:
        side = max(1, int(place.size(place.limits.pixels) ** 0.5))
        rows, pixels = place.size(place.limits.genes), side * side
        basis, mean, exact = _basis(place, precision, pixels, rows)
        batch, keep = place.size(max(1, place.limits.batch // 4)), place.size(4)
        c = place.draw.normal(0, 1, (batch, rows)).astype(np.float32)
        faces = place.draw.uniform(-1, 1, (batch, pixels)).astype(np.float32)
        left = int(place.draw.integers(0, side))
        crop = left, int(place.draw.integers(1, side + 1)), int(place.draw.integers(1, side - left + 1))
        views = np.array([[0, 0, 0], [1, 2, -1]], np.int32)
        held_c, held_faces, held_views = place.put(c), place.put(faces), place.put(views)
        for gated, form in ((False, "listed"), (True, "listed"), (False, "dense"), (True, "soft")):
            weights = place.draw.random((batch, keep, rows + gated)).astype(np.float32)
            if form != "soft":
                weights = (weights < place.draw.random()).astype(np.float32)
            purified = place.rubbish((batch * keep, pixels), np.float32)
            planes = place.rubbish((batch * keep * 2, 3, *crop[1:]), np.float32)
            out = Pictures(purified, planes, held_views, side, *crop, 0.75, -0.25)
            given = held_faces if gated else None
            lists = chosen_rows(weights, rows)
            if form == "listed" and lists is not None:
                gates = place.put(np.ascontiguousarray(weights[..., -1])) if gated else None
                parts = place.put(lists[0]), place.put(lists[1])
                place.queued.act_chosen(place.stream, basis, held_c, *parts, gates, given, out)
            else:
                place.queued.act_dense(place.stream, basis, held_c, place.put(weights), given, out)
            found = place.get(purified)
            want = reference.act(c, weights, mean, exact, faces).reshape(found.shape)
            near(f"act {precision} {form}", found, want, TOLERANCE / GREY * 4)
            same("planes", place.get(planes), _planes(found, side, views, crop, 0.75, -0.25))
        planes = place.rubbish((batch * 2, 3, *crop[1:]), np.float32)
        out = Pictures(None, planes, held_views, side, *crop, 0.5, 0.125)
        place.queued.recogniser_planes(place.stream, held_faces, out)
        same("recogniser_planes", place.get(planes), _planes(faces, side, views, crop, 0.5, 0.125))
