"""The files a bundle is made from, loaded and matched to each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto
from torch import nn

from immunogate.basis import Eigenbasis, load_basis, re_orthonormalise, truncate
from immunogate.errors import InputError, UsageError
from immunogate.export.description import READY, RecogniserDescription
from immunogate.export.onnx_recogniser import load_onnx_recogniser
from immunogate.files import sha256_of_file
from immunogate.networks.checkpoint import load_public_eigenbasis
from immunogate.networks.purifier import AntibodyNetwork, Purifier, load_purifier
from immunogate.networks.recognisers import AUTO, RecogniserSpec, load_recogniser
from immunogate.structs import PIXELS, expect_shape

PUBLIC_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".bin")
"""Of torch files; ``.tar`` for ``.pth.tar``."""

ONNX_SUFFIX = ".onnx"
DEFAULT_TOP_K = 1000
"""Held best under PGD at 8/255 with one threshold for all: benchmarks/results/verification.md."""


@dataclass(frozen=True, eq=False)
class Sources:
    """What was loaded.

    Attributes:
        basis: eigenfaces, sorted; as many as the purifier has outputs.
        recogniser: network.
        spec: its architecture.
        purifier: None for a bundle of mode fixed.
        hashes: SHA-256 and file name of each source, by role.
        graph: of a recogniser that came as ONNX, as the bundle takes it; None where torch makes it.
        description: of such a recogniser.
    """

    basis: Eigenbasis
    recogniser: nn.Module
    spec: RecogniserSpec
    purifier: AntibodyNetwork | None
    hashes: dict[str, dict[str, str]]
    graph: ModelProto | None = None
    description: RecogniserDescription | None = None


def load_sources(
    basis: Path,
    recogniser: Path,
    architecture: str = AUTO,
    purifier: Path | None = None,
    temperature: float | None = None,
    description: RecogniserDescription | None = None,
) -> Sources:
    """Load and check everything that is trained.

    Args:
        basis: ``basis.npz``, or the public eigenbasis (a torch file).
        recogniser: checkpoint, or an ONNX file.
        architecture: of the recogniser's checkpoint, by name, or found by its names and shapes.
        purifier: checkpoint in the public layout or this project's own, or None.
        temperature: of the purifier's memory, where the checkpoint does not say it; 1 by default.
        description: of a recogniser that is an ONNX file.

    Raises:
        UsageError: a file is not there, or an ONNX file has no description, or a checkpoint has one.
        InputError: a file is not what it should be, or basis and purifier do not go together.
    """
    network, spec, graph = _recogniser(recogniser, architecture, description)
    net = None if purifier is None else load_purifier(purifier, temperature)
    eigenbasis = _basis_for(basis, net)
    files = {"basis": basis, "recogniser": recogniser} | ({"purifier": purifier} if purifier else {})
    hashes = {role: {"file": path.name, "sha256": sha256_of_file(path)} for role, path in files.items()}
    return Sources(eigenbasis, network, spec, net, hashes, graph, description)


def _recogniser(
    path: Path, architecture: str, description: RecogniserDescription | None
) -> tuple[nn.Module, RecogniserSpec, ModelProto | None]:
    if path.suffix.lower() != ONNX_SUFFIX:
        if description is not None:
            raise UsageError(f"{path} is no ONNX file and needs no description", "Leave --recogniser-description out")
        return *load_recogniser(path, architecture), None
    if description is None:
        raise UsageError(
            f"{path} does not say how it is fed",
            f"Add --recogniser-description, one of {', '.join(READY)}, or a TOML file",
        )
    if architecture != AUTO and architecture != description.name:
        raise UsageError(f"{path} is an ONNX file and has no architecture by name", "Leave --recogniser-arch out")
    made = load_onnx_recogniser(path, description)
    mean, std = (description.mean, description.std) if description.is_plain else (0.0, 1.0)
    assert not isinstance(mean, list)  # `is_plain` says so
    assert not isinstance(std, list)
    sides = (description.height, description.width, description.crop_left)
    colour, source = description.colour, description.source
    build = partial(_same, made.module)
    spec = RecogniserSpec(description.name, build, *sides, mean, std, colour, made.embedding, source)
    return made.module, spec, made.graph


def _same(module: nn.Module) -> nn.Module:
    """An ONNX file's network can not be made anew with random weights."""
    return module


def _basis_for(path: Path, purifier: AntibodyNetwork | None) -> Eigenbasis:
    wanted = None if purifier is None else purifier.components
    if path.suffix in PUBLIC_SUFFIXES:
        return _public_basis(path, purifier)
    basis = load_basis(path)
    if wanted is None or wanted == basis.components:
        return basis
    if wanted > basis.components:
        raise InputError(
            f"the purifier states {wanted} probabilities and {path} holds {basis.components} eigenfaces",
            "Give the eigenbasis that the purifier was trained with",
        )
    return truncate(basis, wanted)


def _public_basis(path: Path, purifier: AntibodyNetwork | None) -> Eigenbasis:
    """The public file, sorted. Its own order is what a purifier was trained on, so the purifier is sorted with it."""
    components = None if purifier is None else purifier.components
    mean, rows, values = load_public_eigenbasis(path, components, stored_order=purifier is not None)
    order = np.argsort(-values, kind="stable")
    if isinstance(purifier, Purifier):
        _reorder(purifier, order)
    values = np.maximum(values[order], 0)
    try:
        expect_shape("avg_face", mean, (PIXELS,))
        basis = Eigenbasis(mean, np.ascontiguousarray(rows[order]), values, float(values.sum(dtype=np.float64)), 0)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return re_orthonormalise(basis)


def _reorder(purifier: Purifier, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> None:
    """Make output i of the purifier speak of the eigenface that now stands at i."""
    index = torch.from_numpy(order)
    state = purifier.pca_layer.state_dict()
    moved = {key: value[index] for key, value in state.items() if key.startswith("fc2.") and value.ndim > 0}
    purifier.pca_layer.load_state_dict({**state, **moved})


def check_top_k(top_k: int | None, basis: Eigenbasis) -> int:
    """How many eigenfaces mode fixed keeps: as asked, or the default.

    Raises:
        UsageError: more than there are, or fewer than one.
    """
    if top_k is None:
        return min(DEFAULT_TOP_K, basis.components)
    if not 1 <= top_k <= basis.components:
        raise UsageError(f"--top-k must be in 1 .. {basis.components} (the eigenfaces of the basis), got {top_k}")
    return top_k
