"""What an evaluation has come by, kept in a folder so that a stopped one goes on where it was.

Two files, each written whole: ``state.json`` with what was asked and every finished job, and ``search.npz`` with the
searches of the job that is under way. The first holds the hash of the second; another one is not read.
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.errors import InputError, UsageError
from immunogate.files import read_bytes, sha256_of_bytes, write_whole

STATE, SEARCH = "state.json", "search.npz"
EVERY = 30.0
"""Seconds between two savings of a search."""

LARGEST = 1 << 34
Arrays = dict[str, npt.NDArray[Any]]


class Memory:
    """Finished jobs and the searches of the one under way.

    Args:
        folder: where it is kept; None keeps nothing.
        asked: what the evaluation is of, by name; only an evaluation of the same goes on.
        resume: go on with what lies there.

    Raises:
        UsageError: there is something already and it is not to go on; or it is of another bundle, other photos or
            another setting, which is named.
        InputError: what lies there is damaged.
    """

    def __init__(self, folder: Path | None, asked: dict[str, Any], *, resume: bool = False) -> None:
        self._folder, self._asked = folder, asked
        self._done: dict[str, Any] = {}
        self._arrays: dict[str, Arrays] = {}
        self._job, self._saved_at, self._search_hash = "", time.monotonic(), ""
        if folder is not None:
            self._open(folder, resume)

    def done(self, job: str) -> Any:
        """What a finished job came by, None if it is not finished."""
        return self._done.get(job)

    def finish(self, job: str, outcome: Any) -> None:
        """Keep what a job came by, and forget its searches."""
        self._done[job] = outcome
        self._arrays, self._job, self._search_hash = {}, "", ""
        self._write_state()
        if self._folder is not None:
            (self._folder / SEARCH).unlink(missing_ok=True)

    def begin(self, job: str) -> None:
        """What is kept from now on belongs to this job; searches of another are forgotten."""
        if job != self._job:
            self._arrays, self._job = {}, job

    def arrays(self, name: str) -> Arrays | None:
        """What was kept under a name in this job."""
        return self._arrays.get(name)

    def keep(self, name: str, arrays: Arrays, *, replaces: str = "") -> None:
        """Keep arrays, which the caller does not change any more; now and then they are written."""
        self._arrays.pop(replaces, None)
        self._arrays[name] = arrays
        if time.monotonic() - self._saved_at >= EVERY:
            self.save()

    def save(self) -> None:
        """Write everything now."""
        self._saved_at = time.monotonic()
        if self._folder is None or not self._arrays:
            return
        stream = io.BytesIO()
        named = {f"{name}/{key}": array for name, arrays in self._arrays.items() for key, array in arrays.items()}
        np.savez(stream, **named)  # type: ignore[arg-type]
        data = stream.getvalue()
        write_whole(self._folder / SEARCH, lambda path: path.write_bytes(data))
        self._search_hash = sha256_of_bytes(data)
        self._write_state()

    def _write_state(self) -> None:
        if self._folder is None:
            return
        state = {"asked": self._asked, "done": self._done, "job": self._job, "search": self._search_hash}
        text = json.dumps(state, allow_nan=False)
        write_whole(self._folder / STATE, lambda path: path.write_text(text, encoding="utf-8"))

    def _open(self, folder: Path, resume: bool) -> None:
        path = folder / STATE
        if not path.is_file():
            if resume:
                raise UsageError(f"there is nothing to go on with in {folder}", "Leave --resume out")
            self._write_state()
            return
        if not resume:
            raise UsageError(f"{folder} holds an evaluation already", "Go on with it: --resume, or name another --out")
        try:
            state = json.loads(read_bytes(path, LARGEST))
            asked, self._done, job, search = (state[name] for name in ("asked", "done", "job", "search"))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: {error}", "Name another --out and begin anew") from error
        self._compare(asked, folder)
        self._read_search(folder / SEARCH, job, search)

    def _compare(self, asked: dict[str, Any], folder: Path) -> None:
        for name in sorted({*asked, *self._asked}):
            was, now = asked.get(name), self._asked.get(name)
            if was != now:
                raise UsageError(
                    f"{folder} holds an evaluation with another {name}: {was} there, {now} now",
                    "Ask for the same, or name another --out",
                )

    def _read_search(self, path: Path, job: str, expected: str) -> None:
        """A search that is missing or not the one that was saved last is begun anew, which costs only time."""
        if not expected or not path.is_file():
            return
        data = read_bytes(path, LARGEST)
        if sha256_of_bytes(data) != expected:
            return
        self._job, self._search_hash = job, expected
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for full in arrays.files:
                name, _, key = full.rpartition("/")
                self._arrays.setdefault(name, {})[key] = arrays[full]
