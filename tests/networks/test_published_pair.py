"""The published method's own two files, a purifier and its eigenbasis, in the forms that people have them in."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.errors import CheckpointError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.checkpoint import load_public_eigenbasis, load_state  # noqa: E402 - needs torch
from immunogate.networks.purifier import Purifier, load_purifier  # noqa: E402 - needs torch

Wrap = Callable[[Any], Any]


def parallel(parts: Any) -> Any:
    return {name: {f"module.{key}": value for key, value in part.items()} for name, part in parts.items()}


def flat(parts: Any) -> Any:
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}


OPTIMISER = {"param_groups": [{"lr": 0.01, "momentum": 0.9, "params": [0, 1]}], "state": {0: torch.ones(3)}}
FORMS: dict[str, Wrap] = {
    "as the public code saves": lambda parts: {"optimizer": OPTIMISER, **parts, "epoches": 4},
    "DataParallel": parallel,
    "in state_dict": lambda parts: {"state_dict": parts, "optimizer": OPTIMISER},
    "in model, DataParallel": lambda parts: {"epoch": 3, "model": parallel(parts)},
    "flat": flat,
    "flat, in state_dict, DataParallel": lambda parts: {
        "state_dict": {f"module.{key}": value for key, value in flat(parts).items()}
    },
    "float16": lambda parts: {n: {key: value.half() for key, value in part.items()} for n, part in parts.items()},
}


@pytest.fixture
def parts(thin_state: Any) -> Any:
    return {name: thin_state(name) for name in ("encoder", "pca_layer")}


@pytest.fixture(autouse=True)
def no_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers that are overwritten at once would take most of the time."""
    for name in ("kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *rest, **more: tensor)


@pytest.mark.parametrize("form", FORMS)
def test_the_purifier_loads_in_every_form(form: str, parts: Any, tmp_path: Path) -> None:
    torch.save(FORMS[form](parts), tmp_path / "PCAselect.pth")
    purifier = load_purifier(tmp_path / "PCAselect.pth")
    assert isinstance(purifier, Purifier)
    assert purifier.components == 40
    for part, module in (("encoder", purifier.encoder), ("pca_layer", purifier.pca_layer)):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, parts[part][key].to(value.dtype), atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda parts: {"encoder": parts["encoder"]}, r"lacks pca_layer; it holds encoder"),
        (lambda parts: {"state_dict": {"encoder": parts["encoder"]}}, r"lacks encoder, pca_layer; it holds state_dict"),
        (lambda parts: {**parts, "encoder": {}}, r"\(encoder\) holds an empty dict"),
        (lambda parts: {"encoder": parts["pca_layer"], "pca_layer": parts["encoder"]}, r"no matrix fc2\.0\.weight"),
        (lambda parts: {**parts, "encoder": {**parts["encoder"], "block9.conv1.weight": torch.ones(1)}},
         r"\(encoder\) as an antigen analyzer does not fit: 1 unknown to the architecture: block9"),
        (lambda parts: [parts], r"holds a list where a dict was expected"),
    ],
    ids=["half", "half, nested", "empty", "swapped", "of another architecture", "list"],
)  # fmt: skip
def test_what_is_no_purifier_is_refused_in_words(damage: Wrap, words: str, parts: Any, tmp_path: Path) -> None:
    torch.save(damage(parts), tmp_path / "PCAselect.pth")
    with pytest.raises(CheckpointError, match=words):
        load_purifier(tmp_path / "PCAselect.pth")


@pytest.fixture
def eigen() -> Any:
    """As the public code saves it: eigenvalues with an imaginary part, columns unsorted."""
    vectors = torch.linalg.qr(torch.randn(48, 7, generator=torch.Generator().manual_seed(1)))[0]
    values = torch.tensor([3.0, 9.0, 1.0, 7.0, 5.0, 2.0, 4.0])
    return {"eig_val": torch.stack([values, torch.zeros(7)], 1), "eig_vec": vectors, "avg_face": torch.zeros(48)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda eigen: eigen | {"comment": "fitted on 1000 faces"},
        lambda eigen: {"state_dict": eigen},
        lambda eigen: {"model": eigen, "epoch": 1},
        lambda eigen: {key: value.half() for key, value in eigen.items()},
        lambda eigen: {key: value.double() for key, value in eigen.items()},
    ],
    ids=["with more", "in state_dict", "in model", "float16", "float64"],
)
def test_the_eigenbasis_loads_in_every_form(wrap: Wrap, eigen: Any, tmp_path: Path) -> None:
    torch.save(wrap(eigen), tmp_path / "mega_eig.pth")
    mean, rows, values = load_public_eigenbasis(tmp_path / "mega_eig.pth", stored_order=True)
    assert {mean.dtype, rows.dtype, values.dtype} == {np.dtype(np.float32)}
    np.testing.assert_allclose(rows, eigen["eig_vec"].numpy().T, atol=5e-4)
    np.testing.assert_array_equal(values, eigen["eig_val"][:, 0].numpy())


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_program_of_torch_export_is_refused_because_torch_would_run_its_pickle(tmp_path: Path) -> None:
    """Torch itself opens the sample inputs of such a file with an unrestricted pickle: that is measured here."""
    harm, good, evil = tmp_path / "harm", tmp_path / "good.pt2", tmp_path / "evil.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), good)
    torch.save((Harm(harm),), tmp_path / "inputs.pt")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            is_inputs = "sample_inputs" in name
            target.writestr(name, (tmp_path / "inputs.pt").read_bytes() if is_inputs else source.read(name))
    for path in (good, evil):
        with pytest.raises(CheckpointError, match=r"torch\.export runs code on loading.*opset_version=18.*\.onnx"):
            load_state(path)
    assert not harm.exists()
    with contextlib.suppress(Exception):  # what it does after the harm is of no matter
        torch.export.load(evil)
    assert harm.exists(), "torch no longer unpickles them: programs might now be taken"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_program_is_refused_with_the_way_to_its_weights(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match=r"TorchScript program holds code.*torch\.jit\.load.*state_dict"):
        load_state(tmp_path / "script.pt")
