from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.decoding import MOST_NESTED
from immunogate.errors import BundleError
from immunogate.manifest import (
    Alarms,
    AlarmSignal,
    AnalyzerEntry,
    Calibration,
    DetectorEntry,
    FileEntry,
    Manifest,
    MeasuredWith,
    PurifierEntry,
    RecogniserEntry,
    Threshold,
)

NAMES = ("detector.onnx", "recogniser.onnx", "basis.npz", "analyzer.onnx", "MODEL_CARD.md")

SIGNAL = AlarmSignal("clone disagreement", 0.25, 1e-3, 1, 200, 2e-4, 0.03)
CALIBRATION = Calibration(
    "measured",
    [Threshold(1e-3, 0.4, 9e-4, 10_000, 0.9, 500, 8e-4, 9e-4)],
    0.2,
    1e-3,
    "h",
    "people",
    Alarms([SIGNAL], 3e-3, 2, 200, 90, 1e-3, 0.04, "in words"),
    MeasuredWith("expected", 2, 64, 4, "fp32", {}, "cpu", "f" * 64, "h", "0123 4567", "89ab", ["why"]),
)
OPTIONAL = {
    *("analyzer", "calibration", "provenance", "manifest_version", "detector.stride", "recogniser.views"),
    *("calibration.alarms", "calibration.measured_with", "calibration.measured_with.forced"),
    *(f"calibration.thresholds[0].{name}" for name in ("upper_of_pairs", "upper_of_people")),
}


def full() -> Manifest:
    return Manifest(
        model_id="m",
        license="none",
        created="2026-01-01T00:00:00+00:00",
        files={name: FileEntry(f"{i:064x}", 100 + i) for i, name in enumerate(NAMES)},
        detector=DetectorEntry("detector.onnx", "yunet"),
        recogniser=RecogniserEntry("recogniser.onnx", "x", 112, 96, 8, 127.5, 128.0, "RGB", 128, 18, "fp32", 2),
        purifier=PurifierEntry("basis.npz", 1500, "float16", "expected", 1000, 64, 4, 2**64 - 1),
        analyzer=AnalyzerEntry("analyzer.onnx", "x", 18, "fp32", "face", False),
        calibration=CALIBRATION,
        provenance={"checkpoints": {"basis": {"sha256": "0"}}, "tools": ["a", 1, 2.5, None, True]},
    )


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in JSON data, the free-form provenance's inside left out."""
    found = [path] if path else []
    if path == ("provenance",):
        return found
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return found + [place for key, value in items for place in places(value, (*path, key))]


def spelled(path: tuple[Any, ...]) -> str:
    return "manifest.json" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def changed(path: tuple[Any, ...], value: Any) -> str:
    data = json.loads(full().to_json())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(data)


def refused(text: str) -> str:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(text)
    return str(caught.value)


PLACES = places(json.loads(full().to_json()))
FIELDS = [place for place in PLACES if isinstance(place[-1], str) and place[0] != "files"]


def test_a_manifest_comes_back_from_its_json() -> None:
    text = full().to_json()
    assert Manifest.from_json(text) == full()
    assert Manifest.from_json(text).to_json() == text
    assert text.endswith("}\n")
    bare = replace(full(), analyzer=None, calibration=None, provenance={})
    assert Manifest.from_json(bare.to_json()) == bare


def test_optional_fields_may_be_left_out() -> None:
    data = json.loads(full().to_json())
    for name in ("analyzer", "calibration", "provenance", "manifest_version"):
        del data[name]
    del data["detector"]["stride"], data["recogniser"]["views"]
    read = Manifest.from_json(json.dumps(data))
    plain = replace(full().recogniser, views=1)
    assert read == replace(full(), recogniser=plain, analyzer=None, calibration=None, provenance={})


@pytest.mark.parametrize("path", FIELDS, ids=spelled)
def test_a_missing_field_is_named(path: tuple[Any, ...]) -> None:
    data = json.loads(full().to_json())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    if spelled(path).removeprefix("manifest.json.") in OPTIONAL:
        Manifest.from_json(json.dumps(data))
    else:
        assert refused(json.dumps(data)) == f"{spelled(path[:-1])}: the field {path[-1]!r} is missing"


@pytest.mark.parametrize("path", [(), ("detector",), ("files", "basis.npz"), ("calibration", "thresholds", 0)])
def test_an_unknown_field_is_named(path: tuple[Any, ...]) -> None:
    assert refused(changed((*path, "zeal"), 1)) == f"{spelled(path)}: unknown field 'zeal'"


