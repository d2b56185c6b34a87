"""Draws docs/chain.png: the chain, and one face through it. Run: make pictures.

The face is the astronaut Eileen Collins, a NASA portrait in the public domain that comes with scikit-image. Recogniser
and eigenfaces come from the development data (IMMUNOGATE_DATA or ../shared/data); nothing of it is in the picture.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from skimage.data import astronaut

from immunogate.basis import Eigenbasis, save_basis
from immunogate.export.assemble import ExportOptions, export_bundle
from immunogate.export.sources import load_sources
from immunogate.faces_file import faces_from_pixels, load_aligned_faces
from immunogate.files import find_data
from immunogate.networks.attacks import from_levels, pgd
from immunogate.networks.twin import TorchTwin
from immunogate.runtime.align import as_picture
from immunogate.runtime.chain import open_chain
from immunogate.structs import Floats, Pixels
from immunogate.training.eigenbasis import fit_eigenbasis

mpl.use("Agg")
from matplotlib import pyplot as plt

LEVELS = 8
STEPS = 40
TOP_K = 1000
STAGES = ("frame", "detect", "align", "purify", "recognise", "match", "decide")
OUT = Path(__file__).with_name("chain.png")


def main() -> int:
    """Attack, purify, draw."""
    data = find_data()
    if data is None:
        sys.stderr.write("the development data is not here: set IMMUNOGATE_DATA\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        twin, crop = _prepare(data, Path(folder))
    face = torch.from_numpy(faces_from_pixels(crop[None]))
    with torch.no_grad():
        clean = twin.embed(face)
    attacked = pgd(twin.embed, face, clean, from_levels(LEVELS), STEPS, seed=0)
    with torch.no_grad():
        purified = twin.purify(attacked)
        reference = twin.embed(twin.purify(face))
        raw = float((twin.embed(attacked) * clean).sum())
        mended = float((twin.embed(purified) * reference).sum())
    _draw(face.numpy()[0], attacked.numpy()[0], purified.numpy()[0], raw, mended)
    sys.stdout.write(f"{OUT}: similarity {raw:.2f} attacked, {mended:.2f} purified\n")
    return 0


def _prepare(data: Path, folder: Path) -> tuple[TorchTwin, Pixels]:
    """The twin of a bundle exported for the occasion, and the portrait's crop by that bundle's own detector."""
    basis: Eigenbasis = fit_eigenbasis(load_aligned_faces(data / "faces/lfw_dev_aligned_112.npz").images, 1500)
    save_basis(folder / "basis.npz", basis)
    recogniser = data / "models/mobilefacenet_casia_112x96.pt"
    sources = load_sources(folder / "basis.npz", recogniser, "mobilefacenet")
    detector = data / "models/face_detection_yunet_2023mar.onnx"
    bundle = export_bundle(sources, detector, folder / "bundle", ExportOptions(top_k=TOP_K))
    portrait = np.ascontiguousarray(astronaut()[:, :, ::-1])
    with open_chain(bundle) as chain:
        faces = chain.detector.detect(portrait)
        crop, _ = chain.crop(portrait, faces.landmarks[faces.largest()])
    return TorchTwin(sources.recogniser, sources.spec, sources.basis, "fixed", TOP_K), crop


def _draw(face: Floats, attacked: Floats, purified: Floats, raw: float, mended: float) -> None:
    figure = plt.figure(figsize=(11, 4.4), layout="constrained")
    rows = figure.subfigures(2, 1, height_ratios=(1, 4.2))
    _draw_chain(rows[0])
    noise = np.clip(127.5 + 10 * 127.5 * (attacked - face), 0, 255).reshape(112, 112)
    panels = (
        ("as it is", as_picture(face), ""),
        (f"noise of at most {LEVELS}/255, x10", noise, ""),
        ("as the camera sees it", as_picture(attacked), f"similarity to herself {raw:.2f}"),
        (f"purified: {TOP_K} eigenfaces", as_picture(purified), f"similarity to herself {mended:.2f}"),
    )
    for axes, (title, picture, words) in zip(rows[1].subplots(1, len(panels)), panels, strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel(words, fontsize=11)
        axes.set(xticks=[], yticks=[])
    figure.savefig(OUT, dpi=100)


def _draw_chain(row: Any) -> None:
    axes = row.subplots()
    axes.set(xlim=(-0.5, len(STAGES) - 0.5), ylim=(-0.5, 0.5))
    axes.set_axis_off()
    for place, stage in enumerate(STAGES):
        ours = stage == "purify"
        box = {"boxstyle": "round,pad=0.5", "fc": "#b5402a" if ours else "#eef1f4", "ec": "none"}
        axes.text(
            place, 0, stage, ha="center", va="center", fontsize=13, color="white" if ours else "#26323d", bbox=box
        )
        if place:
            arrow = {"arrowstyle": "->", "color": "#7c8894", "lw": 1.5}
            axes.annotate("", (place - 0.36, 0), (place - 0.64, 0), arrowprops=arrow)


if __name__ == "__main__":
    sys.exit(main())
