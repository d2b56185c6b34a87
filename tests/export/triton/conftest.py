"""A strict reader of Triton's model configurations: protocol buffers' text format against a written-down schema.

The schema holds the messages and fields of ``model_config.proto`` (triton-inference-server/common) that a repository of
this project may use, by hand; `test_schema_is_tritons` holds it against Triton's own where wheels can be downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

ENUMS = {
    "DataType": ("TYPE_FP32", "TYPE_FP16", "TYPE_UINT8", "TYPE_INT64"),
    "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"),
}

MAP = {"key": "string", "value": "string"}
"""An entry of a map of strings."""

SCHEMA: dict[str, dict[str, str]] = {
    "ModelConfig": {
        "name": "string", "platform": "string", "backend": "string", "max_batch_size": "int",
        "input": "repeated ModelInput", "output": "repeated ModelOutput", "optimization": "ModelOptimizationPolicy",
        "dynamic_batching": "ModelDynamicBatching", "ensemble_scheduling": "ModelEnsembling",
        "instance_group": "repeated ModelInstanceGroup", "parameters": "map ModelParameter",
        "model_warmup": "repeated ModelWarmup",
    },
    "ModelInput": {"name": "string", "data_type": "DataType", "dims": "repeated int"},
    "ModelOutput": {"name": "string", "data_type": "DataType", "dims": "repeated int"},
    "ModelInstanceGroup": {"name": "string", "kind": "Kind", "count": "int", "gpus": "repeated int"},
    "ModelDynamicBatching": {"preferred_batch_size": "repeated int", "max_queue_delay_microseconds": "int"},
    "ModelEnsembling": {"step": "repeated Step"},
    "Step": {"model_name": "string", "model_version": "int", "input_map": "map string", "output_map": "map string"},
    "ModelParameter": {"string_value": "string"},
    "ModelWarmup": {"name": "string", "batch_size": "int", "inputs": "map Input", "count": "int"},
    "Input": {"data_type": "DataType", "dims": "repeated int", "zero_data": "bool", "random_data": "bool"},
    "ModelOptimizationPolicy": {"execution_accelerators": "ExecutionAccelerators"},
    "ExecutionAccelerators": {"gpu_execution_accelerator": "repeated Accelerator"},
    "Accelerator": {"name": "string", "parameters": "map string"},
}  # fmt: skip

TOKEN = re.compile(r'\s*(?:(#[^\n]*)|("(?:[^"\\\n]|\\.)*")|([A-Za-z_][A-Za-z0-9_]*)|(-?[0-9]+)|([{}\[\]:,]))')


class MalformedError(Exception):
    """The text is no configuration; says why."""


@pytest.fixture(scope="session")
def read_config() -> Callable[[str], dict[str, Any]]:
    """The reader below."""
    return parse


@pytest.fixture(scope="session")
def schema() -> dict[str, dict[str, str]]:
    """The schema it holds configurations against."""
    return SCHEMA


@pytest.fixture(scope="session")
def malformed() -> type[Exception]:
    """What it raises."""
    return MalformedError


def parse(text: str, message: str = "ModelConfig") -> dict[str, Any]:
    """The configuration as plain data: repeated fields as lists, maps as dicts.

    Raises:
        MalformedError: a field is unknown, comes twice, is of another type, or the text breaks off.
    """
    tokens = _tokens(text)
    found, rest = _message(tokens, 0, message, closing=None)
    if rest != len(tokens):
        raise MalformedError(f"more follows: {tokens[rest : rest + 3]}")
    return found


def _tokens(text: str) -> list[str]:
    tokens, place = [], 0
    while place < len(text.rstrip()):
        match = TOKEN.match(text, place)
        if match is None:
            raise MalformedError(f"not understood: {text[place : place + 30]!r}")
        place = match.end()
        tokens += [group for group in match.groups()[1:] if group is not None]
    return tokens


def _message(tokens: list[str], at: int, name: str, closing: str | None) -> tuple[dict[str, Any], int]:
    fields, found = SCHEMA[name], {}
    while at < len(tokens) and tokens[at] != closing:
        field = tokens[at]
        if field not in fields:
            raise MalformedError(f"{name} has no field {field!r}")
        label, _, kind = fields[field].rpartition(" ")
        if not label and field in found:
            raise MalformedError(f"{name}.{field} comes twice")
        if label == "map":
            (key, value), at = _entry(tokens, at + 1, kind)
            if key in found.setdefault(field, {}):
                raise MalformedError(f"{name}.{field} has {key!r} twice")
            found[field][key] = value
        elif label == "repeated":
            values, at = _values(tokens, at + 1, kind)
            found.setdefault(field, []).extend(values)
        else:
            found[field], at = _value(tokens, at + 1, kind)
    if closing is not None and at == len(tokens):
        raise MalformedError(f"{name} is not closed")
    return found, at


def _entry(tokens: list[str], at: int, kind: str) -> tuple[tuple[str, Any], int]:
    SCHEMA["Entry"] = {"key": "string", "value": kind}
    try:
        entry, end = _message(tokens, at + 1, "Entry", "}")
    finally:
        del SCHEMA["Entry"]
    if tokens[at] != "{" or set(entry) != {"key", "value"}:
        raise MalformedError(f"no entry of a map: {tokens[at : at + 4]}")
    return (entry["key"], entry["value"]), end + 1


def _values(tokens: list[str], at: int, kind: str) -> tuple[list[Any], int]:
    if tokens[at : at + 2] != [":", "["]:
        value, at = _value(tokens, at, kind)
        return [value], at
    values, at = [], at + 2
    while tokens[at] != "]":
        value, at = _value([":", *tokens[at:]], 0, kind)[0], at + 1
        values.append(value)
        at += tokens[at] == ","
    return values, at + 1


def _value(tokens: list[str], at: int, kind: str) -> tuple[Any, int]:
    if kind in SCHEMA:
        at += tokens[at] == ":"
        if tokens[at] != "{":
            raise MalformedError(f"expected a {kind}, got {tokens[at]!r}")
        found, end = _message(tokens, at + 1, kind, "}")
        return found, end + 1
    if tokens[at] != ":":
        raise MalformedError(f"expected a value after ':', got {tokens[at]!r}")
    word = tokens[at + 1]
    return _scalar(word, kind), at + 2


def _scalar(word: str, kind: str) -> Any:
    if kind == "string" and word.startswith('"'):
        return json.loads(word)
    if kind == "int" and re.fullmatch(r"-?[0-9]+", word):
        return int(word)
    if kind == "bool" and word in ("true", "false"):
        return word == "true"
    if kind in ENUMS and word in ENUMS[kind]:
        return word
    raise MalformedError(f"{word!r} is no {kind}")
