from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.training.purifier import journal as module  # noqa: E402 - needs torch
from immunogate.training.purifier.journal import Journal  # noqa: E402


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where tensorboard is not installed; importing it takes a while."""
    monkeypatch.setattr(module, "_board", lambda folder, resumed_at: None)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.usefixtures("plain")
def test_every_note_is_a_line_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "run") as journal:
        journal.note(10, "train", {"total": 1 / 3, "gradient": 12345678.9})
        assert lines(tmp_path / "new" / "run") == [
            {"step": 10, "kind": "train", "total": 0.333333, "gradient": 12345700.0}
        ]
        journal.note(10, "validation", {"score": 0.5})
    assert [line["kind"] for line in lines(tmp_path / "new" / "run")] == ["train", "validation"]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("torn", ["", '{"step": 7, "ki', '{"kind": "train"}\n', "\ufffd\n", "5\n", "\n"])
def test_after_a_resume_no_line_is_there_twice(tmp_path: Path, torn: str) -> None:
    with Journal(tmp_path) as journal:
        for step in (2, 4, 6, 8):
            journal.note(step, "train", {"total": float(step)})
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(torn)
    with Journal(tmp_path, resumed_at=5) as journal:
        for step in (6, 8):
            journal.note(step, "train", {"total": -float(step)})
    assert [(line["step"], line["total"]) for line in lines(tmp_path)] == [(2, 2), (4, 4), (6, -6), (8, -8)]


@pytest.mark.usefixtures("plain")
def test_a_new_run_begins_a_new_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    Journal(tmp_path).close()
    assert lines(tmp_path) == []


def test_tensorboard_gets_scalars_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clean = torch.linspace(-1, 1, 112 * 112).repeat(3, 1)
    with Journal(tmp_path) as journal:
        journal.note(4, "train", {"total": 0.25})
        journal.note(8, "train", {"total": 0.125})
        journal.picture(8, clean, clean + 0.02, clean)
    with Journal(tmp_path, resumed_at=5) as journal:
        journal.note(8, "train", {"total": 0.5})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/total")] == [(4, 0.25), (8, 0.5)]
    assert len(events.Images("faces/clean, attacked, attack x 10, purified")) <= 1
    with Journal(tmp_path / "other") as journal:
        journal.picture(1, clean, clean + 0.02, clean)
    (picture,) = EventAccumulator(str(tmp_path / "other")).Reload().Images(
        "faces/clean, attacked, attack x 10, purified"
    )  # fmt: skip
    assert (picture.width, picture.height) == (3 * 112, 4 * 112)


def test_without_tensorboard_the_log_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with Journal(tmp_path) as journal:
        journal.note(1, "train", {"total": math.pi})
        journal.picture(1, torch.zeros(1, 112 * 112), torch.zeros(1, 112 * 112), torch.zeros(1, 112 * 112))
    assert lines(tmp_path)[0]["total"] == 3.14159
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
