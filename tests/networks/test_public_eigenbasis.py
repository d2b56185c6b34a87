from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.errors import CheckpointError, UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.checkpoint import load_public_eigenbasis  # noqa: E402 - needs torch

PIXELS = 12
VALUES = (3.0, 9.0, 1.0, 7.0, 5.0)


@pytest.fixture
def content() -> dict[str, Any]:
    """Five orthonormal columns of twelve pixels; column i is stored with VALUES[i]."""
    columns, _ = torch.linalg.qr(torch.randn(PIXELS, len(VALUES), generator=torch.Generator().manual_seed(5)))
    return {"eig_vec": columns, "avg_face": torch.linspace(-1, 1, PIXELS), "eig_val": torch.tensor(VALUES)}


def saved(tmp_path: Path, content: dict[str, Any]) -> Path:
    path = tmp_path / "eigen.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("pairs", [False, True], ids=["(N,)", "(N, 2)"])
def test_eigenfaces_come_as_rows_by_descending_eigenvalue(
    tmp_path: Path, content: dict[str, Any], pairs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stored = content["eig_vec"].numpy()
    if pairs:
        content["eig_val"] = torch.stack([content["eig_val"], torch.zeros(5)], dim=1)
    with caplog.at_level(logging.WARNING, logger="immunogate"):
        mean, basis, values = load_public_eigenbasis(saved(tmp_path, content))
    assert values.tolist() == [9, 7, 5, 3, 1]
    np.testing.assert_array_equal(basis, stored[:, [1, 3, 4, 0, 2]].T)
    np.testing.assert_array_equal(mean, content["avg_face"].numpy())
    assert {array.dtype for array in (mean, basis, values)} == {np.dtype(np.float32)}
    assert basis.flags.c_contiguous
    assert "reordered" in caplog.text


def test_the_largest_are_kept(tmp_path: Path, content: dict[str, Any]) -> None:
    _, basis, values = load_public_eigenbasis(saved(tmp_path, content), components=2)
    assert values.tolist() == [9, 7]
    np.testing.assert_array_equal(basis, content["eig_vec"].numpy()[:, [1, 3]].T)


def test_the_stored_order_is_kept_on_request(
    tmp_path: Path, content: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    _, basis, values = load_public_eigenbasis(saved(tmp_path, content), components=3, stored_order=True)
    assert values.tolist() == [3, 9, 1]
    np.testing.assert_array_equal(basis, content["eig_vec"].numpy()[:, :3].T)
    assert "reordered" not in caplog.text


def test_complex_eigenvalues_matter_only_among_the_chosen(tmp_path: Path, content: dict[str, Any]) -> None:
    imaginary = torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0])  # that of the smallest eigenvalue
    content["eig_val"] = torch.stack([content["eig_val"], imaginary], dim=1)
    path = saved(tmp_path, content)
    assert len(load_public_eigenbasis(path, components=4)[1]) == 4
    with pytest.raises(CheckpointError, match="complex eigenvalues among the first 5"):
        load_public_eigenbasis(path)


@pytest.mark.parametrize("components", [0, -1, 6])
def test_components_out_of_range_are_wrong_use(tmp_path: Path, content: dict[str, Any], components: int) -> None:
    with pytest.raises(UsageError, match=f"holds 5 eigenfaces, {components} were asked for"):
        load_public_eigenbasis(saved(tmp_path, content), components)


def test_parts_that_do_not_go_together_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    for name, wrong in (
        ("avg_face", torch.zeros(PIXELS + 1)),
        ("eig_val", torch.zeros(6)),
        ("eig_vec", torch.zeros(PIXELS)),
    ):
        with pytest.raises(CheckpointError, match=r"is no eigenbasis: .*do not go together"):
            load_public_eigenbasis(saved(tmp_path, {**content, name: wrong}))


def test_missing_and_broken_entries_are_named(tmp_path: Path, content: dict[str, Any]) -> None:
    broken = {**content, "avg_face": torch.full((PIXELS,), float("nan"))}
    with pytest.raises(CheckpointError, match=r"not finite.*avg_face"):
        load_public_eigenbasis(saved(tmp_path, broken))
    del content["eig_val"]
    with pytest.raises(CheckpointError, match="lacks eig_val; it holds eig_vec, avg_face"):
        load_public_eigenbasis(saved(tmp_path, content))
