"""Aligned faces to answers on the fake device, whose kernels are the real ones, against the chain on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_device import short_of_memory

from immunogate.bundle import open_bundle
from immunogate.default_models import shipped_bundle
from immunogate.faces_file import faces_from_pixels
from immunogate.kernels.antibody import MODES, make_antibodies
from immunogate.kernels.device import Device
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.match import match
from immunogate.runtime.runners.base import Runner
from immunogate.structs import PIXELS, Pixels


def crops_of(count: int, seed: int = 4) -> Pixels:
    """Smooth ones, as faces are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 14, 14))
    return np.kron(coarse, np.ones((1, 8, 8))).astype(np.uint8)


def people(length: int, count: int = 5) -> Templates:
    vectors = np.random.default_rng(1).normal(size=(count, length)).astype(np.float32)
    return Templates([f"P{i}" for i in range(count)], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def cosines(one: Any, other: Any) -> Any:
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def check(made: Any, crops: Pixels, frames: list[int], numbers: list[int], known: Templates) -> Any:
    """Run both and compare all that they give; the path's answers."""
    path, settings = made.path, made.path.settings
    found, want = path.recognise(crops, frames, numbers), made.cpu.recognise(crops, frames, numbers)
    assert found.faults == [None] * len(crops)
    assert cosines(found.raw, want.raw).min() > 0.99999
    assert cosines(found.purified, want.purified).min() > 0.9999
    assert np.abs(np.linalg.norm(found.purified, axis=1) - 1).max() < 1e-6
    if want.spreads is None:
        assert found.spreads is None
    else:
        np.testing.assert_allclose(found.spreads, want.spreads, atol=1e-3)
    antibodies = found.antibodies(settings)
    np.testing.assert_allclose(found.pictures, want.faces, atol=2e-2 if settings.mode == "expected" else 1e-3)
    if settings.needs_probabilities:  # given the same p and c: the same bits
        p, faces = found.probabilities, faces_from_pixels(crops)
        c = made.cpu.purifier.kernels.project(faces)
        genes = c if p.shape[1] == c.shape[1] else made.cpu.purifier.kernels.spectrum(faces, c)
        exact = make_antibodies(settings, genes, p, made.cpu.purifier.key(frames, numbers), PIXELS)
        assert np.array_equal(antibodies.weights, exact.weights)
        assert np.array_equal(antibodies.winners, exact.winners) or exact.winners is None is antibodies.winners
        np.testing.assert_allclose(p, made.cpu.purifier.probabilities(faces), atol=1e-4)
    assert np.array_equal(found.sizes(), antibodies.sizes())
    assert (antibodies.mode, antibodies.seed, antibodies.clones) == (
        want.antibodies.mode,
        want.antibodies.seed,
        want.antibodies.clones,
    )
    for row, got in enumerate(found.matches):
        expected = match(known, want.purified[row])
        assert got.person == expected.person
        assert abs(got.similarity - expected.similarity) < 1e-4
        assert got.margin == expected.margin or abs(got.margin - expected.margin) < 1e-4
    return found


@pytest.mark.parametrize(
    ("calls", "mode"), [("lazy", mode) for mode in MODES] + [("eager", "select")], indirect=["calls"]
)
def test_every_mode_gives_what_the_cpu_gives(both: Any, mode: str) -> None:
    """First piece by piece, then from the graph, with other faces, fewer of them, and more than a bucket holds."""
    known = people(16)
    with both(mode, views=2, buckets=(1, 2)) as made:
        made.path.know(known)
        check(made, crops_of(2), [7, 8], [3, 2], known)
        assert made.path.bucket(2).is_captured
        check(made, crops_of(2, seed=5), [9, 2**32 + 1], [3, 4], known)
        check(made, crops_of(3, seed=6), [1, 2, 3], [5, 5, 5], known)


def test_nothing_is_allocated_once_each_bucket_was_used(both: Any, device: Any) -> None:
    with both("select", buckets=(1, 2)) as made:
        made.path.prepare()
        before, live = dict(device.made), dict(device.live)
        prepared = len(made.recogniser.prepared)
        for count in (1, 2, 3):
            made.path.recognise(crops_of(count), [0] * count, [1] * count)
        assert (device.made, device.live) == (before, live)
        assert len(made.recogniser.prepared) == prepared
        assert before["graph"] == 2


def test_padding_has_no_influence_and_is_not_given(both: Any) -> None:
    """Whatever an earlier batch, or a broken face, left in the rows behind."""
    with both("select", buckets=(4,)) as made:
        path = made.path
        first = path.recognise(crops_of(1), [5], [6])
        faces = path.bucket(4).faces
        for rubbish in (np.nan, np.inf, -3.0):
            faces.put(np.full((4, PIXELS), rubbish, np.float32), path.stream)
            again = path.recognise(crops_of(1), [5], [6])
            assert len(again) == len(again.matches) == len(again.faults) == 1
            for name in ("raw", "purified", "masks", "winners", "pictures", "probabilities"):
                assert np.array_equal(getattr(again, name), getattr(first, name)), name
        assert again.faults == [None]


@pytest.mark.parametrize("mode", ["fixed", "select"])
def test_a_broken_face_denies_only_itself(both: Any, mode: str) -> None:
    crops = crops_of(3)
    with both(mode, buckets=(3,)) as made:
        path, known = made.path, people(16)
        path.know(known)
        whole = path.recognise(crops, [1, 2, 3], [4, 5, 6])
        bucket = path.bucket(3)
        faces = faces_from_pixels(crops)
        faces[1, 5000] = np.nan
        bucket.faces.put(faces, path.stream)
        found = path.run(bucket, 3, [1, 2, 3], [4, 5, 6])
        assert [fault is None for fault in found.faults] == [True, False, True]
        assert np.isnan(found.purified[1]).all()
        assert np.isnan(found.raw[1]).all()
        assert (found.matches[1].person, found.matches[1].similarity) == (None, -1.0)
        for row in (0, 2):
            assert np.array_equal(found.purified[row], whole.purified[row])
            assert found.matches[row] == whole.matches[row]
        assert path.recognise(crops, [1, 2, 3], [4, 5, 6]).faults == [None] * 3  # the next batch has a clean slate


@pytest.mark.parametrize(
    ("mode", "value"), [("expected", np.nan), ("threshold", 1.0001), ("sample", -1e-9), ("select", np.inf)]
)
def test_what_is_no_probability_is_a_fault(both: Any, mode: str, value: float) -> None:
    with both(mode, buckets=(2,)) as made:
        run = made.analyzer._runner.run

        def broken(batch: Any) -> Any:
            p = run(batch)["probabilities"].copy()
            p[0, -1] = value
            return {"probabilities": p}

        made.analyzer._runner.run = broken
        found = made.path.recognise(crops_of(2), [0, 0], [1, 2])
        assert "probability" in str(found.faults[0])
        assert found.faults[1] is None


def test_an_embedding_that_is_not_finite_is_a_fault(both: Any) -> None:
    """Of a face as it came (the second row of the first run), and of a purified one."""
    with both("fixed", buckets=(3,)) as made:
        run, calls = made.recogniser._runner.run, []

        def broken(batch: Any) -> Any:
            rows = run(batch)["embedding"].copy()
            rows[1 if not calls else 0, 3] = np.inf if not calls else np.nan
            calls.append(len(batch))
            return {"embedding": rows}

        made.recogniser._runner.run = broken
        found = made.path.recognise(crops_of(3), [0] * 3, [1, 2, 3])
        assert calls[:2] == [5, 1]  # three faces and their purified selves, five rows a run
        assert found.faults[0] is None
        assert "embedding" in str(found.faults[1])
        assert "embedding" in str(found.faults[2])


class GatedAnalyzer(Runner):
    """Made up: reads the spectrum, and judges the remainder too; some of its gates are open and some are not."""

    name, input_name = "gated", "spectrum"

    def __init__(self, genes: int) -> None:
        self.output_names = ["probabilities"]
        self.input_shape: list[int | str] = ["batch", genes + 2]
        self.output_shapes: list[list[int | str]] = [["batch", genes + 1]]

    def run(self, batch: Any) -> dict[str, Any]:
        p = 1 / (1 + np.exp(-np.abs(batch[:, :-1]) / 8 + 1))
        p[:, -1] = np.array([0.5, 0.9, 0.1])[np.arange(len(batch)) % 3]  # so that its weight decides among clones
        return {"probabilities": p.astype(np.float32)}


@pytest.mark.parametrize("mode", ["expected", "select"])
def test_gated_antibodies_that_read_the_spectrum(both: Any, mode: str) -> None:
    known = people(16)
    with both(mode, views=4, analyzer=GatedAnalyzer(64), buckets=(3,)) as made:
        made.path.know(known)
        check(made, crops_of(3), [1, 2, 3], [4, 5, 6], known)


def test_a_network_that_can_not_be_captured_is_run_every_time(both: Any, device: Any) -> None:
    known = people(16)
    with both("expected", buckets=(2,)) as made:
        made.analyzer.capturable = False
        made.path.know(known)
        for seed in (1, 2):
            check(made, crops_of(2, seed=seed), [1, 2], [3, 4], known)
        assert not made.path.bucket(2).is_captured
        assert "graph" not in device.made


def test_people_may_change_and_may_be_none(both: Any, device: Device) -> None:
    crops, known = crops_of(1), people(16, 40)
    with both("fixed", buckets=(1,)) as made:
        nobody = made.path.recognise(crops, [0], [0]).matches[0]
        assert (nobody.person, nobody.similarity, nobody.margin) == (None, -1.0, np.inf)
        before = dict(device.made)
        for names in (known, Templates(known.names[:1], known.vectors[:1]), known):
            made.path.know(names)
            check(made, crops, [0], [0], names)
        assert device.made == before
        crowd = people(16, 300)  # more than there is room for
        made.path.know(crowd)
        check(made, crops, [0], [0], crowd)
        check(made, crops_of(1, seed=8), [0], [0], crowd)
        assert device.made["graph"] == before["graph"] + 1
        with pytest.raises(ValueError, match=r"templates: expected shape \(3, 16\)"):
            made.path.know(Templates(["a", "b", "c"], np.zeros((3, 15), np.float32)))


def test_on_a_device_that_shares_the_hosts_memory_nothing_is_copied(
    make_calls: Any, both: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, known = make_calls(integrated=True, lazy=True), people(16)
    with Device(calls, strict=True) as device, both("select", device=device, buckets=(2,)) as made:
        made.path.know(known)
        check(made, crops_of(2), [1, 2], [3, 4], known)

        def refuse(*_: Any) -> None:
            raise AssertionError("a copy")

        monkeypatch.setattr(calls, "to_host", refuse)
        monkeypatch.setattr(calls, "to_device", refuse)
        check(made, crops_of(2, seed=9), [1, 2], [3, 4], known)


def test_what_does_not_fit_is_refused(both: Any) -> None:
    with both("fixed", buckets=(1, 2)) as made:
        path = made.path
        with pytest.raises(ValueError, match="expected at least one, got none"):
            path.recognise(crops_of(1)[:0], [], [])
        with pytest.raises(ValueError, match=r"crops: expected shape \(None, 112, 112\)"):
            path.recognise(crops_of(1)[:, 1:], [0], [0])
        with pytest.raises(ValueError, match=r"numbers: expected shape \(2,\), got \(1,\)"):
            path.recognise(crops_of(2), [0, 0], [0])
        with pytest.raises(ValueError, match=r"expected 1 \.\. 2 at once, got 3"):
            path.bucket(3)


def test_the_bundle_that_ships(both: Any) -> None:
    """A thousand eigenfaces, four views, an analyzer that reads the spectrum; the graph follows its input."""
    folder = shipped_bundle()
    if not (folder / "manifest.json").is_file():
        pytest.skip("no bundle ships with this checkout")
    known = people(128)
    with both("expected", bundle=open_bundle(folder), buckets=(1,)) as made:
        made.path.know(known)
        for seed in (1, 2):
            check(made, crops_of(1, seed=seed), [seed], [3], known)


def test_where_memory_is_short_nothing_stays(both: Any, device: Device) -> None:
    """At any allocation of a path, and of a bucket."""
    with both("select", buckets=(1,)) as made:
        assert made.analyzer is not None
        given = made.kernels, made.path.settings, made.analyzer, made.recogniser, made.path._parts.entry

        def use() -> None:
            with FacePath(*given, details=True) as path:
                path.bucket(2)

        assert short_of_memory(device, use) > 25
