"""``immunogate export``: what it writes, what it refuses, and that it leaves nothing half done."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.basis import Eigenbasis, save_basis

Command = Callable[..., Any]

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = [pytest.mark.data, pytest.mark.torch]

SMALL = 12
"""Eigenfaces of the basis used where its quality is of no matter."""


@pytest.fixture(scope="module")
def small_basis(tmp_path_factory: pytest.TempPathFactory) -> Any:
    draw = np.random.default_rng(2)
    rows = np.linalg.qr(draw.standard_normal((112 * 112, SMALL)))[0].T.astype(np.float32)
    values = np.linspace(9, 1, SMALL).astype(np.float32)
    path = tmp_path_factory.mktemp("basis") / "basis.npz"
    save_basis(path, Eigenbasis(np.zeros(112 * 112, np.float32), np.ascontiguousarray(rows), values, 60.0, 50))
    return path


@pytest.fixture
def parts(small_basis: Path, data_dir: Path, tmp_path: Path) -> Any:
    """The flags of a right export into ``tmp_path / "bundle"``, to be changed one at a time."""
    return {
        "--basis": small_basis,
        "--recogniser": data_dir / "models/mobilefacenet_casia_112x96.pt",
        "--recogniser-arch": "mobilefacenet",
        "--detector": data_dir / "models/face_detection_yunet_2023mar.onnx",
        "--out": tmp_path / "bundle",
    }


@pytest.fixture(scope="module")
def graphs() -> Any:
    return {}


@pytest.fixture
def export(immunogate: Command, parts: Any, graphs: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Export in this process. The recogniser is turned into a graph only once: seconds, and the same every time."""
    from immunogate.export import assemble

    real = vars(assemble)["graph_of"]

    def graph_of(*arguments: Any) -> Any:
        if arguments[1:] not in graphs:
            graphs[arguments[1:]] = real(*arguments)
        return copy.deepcopy(graphs[arguments[1:]])

    monkeypatch.setattr(assemble, "graph_of", graph_of)

    def run(*flags: Any, **changed: Any) -> Any:
        chosen = parts | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
        return immunogate("export", *(word for pair in chosen.items() for word in pair), *flags)

    return run


@pytest.fixture
def weights(parts: Any) -> Any:
    return torch.load(parts["--recogniser"], weights_only=True)


def _left_behind(folder: Path) -> Any:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_json_says_what_was_made(export: Command, parts: Any) -> None:
    done = export("--json", "--license", "mine alone", "--top-k", "7", "--precision", "fp16")
    report = json.loads(done.out)
    manifest = json.loads((parts["--out"] / "manifest.json").read_text(encoding="utf-8"))
    assert report["model_id"] == manifest["model_id"]
    assert report["opset"] == 18
    assert (report["recogniser"], report["detector"]) == ("mobilefacenet", "yunet")
    assert "mobilefacenet, of Xiaoccer/MobileFaceNet_Pytorch (all names and shapes agree)" in done.err
    assert report["bytes"] == sum(path.stat().st_size for path in parts["--out"].iterdir() if path.suffix != ".json")
    assert manifest["license"] == "mine alone"
    assert manifest["purifier"]["top_k"] == 7
    assert manifest["recogniser"]["precision"] == "fp16"
    assert manifest["calibration"] is None  # nobody knows a threshold for seven eigenfaces
    assert "no threshold is known" in done.err
    assert "immunogate calibrate threshold" in done.err
    assert _left_behind(parts["--out"].parent) == []


def test_what_stands_at_the_destination_is_replaced_only_when_asked(
    export: Command, parts: Any, tmp_path: Path
) -> None:
    assert export().status == 0
    first = (parts["--out"] / "manifest.json").read_bytes()
    export("--top-k", "3").refused(2, "already exists", "--overwrite")
    assert (parts["--out"] / "manifest.json").read_bytes() == first
    (parts["--out"] / "old.txt").write_text("of the old bundle")
    assert export("--top-k", "3", "--overwrite").status == 0
    assert json.loads((parts["--out"] / "manifest.json").read_text(encoding="utf-8"))["purifier"]["top_k"] == 3
    assert not (parts["--out"] / "old.txt").exists()
    link = tmp_path / "link"
    link.symlink_to(parts["--out"])
    assert export("--overwrite", out=link).status == 0
    assert (parts["--out"] / "manifest.json").is_file(), "what a link points to is not touched"
    assert _left_behind(tmp_path) == []


def test_a_folder_that_is_no_bundle_is_never_replaced(export: Command, tmp_path: Path) -> None:
    precious = tmp_path / "photos" / "only copy.jpg"
    precious.parent.mkdir()
    precious.write_bytes(b"precious")
    for flags in ((), ("--overwrite",)):
        export(*flags, out=precious.parent).refused(2, "is no bundle", "another name")
        export(*flags, out=precious).refused(2, "is no bundle")
    assert precious.read_bytes() == b"precious"


def test_an_empty_folder_will_do(export: Command, parts: Any) -> None:
    parts["--out"].mkdir()
    assert export().status == 0
    assert (parts["--out"] / "manifest.json").is_file()


