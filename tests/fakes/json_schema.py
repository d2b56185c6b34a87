"""The part of JSON Schema (2020-12) that this project's schemas use, so that tests need no package for it."""

from __future__ import annotations

from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
KNOWN = {
    "$schema", "$id", "$ref", "$defs", "title", "type", "required", "properties", "additionalProperties", "items",
    "enum", "const",
}  # fmt: skip


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, at: str = "$") -> list[str]:
    """Where a document does not keep to a schema; empty where it does."""
    root = schema if root is None else root
    assert set(schema) <= KNOWN, f"{at}: this checker does not know {set(schema) - KNOWN}"
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, at)
    found = []
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: expected {schema['const']!r}, got {value!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: expected one of {schema['enum']}, got {value!r}")
    if "type" in schema and not _is_of(value, schema["type"]):
        return [*found, f"{at}: expected {schema['type']}, got {type(value).__name__}"]
    if isinstance(value, dict):
        found += _of_object(value, schema, root, at)
    if isinstance(value, list) and "items" in schema:
        found += [fault for i, item in enumerate(value) for fault in faults(item, schema["items"], root, f"{at}[{i}]")]
    return found


def _is_of(value: Any, names: str | list[str]) -> bool:
    kinds = [names] if isinstance(names, str) else names
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, TYPES[kind]) for kind in kinds)


def _of_object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    found = [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
    own, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in own:
            found += faults(item, own[name], root, f"{at}.{name}")
        elif others is False:
            found.append(f"{at}: {name} is not known")
        elif isinstance(others, dict):
            found += faults(item, others, root, f"{at}.{name}")
    return found
