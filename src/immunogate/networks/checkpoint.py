"""Checkpoints, read without running a line of their code and fitted to an architecture without a guess."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from immunogate.errors import CheckpointError, UsageError
from immunogate.networks.wrapping import holder_of, unwrapped, without_prefixes

logger = logging.getLogger(__name__)

State = dict[str, Tensor]

LISTED = 8
"""Keys named in one list of an error; the rest are counted."""

_COUNTER = ".num_batches_tracked"
_PLAIN = "Save the state dict of the network with torch.save and give that file."
_PROGRAM = (
    "Make ONNX of it where it was made, torch.onnx.export(program, dynamo=True, opset_version=18).save('model.onnx'), "
    "and give that file with --recogniser-description."
)
_WHOLE = (
    "Save its weights where it was made, torch.save(torch.jit.load('model.pt').state_dict(), 'weights.pt'), and give "
    "that file."
)


def read_torch_file(path: Path) -> object:
    """What a torch file holds, read on the CPU with ``weights_only``: tensors and plain containers, never code.

    Raises:
        UsageError: the file is not there or can not be read.
        CheckpointError: the file is no torch file, is damaged, or would run code when loaded.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(1)
        _refuse_programs(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles in words of its own, then refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path} can not be read: {error.strerror or error}", "Check the path.") from error
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise _refusal(path, start, str(error)) from error
    except Exception as error:
        # A damaged file makes torch fail in a dozen ways, and all of them are the file's fault.
        why = type(error).__name__
        raise CheckpointError(f"{path} is no torch file, or a damaged one ({why})", _PLAIN) from error


def _refuse_programs(path: Path) -> None:
    """Two kinds of torch archives hold more than weights, and torch would run them or unpickle without a fence.

    `torch.export.load` falls back to an unrestricted pickle for sample inputs and constants, and evaluates the shape
    expressions of the graph as Python (torch 2.13), so that a program of unknown origin can do anything.

    Raises:
        CheckpointError: it is a program of torch.export or of TorchScript.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inside = [name.partition("/")[2] for name in names]
    newer = any(name.startswith("models/") and name.endswith(".json") for name in inside)
    if newer or "serialized_exported_program.json" in names:
        raise CheckpointError(f"{path} is refused: a program of torch.export runs code on loading", _PROGRAM)
    if any(name.startswith("code/") for name in inside):
        raise CheckpointError(f"{path} is refused: a TorchScript program holds code beside its weights", _WHOLE)


def _refusal(path: Path, start: bytes, reason: str) -> CheckpointError:
    refused = f"{path} is refused: a file that runs code on loading is not opened"
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    if named:
        return CheckpointError(f"{refused}, and it asks for {named[1]}", _PLAIN)
    if start == pickle.PROTO:
        return CheckpointError(f"{refused}, and it is a pickle of more than weights", _PLAIN)
    return CheckpointError(f"{path} is no torch file", _PLAIN)


def read_sections(path: Path, names: Collection[str], mend: str) -> dict[str, Any]:
    """The entries ``names`` of a torch file that holds a dict; other entries are left aside.

    They stand at the top, in a container such as ``state_dict``, or flat as ``<name>.<key>``: see
    `immunogate.networks.wrapping.holder_of`.

    Raises:
        UsageError: the file is not there or can not be read.
        CheckpointError: the file is refused (see `read_torch_file`), holds no dict, or lacks an entry.
    """
    content = holder_of(read_torch_file(path), names)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {_kind(content)} where a dict was expected", mend)
    missing = [name for name in names if name not in content]
    if missing:
        raise CheckpointError(
            f"{path} lacks {_some(missing)}; it holds {_some(str(key) for key in content)}",
            mend,
        )
    return {name: content[name] for name in names}


def load_state(path: Path) -> State:
    """The state dict a torch file holds, checked by `state_of`; a training checkpoint's optimiser is left aside.

    Raises:
        UsageError: the file is not there or can not be read.
        CheckpointError: see `read_torch_file` and `state_of`.
    """
    return state_of(unwrapped(read_torch_file(path), str(path)), str(path))


def state_of(content: object, what: str) -> State:
    """``content`` as a state dict: names to plain real tensors, all finite, without prefixes of wrappers.

    Args:
        content: what was read from a file.
        what: names it in errors.

    Raises:
        CheckpointError: it is no dict of tensors, or a tensor holds NaN or infinity; the keys are listed.
    """
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{what} holds {_kind(content)} where a state dict was expected", _PLAIN)
    strangers = [str(key) for key, value in content.items() if not _is_weight(key, value)]
    if strangers:
        raise CheckpointError(
            f"{what} is no state dict: these entries are no plain real tensors: {_some(strangers)}", _PLAIN
        )
    broken = [key for key, value in content.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(
            f"{what} holds values that are not finite (NaN or infinity) in {_some(broken)}",
            "Its training has diverged or the file is damaged: take an earlier checkpoint.",
        )
    return without_prefixes(dict(content))


def _is_weight(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_complex())
    )


def misfits(module: nn.Module, state: State) -> list[str]:
    """What keeps ``state`` from being the weights of ``module``, as phrases; empty where it fits exactly.

    The counters ``num_batches_tracked``, which torch before 0.4.1 did not write, may be absent.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(_COUNTER)]
    unknown = [key for key in state if key not in own]
    shapes = [
        f"{key}: checkpoint {tuple(value.shape)}, architecture {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    lists = (
        ("missing in the checkpoint", missing),
        ("unknown to the architecture", unknown),
        ("of another shape", shapes),
    )
    return [f"{len(keys)} {title}: {_some(keys)}" for title, keys in lists if keys]


