from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from immunogate.errors import InputError, UsageError
from immunogate.runtime.camera import as_bgr, pixels, read_picture
from immunogate.runtime.camera.headers import MOST_CHUNKS, MOST_MARKERS, picture_kind, picture_size

FORMATS = [".jpg", ".png", ".bmp", ".webp", ".tif"]


def pictures(dtype: type[np.generic], *channels: int) -> st.SearchStrategy[npt.NDArray[Any]]:
    sides = st.integers(1, 6)
    shapes = st.tuples(sides, sides, st.sampled_from(channels))
    return shapes.flatmap(lambda shape: hnp.arrays(dtype, shape))


def encode(picture: npt.NDArray[Any], suffix: str) -> bytes:
    written, data = cv2.imencode(suffix, picture)
    assert written
    return bytes(data.tobytes())


def noise(height: int = 40, width: int = 60, channels: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), dtype=np.uint8)


@given(pictures(np.uint8, 3))
def test_bgr_of_8_bits_passes_unchanged(picture: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(as_bgr(picture), picture)


@given(pictures(np.uint8, 1), st.booleans())
def test_grey_fills_all_channels(picture: npt.NDArray[np.uint8], flat: bool) -> None:
    result = as_bgr(picture[:, :, 0] if flat else picture)
    np.testing.assert_array_equal(result, np.concatenate([picture] * 3, axis=2))


@given(pictures(np.uint16, 1, 3, 4))
def test_16_bits_are_their_upper_byte(picture: npt.NDArray[np.uint16]) -> None:
    np.testing.assert_array_equal(as_bgr(picture), as_bgr((picture // 256).astype(np.uint8)))


@given(pictures(np.uint8, 4))
def test_alpha_is_laid_over_black(picture: npt.NDArray[np.uint8]) -> None:
    exact = picture[:, :, :3].astype(float) * picture[:, :, 3:] / 255
    np.testing.assert_allclose(as_bgr(picture), exact, atol=0.5)


@given(pictures(np.uint8, 1, 3, 4))
def test_the_result_is_always_contiguous_bgr(picture: npt.NDArray[np.uint8]) -> None:
    result = as_bgr(picture[::-1, ::2])
    assert result.dtype == np.uint8
    assert result.shape == (picture.shape[0], (picture.shape[1] + 1) // 2, 3)
    assert result.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 4, 3), np.float32),
        ((4, 4, 3), np.int16),
        ((4, 4), np.bool_),
        ((4, 4, 2), np.uint8),
        ((4, 4, 5), np.uint8),
        ((4,), np.uint8),
        ((), np.uint8),
        ((1, 4, 4, 3), np.uint8),
        ((0, 4, 3), np.uint8),
        ((4, 0), np.uint8),
    ],
)
def test_other_arrays_are_refused_by_name(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    with pytest.raises(InputError, match="door"):
        as_bgr(np.zeros(shape, dtype), "door")


def test_more_than_64_megapixels_are_refused() -> None:
    flat = np.broadcast_to(np.uint8(0), (8_001, 8_000, 3))  # takes no memory
    with pytest.raises(InputError, match="64,000,000"):
        as_bgr(flat)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3]))
def test_the_header_tells_the_size(suffix: str, width: int, height: int, channels: int) -> None:
    assert picture_size(encode(noise(height, width, channels), suffix)) == (width, height)


def test_the_header_tells_the_size_of_a_webp_with_and_without_loss() -> None:
    for quality in (50, 101):  # above 100 is lossless
        written, data = cv2.imencode(".webp", noise(33, 21), [cv2.IMWRITE_WEBP_QUALITY, quality])
        assert written
        assert picture_size(data.tobytes()) == (21, 33)
    assert picture_size(encode(noise(33, 21, 4), ".webp")) == (21, 33)


