"""Where checkpoints lie is noted on this machine only, and never believed without looking."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from immunogate.errors import UsageError
from immunogate.export.known_checkpoints import find, remember
from immunogate.files import sha256_of_file


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "immunogate" / "checkpoints.json"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    path = tmp_path / "c.pt"
    path.write_bytes(b"weights")
    return path


def test_what_was_remembered_is_found_by_its_hash(cache: Path, checkpoint: Path) -> None:
    remember([checkpoint])
    assert find(sha256_of_file(checkpoint)) == checkpoint
    assert list(json.loads(cache.read_text(encoding="utf-8")).values()) == [str(checkpoint)]


def test_a_relative_path_is_found_from_everywhere(
    cache: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    remember([checkpoint.relative_to(tmp_path)])
    monkeypatch.chdir("/")
    assert find(sha256_of_file(checkpoint)) == checkpoint


def test_earlier_notes_are_kept(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "d.pt"
    other.write_bytes(b"other weights")
    remember([checkpoint])
    remember([other])
    assert find(sha256_of_file(checkpoint)) == checkpoint
    assert find(sha256_of_file(other)) == other


def test_a_file_that_changed_since_is_not_given(cache: Path, checkpoint: Path) -> None:
    known = sha256_of_file(checkpoint)
    remember([checkpoint])
    checkpoint.write_bytes(b"other weights")
    assert find(known) is None
    checkpoint.unlink()
    assert find(known) is None


def test_nothing_known_is_none(cache: Path) -> None:
    assert find("0" * 64) is None
    assert find("") is None


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"a": 1}', "null", "\0"])
def test_a_damaged_note_is_no_error(cache: Path, checkpoint: Path, content: Any) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(content, encoding="utf-8")
    assert find(sha256_of_file(checkpoint)) is None
    remember([checkpoint])
    assert find(sha256_of_file(checkpoint)) == checkpoint


def test_a_cache_that_can_not_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    remember([checkpoint])
    assert find(sha256_of_file(checkpoint)) is None


def test_without_a_variable_it_is_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    remember([checkpoint])
    assert (tmp_path / ".cache" / "immunogate" / "checkpoints.json").is_file()


def test_without_any_home_it_is_no_error(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a container's user without an entry in passwd
    remember([checkpoint])
    assert find(sha256_of_file(checkpoint)) is None


def test_the_note_is_a_plain_file(cache: Path, checkpoint: Path) -> None:
    remember([checkpoint])
    assert stat.S_ISREG(cache.stat().st_mode)
    assert [path.name for path in cache.parent.iterdir()] == ["checkpoints.json"]


def test_a_checkpoint_that_is_gone_can_not_be_remembered(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.pt"):
        remember([tmp_path / "gone.pt"])
