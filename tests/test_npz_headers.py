"""An array's header decides how much memory is taken, so it is believed only as far as there are bytes."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from immunogate.errors import InputError
from immunogate.npz import read_npz


def archive(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as made:
        made.writestr("images.npy", content)
    stream.seek(0)
    return stream


def array(shape: Any, kind: str = "|u1", octets: int = 12) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(octets)


def test_an_honest_header() -> None:
    for kind, shape in (("|u1", (3, 4)), ("<f4", (3,)), ("<U3", ())):
        assert read_npz(archive(array(shape, kind)), "a", ("images",))["images"].shape == shape
    assert read_npz(archive(array((0, 5), octets=0)), "a", ("images",))["images"].shape == (0, 5)


@pytest.mark.parametrize("shape", [(13,), (11,), (1 << 40,), (1 << 31, 1 << 31, 1 << 31), (0,), (-1, -12), (12, -1)])
def test_a_header_that_states_something_else(shape: Any) -> None:
    with pytest.raises(InputError, match=r"states .* bytes|damaged"):
        read_npz(archive(array(shape)), "a", ("images",))


def test_objects_are_refused_before_they_are_read() -> None:
    with pytest.raises(InputError, match="damaged"):
        read_npz(archive(array((1,), "|O", 8)), "a", ("images",))


def test_a_huge_array_takes_no_memory() -> None:
    import tracemalloc

    content = archive(array((1 << 29,)))
    tracemalloc.start()
    with pytest.raises(InputError):
        read_npz(content, "a", ("images",))
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
