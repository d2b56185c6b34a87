"""What the command line's tests share: running a command in this process or another, and one whole journey."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.cli import main
from immunogate.faces_file import AlignedFaces
from immunogate.runtime.camera.capture import quieten

RECOGNISER = "models/mobilefacenet_casia_112x96.pt"
YUNET = "models/face_detection_yunet_2023mar.onnx"
CLIP_OF_ONE = "video/head-pose-face-detection-male.gif"
CLIP_OF_TWO = "video/head-pose-face-detection-female-and-male.gif"


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def refused(self, status: int, *words: str) -> None:
        """It failed with this status, said all these words in one line of its own, and showed no traceback."""
        assert self.status == status, self.err
        assert "Traceback" not in self.err
        last = self.err.splitlines()[-1]
        assert last.startswith("immunogate: "), self.err
        for word in words:
            assert word in last


Command = Callable[..., Done]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's cache out of it: export notes there where checkpoints lie."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def quiet_opencv() -> None:
    """As `immunogate` does it: FFmpeg asks once, at its first use, how loud it may be, and tests use it directly."""
    quieten()


@contextmanager
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def immunogate(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, which saves the start of another."""

    def run(*words: object) -> Done:
        capfd.readouterr()
        with _logging_as_before():
            try:
                status = main([str(word) for word in words])
            except SystemExit as exit_of_argparse:
                status = int(exit_of_argparse.code or 0)
        return Done(status, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def subprocess_of_immunogate() -> Command:
    """Run a command in a process of its own: ``run("inspect", folder, cwd=here)``."""

    def run(*words: object, **options: Any) -> Done:
        command = [sys.executable, "-m", "immunogate", *(str(word) for word in words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@dataclass(frozen=True)
class Journey:
    """A folder with ``fit.npz calibrate.npz R.pt yunet.onnx clip.gif faces/man/*.png basis.npz bundle g.db``."""

    folder: Path
    train: Done
    export: Done
    enroll: Done
    run: Done


@pytest.fixture(scope="session")
def journey(
    data_dir: Path,
    fit_and_kept_back: tuple[AlignedFaces, AlignedFaces],
    tmp_path_factory: pytest.TempPathFactory,
    subprocess_of_immunogate: Command,
) -> Journey:
    """The four commands that other people's scripts use, letter by letter, each in a process of its own."""
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    folder = tmp_path_factory.mktemp("journey")
    for name, faces in zip(("fit.npz", "calibrate.npz"), fit_and_kept_back, strict=True):
        assert faces.identities is not None
        np.savez(folder / name, images=faces.images, identities=faces.identities)
    for name, target in (("R.pt", RECOGNISER), ("yunet.onnx", YUNET), ("clip.gif", CLIP_OF_TWO)):
        (folder / name).symlink_to(data_dir / target)
    write_frames(data_dir / CLIP_OF_ONE, folder / "faces" / "man", range(0, 60, 10))

    def do(line: str) -> Done:
        return subprocess_of_immunogate(*line.split(), cwd=folder)

    return Journey(
        folder,
        do("train basis fit.npz --components 500 --out basis.npz"),
        do(
            "export --basis basis.npz --recogniser R.pt --recogniser-arch mobilefacenet --detector yunet.onnx "
            "--out bundle"
        ),
        do("enroll --bundle bundle --gallery g.db faces/"),
        do("run --bundle bundle --gallery g.db --source clip.gif --json"),
    )


def write_frames(clip: Path, folder: Path, chosen: range) -> None:
    """Some frames of a clip as PNG files, named by their number."""
    import cv2

    folder.mkdir(parents=True)
    capture = cv2.VideoCapture(str(clip))
    for index in range(chosen.stop):
        found, pixels = capture.read()
        assert found, f"{clip} has no frame {index}"
        if index in chosen:
            cv2.imwrite(str(folder / f"{index:02d}.png"), pixels)
    capture.release()


@pytest.fixture(scope="session")
def photos(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty photos of LFW in folders by person."""
    folder = tmp_path_factory.mktemp("photos")
    with zipfile.ZipFile(data_dir / "faces" / "lfw_dev_photos.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        archive.extractall(folder, names[:60])
    return folder


@pytest.fixture(scope="session")
def empty_gallery(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of the tiny bundle with one person who looks like nobody."""
    from immunogate.runtime.gallery import Gallery, Sample

    path = tmp_path_factory.mktemp("gallery") / "g.db"
    manifest = tiny_bundle.manifest
    size = manifest.recogniser.embedding_dimension
    with Gallery(path, manifest.embedding_hash(), size, create=True) as gallery:
        gallery.enroll([Sample("nobody", np.eye(1, size, dtype=np.float32)[0], "none.png", "0" * 64)])
    return path


@pytest.fixture
def gate(immunogate: Command, tiny_bundle: Bundle, empty_gallery: Path) -> Command:
    """``immunogate run`` with the tiny bundle; give the source and further flags."""

    def run(source: object, *flags: object) -> Done:
        return immunogate(
            *("run", "--bundle", tiny_bundle.folder, "--gallery", empty_gallery, "--source", source), *flags
        )

    return run


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make a file system of a given size, as ``mount -o size=`` says it; skips where that is not permitted."""
    mounted: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("a small file system can be mounted by root only")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
