"""A distilled recogniser, --recogniser FILE or the one that ships, beside its teacher: marks, speed, size.

Faces of people kept back, through ONNX Runtime as deployed. Accuracy is over as many genuine as impostor pairs, with a
threshold chosen on people of the other side, of whom neither network has learned; rates of true accepts are at the
threshold that one in a hundred, or in a thousand, of the kept-back impostor pairs pass. Nothing was chosen on these
people. The file holds weights (.pt) or the network (.onnx).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from assets import ALIGNED, ARCHITECTURE, RECOGNISER, SPLIT_SEED, TEST_SHARE, data, split_faces
from common import ROOT, Options, Target, finish, guarded, parse, say
from environment import environment
from pairs import cosines, empirical_threshold, genuine_pairs, impostor_pairs
from timing import compared

from immunogate.calib.intervals import wilson
from immunogate.errors import UsageError
from immunogate.faces_file import AlignedFaces, faces_from_pixels, identity_split
from immunogate.files import read_bytes, sha256_of_file
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import CROP_SIZE, Floats

NAME = "bench_recogniser"
SHIPPED = ROOT / "src" / "immunogate" / "models" / "default" / "recogniser.onnx"
STUDENT = "gateface"
CHOICE_SEED, CHOICE_SHARE = 2, 0.1
GENUINE, IMPOSTORS, SEED = 1000, 60_000, 0
RATES = (1e-2, 1e-3)
THREADS = (1, 2)
ROUNDS, QUICK_ROUNDS = 60, 6
LARGEST = 64 << 20
BATCH = 32


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--recogniser", type=Path, default=SHIPPED)
    given, rest = parser.parse_known_args(argv)
    options = parse(NAME, __doc__, rest)
    before = environment()
    models = {STUDENT: _content(given.recogniser, STUDENT), "teacher": _content(data() / RECOGNISER, ARCHITECTURE)}
    measured = {"setting": _setting(given.recogniser), **_verification(models, options)}
    measured["milliseconds"] = _speed(models, QUICK_ROUNDS if options.quick else ROUNDS)
    measured["size"] = {name: _size(arch) for name, arch in ((STUDENT, STUDENT), ("teacher", ARCHITECTURE))}
    return finish(NAME, options, before, measured, _targets(measured), _table(measured))


def _content(path: Path, architecture: str) -> bytes:
    """The network as ONNX with embeddings of unit length."""
    if not path.is_file():
        raise UsageError(f"there is no recogniser {path}", "Give gateface.pt or recogniser.onnx with --recogniser")
    if path.suffix == ".onnx":
        return read_bytes(path, LARGEST)
    from immunogate.export.onnx_graph import graph_of
    from immunogate.networks.recognisers import load_recogniser
    from immunogate.networks.twin import UnitEmbedding

    network, spec = load_recogniser(path, architecture)
    model: bytes = graph_of(
        UnitEmbedding(network), (3, spec.height, spec.width), "face", "embedding"
    ).SerializeToString()
    return model


def _verification(models: dict[str, bytes], options: Options) -> dict[str, Any]:
    """Marks on the people kept back."""
    fit, kept_back = split_faces()
    assert fit.identities is not None  # the development faces have them
    choice = fit.take(identity_split(fit.identities, CHOICE_SEED, CHOICE_SHARE)[1])
    if options.quick:
        assert kept_back.identities is not None
        kept_back = kept_back.take(np.isin(kept_back.identities, np.unique(kept_back.identities)[:60]))
    found, embedded = {}, {}
    for name, model in models.items():
        say(f"{name}: {len(kept_back)} faces")
        runner = OnnxRunner(model, name)
        embedded[name] = _embedded(runner, kept_back)
        limit = _chosen_threshold(_embedded(runner, choice), choice)
        found[name] = _marks(embedded[name], kept_back, limit, options)
    nearness = np.einsum("ij,ij->i", embedded[STUDENT], embedded["teacher"])
    return {
        "people": len(np.unique(kept_back.identities)),
        "faces": len(kept_back),
        "marks": found,
        "cosine_with_teacher": {
            "mean": round(float(nearness.mean()), 4),
            "p10": round(float(np.quantile(nearness, 0.1)), 4),
        },
    }


def _embedded(runner: OnnxRunner, faces: AlignedFaces) -> Floats:
    planes = _planes(faces.images)
    parts = [runner.run(planes[start : start + BATCH])["embedding"] for start in range(0, len(planes), BATCH)]
    return np.concatenate(parts)


def _planes(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Floats:
    """The input of student and teacher: columns 8 to 103, (v - 127.5) / 128, three equal planes."""
    crops = faces_from_pixels(images).reshape(-1, 1, CROP_SIZE, CROP_SIZE)[..., 8:104] * np.float32(127.5 / 128)
    return np.repeat(crops, 3, axis=1)


def _pairs_of(faces: AlignedFaces, embeddings: Floats, count: int, impostors: int) -> tuple[Floats, Floats]:
    """Cosines of genuine and of impostor pairs."""
    assert faces.identities is not None
    genuine = genuine_pairs(faces.identities, count, SEED)
    impostor = impostor_pairs(faces.identities, impostors, SEED)
    return cosines(embeddings, genuine), cosines(embeddings, impostor)


def _chosen_threshold(embeddings: Floats, faces: AlignedFaces) -> float:
    """The threshold with the most right answers over genuine and impostor pairs that weigh alike."""
    genuine, impostor = _pairs_of(faces, embeddings, GENUINE, 5000)
    limits = np.linspace(-0.2, 0.9, 1101)
    right = [np.mean(genuine >= limit) + np.mean(impostor < limit) for limit in limits]
    best = np.flatnonzero(np.array(right) >= max(right) - 1e-9)
    return float(limits[best].mean())


def _marks(embeddings: Floats, faces: AlignedFaces, limit: float, options: Options) -> dict[str, Any]:
    genuine, impostor = _pairs_of(faces, embeddings, GENUINE, 600 if options.quick else IMPOSTORS)
    draw = np.random.default_rng(SEED)
    balanced = impostor[draw.permutation(len(impostor))[: len(genuine)]]
    right = np.concatenate([genuine >= limit, balanced < limit])
    marks = {"threshold": round(limit, 4), "accuracy": _share(right), "genuine_pairs": len(genuine)}
    for rate in RATES:
        threshold = empirical_threshold(impostor, rate)
        marks[f"tar_at_{rate:g}"] = {**_share(genuine >= threshold), "threshold": round(threshold, 4)}
    return marks


def _share(hits: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    low, high = wilson(int(hits.sum()), len(hits))
    return {"rate": round(float(hits.mean()), 5), "low": round(low, 5), "high": round(high, 5), "of": len(hits)}


def _speed(models: dict[str, bytes], rounds: int) -> dict[str, Any]:
    """Of one face, by threads, the two networks in turns."""
    face = _planes(np.random.default_rng(0).integers(0, 256, (1, CROP_SIZE, CROP_SIZE), np.uint8))
    found = {}
    for threads in THREADS:
        runners = {name: OnnxRunner(model, name, threads) for name, model in models.items()}
        calls = {name: (lambda runner=runner: runner.run(face)) for name, runner in runners.items()}
        found[str(threads)] = {name: asdict(timing) for name, timing in compared(calls, rounds).items()}
    return found


def _size(architecture: str) -> dict[str, float]:
    """Weights and multiply-accumulates of one face in millions."""
    import torch
    from torch import nn

    from immunogate.networks.recognisers import recogniser_spec

    spec = recogniser_spec(architecture)
    network, counted = spec.build().eval(), []

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        counted.append(weight[0].numel() * output[0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, spec.height, spec.width))
    weights = sum(weight.numel() for weight in network.parameters())
    return {"parameters_millions": round(weights / 1e6, 3), "macs_millions": round(sum(counted) / 1e6, 1)}


def _setting(recogniser: Path) -> dict[str, str]:
    return {
        "data": f"{ALIGNED}, sha256 {sha256_of_file(data() / ALIGNED)}",
        "recogniser": f"{recogniser.name}, sha256 {sha256_of_file(recogniser)}",
        "teacher": f"{ARCHITECTURE}, {RECOGNISER}, sha256 {sha256_of_file(data() / RECOGNISER)}",
        "split": f"identity_split(seed {SPLIT_SEED}, fraction {TEST_SHARE}), its second side; the threshold of the "
        f"accuracy from identity_split(seed {CHOICE_SEED}, fraction {CHOICE_SHARE}) of its first side",
    }


def _targets(measured: dict[str, Any]) -> list[Target]:
    own, size, speed = measured["marks"][STUDENT], measured["size"], measured["milliseconds"]["1"]
    return [
        Target("pair accuracy", ">=", 0.95, own["accuracy"]["rate"], ""),
        Target("TAR at FMR 1e-2", ">=", 0.80, own["tar_at_0.01"]["rate"], ""),
        Target("parameters", "<=", 1.0, size[STUDENT]["parameters_millions"], "M"),
        Target("multiply-accumulates", "<=", size["teacher"]["macs_millions"], size[STUDENT]["macs_millions"], "M"),
        Target("one face, one thread", "<=", speed["teacher"]["median_ms"], speed[STUDENT]["median_ms"], "ms"),
    ]


def _table(measured: dict[str, Any]) -> str:
    lines = ["| | accuracy | TAR at FMR 1e-2 | TAR at FMR 1e-3 | ms, 1 thread | ms, 2 threads | M weights | M MACs |"]
    lines.append("|---" * 8 + "|")
    for name, marks in measured["marks"].items():
        shares = [marks[key] for key in ("accuracy", "tar_at_0.01", "tar_at_0.001")]
        cells = [f"{each['rate']:.3f} ({each['low']:.3f}..{each['high']:.3f})" for each in shares]
        cells += [f"{measured['milliseconds'][str(threads)][name]['median_ms']:.2f}" for threads in THREADS]
        cells += [f"{value:g}" for value in measured["size"][name].values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    near = measured["cosine_with_teacher"]
    lines.append(
        f"\n{measured['faces']} faces of {measured['people']} people, {marks['genuine_pairs']} genuine pairs; "
        f"mean cosine with the teacher {near['mean']:.3f}, a tenth below {near['p10']:.3f}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