def fit_state(module: nn.Module, state: State, what: str, suggest: Callable[[State], str] | None = None) -> None:
    """Load ``state`` into ``module`` if every key and shape agrees, else change nothing.

    Args:
        module: the architecture.
        state: the weights, from `load_state` or `state_of`.
        what: names file and architecture in the error, for example "r50.pt as irse50".
        suggest: makes the error's remedy from the state; asked only when it does not fit.

    Raises:
        CheckpointError: keys or shapes disagree; up to eight of each kind are listed.
    """
    problems = misfits(module, state)
    if problems:
        mend = suggest(state) if suggest else "Give a checkpoint of this architecture."
        raise CheckpointError(f"{what} does not fit: {'; '.join(problems)}", mend)
    counters = {key: value for key, value in module.state_dict().items() if key.endswith(_COUNTER)}
    module.load_state_dict({**counters, **state}, strict=True)


def load_public_eigenbasis(
    path: Path, components: int | None = None, *, stored_order: bool = False
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean face, eigenfaces and eigenvalues of a public eigenbasis file.

    The public code fitted it by ``torch.eig``, which does not sort, and gave its purifier the first columns as they
    stood. Output i of a purifier trained so belongs to stored column i, whatever its eigenvalue.

    Args:
        path: a torch file that holds a dict with ``eig_vec`` (D, N), one eigenface a column, ``avg_face`` (D,) and
            ``eig_val`` (N,), or (N, 2) for real and imaginary parts. D pixels, row by row, in [-1, 1].
        components: n, how many eigenfaces to return; all by default.
        stored_order: the first n columns as they stand, for a purifier that was trained on them so; else the n of
            the largest eigenvalues, descending.

    Returns:
        mean (D,), basis (n, D) with one eigenface a row, eigenvalues (n,); float32.

    Raises:
        UsageError: the file is not there, or ``components`` is out of range.
        CheckpointError: an entry is missing, of a wrong shape, not finite, or the chosen eigenvalues are complex.
    """
    mend = "Give the file with eig_vec, avg_face and eig_val that fitting the eigenfaces wrote."
    names = ("eig_vec", "avg_face", "eig_val")
    parts = state_of(read_sections(path, names, mend), str(path))
    vectors, mean, values = (parts[name].to(torch.float32) for name in names)
    _check_eigenbasis(path, vectors, mean, values)
    real = values[:, 0] if values.ndim == 2 else values
    count = len(real) if components is None else components
    if not 1 <= count <= len(real):
        raise UsageError(f"{path} holds {len(real)} eigenfaces, {count} were asked for", f"Ask for 1 to {len(real)}.")
    order = torch.arange(len(real)) if stored_order else torch.argsort(real, descending=True, stable=True)
    chosen = order[:count]
    if values.ndim == 2 and bool(values[chosen, 1].any()):
        raise CheckpointError(f"{path} has complex eigenvalues among the first {count}", "Ask for fewer eigenfaces.")
    if not torch.equal(chosen, torch.arange(count)):
        logger.warning("%s is not stored by descending eigenvalue: its columns were reordered", path)
    return mean.numpy(), vectors[:, chosen].T.contiguous().numpy(), real[chosen].numpy()


def _check_eigenbasis(path: Path, vectors: Tensor, mean: Tensor, values: Tensor) -> None:
    consistent = (
        vectors.ndim == 2
        and mean.shape == vectors.shape[:1]
        and values.shape in (vectors.shape[1:], (vectors.shape[1], 2))
    )
    if not consistent:
        raise CheckpointError(
            f"{path} is no eigenbasis: eig_vec {tuple(vectors.shape)}, avg_face {tuple(mean.shape)} and "
            f"eig_val {tuple(values.shape)} do not go together",
            "Expected (D, N), (D,) and (N,) or (N, 2).",
        )


def _some(names: Iterable[str]) -> str:
    every = list(names)
    rest = f" ... and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + rest


def _kind(content: object) -> str:
    return "an empty dict" if content == {} else f"a {type(content).__name__}"
