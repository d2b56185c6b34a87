"""Crops at rest: unreadable without the key, bound to their decision, and forgotten before their records."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_writer import frame_of

from immunogate.errors import AuditError, InputError, MissingExtraError, UsageError
from immunogate.runtime.audit.evidence import EvidenceKey, Sealed, key_from, make_key
from immunogate.runtime.audit.log import AuditLog
from immunogate.runtime.audit.reading import AuditReader
from immunogate.runtime.audit.retention import Limits, Pruned, prune
from immunogate.runtime.audit.settle import Settlement
from immunogate.runtime.audit.verify import verify

CROP = np.arange(112 * 112, dtype=np.uint32).reshape(112, 112).astype(np.uint8)


@pytest.fixture
def key() -> EvidenceKey:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    return EvidenceKey(bytes(range(32)))


@pytest.fixture
def path_with_crops(tmp_path: Path, key: EvidenceKey) -> Path:
    """Three decisions with the same crop: records 1 to 3."""
    path = tmp_path / "crops.db"
    with AuditLog(path) as audit:
        settlement = Settlement(audit, audit.context({}), 60_000.0, key=key)
        for number in range(3):
            frame = frame_of(number, f"d-{number}", "deny")
            frame.looks[0].crop = CROP
            assert settlement.settle(frame).decisions[0].reason == "match"
    return path


def sealed_of(path: Path) -> list[Sealed]:
    with AuditReader(path) as reader:
        return [sealed for number in (1, 2, 3) if (sealed := reader.sealed(number))]


def test_a_crop_comes_back_bit_for_bit(path_with_crops: Path, key: EvidenceKey) -> None:
    for number, sealed in enumerate(sealed_of(path_with_crops)):
        np.testing.assert_array_equal(key.open(sealed, f"d-{number}"), CROP)


def test_equal_crops_look_different_and_no_nonce_comes_twice(path_with_crops: Path) -> None:
    kept = sealed_of(path_with_crops)
    assert len({sealed.nonce for sealed in kept}) == len({sealed.data for sealed in kept}) == 3
    assert {len(sealed.nonce) for sealed in kept} == {12}
    assert CROP.tobytes()[:64] not in path_with_crops.read_bytes()


def test_a_nonce_that_is_there_already_is_a_deny(path_with_crops: Path, key: EvidenceKey, monkeypatch: Any) -> None:
    monkeypatch.setattr("immunogate.runtime.audit.evidence.os.urandom", lambda count: b"\1" * count)
    with AuditLog(path_with_crops) as audit:
        settlement = Settlement(audit, audit.context({}), 60_000.0, key=key)
        reasons = []
        for number in (8, 9):
            frame = frame_of(number, f"d-{number}")
            frame.looks[0].crop = CROP
            reasons.append(settlement.settle(frame).decisions[0].reason)
    assert reasons == ["match", "not_recorded"]


@pytest.mark.parametrize("change", ["key", "decision", "data", "nonce", "short nonce", "empty"])
def test_what_is_not_that_crop_is_refused(path_with_crops: Path, key: EvidenceKey, change: str) -> None:
    sealed, name = sealed_of(path_with_crops)[0], "d-0"
    if change == "key":
        key = EvidenceKey(bytes(32))
    elif change == "decision":
        name = "d-1"
    else:
        nonce, data = sealed.nonce, sealed.data
        changed = {"data": (nonce, data[:-1] + bytes([data[-1] ^ 1])), "nonce": (bytes(12), data)}
        sealed = Sealed(sealed.key_id, *{**changed, "short nonce": (b"", data), "empty": (nonce, b"")}[change])
    with pytest.raises(AuditError):
        key.open(sealed, name)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE evidence SET sealed = zeroblob(12560) WHERE sequence = 2",
        "UPDATE evidence SET nonce = zeroblob(12) WHERE sequence = 2",
        "UPDATE evidence SET sequence = 99 WHERE sequence = 3",
        "UPDATE evidence SET sealed = 'text' WHERE sequence = 2",
    ],
)
def test_an_exchanged_crop_breaks_the_chain(path_with_crops: Path, statement: str) -> None:
    import sqlite3

    db = sqlite3.connect(path_with_crops)
    with db:
        db.execute(statement)
    db.close()
    with AuditReader(path_with_crops) as reader:
        assert verify(reader).problem_at in (2, 99)


def test_crops_are_forgotten_before_their_records(path_with_crops: Path) -> None:
    with AuditLog(path_with_crops) as audit:
        assert prune(audit, Limits(crop_days=1)) == Pruned()
        assert prune(audit, Limits(crop_days=1), time.time() + 2 * 86_400) == Pruned(0, 3)
    with AuditReader(path_with_crops) as reader:
        found = verify(reader)
    assert (found.problem, found.crops, found.kinds["decision"]) == ("", 0, 3)
    assert sealed_of(path_with_crops) == []


def test_a_key_file_is_for_its_owner_alone(tmp_path: Path, key: EvidenceKey) -> None:
    path = tmp_path / "key"
    make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_from(str(path)).key_id == key_from(str(path)).key_id != key.key_id
    with pytest.raises(UsageError, match="there already"):
        make_key(path)
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(UsageError, match="chmod 600"):
            key_from(str(path))


def test_a_key_from_the_environment(key: EvidenceKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_KEY", bytes(range(32)).hex())
    assert key_from("env:GATE_KEY").key_id == key.key_id
    with pytest.raises(UsageError, match="IMMUNOGATE_EVIDENCE_KEY"):
        key_from("env:")


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "xy" * 32, "\0" * 64])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(InputError, match="holds no key") as caught:
        key_from(str(path))
    assert not text or text not in str(caught.value)


def test_a_folder_or_nothing_is_no_key(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError):
            key_from(str(path))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    blocked: Callable[..., None] = monkeypatch.setitem
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    blocked(sys.modules, "cryptography", None)
    with pytest.raises(MissingExtraError, match=r"immunogate\[gate\]"):
        EvidenceKey(bytes(32))
