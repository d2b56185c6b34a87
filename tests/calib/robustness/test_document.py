"""The document of an evaluation: to JSON and back, its schema, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from fake_document import small_document

from immunogate.calib.robustness.document import (
    document_from,
    rate_of,
    read_document,
    schema_text,
    write_document,
)
from immunogate.errors import InputError

SCHEMA = Path(__file__).parents[3] / "docs/schemas/robustness.schema.json"


def test_the_committed_schema_is_that_of_the_classes() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "write it again: schema_text()"


def test_a_document_comes_back_from_its_file(tmp_path: Path) -> None:
    document = small_document()
    write_document(document, tmp_path / "robustness.json")
    assert read_document(tmp_path / "robustness.json") == document


def test_every_field_of_a_document_is_in_the_schema() -> None:
    schema = json.loads(schema_text())
    plain = small_document().to_dict()
    assert _faults(plain, schema, schema) == []
    plain["rows"][0]["twin"]["accepted"] = "many"
    del plain["verdict"]["status"]
    assert sorted(_faults(plain, schema, schema)) == ["accepted: many is no integer", "status is missing"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("seconds",), "long", "document.seconds: expected a number"),
        (("schema_version",), 2, "expected schema_version 1, got 2"),
        (("rows", 0, "configuration"), "own", "document.rows[0].configuration: expected one of none, jpeg"),
        (("rows", 0, "twin", "accepted"), 9, "0 <= accepted <= of"),
        (("setting", "seed"), True, "document.setting.seed: expected a whole number"),
        (("alarm", "signals"), {}, "document.alarm.signals: expected a list"),
        (("extra",), 1, "field extra is unknown"),
    ],
)
def test_what_is_wrong_is_named(path: tuple[Any, ...], value: Any, said: str) -> None:
    plain = copy.deepcopy(small_document().to_dict())
    part: Any = plain
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises(InputError) as caught:
        document_from(plain)
    assert said in str(caught.value)


def test_a_missing_field_is_named() -> None:
    plain = small_document().to_dict()
    del plain["bundle"]["calibration"]["alarm"]
    with pytest.raises(InputError, match=r"document\.bundle\.calibration: field alarm is missing"):
        document_from(plain)


def test_a_file_that_is_no_document(tmp_path: Path) -> None:
    path = tmp_path / "robustness.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="no JSON document"):
        read_document(path)


def test_a_rate_holds_its_interval() -> None:
    found = rate_of(5, 10)
    assert (found.accepted, found.of, found.rate) == (5, 10, 0.5)
    assert (found.low, found.high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    with pytest.raises(ValueError, match="trials"):
        rate_of(0, 0)


def _faults(value: Any, schema: Any, root: Any, name: str = "document") -> list[str]:
    """What contradicts the keywords of JSON Schema that are used."""
    if "$ref" in schema:
        return _faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, name)
    if "anyOf" in schema:
        found = [_faults(value, one, root, name) for one in schema["anyOf"]]
        return min(found, key=len)
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{name}: {value} is none of {schema['enum']}"]
    kinds: dict[str, Any] = {
        "string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list,
        "null": type(None),
    }  # fmt: skip
    if not isinstance(value, kinds[schema["type"]]):
        return [f"{name}: {value} is no {schema['type']}"]
    if schema["type"] == "array":
        return [fault for part in value for fault in _faults(part, schema["items"], root, name)]
    if schema["type"] != "object":
        return []
    known, other = schema.get("properties", {}), schema["additionalProperties"]
    faults = [f"{key} is unknown" for key in value if key not in known and other is False]
    for key, part in value.items():
        faults += _faults(part, known.get(key, other), root, key) if key in known or other else []
    return faults + [f"{key} is missing" for key in schema.get("required", ()) if key not in value]
