"""The people a gate knows: embeddings, no photos, in one SQLite file bound to one bundle."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from immunogate.errors import GalleryError, UsageError
from immunogate.structs import Floats, expect_shape

SCHEMA_VERSION = 1
APPLICATION_ID = 0x696D6741
"""Marks the file as one of ours in SQLite's own header ("imgA")."""

_SCHEMA = (
    "CREATE TABLE binding (embedding_hash TEXT NOT NULL, dimension INTEGER NOT NULL)",
    "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE embeddings (
    id INTEGER PRIMARY KEY,
    person INTEGER NOT NULL REFERENCES people(id) ON DELETE CASCADE,
    vector BLOB NOT NULL,
    picture TEXT NOT NULL,
    picture_sha256 TEXT NOT NULL,
    enrolled_at REAL NOT NULL,
    UNIQUE (person, picture_sha256)
)""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture to enrol.

    Attributes:
        person: whose it is.
        embedding: (E,) float32 of unit length.
        picture: name of the picture, for reports.
        picture_sha256: hash of its file, so that it is enrolled once.
    """

    person: str
    embedding: Floats
    picture: str
    picture_sha256: str


@dataclass(frozen=True)
class Person:
    """One line of the list of people: name, number of embeddings, and when the last was added (Unix seconds)."""

    name: str
    embeddings: int
    enrolled_at: float


@dataclass(frozen=True, eq=False)
class Templates:
    """What faces are matched against: a person's template is the mean of the embeddings, at unit length.

    Attributes:
        names: P names.
        vectors: (P, E) float32.
    """

    names: list[str]
    vectors: Floats


class Gallery:
    """An opened gallery; a context manager.

    Args:
        path: the SQLite file; made where it is not there and ``create`` is set.
        embedding_hash: of the bundle in use (`Manifest.embedding_hash`); None to look without matching.
        dimension: length of an embedding; needed to create.
        create: make a new gallery where there is none.

    Raises:
        UsageError: there is no gallery and ``create`` is not set.
        GalleryError: the file is no gallery, is damaged, or belongs to another bundle.
    """

    def __init__(
        self, path: Path, embedding_hash: str | None = None, dimension: int = 0, *, create: bool = False
    ) -> None:
        self.path = path
        is_new = not path.exists()
        if is_new and not create:
            raise UsageError(f"there is no gallery {path}", "Make one: immunogate enroll --gallery ... FOLDER")
        if is_new and not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} for the gallery", "Make it first")
        with self._explained():
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")  # who is removed leaves nothing behind in free pages
        try:
            if is_new or self._is_empty_file():
                self._create(embedding_hash, dimension)
            self._check(embedding_hash)
        except BaseException:
            self._db.close()
            raise

    def enroll(self, samples: list[Sample]) -> int:
        """Add all samples or none, and give the number added; a picture that the person already has is passed over.

        Raises:
            GalleryError: the disk is full or the file can not be written; the gallery is as it was.
            UsageError: a name can not be written as text.
            ValueError: an embedding is not of the gallery's length or not finite; it would lock everybody out later.
        """
        with self._explained():
            dimension = self._dimension()
        for sample in samples:
            _check_sample(sample, dimension)
        added = 0
        with self._transaction():
            for sample in samples:
                self._db.execute("INSERT OR IGNORE INTO people (name) VALUES (?)", (sample.person,))
                cursor = self._db.execute(
                    "INSERT OR IGNORE INTO embeddings (person, vector, picture, picture_sha256, enrolled_at) "
                    "SELECT id, ?, ?, ?, ? FROM people WHERE name = ?",
                    (
                        np.asarray(sample.embedding, "<f4").tobytes(),
                        sample.picture,
                        sample.picture_sha256,
                        time.time(),
                        sample.person,
                    ),
                )
                added += cursor.rowcount
        return added

    def remove(self, name: str) -> int:
        """Forget a person and give the number of embeddings removed.

        Raises:
            UsageError: nobody of that name is enrolled.
        """
        with self._transaction():
            row = self._db.execute(
                "SELECT count(*) FROM embeddings JOIN people ON people.id = person WHERE name = ?", (name,)
            ).fetchone()
            if self._db.execute("DELETE FROM people WHERE name = ?", (name,)).rowcount == 0:
                raise UsageError(f"nobody called {name!r} is in {self.path}", "See: immunogate gallery list")
        return int(row[0])

    def people(self) -> list[Person]:
        """Everybody, by name."""
        with self._explained():
            rows = self._db.execute(
                "SELECT name, count(*), max(enrolled_at) FROM people JOIN embeddings ON people.id = person "
                "GROUP BY people.id ORDER BY name"
            ).fetchall()
        return [Person(*row) for row in rows]

    def samples(self) -> list[Sample]:
        """Every embedding, by person and time.

        Raises:
            GalleryError: an embedding is not of the right length or not finite.
        """
        with self._explained():
            dimension = self._dimension()
            rows = self._db.execute(
                "SELECT name, vector, picture, picture_sha256 FROM embeddings JOIN people ON people.id = person "
                "ORDER BY name, embeddings.id"
            ).fetchall()
        return [Sample(name, self._vector(blob, dimension, name), *rest) for name, blob, *rest in rows]

    def templates(self) -> Templates:
        """One template for each person."""
        by_name: dict[str, list[Floats]] = {}
        for sample in self.samples():
            by_name.setdefault(sample.person, []).append(sample.embedding)
        means = [np.mean(vectors, axis=0) for vectors in by_name.values()]
        if not means:
            return Templates([], np.zeros((0, 0), np.float32))
        matrix = np.stack(means).astype(np.float32)
        return Templates(list(by_name), matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_empty_file(self) -> bool:
        with self._explained():
            return bool(self._db.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])

    def _create(self, embedding_hash: str | None, dimension: int) -> None:
        if embedding_hash is None or dimension < 1:
            raise GalleryError(f"{self.path} is empty and no bundle was named to bind it to")
        with self._transaction():
            if not self._is_empty_file():  # another process was first, between our look and our lock
                return
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._db.execute("INSERT INTO binding VALUES (?, ?)", (embedding_hash, dimension))

    def _check(self, embedding_hash: str | None) -> None:
        with self._explained():
            marks = [self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
            if marks != [APPLICATION_ID, SCHEMA_VERSION]:
                raise GalleryError(f"{self.path} is an SQLite file but no gallery of schema version {SCHEMA_VERSION}")
            row = self._db.execute("SELECT embedding_hash FROM binding").fetchone()
        bound = str(row[0]) if row else "none"
        if row is None or (embedding_hash is not None and bound != embedding_hash):
            raise GalleryError(
                f"the gallery {self.path} belongs to another bundle (embedding hash {bound[:12]}, "
                f"this bundle has {embedding_hash and embedding_hash[:12]})",
                "Embeddings of different bundles can not be compared: enroll the people again with this bundle",
            )

    def _dimension(self) -> int:
        row = self._db.execute("SELECT CAST(coalesce(dimension, 0) AS INTEGER) FROM binding").fetchone()
        return int(row[0])

    def _vector(self, blob: bytes, dimension: int, name: str) -> Floats:
        if isinstance(blob, bytes) and len(blob) == 4 * dimension:  # SQLite keeps no column to its type
            vector = np.frombuffer(blob, "<f4").astype(np.float32)
            if np.isfinite(vector).all():
                return vector
        raise GalleryError(f"{self.path} holds a damaged embedding of {name}", f"Remove and enroll {name} again")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled back already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours; what was committed before stays."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # damaged text comes as the latter, even in SQLite's words
            raise GalleryError(
                f"the gallery {self.path} can not be used: {error}", "Nothing was changed; check the disk and the file"
            ) from error


def _check_sample(sample: Sample, dimension: int) -> None:
    expect_shape(f"embedding of {sample.picture}", sample.embedding, (dimension,))
    if not np.isfinite(sample.embedding).all():
        raise ValueError(f"embedding of {sample.picture}: expected finite values")
    for text in (sample.person, sample.picture):
        try:
            text.encode()
        except UnicodeEncodeError as error:  # a file name that is not UTF-8
            raise UsageError(f"the name {text!r} is not UTF-8 text", "Rename the folder or picture") from error
