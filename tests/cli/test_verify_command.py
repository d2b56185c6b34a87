"""``immunogate verify`` passes what was exported, and fails what was changed, also where its hash was signed anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.basis import load_basis, save_basis, truncate
from immunogate.files import sha256_of_file
from immunogate.kernels.device import probe

Command = Callable[..., Any]

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytestmark = [pytest.mark.data, pytest.mark.torch]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch on one thread: on a busy machine its waiting threads cost more than they give here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bundle(journey: Any, tmp_path: Path) -> Any:
    return Path(shutil.copytree(journey.folder / "bundle", tmp_path / "bundle"))


@pytest.fixture
def verify(immunogate: Command, bundle: Any, journey: Any) -> Any:
    def run(*flags: Any) -> Any:
        return immunogate("verify", bundle, "--faces", journey.folder / "calibrate.npz", "--count", "4", *flags)

    return run


def _sign_anew(bundle: Any, name: str) -> Any:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"][name] = {"sha256": sha256_of_file(bundle / name), "bytes": (bundle / name).stat().st_size}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def _failed(done: Any) -> Any:
    assert done.status == 1, done.out
    assert "Traceback" not in done.err
    report = json.loads(done.out)
    assert report["passed"] is False
    return {check["output"] for check in report["checks"] if not check["passed"]}


def test_what_was_exported_passes(verify: Command) -> None:
    done = verify()
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1] == "verified"
    assert "FAILED" not in done.out
    report = json.loads(verify("--json").out)
    assert report["passed"] is True
    assert report["faces"] == 4
    if probe().version is None:
        assert "engines: not checked: no NVIDIA driver is installed" in done.out
        assert report["engines"]["checked"] is False
        assert "no NVIDIA driver" in report["engines"]["reason"]
    assert {check["output"] for check in report["checks"]} == {
        *("embedding of raw faces", "purified pixels", "embedding of purified faces", "score of a pair", "detector")
    }
    assert all(check["value"] != check["limit"] for check in report["checks"] if check["output"] != "detector")


def test_an_exchanged_detector_fails(verify: Command, bundle: Any) -> None:
    from onnx import numpy_helper

    path = bundle / "detector.onnx"
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.001), weight.name))
    onnx.save(model, path)
    _sign_anew(bundle, "detector.onnx")
    assert _failed(verify("--json")) == {"detector"}


@pytest.mark.parametrize("noise", [0.2, 0.005])
def test_a_recogniser_whose_weights_were_shaken_fails(verify: Command, bundle: Any, noise: float) -> None:
    from onnx import numpy_helper

    path = bundle / "recogniser.onnx"
    model = onnx.load(path)
    draw = np.random.default_rng(0)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.ndim == 4:
            shaken = values * (1 + noise * draw.standard_normal(values.shape)).astype(values.dtype)
            weight.CopyFrom(numpy_helper.from_array(shaken, weight.name))
    onnx.save(model, path)
    assert verify().status == 1, "the hash alone gives it away"
    _sign_anew(bundle, "recogniser.onnx")
    failed = _failed(verify("--json"))
    assert "embedding of raw faces" in failed


def _without_last(basis: Any) -> Any:
    return truncate(basis, basis.components - 50)


def _brighter(basis: Any) -> Any:
    from dataclasses import replace

    return replace(basis, mean=np.clip(basis.mean + 0.08, -1, 1).astype(np.float32))


def _mirrored(basis: Any) -> Any:
    from dataclasses import replace

    rows = basis.basis.reshape(-1, 112, 112)[:, :, ::-1].reshape(basis.components, -1)
    return replace(basis, basis=np.ascontiguousarray(rows))


@pytest.mark.parametrize("change", [_brighter, _mirrored])
def test_a_basis_that_was_altered_fails(verify: Command, bundle: Any, change: Any) -> None:
    save_basis(bundle / "basis.npz", change(load_basis(bundle / "basis.npz")), "float16")
    assert verify().status == 1, "the hash alone gives it away"
    _sign_anew(bundle, "basis.npz")
    assert "embedding of purified faces" in _failed(verify("--json"))


def test_eigenfaces_that_went_missing_are_refused(verify: Command, bundle: Any) -> None:
    save_basis(bundle / "basis.npz", _without_last(load_basis(bundle / "basis.npz")), "float16")
    _sign_anew(bundle, "basis.npz")
    verify().refused(1, "basis.npz holds 450 eigenfaces", "manifest says 500")


def test_a_setting_that_was_altered_fails(verify: Command, bundle: Any) -> None:
    """The twin follows the manifest, so a smaller top_k is another defence but no fault; another input size is one."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["recogniser"]["crop_left"] = 2
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert "embedding of raw faces" in _failed(verify("--json"))


def test_checkpoints_are_found_where_they_were_exported_and_asked_for_elsewhere(
    verify: Command, journey: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    verify().refused(2, "basis checkpoint", "basis.npz", "--basis PATH")
    named = ("--basis", journey.folder / "basis.npz", "--recogniser", journey.folder / "R.pt")
    assert verify(*named).status == 0


def test_another_checkpoint_than_the_exported_one_is_refused(verify: Command, journey: Any) -> None:
    verify("--recogniser", journey.folder / "basis.npz").refused(1, "is not the recogniser", "exported from")
    verify("--basis", journey.folder / "nowhere.npz").refused(2, "nowhere.npz", "No such file")


@pytest.mark.parametrize(("flags", "words"), [(("--count", "1"), ("--count", "at least 2")),
                                              (("--faces", "nowhere.npz"), ("nowhere.npz",))])  # fmt: skip
def test_wrong_use(verify: Command, flags: Any, words: Any) -> None:
    verify(*flags).refused(2, *words)


def test_without_faces_it_says_so(
    immunogate: Command, bundle: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMMUNOGATE_DATA", str(tmp_path / "nowhere"))
    immunogate("verify", bundle).refused(2, "real faces", "--faces")