def test_the_old_bundle_stays_where_a_new_one_can_not_be_moved_in(
    export: Command, parts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert export().status == 0
    before = (parts["--out"] / "manifest.json").read_bytes()
    real = Path.replace

    def broken(self: Path, target: Any) -> Any:
        if Path(target) == parts["--out"] and ".old." not in self.name:
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", broken)
    export("--overwrite", "--top-k", "3").refused(2, "Input/output error")
    assert (parts["--out"] / "manifest.json").read_bytes() == before
    assert _left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"recogniser_arch": "resnet"}, ("'resnet'", "mobilefacenet", "irse50")),
        ({"recogniser_arch": "irse50"}, ("irse50", "does not fit", "--recogniser-arch mobilefacenet")),
        ({"basis": "nowhere.npz"}, ("nowhere.npz", "No such file")),
        ({"basis": "nowhere.pth"}, ("nowhere.pth", "No such file")),
        ({"recogniser": "nowhere.pt"}, ("nowhere.pt", "No such file")),
        ({"detector": "nowhere.onnx"}, ("nowhere.onnx", "face_detection_yunet")),
        ({"purifier": "nowhere.pt"}, ("nowhere.pt", "No such file")),
        ({"calibrate": "nowhere.npz"}, ("nowhere.npz", "No such file")),
        ({"mode": "bogus"}, ("unknown mode 'bogus'", "expected")),
        ({"mode": "expected"}, ("mode expected needs a purifier", "--purifier")),
        ({"top_k": SMALL + 1}, ("--top-k", f"1 .. {SMALL}")),
        ({"top_k": 0}, ("--top-k",)),
        ({"clones": 0}, ("clones",)),
        ({"keep": 65}, ("keep",)),
        ({"seed": -1}, ("seed",)),
        ({"out": "/proc/bundle"}, ("/proc/bundle", "can not be written")),
        ({"out": "/dev/null/bundle"}, ("/dev/null/bundle", "can not be written")),
    ],
)
def test_a_wrong_part_is_named(export: Command, parts: Any, tmp_path: Path, changed: Any, words: Any) -> None:
    done = export(**changed)
    done.refused(2, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_calibration_file_is_refused_before_the_work(export: Command, parts: Any, tmp_path: Path) -> None:
    faces = tmp_path / "faces.npz"
    np.savez(faces, images=np.zeros((4, 112, 112), np.uint8))
    export(calibrate=faces).refused(2, str(faces), "identities")
    assert not parts["--out"].exists()


def test_files_swapped_for_each_other_are_told_apart(export: Command, parts: Any) -> None:
    export(basis=parts["--detector"]).refused(2, str(parts["--detector"]))
    export(recogniser=parts["--basis"]).refused(2, str(parts["--basis"]))
    export(detector=parts["--basis"]).refused(2, str(parts["--basis"]), "ONNX")
    assert not parts["--out"].exists()


def test_a_checkpoint_with_other_names_lists_them(export: Command, tmp_path: Path, weights: Any) -> None:
    path = tmp_path / "renamed.pt"
    torch.save({f"critic.{key}": value for key, value in weights.items()}, path)
    export(recogniser=path).refused(2, str(path), "missing in the checkpoint", "unknown to the architecture", "conv1")


def test_a_checkpoint_of_other_shapes_says_both(export: Command, tmp_path: Path, weights: Any) -> None:
    path = tmp_path / "wide.pt"
    torch.save(weights | {"linear1.conv.weight": torch.zeros(512, 512, 1, 1)}, path)
    export(recogniser=path).refused(2, "linear1.conv.weight", "(512, 512, 1, 1)", "(128, 512, 1, 1)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(export: Command, parts: Any, tmp_path: Path, weights: Any, value: float) -> None:
    path = tmp_path / "diverged.pt"
    weights["conv1.conv.weight"][3, 1, 1, 1] = value
    torch.save(weights, path)
    export(recogniser=path).refused(2, str(path), "conv1.conv.weight", "not finite")
    assert not parts["--out"].exists()


class _Malice:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("role", ["recogniser", "purifier", "basis"])
@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_checkpoint_that_runs_code_is_not_opened(export: Command, tmp_path: Path, role: str, container: str) -> None:
    harm, path = tmp_path / "harm", tmp_path / "nice.pth"
    if container == "torch":
        torch.save({"conv1.conv.weight": _Malice(harm)}, path)
    else:
        path.write_bytes(pickle.dumps(_Malice(harm)))
    export(**{role: path}).refused(2, str(path), "runs code on loading")
    assert not harm.exists()
    pickle.loads(path.read_bytes()) if container == "pickle" else torch.load(path, weights_only=False)
    assert harm.exists(), "the file does run code where it is opened carelessly"


def test_a_basis_with_pickled_objects_is_not_opened(export: Command, tmp_path: Path) -> None:
    harm, path = tmp_path / "harm", tmp_path / "basis.npz"
    np.savez(path, mean=np.array([_Malice(harm)], object))
    export(basis=path).refused(2, str(path))
    assert not harm.exists()


def test_a_full_disk_leaves_nothing_behind(export: Command, tmpfs: Command) -> None:
    disk = tmpfs("1m")
    export(out=disk / "bundle").refused(2, str(disk / "bundle"), "No space left")
    assert list(disk.iterdir()) == []


def test_a_full_disk_keeps_the_bundle_that_stood_there(export: Command, parts: Any, tmpfs: Command) -> None:
    assert export().status == 0
    size = sum(path.stat().st_size for path in parts["--out"].iterdir())
    disk = tmpfs(f"{size + (1 << 20)}")
    shutil.copytree(parts["--out"], disk / "bundle")
    before = {path.name: path.read_bytes() for path in (disk / "bundle").iterdir()}
    export("--overwrite", "--top-k", "3", out=disk / "bundle").refused(2, "No space left")
    assert {path.name: path.read_bytes() for path in (disk / "bundle").iterdir()} == before
    assert _left_behind(disk) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_no_half_bundle(parts: Any, tmp_path: Path, number: signal.Signals) -> None:
    words = [str(word) for pair in parts.items() for word in pair]
    command = [sys.executable, "-m", "immunogate", "export", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not _left_behind(tmp_path) and time.monotonic() < deadline:  # the folder it writes into
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert list(tmp_path.iterdir()) == []
