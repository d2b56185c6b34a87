"""What may stand in the description of an ONNX recogniser."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.errors import ImmunogateError, InputError, UsageError
from immunogate.export.description import READY, RecogniserDescription, description_of, read_description


def test_the_common_recognisers_have_one_by_name() -> None:
    arcface, raw, sface = (read_description(name) for name in ("arcface", "arcface-raw", "sface"))
    assert (arcface.height, arcface.width, arcface.mean, arcface.std, arcface.colour) == (112, 112, 127.5, 127.5, "RGB")
    assert (raw.mean, raw.std) == (sface.mean, sface.std) == (0.0, 1.0)
    assert sface.embedding == 128
    assert not any(entry.normalised for entry in READY.values())


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nwidth = 96\ncrop_left = 8\nstd = [128, 128.0, 64]\ncolour = "BGR"\nnormalised = true\n'
    )
    found = read_description(str(path))
    assert (found.name, found.width, found.crop_left, found.normalised) == ("mine", 96, 8, True)
    assert found.per_channel(found.std) == [128.0, 128.0, 64.0]
    assert not found.is_plain
    assert description_of(found.to_dict(), "manifest") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wdith = 96", r"unknown key 'wdith'\. Known are name, height, width"),
        ("width = 160", r"160 x 112 pixels from column 0 do not lie within.*larger inputs are not supported"),
        ("crop_left = 8", r"112 x 112 pixels from column 8"),
        ("height = 0", "112 x 0 pixels"),
        ('colour = "HSV"', "colour and layout: expected one of RGB, BGR, GREY.*'HSV'"),
        ('layout = "CHW"', "'CHW'"),
        ("std = 0.0", "expected std above 0"),
        ("std = [1, 2]", r"std: expected int or float, or three of them, got \[1, 2\]"),
        ("mean = true", "mean: expected int or float"),
        ("mean = inf", "mean: expected finite numbers"),
        ("mean = nan", "mean: expected finite numbers"),
        ("std = 1" + "0" * 400, "std: expected finite numbers"),
        ("embedding = 1" + "0" * 400, "embedding: expected finite numbers"),
        ("name = " + "[" * 20_000, "is no TOML"),
        ("embedding = true", "embedding: expected int"),
        ("normalised = 1", "normalised: expected bool"),
        ("embedding = -1", "embedding of at least 0"),
        ('name = "../up"', r"name: expected lower-case letters.*'\.\./up'"),
        ("= =", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_description(str(tmp_path / "mine.toml"))
    assert "mine.toml" in str(caught.value)


def test_a_name_that_nobody_knows_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recogniser description 'arcfase'.*arcface, arcface-raw, sface"):
        read_description("arcfase")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(InputError, match="is no TOML"):
        read_description(str(tmp_path / "latin.toml"))


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.sampled_from(["mean", "std", "name", "width", "normalised", "x"])


@settings(max_examples=50, deadline=None)
@given(VALUES | st.dictionaries(KEYS, VALUES | st.lists(VALUES, min_size=3, max_size=3)))
def test_any_data_is_a_description_or_refused(data: Any) -> None:
    with contextlib.suppress(ImmunogateError):
        assert isinstance(description_of(data, "manifest"), RecogniserDescription)
