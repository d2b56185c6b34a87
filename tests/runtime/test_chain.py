from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle, open_bundle, write_manifest
from immunogate.errors import BundleError, UsageError
from immunogate.files import sha256_of_file
from immunogate.kernels.antibody import MODES
from immunogate.manifest import FileEntry
from immunogate.runtime.chain import antibody_settings, open_chain
from immunogate.runtime.clock import StageClock
from immunogate.structs import Pixels
from immunogate.views import VIEWS, seen


@pytest.fixture
def own_copy(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    return open_bundle(Path(shutil.copytree(tiny_bundle.folder, tmp_path / "copy")))


@pytest.fixture
def crops() -> Pixels:
    return np.random.default_rng(4).integers(0, 256, (3, 112, 112), dtype=np.uint8)


def test_a_mode_without_its_analyzer_is_wrong_use(make_tiny_bundle: Any, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "plain", analyzer=False)
    for mode in set(MODES) - {"fixed"}:
        with pytest.raises(UsageError, match=f"mode {mode} needs an analyzer") as caught:
            open_chain(bundle, mode=mode)
        assert "mode fixed" in caught.value.mend
    open_chain(bundle).close()


def test_an_unknown_mode_is_wrong_use(tiny_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="unknown mode 'best'"):
        open_chain(tiny_bundle, mode="best")


@pytest.mark.parametrize("name", ["basis.npz", "recogniser.onnx", "detector.onnx", "analyzer.onnx"])
@pytest.mark.parametrize("damage", ["one bit", "cut off", "longer", "missing"])
def test_every_file_is_verified_before_use(own_copy: Bundle, name: str, damage: str) -> None:
    path = own_copy.folder / name
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.write_bytes({"one bit": flipped, "cut off": data[:-9], "longer": data + b"x", "missing": b""}[damage])
    if damage == "missing":
        path.unlink()
    with pytest.raises(BundleError, match=name):
        open_chain(own_copy, mode="expected")


def test_files_that_are_not_used_are_not_read(own_copy: Bundle) -> None:
    (own_copy.folder / "analyzer.onnx").unlink()
    open_chain(own_copy, mode="fixed").close()


def test_another_number_of_eigenfaces_than_stated_is_refused(own_copy: Bundle) -> None:
    manifest = own_copy.manifest
    write_manifest(own_copy.folder, replace(manifest, purifier=replace(manifest.purifier, components=63)))
    with pytest.raises(BundleError, match="holds 64 eigenfaces, the manifest says 63"):
        open_chain(open_bundle(own_copy.folder))


def test_a_file_that_is_no_network_is_refused_by_name(own_copy: Bundle) -> None:
    path, manifest = own_copy.folder / "recogniser.onnx", own_copy.manifest
    path.write_bytes(b"this is no network")
    files = {**manifest.files, path.name: FileEntry(sha256_of_file(path), path.stat().st_size)}
    write_manifest(own_copy.folder, replace(manifest, files=files))
    with pytest.raises(BundleError, match=r"does not accept recogniser\.onnx"):
        open_chain(open_bundle(own_copy.folder))


@pytest.mark.parametrize(
    "options",
    [{"threads": 0}, {"threads": -1}, {"threads": 65}, {"longest_side": 31}, {"longest_side": 9000}, {"seed": -1}],
)
def test_numbers_out_of_range_are_wrong_use(tiny_bundle: Bundle, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        open_chain(tiny_bundle, **options)  # type: ignore[arg-type]


def test_settings_come_from_the_manifest_unless_asked_for(tiny_bundle: Bundle) -> None:
    entry = tiny_bundle.manifest.purifier
    stated = antibody_settings(entry)
    assert (stated.mode, stated.top_k, stated.clones, stated.keep, stated.seed) == ("fixed", 48, 32, 3, 11)
    asked = antibody_settings(entry, "select", 0)
    assert (asked.mode, asked.top_k, asked.clones, asked.keep, asked.seed) == ("select", 48, 32, 3, 0)


@pytest.mark.parametrize("mode", MODES)
def test_embeddings_are_those_of_the_crop_and_of_what_was_purified(
    tiny_bundle: Bundle, crops: Pixels, mode: str
) -> None:
    with open_chain(tiny_bundle, mode=mode) as chain:
        found = chain.recognise(crops, [1, 1, 1], [1, 2, 3])
        flat = crops.reshape(3, -1).astype(np.float32) / np.float32(127.5) - 1
        np.testing.assert_allclose(found.raw, chain.recogniser.embed(flat), atol=1e-6)
        for row in range(3):
            total = chain.recogniser.embed(found.faces[row]).sum(axis=0)
            np.testing.assert_allclose(found.purified[row], total / np.linalg.norm(total), atol=1e-5)
    assert found.faces.shape == (3, 3 if mode == "select" else 1, 12544)
    assert len(found.antibodies) == 3
    assert np.abs(found.raw - found.purified).max() > 1e-3


@pytest.mark.parametrize("mode", ["fixed", "select"])
def test_with_views_the_purified_embedding_is_the_mean_over_all_of_them(
    own_copy: Bundle, crops: Pixels, mode: str
) -> None:
    manifest = own_copy.manifest
    write_manifest(own_copy.folder, replace(manifest, recogniser=replace(manifest.recogniser, views=4)))
    with open_chain(open_bundle(own_copy.folder), mode=mode) as chain, open_chain(own_copy, mode=mode) as plain:
        found, before = (one.recognise(crops, [1, 1, 1], [1, 2, 3]) for one in (chain, plain))
        np.testing.assert_array_equal(found.faces, before.faces)
        np.testing.assert_allclose(found.raw, before.raw, atol=1e-6)
        for row in range(3):
            total = sum(chain.recogniser.embed(seen(found.faces[row], view)).sum(axis=0) for view in VIEWS[4])
            np.testing.assert_allclose(found.purified[row], total / np.linalg.norm(total), atol=1e-5)
    assert np.abs(found.purified - before.purified).max() > 1e-3


def test_the_time_of_each_stage_is_counted(tiny_bundle: Bundle, crops: Pixels) -> None:
    clock = StageClock()
    with open_chain(tiny_bundle) as chain:
        chain.recognise(crops, [0] * 3, [1, 2, 3], clock)
        once = dict(clock.spent_ms)
        chain.recognise(crops, [0] * 3, [1, 2, 3], clock)
    assert set(once) == {"purify", "recognise"}
    assert all(0 < once[name] < clock.spent_ms[name] for name in once)


def test_a_stage_that_raises_is_timed_too() -> None:
    clock = StageClock()
    with pytest.raises(KeyError), clock.stage("fails"):
        raise KeyError
    assert clock.spent_ms["fails"] > 0