@pytest.mark.parametrize("path", [place for place in PLACES if place != ("manifest_version",)], ids=spelled)
@pytest.mark.parametrize("wrong", [[], True, 2.5, "text", {}])
def test_a_value_of_the_wrong_type_is_named(path: tuple[Any, ...], wrong: Any) -> None:
    was = json.loads(full().to_json())
    for key in path:
        was = was[key]
    if type(wrong) is type(was):
        return
    message = refused(changed(path, wrong))
    assert message.startswith(f"{spelled(path)}: expected ")
    assert "got" in message


@pytest.mark.parametrize("path", [("license",), ("detector",), ("files",), ("provenance",), ("purifier", "seed")])
def test_null_is_taken_for_optional_parts_only(path: tuple[Any, ...]) -> None:
    assert refused(changed(path, None)).startswith(f"{spelled(path)}: expected ")
    assert Manifest.from_json(changed(("analyzer",), None)).analyzer is None


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize("path", [("recogniser", "std"), ("calibration", "alarm"), ("provenance", "tools")])
def test_numbers_that_are_not_finite_are_named(path: tuple[Any, ...], text: str) -> None:
    whole = path[0] == "provenance" and text.isdigit()  # any whole number is fine where no float is asked for
    manifest = changed(path, "HERE").replace('"HERE"', text)
    if whole:
        assert Manifest.from_json(Manifest.from_json(manifest).to_json()).provenance["tools"] == int(text)
    else:
        assert refused(manifest).startswith(f"{spelled(path)}: expected a finite number, got ")


def test_a_whole_number_is_a_fine_float() -> None:
    read = Manifest.from_json(changed(("recogniser", "std"), 128)).recogniser.std
    assert read == 128.0
    assert isinstance(read, float)


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_version_is_named_before_its_unknown_fields(version: Any) -> None:
    data = json.loads(full().to_json()) | {"manifest_version": version, "signature": "of the future"}
    assert f"the manifest has version {version!r}, this release reads version 1" in refused(json.dumps(data))


def test_a_version_that_only_looks_like_ours_is_refused() -> None:
    for version in (1.0, True):
        assert "manifest.json.manifest_version: expected int" in refused(changed(("manifest_version",), version))


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/b", "a\\b", "", ".", "..", ".hidden", "a\n", "\ud800", "Ä", "a b", "-rf"]
)
def test_a_file_name_that_leads_elsewhere_is_refused(name: str) -> None:
    message = refused(changed(("files", name), {"sha256": "0" * 64, "bytes": 1}))
    assert message == f"the manifest lists a file by a name that is no plain file name: {name!r}"


@pytest.mark.parametrize("path", [("detector", "file"), ("recogniser", "file"), ("purifier", "basis")])
@pytest.mark.parametrize("name", ["../evil", "other.onnx"])
def test_a_file_without_a_hash_is_refused(path: tuple[str, str], name: str) -> None:
    assert refused(changed(path, name)) == f"the manifest uses {name} but lists no hash for it"
    assert "lists no hash" in refused(changed(("analyzer", "file"), name))


@pytest.mark.parametrize("status", ["Measured", "", "trusted"])
def test_a_calibration_of_unknown_standing_is_refused(status: str) -> None:
    assert f"expected measured or provisional, got {status!r}" in refused(changed(("calibration", "status"), status))


@pytest.mark.parametrize(
    "text", ["", "{", "nul", "[1, 2", "\ufeff{}", "{}{}", "\0", '{"a": 1' + "0" * 10_000 + "}", "[" * 100_000]
)
def test_what_is_not_json_is_refused(text: str) -> None:
    assert refused(text).startswith("manifest.json is not JSON: ")


@pytest.mark.parametrize("text", ["null", "[]", "1", '"text"', "true"])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    assert refused(text).startswith("manifest.json: expected dict, got ")


