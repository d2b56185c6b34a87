"""Arrays read from an ``.npz`` archive that a user hands over, which may be anything at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from immunogate.errors import InputError

Arrays = dict[str, npt.NDArray[Any]]
_MEND = "Give a file that was written for this purpose, or copy it again"


def read_npz(
    source: BinaryIO, origin: str, required: Sequence[str], optional: Sequence[str] = (), limit: int = 1 << 31
) -> Arrays:
    """The arrays named ``required``, and those named ``optional`` that are there, never unpickling anything.

    Args:
        source: seekable stream over the archive.
        origin: what errors call the archive, usually its path.
        required: keys that must be there.
        optional: keys that may be there; all others are not even read.
        limit: most bytes that these arrays may unpack to, so that a small archive can not fill the memory.

    Raises:
        InputError: not an archive, cut short, damaged, without a required key, or larger than the limit.
    """
    try:
        archive = np.load(source, allow_pickle=False)
    except Exception as error:  # zipfile and numpy raise a dozen kinds over damaged bytes: one meaning
        raise _unreadable(origin, error) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{origin}: expected an .npz archive of arrays, got a single array", _MEND)
    with archive:
        missing = sorted(set(required) - set(archive.files))
        if missing:
            raise InputError(f"{origin}: expected the keys {list(required)}, got {archive.files}", _MEND)
        wanted = [key for key in (*required, *optional) if key in archive.files]
        _check_size(archive, wanted, origin, limit)
        try:
            for key in wanted:
                _check_header(archive, key)
            return {key: archive[key] for key in wanted}
        except Exception as error:  # as above
            raise _unreadable(origin, error) from error


def _unreadable(origin: str, error: Exception) -> InputError:
    return InputError(f"{origin}: expected a whole .npz archive, got a damaged or other file ({error})", _MEND)


def _check_header(archive: np.lib.npyio.NpzFile, key: str) -> None:
    """An array's header says how much memory it is given before a byte is read: it must be what is there.

    Raises:
        ValueError: it says another length, holds objects, or is of another version.
    """
    if archive.zip is None:
        return
    name = key if key in archive.zip.namelist() else f"{key}.npy"
    with archive.zip.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{key} is of version {version}")
        shape, _, kind = readers[version](stream)
        stated, there = math.prod(shape) * kind.itemsize, archive.zip.getinfo(name).file_size - stream.tell()
        if kind.hasobject or min(shape, default=0) < 0 or stated != there:
            raise ValueError(f"{key} states {stated:,} bytes of {kind}, {max(there, 0):,} are there")


def _check_size(archive: np.lib.npyio.NpzFile, wanted: Sequence[str], origin: str, limit: int) -> None:
    names = {f"{key}.npy" for key in wanted} | set(wanted)
    members = archive.zip.infolist() if archive.zip is not None else []
    size = sum(member.file_size for member in members if member.filename in names)
    if size > limit:
        raise InputError(f"{origin}: expected arrays of at most {limit:,} bytes, got {size:,}", _MEND)
