"""``immunogate run --audit``, ``audit`` and ``replay`` as a user calls them."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import Bundle

Command = Callable[..., Any]
DRAWN = "synthetic://?frames=4&width=320&height=240"


@pytest.mark.parametrize(
    "flags",
    [
        ("--on-allow", "true"),
        ("--evidence", "key"),
        ("--keep-days", "3"),
        ("--keep-mb", "3"),
        ("--keep-crops-days", "3"),
    ],
)
def test_nothing_is_set_off_or_kept_without_a_record(gate: Command, flags: Any) -> None:
    gate(DRAWN, *flags).refused(2, flags[0], "--audit")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--on-allow", "/no/such/door"), ("/no/such/door", "no such program")),
        (("--on-allow", "true", "--on-allow-timeout", "0"), ("on-allow-timeout",)),
        (("--evidence", "absent"), ("absent", "immunogate audit key")),
        (("--keep-mb", "-3"), ("megabytes",)),
    ],
)
def test_flags_that_can_not_be_are_refused_before_a_record_is_made(
    gate: Command, tmp_path: Path, flags: Any, words: Any
) -> None:
    gate(DRAWN, "--audit", tmp_path / "a.db", *flags).refused(2, *words)
    assert not (tmp_path / "a.db").exists()


def test_a_record_that_can_not_be_written_stops_the_gate_at_once(gate: Command, tmp_path: Path) -> None:
    gate(DRAWN, "--audit", tmp_path / "nowhere" / "a.db").refused(2, "no folder")
    (tmp_path / "text").write_text("just some text\n" * 99)
    gate(DRAWN, "--audit", tmp_path / "text").refused(1, "not a database")


def test_a_run_without_faces_is_recorded_too(gate: Command, immunogate: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    done = gate("synthetic://?frames=2&width=64&height=64", "--audit", path)
    assert done.status == 0, done.err
    verified = json.loads(immunogate("audit", "verify", path, "--json").out)
    assert verified["ok"]
    assert verified["kinds"]["run"] == 1
    assert f"head {verified['head']}" in done.err


def test_a_key_is_made_once(immunogate: Command, tmp_path: Path) -> None:
    assert immunogate("audit", "key", tmp_path / "key").status == 0
    immunogate("audit", "key", tmp_path / "key").refused(2, "there already")


def test_absent_files_and_wrong_words(immunogate: Command, tmp_path: Path) -> None:
    absent = tmp_path / "absent.db"
    for words in (("verify",), ("list",), ("export",), ("prune", "--keep-days", "1")):
        immunogate("audit", words[0], absent, *words[1:]).refused(2, str(absent))
    immunogate("replay", "x", "--audit", absent).refused(2, str(absent))
    immunogate("audit", "prune", absent).refused(2, "--keep-days")
    immunogate("audit", "list", absent, "--since", "noon").refused(2, "noon")
    assert not absent.exists()


@pytest.mark.data
def test_the_whole_way_of_a_disputed_decision(
    gate: Command, immunogate: Command, tiny_bundle: Bundle, empty_gallery: Path, data_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    path, key, door = tmp_path / "a.db", tmp_path / "key", tmp_path / "door"
    immunogate("audit", "key", key)
    clip = data_dir / "video/head-pose-face-detection-male.gif"
    opens = f"{sys.executable} -c \"import os; open('{door}', 'a').write(os.environ['IMMUNOGATE_DECISION_ID'])\""
    flags = ("--audit", path, "--evidence", key, "--json", "--max-frames", "4", "--max-decision-age-ms", "60000",
             "--threshold", "-1", "--alarm", "2", "--margin", "0", "--on-allow", opens,
             "--on-allow-timeout", "30")  # fmt: skip
    said = gate(clip, *flags).lines()
    assert [line["outcome"] for line in said] == ["deny", "deny", "allow"], "then it waits a second"
    assert door.read_text() == said[-1]["decision_id"]

    exported = [json.loads(line) for line in immunogate("audit", "export", path, "--kind", "decision").out.splitlines()]
    assert [one["decision"] for one in exported] == said
    listed = json.loads(immunogate("audit", "list", path, "--json", "--last", "2").out)
    assert [(one["kind"], one.get("result")) for one in listed] == [("decision", None), ("actuation", "done")]
    for_people = immunogate("audit", "list", path, "--outcome", "allow").out
    assert said[-1]["decision_id"] in for_people
    assert len(for_people.splitlines()) == 1
    immunogate("audit", "export", path, "--out", tmp_path / "all.jsonl")
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 5

    again = ("replay", said[-1]["decision_id"], "--audit", path, "--bundle", tiny_bundle.folder)
    done = immunogate(*again, "--gallery", empty_gallery, "--evidence", key, "--json")
    report = json.loads(done.out)
    assert done.status == 0, done.out
    assert report["same"]
    assert report["not_replayed"] == []
    assert report["differences"] == [{"what": "threshold", "recorded": -1.0, "now": "the bundle has [0.5, 0.5, 0.5]"}]
    without = immunogate(*again, "--gallery", empty_gallery)
    assert without.status == 1
    assert "give its key" in without.out

    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE records SET body = CAST(replace(body, 'deny', 'DENY') AS BLOB) WHERE sequence = 3")
    db.close()
    found = immunogate("audit", "verify", path)
    assert found.status == 1
    assert "DOES NOT FIT at record 3" in found.out
    immunogate(*again, "--evidence", key).refused(1, "record 3", "can not be replayed")


@pytest.mark.data
def test_a_full_disk_denies_and_says_so(
    gate: Command, immunogate: Command, data_dir: Path, tmp_path: Path, tmpfs: Any
) -> None:
    path = tmpfs("160k") / "a.db"
    door = tmp_path / "door"
    clip = data_dir / "video/head-pose-face-detection-male.gif"
    flags = ("--audit", path, "--json", "--max-decision-age-ms", "60000", "--threshold", "-1", "--alarm", "2",
             "--margin", "0", "--confirm-frames", "1", "--on-allow", f"touch {door}")  # fmt: skip
    assert gate(clip, *flags, "--max-frames", "1").lines()[0]["outcome"] == "allow"
    door.unlink()
    filler = path.with_name("filler")
    handle = os.open(filler, os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        _fill(handle)
    os.close(handle)
    done = gate(clip, *flags, "--max-frames", "2")
    if done.status == 0:
        assert {line["outcome"] for line in done.lines()} == {"deny"}
    else:
        done.refused(1, "full")
    assert not door.exists()
    filler.unlink()
    assert immunogate("audit", "verify", path).status == 0


def _fill(handle: int) -> None:
    while True:
        os.write(handle, bytes(512))