@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_deep_nesting_is_refused_and_named(brackets: Any) -> None:
    left, right = brackets

    def nested(depth: int) -> str:
        return changed(("provenance",), "HERE").replace('"HERE"', '{"x": ' + left * depth + "1" + right * depth + "}")

    Manifest.from_json(Manifest.from_json(nested(MOST_NESTED)).to_json())
    for depth in (MOST_NESTED + 1, 200, 700):
        message = refused(nested(depth))
        if depth == MOST_NESTED + 1:
            assert message.startswith("manifest.json.provenance.x")
        assert "levels deep" in message
    refused(nested(50_000))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([10**400, -1, 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_changed_manifest_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Whatever one to three values, names or bytes of it become: an equal manifest again, or a BundleError."""
    tree = json.loads(full().to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(tree)))
        inner = tree
        for key in path[:-1]:
            inner = inner[key]
        match data.draw(st.sampled_from(["replace", "remove", "rename", "add"])):
            case "replace":
                inner[path[-1]] = data.draw(json_values)
            case "rename" if isinstance(inner, dict):
                inner[data.draw(st.text(max_size=8))] = inner.pop(path[-1])
            case "add" if isinstance(inner, dict):
                inner[data.draw(st.text(max_size=8))] = data.draw(json_values)
            case _:
                del inner[path[-1]]
    _read_or_refused(json.dumps(tree))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(full().to_json()) - 1), st.integers(0, 20), st.text(max_size=10))
def test_damaged_text_is_read_or_refused_and_nothing_else(start: int, length: int, instead: str) -> None:
    text = full().to_json()
    _read_or_refused(text[:start] + instead + text[start + length :])


def _read_or_refused(text: str) -> None:
    try:
        manifest = Manifest.from_json(text)
    except BundleError:
        return
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert len(manifest.embedding_hash()) == 64


def test_at_finds_a_rate_written_another_way() -> None:
    calibration = full().calibration
    assert calibration is not None
    assert calibration.at(0.1**3).threshold == 0.4
    with pytest.raises(BundleError, match=r"no threshold for a false match rate of 0.01 \(there are: 0.001\)"):
        calibration.at(1e-2)


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in leaves(value, (*path, key))]
    return [path]


RELEVANT = [
    *[("recogniser", name) for name in json.loads(full().to_json())["recogniser"] if name != "file"],
    *[("purifier", name) for name in json.loads(full().to_json())["purifier"] if name != "basis"],
    *[("files", name, "sha256") for name in ("recogniser.onnx", "basis.npz", "analyzer.onnx")],
]
IRRELEVANT = [
    ("model_id",),
    ("license",),
    ("created",),
    ("detector", "architecture"),
    ("detector", "stride"),
    ("files", "detector.onnx", "sha256"),
    ("files", "MODEL_CARD.md", "sha256"),
    ("files", "recogniser.onnx", "bytes"),
    ("calibration", "alarm"),
    ("calibration", "measured_on"),
    ("provenance", "checkpoints", "basis", "sha256"),
]


def other(value: Any) -> Any:
    return value + "x" if isinstance(value, str) else value - 1


def embedding_hash_with(path: tuple[Any, ...]) -> str:
    value = json.loads(full().to_json())
    for key in path:
        value = value[key]
    return Manifest.from_json(changed(path, other(value))).embedding_hash()


@pytest.mark.parametrize("path", RELEVANT, ids=spelled)
def test_the_embedding_hash_changes_with_what_an_embedding_depends_on(path: tuple[Any, ...]) -> None:
    assert embedding_hash_with(path) != full().embedding_hash()


@pytest.mark.parametrize("path", IRRELEVANT, ids=spelled)
def test_the_embedding_hash_stays_with_all_else(path: tuple[Any, ...]) -> None:
    assert embedding_hash_with(path) == full().embedding_hash()


def test_the_embedding_hash_changes_with_and_without_analyzer() -> None:
    assert replace(full(), analyzer=None).embedding_hash() != full().embedding_hash()


def test_the_embedding_hash_stays_without_calibration_and_over_json() -> None:
    bare = replace(full(), calibration=None)
    assert bare.embedding_hash() == full().embedding_hash() == Manifest.from_json(full().to_json()).embedding_hash()
    assert copy.deepcopy(full()).embedding_hash() == full().embedding_hash()


def test_a_manifest_with_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(full(), provenance={"loss": math.nan}).to_json()


@pytest.mark.parametrize("views", [0, 3, -1, 8])
def test_views_that_nobody_defined_are_refused(views: int) -> None:
    with pytest.raises(BundleError, match=r"recogniser\.views: expected one of 1, 2, 4"):
        replace(full().recogniser, views=views)


def test_a_calibration_of_an_older_release_is_read() -> None:
    """One threshold and one alarm limit were all there was."""
    data = json.loads(full().to_json())
    for name in ("alarms", "measured_with"):
        del data["calibration"][name]
    for name in ("upper_of_pairs", "upper_of_people"):
        del data["calibration"]["thresholds"][0][name]
    read = Manifest.from_json(json.dumps(data)).calibration
    assert read is not None
    assert (read.alarm, read.alarms, read.measured_with, read.at(1e-3).upper_of_people) == (0.2, None, None, None)


def test_alarms_know_their_limits_by_name() -> None:
    assert CALIBRATION.alarms is not None
    assert CALIBRATION.alarms.limit("clone disagreement") == 0.25
    assert CALIBRATION.alarms.limit("consecutive frames") is None


@pytest.mark.parametrize(("name", "value"), [("name", "loudness"), ("limit", 2.1), ("limit", -0.1)])
def test_signals_that_can_not_be_are_refused(name: str, value: Any) -> None:
    assert "calibration.alarms" in refused(changed(("calibration", "alarms", "signals", 0, name), value))