@given(st.sampled_from(FORMATS), st.integers(0, 80), st.binary(max_size=60))
def test_a_damaged_header_gives_none_or_a_size(suffix: str, keep: int, junk: bytes) -> None:
    size = picture_size(encode(np.zeros((3, 3, 3), np.uint8), suffix)[:keep] + junk)
    assert size is None or (len(size) == 2 and min(size) >= 0)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_lossless_picture_comes_back_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"face{suffix}"
    path.write_bytes(encode(noise(), suffix))
    np.testing.assert_array_equal(read_picture(path), noise())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_16_bit_png_is_read_by_its_upper_bytes(tmp_path: Path, channels: int) -> None:
    deep = np.random.default_rng(3).integers(0, 65_536, (20, 30, channels), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(encode(deep, ".png"))
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png"), as_bgr(deep))


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "face.jpg").write_bytes(encode(noise(), ".png"))
    np.testing.assert_array_equal(read_picture(tmp_path / "face.jpg"), noise())


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(encode(noise(1, 1), ".png"))
    assert read_picture(tmp_path / "dot.png").shape == (1, 1, 3)


def test_a_phone_photo_is_turned_upright(tmp_path: Path) -> None:
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:, :32] = 255
    stored = np.rot90(upright)  # EXIF 6: turn the stored picture 90 degrees clockwise to see it upright
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    data = encode(np.ascontiguousarray(stored), ".jpg")
    exif = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    (tmp_path / "phone.jpg").write_bytes(data[:2] + exif + data[2:])
    np.testing.assert_allclose(read_picture(tmp_path / "phone.jpg"), upright, atol=8)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_cut_off_picture_is_refused_by_name(tmp_path: Path, suffix: str, part: float) -> None:
    data = encode(noise(), suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match="cut"):
        read_picture(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"GIF89a" + bytes(50), b"a letter", bytes(100)])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd.jpg").write_bytes(data)
    with pytest.raises(InputError, match=r"odd\.jpg"):
        read_picture(tmp_path / "odd.jpg")


def png_of_zeros(width: int, height: int, rows: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packed = zlib.compress(bytes((width + 1) * rows), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_undecoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of_zeros(60_000, 60_000, 1))
    monkeypatch.setattr(pixels, "_decode", lambda data: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match=r"bomb\.png has 60000 x 60000 pixels"):
        read_picture(tmp_path / "bomb.png")


def test_the_made_up_png_is_a_real_one_when_small(tmp_path: Path) -> None:
    (tmp_path / "fair.png").write_bytes(png_of_zeros(30, 20, 20))
    assert read_picture(tmp_path / "fair.png").shape == (20, 30, 3)


def test_a_file_above_the_byte_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "PICTURE_BYTES", 100)
    (tmp_path / "big.png").write_bytes(encode(noise(), ".png"))
    with pytest.raises(InputError, match=r"big\.png"):
        read_picture(tmp_path / "big.png")


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody"):
        read_picture(tmp_path / "nobody.jpg")


def test_a_gif_is_no_still_picture() -> None:
    assert picture_kind(b"GIF89a" + bytes(10)) is None


@pytest.mark.parametrize("length", [1 << 20, 1 << 30, (1 << 31) - 1])
def test_a_png_chunk_longer_than_its_file_takes_no_memory(
    tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV would take that much before it sees that the file ends."""
    whole = cv2.imencode(".png", np.zeros((24, 40, 3), np.uint8))[1].tobytes()
    path = tmp_path / "p.png"
    path.write_bytes(whole)
    assert read_picture(path).shape == (24, 40, 3)
    monkeypatch.setattr(cv2, "imdecode", lambda *words: pytest.fail("it was decoded"))
    at = whole.index(b"IDAT") - 4
    path.write_bytes(whole[:at] + length.to_bytes(4, "big") + whole[at + 4 :])
    with pytest.raises(InputError, match="damaged or cut off"):
        read_picture(path)


def test_a_png_of_endless_chunks_and_a_jpeg_of_endless_markers(tmp_path: Path) -> None:
    whole = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    path, filler = tmp_path / "p", b"\0\0\0\0tEXt\0\0\0\0"
    path.write_bytes(whole[:33] + filler * (MOST_CHUNKS + 1) + whole[33:])
    with pytest.raises(InputError, match="damaged or cut off"):
        read_picture(path)
    jpeg = cv2.imencode(".jpg", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    path.write_bytes(jpeg[:2] + b"\xff" * (MOST_MARKERS + 1) + jpeg[2:])
    with pytest.raises(InputError, match="header is damaged"):
        read_picture(path)
