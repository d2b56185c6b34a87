from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.errors import GalleryError, UsageError
from immunogate.runtime.gallery import APPLICATION_ID, Gallery, Sample
from immunogate.structs import Floats

HASH, OTHER = "ab" * 32, "cd" * 32
LENGTH = 8


def unit(seed: int) -> Floats:
    vector = np.random.default_rng(seed).normal(size=LENGTH)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def sample(person: str, number: int = 0) -> Sample:
    seed = sum(person.encode("utf-8", "replace")) + 1000 * number
    return Sample(person, unit(seed), f"{number}.jpg", f"{seed:064x}")


def opened(path: Path, **options: Any) -> Gallery:
    return Gallery(path, HASH, LENGTH, create=True, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A gallery of ann (2 pictures) and bob (1)."""
    with opened(tmp_path / "gallery.db") as gallery:
        assert gallery.enroll([sample("ann"), sample("ann", 1), sample("bob")]) == 3
    return tmp_path / "gallery.db"


def content(path: Path) -> dict[str, int]:
    with Gallery(path, HASH) as gallery:
        assert gallery._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {person.name: person.embeddings for person in gallery.people()}


BEFORE = {"ann": 2, "bob": 1}


def test_templates_are_unit_means(path: Path) -> None:
    with Gallery(path, HASH) as gallery:
        templates = gallery.templates()
    assert templates.names == ["ann", "bob"]
    total = sample("ann").embedding + sample("ann", 1).embedding
    np.testing.assert_allclose(templates.vectors, [total / np.linalg.norm(total), sample("bob").embedding], atol=1e-6)
    assert templates.vectors.dtype == np.float32


def test_samples_come_back_as_they_went_in(path: Path) -> None:
    with Gallery(path, HASH) as gallery:
        found = gallery.samples()
    assert [(s.person, s.picture, s.picture_sha256) for s in found] == [
        (s.person, s.picture, s.picture_sha256) for s in (sample("ann"), sample("ann", 1), sample("bob"))
    ]
    np.testing.assert_array_equal(found[1].embedding, sample("ann", 1).embedding)


def test_a_picture_is_enrolled_once_for_a_person(path: Path) -> None:
    with Gallery(path, HASH) as gallery:
        assert gallery.enroll([sample("ann"), sample("ann", 2)]) == 1
        twin = Sample("cid", unit(0), "0.jpg", sample("ann").picture_sha256)
        assert gallery.enroll([twin]) == 1  # the same picture as somebody else is another matter
    assert content(path) == {"ann": 3, "bob": 1, "cid": 1}


def test_removing_forgets_the_embeddings_too(path: Path) -> None:
    with Gallery(path, HASH) as gallery:
        assert gallery.remove("ann") == 2
        assert gallery._db.execute("SELECT count(*) FROM embeddings").fetchone() == (1,)
        assert gallery.templates().names == ["bob"]
        with pytest.raises(UsageError, match="nobody called 'ann'"):
            gallery.remove("ann")
        assert gallery.remove("bob") == 1
        assert gallery.templates().names == []
        assert gallery.templates().vectors.shape == (0, 0)
    assert sample("ann").embedding.tobytes() not in path.read_bytes()  # biometric data, so not in a free page either


def test_names_of_all_kinds_are_kept(path: Path) -> None:
    names = [
        "José",
        "李小龙",
        "Ann's 'friend'; DROP TABLE people",
        "  spaces  ",
        "🙂",
        "a/b",
        "ANN",
        "%",
        "O\u2019Neil",
    ]
    with Gallery(path, HASH) as gallery:
        gallery.enroll([sample(name) for name in names])
    assert content(path) == {**BEFORE, **dict.fromkeys(names, 1)}
    with Gallery(path, HASH) as gallery:
        gallery.remove(names[2])
    assert len(content(path)) == len(BEFORE) + len(names) - 1


def test_a_name_that_is_no_text_is_wrong_use(path: Path) -> None:
    broken = os.fsdecode(b"J\xf6rg")  # a folder named in Latin-1
    with Gallery(path, HASH) as gallery, pytest.raises(UsageError, match="not UTF-8"):
        gallery.enroll([sample("cid"), sample(broken)])
    assert content(path) == BEFORE


@pytest.mark.parametrize("bad", [np.zeros(7), np.zeros((1, 8)), np.full(8, np.nan), np.array([np.inf] + 7 * [0])])
def test_an_embedding_that_would_lock_everybody_out_is_refused(path: Path, bad: Any) -> None:
    wrong = Sample("cid", np.asarray(bad, np.float32), "bad.jpg", "0" * 64)
    with Gallery(path, HASH) as gallery, pytest.raises(ValueError, match=r"bad\.jpg"):
        gallery.enroll([sample("dan"), wrong])
    assert content(path) == BEFORE


# --- nothing or all


def test_an_error_in_the_middle_changes_nothing(path: Path) -> None:
    with Gallery(path, HASH) as gallery:
        gallery._db.execute(
            "CREATE TEMP TRIGGER fail BEFORE INSERT ON embeddings WHEN NEW.picture = '3.jpg' "
            "BEGIN SELECT RAISE(ABORT, 'in the middle'); END"
        )
        with pytest.raises(GalleryError, match="in the middle"):
            gallery.enroll([sample("cid"), sample("ann", 2), sample("ann", 3)])
        assert {p.name: p.embeddings for p in gallery.people()} == BEFORE
        assert gallery.enroll([sample("cid")]) == 1  # and it can still be used


def test_an_interrupt_in_the_middle_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([1.0, 2.0])

    def interrupted() -> float:
        for moment in calls:
            return moment
        raise KeyboardInterrupt

    monkeypatch.setattr("immunogate.runtime.gallery.time.time", interrupted)
    with Gallery(path, HASH) as gallery, pytest.raises(KeyboardInterrupt):
        gallery.enroll([sample("cid"), sample("dan"), sample("eve")])
    assert content(path) == BEFORE


def many(count: int) -> list[Sample]:
    return [sample(f"person {number}") for number in range(count)]


def test_a_gallery_that_may_not_grow_is_as_before(path: Path) -> None:
    with Gallery(path, HASH) as gallery:
        pages = gallery._db.execute("PRAGMA page_count").fetchone()[0]
        gallery._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(GalleryError, match="full") as caught:
            gallery.enroll(many(500))
        assert "Nothing was changed" in caught.value.mend
        assert {p.name: p.embeddings for p in gallery.people()} == BEFORE
        assert gallery.enroll([sample("ann", 5)]) == 1
    assert content(path) == {"ann": 3, "bob": 1}


def test_a_full_disk_leaves_the_gallery_as_before(path: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        full = disk / "gallery.db"
        shutil.copy(path, full)
        with Gallery(full, HASH) as gallery, pytest.raises(GalleryError, match=r"full|I/O"):
            gallery.enroll(many(1000))
        assert content(full) == BEFORE
        (disk / "filler").write_bytes(b"x" * (64 * 1024 - sum(f.stat().st_size for f in disk.iterdir()) - 8192))
        with pytest.raises(GalleryError):
            opened(disk / "new.db")
        (disk / "filler").unlink()
        opened(disk / "new.db").close()  # what the failed attempt left is made good
        assert content(disk / "new.db") == {}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


DIES = """
import os, signal, sys
from pathlib import Path
import numpy as np
from immunogate.runtime import gallery as module
from immunogate.runtime.gallery import Gallery, Sample

path, moment = Path(sys.argv[1]), int(sys.argv[2])
counter = iter(range(10**9))

def step(connection_statement):
    if next(counter) == moment:
        os.kill(os.getpid(), signal.SIGKILL)

connect = module.sqlite3.connect
def traced(*args, **kwargs):
    db = connect(*args, **kwargs)
    db.execute("PRAGMA cache_size = 4")  # so that pages reach the disk before the commit
    db.set_trace_callback(step)
    return db
module.sqlite3.connect = traced
with Gallery(path, "ab" * 32, 8, create=True) as gallery:
    gallery.enroll([Sample(f"new {i}", np.ones(8, np.float32), "p.jpg", str(i)) for i in range(400)])
print("finished")
"""


def die_at(path: Path, moment: int) -> None:
    done = subprocess.run([sys.executable, "-c", DIES, str(path), str(moment)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("moment", [50, 600])
def test_a_killed_process_leaves_the_gallery_as_before(path: Path, moment: int) -> None:
    die_at(path, moment)
    assert content(path) == BEFORE
    with Gallery(path, HASH) as gallery:
        assert gallery.enroll([sample("cid")]) == 1


@pytest.mark.parametrize("moment", [2, 5, 8, 11])
def test_a_process_killed_while_it_makes_a_gallery_leaves_none(tmp_path: Path, moment: int) -> None:
    """Statements 3 to 10 or so make tables, marks and binding: all of them count, or the next run makes them."""
    path = tmp_path / "new.db"
    die_at(path, moment)
    with opened(path) as gallery:
        assert gallery.people() == []
        assert gallery.enroll([sample("ann")]) == 1
    with pytest.raises(GalleryError, match="another bundle"):
        Gallery(path, OTHER)


# --- what is no gallery of this bundle


def test_a_gallery_of_another_bundle_is_refused_by_name(path: Path) -> None:
    with pytest.raises(GalleryError, match="belongs to another bundle") as caught:
        Gallery(path, OTHER)
    assert str(path) in caught.value.what
    assert HASH[:12] in caught.value.what
    assert OTHER[:12] in caught.value.what
    assert "enroll" in caught.value.mend
    with Gallery(path) as gallery:  # to look at it without matching
        assert len(gallery.people()) == 2


def test_no_gallery_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no gallery"):
        Gallery(tmp_path / "none.db", HASH)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(UsageError, match="there is no folder"):
        opened(tmp_path / "nowhere" / "gallery.db")


def test_an_empty_file_becomes_a_gallery_only_where_a_bundle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(GalleryError, match="no bundle was named"):
        Gallery(path)
    opened(path).close()
    assert content(path) == {}


def test_a_folder_is_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="unable to open"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "data", [b"this is a text file, and a rather long one: " * 50, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_other_files_are_refused_and_left_alone(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(data)
    with pytest.raises(GalleryError, match=r"notes\.db"):
        opened(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("marks", [(0, 0), (APPLICATION_ID, 99), (7, 1)])
def test_databases_of_others_are_refused_and_left_alone(tmp_path: Path, marks: tuple[int, int]) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE invoices (amount REAL)")
        db.execute(f"PRAGMA application_id = {marks[0]}")
        db.execute(f"PRAGMA user_version = {marks[1]}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(GalleryError, match="no gallery of schema version"):
        opened(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_a_gallery_cut_off_is_refused(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(GalleryError), Gallery(path, HASH) as gallery:
        gallery.templates()


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_damage_anywhere_is_an_error_of_ours_or_none(path: Path) -> None:
    """Pages overwritten at random: never another kind of error, and never a template of another length."""
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(whole, np.uint8))  # most of a small gallery is empty
    failed = 0
    for _ in range(60):
        data = bytearray(whole)
        start = min(int(draw.choice(used)), len(data) - 40)
        data[start : start + 40] = draw.integers(0, 256, 40, dtype=np.uint8).tobytes()
        path.write_bytes(bytes(data))
        try:
            with Gallery(path, HASH) as gallery:
                assert gallery.templates().vectors.shape[1] in (0, LENGTH)
                gallery.people()
        except GalleryError:
            failed += 1
    assert failed > 20


@pytest.mark.parametrize(
    "value", [b"", b"123", np.zeros(7, "<f4").tobytes(), b"x" * 33, "text", 5, 1.5, np.full(8, np.nan, "<f4").tobytes()]
)
def test_a_damaged_embedding_is_named(path: Path, value: Any) -> None:
    with sqlite3.connect(path) as db:
        db.execute(
            "UPDATE embeddings SET vector = ? WHERE person = (SELECT id FROM people WHERE name = 'bob')", (value,)
        )
    db.close()
    with Gallery(path, HASH) as gallery:
        with pytest.raises(GalleryError, match="damaged embedding of bob") as caught:
            gallery.templates()
        assert "Remove and enroll bob again" in caught.value.mend
        gallery.remove("bob")
        assert gallery.templates().names == ["ann"]


# --- several at once


def test_readers_see_all_of_an_enrolment_or_nothing(path: Path) -> None:
    stop, seen, errors = threading.Event(), set[int](), list[Exception]()

    def read() -> None:
        try:
            while not stop.is_set():
                with Gallery(path, HASH) as gallery:
                    seen.add(len(gallery.samples()))
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    with Gallery(path, HASH) as gallery:
        for turn in range(5):
            gallery.enroll([sample(f"person {turn} {i}") for i in range(50)])
    stop.set()
    reader.join()
    assert not errors
    assert seen <= {3 + 50 * turns for turns in range(6)}
    assert len(seen) >= 1


def test_two_processes_that_make_the_same_gallery_both_succeed(tmp_path: Path) -> None:
    path, errors = tmp_path / "new.db", list[Exception]()
    gate = threading.Barrier(4)

    def enroll(number: int) -> None:
        try:
            gate.wait()
            with opened(path) as gallery:
                gallery.enroll([sample(f"person {number}")])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=enroll, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(content(path)) == 4
