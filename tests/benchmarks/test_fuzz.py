"""Every parser that a stranger can feed, fed with changed inputs: it answers or refuses, and nothing else."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("cryptography", reason="cryptography is not installed")

from fuzz_targets import Target, all_targets, mutated

EXAMPLES = 12
NAMES = (
    "manifest", "signature file", "manifest against its signature", "public key", "engine side-car", "aligned faces",
    "eigenbasis", "pictures", "videos and GIF", "ONNX, as the builder reads it", "ONNX, as the gate loads it",
    "gallery", "camera address", "description, TOML", "ONNX, as export reads it", "checkpoint",
)  # fmt: skip


@cache
def targets() -> dict[str, Target]:
    folder = tempfile.TemporaryDirectory()  # as long as the process: targets write into it
    _KEPT.append(folder)
    return {target.name: target for target in all_targets(Path(folder.name))}


_KEPT: list[Any] = []


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_answers_or_refuses(name: str) -> None:
    if name not in targets():
        pytest.skip("the extra export is not installed")
    target = targets()[name]
    for seed in target.seeds:
        assert not target.is_refused(seed), "a whole input is refused"

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(st.integers(0, 2**64 - 1), st.binary(max_size=64))
    @example(0, b"")
    def feed(seed: int, raw: bytes) -> None:
        target.is_refused(mutated(target.seeds, random.Random(seed)))
        target.is_refused(raw)

    feed()


def test_there_is_a_test_for_each(tmp_path: Path) -> None:
    assert set(targets()) <= set(NAMES)


def test_a_parser_that_fails_otherwise_is_seen(tmp_path: Path) -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        Target("broken", (b"x",), broken).is_refused(b"x")


def test_inputs_can_be_made_again() -> None:
    seeds = (b"one whole input" * 20, b"another")
    assert [mutated(seeds, random.Random(f"1 a {n}")) for n in range(50)] == [
        mutated(seeds, random.Random(f"1 a {n}")) for n in range(50)
    ]
    assert len({mutated(seeds, random.Random(f"1 a {n}")) for n in range(50)}) > 40
