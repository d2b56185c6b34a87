from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.errors import CheckpointError, ImmunogateError, UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.checkpoint import fit_state, load_state, misfits, state_of  # noqa: E402 - needs torch


class RunsCode:
    """Unpickling this touches a file, so that a test sees whether anything ran."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


def small_network() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def test_a_state_dict_comes_back_as_saved(tmp_path: Path) -> None:
    state = small_network().state_dict()
    torch.save(state, tmp_path / "a.pt")
    loaded = load_state(tmp_path / "a.pt")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_missing_file_and_a_folder_are_wrong_use(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(UsageError, match="can not be read") as caught:
            load_state(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("way", ["zip", "legacy", "plain pickle"])
def test_a_file_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path, way: str) -> None:
    path, witness = tmp_path / "evil.pt", tmp_path / "ran"
    if way == "plain pickle":
        path.write_bytes(pickle.dumps(RunsCode(witness)))
    else:
        torch.save({"a": RunsCode(witness)}, path, _use_new_zipfile_serialization=way == "zip")
    with pytest.raises(CheckpointError, match="refused: a file that runs code on loading is not opened"):
        load_state(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(RunsCode(witness)))  # the witness would have noticed
    assert witness.exists()


def test_a_whole_pickled_network_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear.*state dict"):
        load_state(tmp_path / "whole.pt")


@pytest.mark.parametrize("content", [b"", b"hello, not torch\n" * 9, b'{"a": 1}', b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_another_kind_of_file_is_no_torch_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is no torch file"):
        load_state(tmp_path / "a.pt")


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(small_network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_file_raises_anything_but_our_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.pt"
    zipped = data.draw(st.booleans())
    torch.save({"a.weight": torch.arange(6.0)}, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(ImmunogateError):  # what is left whole loads; all else is an error of ours
        load_state(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_listed(value: float) -> None:
    state = small_network().state_dict()
    state["0.weight"][1, 2] = value
    state["1.running_var"][0] = value
    with pytest.raises(
        CheckpointError, match=r"a\.pt holds values.*not finite.*in 0\.weight, 1\.running_var"
    ) as caught:
        state_of(state, "a.pt")
    assert "0.bias" not in str(caught.value)


def test_what_is_no_state_dict_is_said_to_be_so() -> None:
    for content, words in (
        ([torch.zeros(1)], "a list"),
        ({}, "an empty dict"),
        ({"state_dict": {"a": torch.zeros(1)}}, "state_dict"),
        ({"epoch": 3, "a": torch.zeros(1)}, "epoch"),
        ({3: torch.zeros(1)}, "3"),
        ({"a": torch.zeros(2).to_sparse()}, "a"),
    ):
        with pytest.raises(CheckpointError, match=words):
            state_of(content, "a.pt")


def test_the_prefix_of_data_parallel_goes_where_all_keys_have_it() -> None:
    one = torch.ones(1)
    assert set(state_of({"module.a": one, "module.b.module.c": one}, "x")) == {"a", "b.module.c"}
    assert set(state_of({"module.a": one, "b": one}, "x")) == {"module.a", "b"}


def test_a_state_that_fits_is_loaded_even_without_counters() -> None:
    source, target = small_network(), small_network()
    state = source.state_dict()
    del state["1.num_batches_tracked"]
    assert misfits(target, state) == []
    fit_state(target, state, "a.pt as a test")
    assert torch.equal(target[0].weight, source[0].weight)
    assert int(target[1].num_batches_tracked) == 0


def test_a_misfit_lists_both_sides_and_changes_nothing() -> None:
    target = small_network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = {**small_network().state_dict(), "0.weight": torch.zeros(2, 5), "head.weight": torch.zeros(1)}
    del state["1.bias"]
    with pytest.raises(CheckpointError) as caught:
        fit_state(target, state, "a.pt as a test")
    assert caught.value.what == (
        "a.pt as a test does not fit: 1 missing in the checkpoint: 1.bias; "
        "1 unknown to the architecture: head.weight; "
        "1 of another shape: 0.weight: checkpoint (2, 5), architecture (2, 3)"
    )
    assert caught.value.mend
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_long_lists_are_cut_and_counted() -> None:
    unknown = {f"extra{number:02}": torch.zeros(1) for number in range(11)}
    with pytest.raises(CheckpointError, match=r"11 unknown.*extra07 \.\.\. and 3 more") as caught:
        fit_state(small_network(), {**small_network().state_dict(), **unknown}, "a.pt")
    assert "extra08" not in str(caught.value)
